"""Batches of training crops: which pairs, where, and how they are changed.

Every crop is drawn from a generator that is seeded by the seed, the step and the place in the
batch: a resumed training, or one on more processes, sees the same batches without saved state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from mmif.config import TrainingConfig
from mmif.errors import TrainingError
from mmif.training.pairs import Pair
from mmif.training.scanner import Shown, show_as_scanner
from mmif.training.targets import Image, reader_target

#: Crops with less than this share of non-empty pixels are drawn again (a few times).
CONTENT = 0.25
# Of the Harvard slices no crop of 128 or 144 is so empty, of 64 one in seven: four tries leave 1 in
# 2,500, which is taken as it is
TRIES = 4
PHANTOM_WEIGHT, EDGE_WEIGHT = 3.0, 10.0
"""A pixel of a drawn phantom counts this much more than one of a slice, and one next to the edge of
its CT: what rings there is a few grey levels in two pixels of a row, lost in the mean of a crop. At
30 the phantoms outweigh the brain's noise; at 3 alone weights ring by 5 to 10 % of the step, at 10
by 2."""

EDGE_REACH = 4
"""Pixels on both sides of such an edge; the dips of weights that ring lie in the first two."""

EDGE_STEP = 0.2
"""What counts as an edge of the CT: a skull is a step of 0.65 above the brain (soft tissue reaches
0.75 behind the window of volumes)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of one step.

    Attributes:
        sources: (n, 2, h, w) float32 in 0..1.
        names: of the pairs.
        drawn: (n,) bool, True where a phantom took the place of the pair, or a scanner's view.
        targets: (n, 1, h, w) in 0..1, what a reader should see; None where no target is wanted.
        weights: (n, 1, h, w), how much each pixel of the target counts.
    """

    sources: Tensor
    names: tuple[str, ...]
    drawn: Tensor
    targets: Tensor | None = None
    weights: Tensor | None = None


def steps_per_epoch(pairs: Sequence[Pair], batch: int) -> int:
    """Steps until each pair has been drawn about once."""
    return max(1, round(len(pairs) / batch))


def check_crops(pairs: Sequence[Pair], side: int) -> None:
    """Nothing, where all crops of ``side`` pixels (0: whole slices) come out in one size.

    Raises:
        TrainingError: the pairs differ in size, and some are smaller, or wanted whole.
    """
    sizes = {pair.anatomical.shape for pair in pairs}
    smallest = min(pairs, key=lambda pair: min(pair.anatomical.shape))
    limit = min(smallest.anatomical.shape)
    if len(sizes) > 1 and not 0 < side <= limit:
        raise TrainingError(
            f"pairs of {len(sizes)} sizes, {smallest.name} with a side of {limit} pixels; found"
            f" training.crop {side}, expected 1 to {limit}"
        )


def draw_batch(
    pairs: Sequence[Pair], config: TrainingConfig, step: int, rank: int = 0, ranks: int = 1
) -> Batch:
    """The crops of ``step`` (from 0) for one rank of several."""
    places = list(enumerate(_epoch_order(pairs, config, step)))[rank::ranks]
    chosen = [pairs[index] for _, index in places]
    generators = [np.random.default_rng([config.seed, step, place]) for place, _ in places]
    places_shown = [_show(config, *both) for both in zip(chosen, generators, strict=True)]
    crops, drawn = (list(part) for part in zip(*places_shown, strict=True))
    names, simulated = tuple(pair.name for pair in chosen), torch.tensor(drawn)
    sources = torch.from_numpy(np.stack([crop.sources for crop in crops]))
    if chosen[0].clean is None:
        return Batch(sources, names, simulated)
    targets, weights = (
        torch.from_numpy(np.stack([getattr(crop, part) for crop in crops]))[:, None]
        for part in ("target", "weight")
    )
    return Batch(sources, names, simulated, targets, weights)


def _show(config: TrainingConfig, pair: Pair, random: np.random.Generator) -> tuple[Shown, bool]:
    """What one place of a batch shows, and whether it is drawn or simulated."""
    crop, clean = _crop(pair, config.crop, random)
    if random.random() < config.phantoms:
        drawn = phantom(crop.shape[1], crop.shape[2], random).numpy()
        shown = _with_target(drawn, drawn[1], _flat_parenchyma(drawn), pair.clean is not None)
        shown.weight[:] = np.where(_next_to_edges(drawn[1]), EDGE_WEIGHT, PHANTOM_WEIGHT)
        return shown, True
    if pair.clean is not None and random.random() < config.scanner:
        return mirror(show_as_scanner(crop[0], clean, pair.parenchyma, random), random), True
    changed = augment(torch.from_numpy(crop), config.augmentation, random).numpy()
    if pair.clean is None:
        return _with_target(changed, clean, pair.parenchyma, False), False
    plain = _with_target(crop, clean, pair.parenchyma, True)
    return (mirror(plain, random) if config.augmentation else plain), False


def _with_target(sources: Image, clean: Image, parenchyma: float, wanted: bool) -> Shown:
    """``sources`` (2, h, w) with the target of their clean form, where one is wanted."""
    target = reader_target(sources[0], clean, parenchyma) if wanted else sources[0]
    return Shown(sources, target, np.ones_like(target))


def mirror(shown: Shown, random: np.random.Generator) -> Shown:
    """``shown``, left for right in half of the cases."""
    if random.random() < 0.5:
        return shown
    parts = (shown.sources, shown.target, shown.weight)
    return Shown(*(np.ascontiguousarray(part[..., ::-1]) for part in parts))


def _next_to_edges(ct: Image) -> npt.NDArray[np.bool_]:
    """Where the CT steps within `EDGE_REACH` pixels."""
    side = 2 * EDGE_REACH + 1
    steps = ndimage.maximum_filter(ct, side) - ndimage.minimum_filter(ct, side)
    return np.asarray(steps > EDGE_STEP)


def _flat_parenchyma(drawn: Image) -> float:
    """The tissue of a drawn CT: its most frequent value that is neither air nor bone."""
    values, counts = np.unique(drawn[1], return_counts=True)
    tissue = (values > 0) & (values < 0.95)
    return float(values[tissue][np.argmax(counts[tissue])]) if tissue.any() else 0.4


def _epoch_order(pairs: Sequence[Pair], config: TrainingConfig, step: int) -> list[int]:
    """The pairs of this step: a piece of the epoch's permutation, wrapped where it is short."""
    epoch, place = divmod(step, steps_per_epoch(pairs, config.batch))
    order = np.random.default_rng([config.seed, epoch]).permutation(len(pairs))
    return [
        int(order[i % len(pairs)]) for i in range(place * config.batch, (place + 1) * config.batch)
    ]


