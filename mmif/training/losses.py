"""The training loss of S3IMFusion: the paper's three parts, its ablation, and eight guiding terms.

All functions take batches ``(n, 1, h, w)`` in 0..1 and return one number to be minimised.
``a`` is the anatomical source (MRI, visible), ``b`` the other one, ``f`` the fused image.

The paper's loss is ``10 L_sim + 5 L_grad + 1 L_smooth``; ``L_ab`` is its ablation. The guiding
terms are differentiable forms of the metrics; ``docs/training.md`` says what each of them moves.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmif.config import LossConfig

# 4 x 4 permuted pixels, as S3IM (ICCV 2023) has them
WINDOW = 4
# Ten rounds of 64 x 64 permuted pixels: the defaults of S3IM
BLOCK_SIDE = 64
BLOCKS = 10  # the rounds
# Of 8-bit pictures
GREY_LEVELS = 256
# Half a grey level of 8 bits
FLAT = 0.5 / 255

DETAIL_GAIN, STEEP = 1.25, 0.12
"""An anatomy's detail is wanted so much stronger under an activity, as far as it is no steeper than
that: a bleed which CT and MRI together keep to 0.59 is seen to 0.6 and more (`benchmarks/
findings.py`), and next to a skull's edge no rim of more than 0.03 is asked for."""

EXCHANGED = 0.25
"""So much of the anatomy's broad course gives way to the activity's brightness: hot is brighter
over dark tissue, and what is bright keeps the room that its findings need (docs/training.md, "Three
sources")."""

BRIGHT = (0.75, 0.95)
"""Between these values of the anatomy nothing is exchanged any more: bone stays white, and what is
as bright as it (soft tissue of a CT ends at 0.75)."""

FINE, BROAD = 8.0, 24.0
"""Pixels of the Gaussians that say what is detail (as `mmif.transforms.readability` has it), and
what is broad: an infarct's radius is at most 18."""

REGION = 8
"""Pixels: an infarct has a radius of 6 to 18, a bleed of 3 to 9; noise is finer."""