def _crop(pair: Pair, side: int, generator: np.random.Generator) -> tuple[Image, Image]:
    """A crop (2, h, w) in 0..1 that shows something, where a few tries find one; its clean CT."""
    rows, columns = pair.anatomical.shape
    height, width = (min(side or s, s) for s in (rows, columns))
    for _ in range(TRIES):
        y = int(generator.integers(rows - height + 1))
        x = int(generator.integers(columns - width + 1))
        window = np.s_[y : y + height, x : x + width]
        crop = np.stack([pair.anatomical[window], pair.other[window]])
        if np.count_nonzero(crop.max(0)) >= CONTENT * height * width:
            break
    clean = crop[1] if pair.clean is None else pair.clean[window]
    return crop.astype(np.float32) / np.float32(255), clean.astype(np.float32) / np.float32(255)


def augment(crop: Tensor, share: float, generator: np.random.Generator) -> Tensor:
    """``crop`` (2, h, w) mirrored, and for a ``share`` of the crops with changed intensities."""
    if share and generator.random() < 0.5:
        crop = crop.flip(2)
    if generator.random() >= share:
        return crop
    changed = torch.stack([_change(image, generator) for image in crop])
    if generator.random() < 0.06:  # one source is empty, as beyond the end of a volume
        changed[int(generator.integers(2))] = 0
    return changed.clamp(0, 1)


def _change(image: Tensor, generator: np.random.Generator) -> Tensor:
    """One source (h, w) as another window, contrast, scanner or resolution would show it."""
    if generator.random() < 0.5:
        image = image ** float(np.exp(generator.uniform(-0.4, 0.4)))
    if generator.random() < 0.3:  # another window; what was black stays black
        image = (image * float(generator.uniform(0.75, 1.3))).clamp(0, 1)
    if generator.random() < 0.15:
        low = float(generator.uniform(0, 0.15))
        image = ((image - low) / (1 - low)).clamp(0, 1)
    if generator.random() < 0.08:  # weak contrast
        image = image * float(generator.uniform(0.3, 0.7))
    if generator.random() < 0.08:  # the other weighting: bright where it was dark
        image = torch.where(image > 0.02, float(image.max()) - 0.8 * image, image)
    if generator.random() < 0.15:  # thicker slices, interpolation
        image = _smooth(image)
    if generator.random() < 0.15:  # noise, in the air as well
        sigma = float(generator.uniform(0.002, 0.02))
        noise = generator.normal(0, sigma, tuple(image.shape)).astype(np.float32)
        image = (image + torch.from_numpy(noise)).abs()
    return image


def phantom(height: int, width: int, generator: np.random.Generator) -> Tensor:
    """A drawn pair (2, h, w) of flat regions: air, a shell as bright as bone, what is in it."""
    y, x = np.mgrid[:height, :width]
    turn = generator.uniform(0, 2 * np.pi)
    across = np.cos(turn) * (x - width / 2) + np.sin(turn) * (y - height / 2)
    along = np.cos(turn) * (y - height / 2) - np.sin(turn) * (x - width / 2)
    bend = generator.uniform(0, 1.5) * generator.integers(2)  # straight bands and ellipses
    depth = across - generator.uniform(-0.4, 0.1) * width + bend * along**2 / width
    shell = generator.uniform(3, 10) if generator.random() < 0.5 else generator.uniform(10, 70)
    inside, deeper = depth > 0, depth > shell
    spot = np.hypot(across - generator.uniform(0, width / 2), along) < generator.uniform(3, 20)
    bone, tissue, focus = generator.uniform(0, 1, (3, 2))
    if generator.random() < 0.7:  # CT: bone saturated; MRI: bone faint, or like its surroundings
        faint = generator.choice([0.0, 0.05, 0.15])
        bone = np.array([tissue[0] if generator.random() < 0.5 else faint, 1.0])
        tissue = np.array([tissue[0], generator.uniform(0.15, 0.7)])
    image = np.zeros((2, height, width), dtype=np.float32)
    for source in range(2):
        image[source][inside] = bone[source]
        image[source][deeper] = tissue[source]
        image[source][deeper & spot] = focus[source]
    return torch.from_numpy(image)


def _smooth(image: Tensor) -> Tensor:
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(padded, 3, stride=1)[0, 0]