def stochastic_similarity_loss(
    f: Tensor, a: Tensor, b: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """L_sim, Eq. 5: one minus the mean SSIM of randomly permuted pixels (S3IM, ICCV 2023).

    One permutation of all pixel positions serves both sources and the fused image; its pixels fill
    ten virtual blocks of 64 x 64, whose SSIM is taken in windows of 4 x 4 with stride 4. An image
    with fewer pixels than the blocks need is permuted again until they are full.

    The paper prints a plus before the second sum; as its text says, both similarities must grow,
    so both are subtracted here.

    Args:
        generator: the source of the permutation, on the device of the images.
    """
    pixels = f.shape[-2] * f.shape[-1]
    wanted = BLOCKS * BLOCK_SIDE**2
    rounds = -(-wanted // pixels)
    orders = [torch.randperm(pixels, generator=generator, device=f.device) for _ in range(rounds)]
    order = torch.cat(orders)[:wanted]
    f, a, b = (x.flatten(1)[:, order].view(-1, WINDOW**2) for x in (f, a, b))
    return 1 - (_window_similarity(a, f).mean() + _window_similarity(b, f).mean()) / 2


def _window_similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of pairs of windows, each one row of ``(windows, pixels)``; Wang 2004 with L = 1."""
    mean_x, mean_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    dx, dy = x - mean_x, y - mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    contrast = (2 * (dx * dy).mean(1) + 9e-4) / ((dx**2).mean(1) + (dy**2).mean(1) + 9e-4)
    return luminance.squeeze(1) * contrast


def gradient_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L_grad, Eq. 6: mean distance of |grad f| to the stronger source gradient (Sobel)."""
    target = torch.maximum(_gradient_size(a), _gradient_size(b))
    return (target - _gradient_size(f)).abs().mean()


def smooth_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L_smooth, Eq. 7, as mean squared differences, so that its weight holds at any image size."""
    return ((a - f) ** 2).mean() + ((b - f) ** 2).mean()


def local_similarity_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L_ab, the ablation: one minus the mean local SSIM (Gaussian 11 x 11, sigma 1.5)."""
    like_a, like_b = local_similarities(f, (a, b), 1.0)
    return 1 - (like_a + like_b) / 2


def saliency_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance to the pixel maximum, weighted by its square: bone stays white."""
    maximum = torch.maximum(a, b)
    return (maximum**2 * (maximum - f) ** 2).mean()


def bone_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same weighted by its sixth power: next to nothing but bone counts."""
    maximum = torch.maximum(a, b)
    return (maximum**6 * (maximum - f) ** 2).mean()


def structure_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One minus the mean SSIM with the constants of the published tables (1 on data in 0..255)."""
    like_a, like_b = local_similarities(f, (a, b), 1 / 255)
    return 1 - (like_a + like_b) / 2


def edge_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One minus Qabf, the share of the sources' edges that the fused image keeps."""
    (size_a, angle_a), (size_b, angle_b), (size_f, angle_f) = (_edges(x) for x in (a, b, f))
    kept = _preservation_map(size_a, angle_a, size_f, angle_f) * size_a
    kept = kept + _preservation_map(size_b, angle_b, size_f, angle_f) * size_b
    total = (size_a + size_b).sum((1, 2, 3)).clamp_min(1e-3)
    return 1 - (kept.sum((1, 2, 3)) / total).mean()


def difference_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Two minus SCD, the correlation of what each source added with that source."""
    return 2 - (_correlation(f - b, a) + _correlation(f - a, b)).mean()


def information_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Minus the mutual information of the fused image with both sources, in bits, over 4."""
    index, upper = _soft_level(f.flatten(1))
    gains = [_mutual_information(index, upper, source.flatten(1)) for source in (a, b)]
    return -torch.stack(gains).sum() / (4 * len(f))


def entropy_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Minus the entropy of the fused grey levels where a source is not empty, in bits, over 8."""
    inside = (torch.maximum(a, b) > 0).flatten(1).to(f.dtype)
    index, upper = _soft_level(f.flatten(1))
    counts = f.new_zeros(len(f), GREY_LEVELS + 1)
    counts = counts.scatter_add(1, index, (1 - upper) * inside)
    counts = counts.scatter_add(1, index + 1, upper * inside)
    return -_entropy(counts / inside.sum(1, keepdim=True).clamp_min(1)).mean() / 8


def sharpness_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Minus the mean gradient of the fused image (AG), relative to that of the pixel maximum."""
    reference = _steps(torch.maximum(a, b)).mean((1, 2, 3)).clamp_min(1e-3)
    return -(_steps(f).mean((1, 2, 3)) / reference).mean()


def halo_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Mean step of the fused image between neighbours where neither source steps: no ringing.

    Neighbours in empty air do not count.
    """
    sums, counts = [], []
    shown = torch.maximum(a, b) > FLAT
    for axis in (-1, -2):
        step_f, step_a, step_b = (x.diff(dim=axis).abs() for x in (f, a, b))
        both = shown.narrow(axis, 1, shown.shape[axis] - 1)
        flat = ((step_a < FLAT) & (step_b < FLAT) & both).to(f.dtype)
        sums.append((step_f * flat).sum())
        counts.append(flat.sum())
    return torch.stack(sums).sum() / torch.stack(counts).sum().clamp_min(1)


def overlay_loss(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Mean distance to what a reader should see of an anatomy under an activity (`overlay`)."""
    return (f - overlay(a, b)).abs().mean()


def overlay(a: Tensor, b: Tensor) -> Tensor:
    """What a reader should see of an anatomy ``a`` under an activity ``b``, (n, 1, h, w) in 0..1.

    The anatomy with all of its detail, but in its broad course a share of the activity's: brighter
    where that is hot, black where both are.
    """
    detail = (a - _gaussian(a, FINE)).clamp(-STEEP, STEEP)
    given = EXCHANGED * ((BRIGHT[1] - a) / (BRIGHT[1] - BRIGHT[0])).clamp(0, 1)
    wanted = a + (DETAIL_GAIN - 1) * detail + given * (b - _gaussian(a, BROAD))
    return wanted.clamp(0, 1) * (torch.maximum(a, b) > 0)


@dataclass(frozen=True, eq=False)
class Target:
    """What a reader should see of each image.

    Attributes:
        image: (n, 1, h, w) in 0..1.
        weight: (n, 1, h, w), how much each pixel counts.
    """

    image: Tensor
    weight: Tensor


def target_term(name: str, f: Tensor, target: Target) -> Tensor:
    """Distance to the target, by one of `TARGET_TERMS`.

    ``target``: mean weighted distance of pixels; ``target_regions``: of the means of `REGION` x
    `REGION` pixels, over which noise averages out and a wide, pale finding does not;
    ``target_edges``: of the differences of neighbours.
    """
    off = f - target.image
    if name == "target":
        return (off.abs() * target.weight).sum() / target.weight.sum()
    if name == "target_regions":
        weight = F.avg_pool2d(target.weight, REGION)
        return (F.avg_pool2d(off, REGION).abs() * weight).sum() / weight.sum()
    across = (off[..., :, 1:] - off[..., :, :-1]).abs().mean()
    return across + (off[..., 1:, :] - off[..., :-1, :]).abs().mean()


Term = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Name of the weight in ``LossConfig`` to the term; ``similarity`` also takes the generator.
TERMS: dict[str, Term] = {
    "similarity": stochastic_similarity_loss,
    "gradient": gradient_loss,
    "smooth": smooth_loss,
    "local_similarity": local_similarity_loss,
    "saliency": saliency_loss,
    "bone": bone_loss,
    "structure": structure_loss,
    "edge": edge_loss,
    "difference": difference_loss,
    "information": information_loss,
    "entropy": entropy_loss,
    "sharpness": sharpness_loss,
    "halo": halo_loss,
    "overlay": overlay_loss,
}


#: The terms that drawn phantoms are judged by. The others reward edges beyond those of the sources,
#: and on flat regions that is ringing.
PHANTOM_TERMS = ("smooth", "saliency", "bone", "halo", "overlay")

#: Where there is a target, what is drawn or simulated is judged by it alone.
TARGET_TERMS = ("target", "target_regions", "target_edges")


def fusion_loss(
    f: Tensor,
    a: Tensor,
    b: Tensor,
    config: LossConfig,
    generator: torch.Generator | None = None,
    drawn: Tensor | None = None,
    target: Target | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms whose weight is not 0, and each term by its name.

    Computed in float32 whatever the autocast of the network.

    Args:
        generator: the source of the permutation of L_sim.
        drawn: (n,) bool, the images that are phantoms or simulated; they count in `PHANTOM_TERMS`
            alone, or, where there is a target, in `TARGET_TERMS`.
        target: what a reader should see.
    """
    everything = (f.float(), a.float(), b.float())
    real = everything if drawn is None else tuple(x[~drawn] for x in everything)
    weights = {name: weight for name, weight in asdict(config).items() if weight}
    terms: dict[str, Tensor] = {}
    for name in weights:
        if name in TARGET_TERMS:
            terms[name] = f.sum() * 0 if target is None else target_term(name, f.float(), target)
            continue
        f_, a_, b_ = everything if name in PHANTOM_TERMS and target is None else real
        if len(f_) == 0:
            terms[name] = f.sum() * 0
        elif name == "similarity":
            terms[name] = stochastic_similarity_loss(f_, a_, b_, generator)
        else:
            terms[name] = TERMS[name](f_, a_, b_)
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def local_similarities(f: Tensor, sources: Sequence[Tensor], dynamic_range: float) -> list[Tensor]:
    """Mean SSIM of ``f`` with each source over the valid region, Gaussian 11 x 11 with sigma 1.5.

    Population moments, each blurred once: those of the sources need no way back.

    Args:
        dynamic_range: L of Wang 2004 in units of the data, which is in 0..1.
    """
    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    mean, square, *crossed = _blur(torch.cat([f, f * f, *(x * f for x in sources)], 1)).unbind(1)
    known = _blur(torch.cat([*sources, *(x * x for x in sources)], 1)).unbind(1)
    variance, similarities = (square - mean**2).clamp_min(0), []
    for x, xx, xf in zip(known[: len(sources)], known[len(sources) :], crossed, strict=True):
        top = (2 * x * mean + c1) * (2 * (xf - x * mean) + c2)
        bottom = (x**2 + mean**2 + c1) * ((xx - x**2).clamp_min(0) + variance + c2)
        similarities.append((top / bottom).mean())
    return similarities


def _blur(x: Tensor) -> Tensor:
    """Each channel behind an 11-tap Gaussian of sigma 1.5, valid region."""
    taps = torch.exp(-(torch.arange(-5, 6, device=x.device, dtype=x.dtype) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    channels = x.shape[1]
    x = F.conv2d(x, taps.view(1, 1, 11, 1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, 11).repeat(channels, 1, 1, 1), groups=channels)


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    """(n, 1, h, w) behind a Gaussian of ``sigma`` pixels, as if the border went on."""
    reach = round(2.5 * sigma)
    steps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-(steps**2) / (2 * sigma**2))
    taps = taps / taps.sum()
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(x, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel derivatives along columns and rows, zero-padded to the same size, by shifts."""
    x = F.pad(x, (1, 1, 1, 1))
    across = x[..., :, 2:] - x[..., :, :-2]
    along = x[..., :-2, :] - x[..., 2:, :]
    sx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    sy = along[..., :, :-2] + 2 * along[..., :, 1:-1] + along[..., :, 2:]
    return sx, sy


def _gradient_size(x: Tensor) -> Tensor:
    """|grad x| by Sobel, replicated at the border so that the frame is no edge."""
    sx, sy = _sobel(F.pad(x, (1, 1, 1, 1), mode="replicate"))
    return (sx**2 + sy**2 + 1e-8).sqrt()[..., 1:-1, 1:-1]


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Size and orientation (-pi/2..pi/2) of the edges, as Qabf defines them."""
    sx, sy = _sobel(x)
    size = (sx**2 + sy**2 + 1e-10).sqrt()
    sign = torch.where(sx < 0, -1.0, 1.0)
    return size, torch.atan2(sy * sign, sx.abs() + 1e-6)


def _preservation_map(size: Tensor, angle: Tensor, size_f: Tensor, angle_f: Tensor) -> Tensor:
    """Q of each pixel, 0..1: how much of one source's edge the fused image keeps."""
    ratio = torch.minimum(size, size_f) / torch.maximum(size, size_f)
    agreement = 1 - (angle - angle_f).abs() / (torch.pi / 2)
    kept_size = 0.9994 * torch.sigmoid(15 * (ratio - 0.5))
    return kept_size * 0.9879 * torch.sigmoid(22 * (agreement - 0.8))


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation over the pixels of each image, ``(n,)``."""
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = (x.square().sum(1) * y.square().sum(1) + 1e-6).sqrt()
    return (x * y).sum(1) / scale


def _mutual_information(index: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """MI in bits of each image with its source ``y``, 256 grey levels: ``(n,)``.

    Args:
        index, upper: the image's levels as `_soft_level` has them, ``(n, pixels)``.
        y: ``(n, pixels)`` in 0..1.
    """
    row = (y * 255).round().long() * (GREY_LEVELS + 1) + index
    joint = upper.new_zeros(len(y), GREY_LEVELS * (GREY_LEVELS + 1))
    joint = joint.scatter_add(1, row, 1 - upper).scatter_add(1, row + 1, upper)
    joint = joint.view(len(y), GREY_LEVELS, GREY_LEVELS + 1) / y.shape[1]
    return _entropy(joint.sum(1)) + _entropy(joint.sum(2)) - _entropy(joint.flatten(1))


def _soft_level(x: Tensor) -> tuple[Tensor, Tensor]:
    """The grey level below each value, and the share of the level above it."""
    level = (x * 255).clamp(0, 255)
    index = level.detach().floor().long()
    return index, level - index


def _entropy(p: Tensor) -> Tensor:
    """Entropy in bits along the last axis."""
    return -(p * (p + 1e-12).log2()).sum(-1)


def _steps(x: Tensor) -> Tensor:
    """Size of the central differences inside the image, as AG takes them."""
    dx = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2
    dy = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2
    return ((dx**2 + dy**2) / 2 + 1e-10).sqrt()
