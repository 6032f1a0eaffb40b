"""S3IMFusion: the whole network in one file, read top to bottom.

"A stochastic structural similarity guided approach for multi-modal medical image fusion"
(Scientific Reports, 2025). The parts carry the paper's names; where the paper leaves a choice
open it was made for speed: the Transformer works on a coarse grid of patches, and the second scale
of the detail subnetwork on half the resolution.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmif.config import NetworkConfig

#: The tanh is stretched a little and cut, so that each source's own value is reached exactly.
STRETCH = 1.25
#: Slope of that cut in training only, so that a pixel beyond it can come back.
LEAK = 0.1
#: A small slope beside the tanh, for the same reason: a saturated pixel still learns.
SLOPE = 0.03
#: Below this in both sources a residual fades away: 4 of 255 is what a window leaves of clean air.
EMPTY = 4 / 255
#: The Transformer sees at most this many patches a side; finer grids are averaged down to it.
MAX_PATCHES = 64


class SalientBranch(nn.Module):
    """What stands out: ``ReLU(BN(Conv(F))) * sigmoid(MaxPool(Conv(F)))`` (Eq. 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.saliency = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (b, c, h, w) of the salient structures, weighted by one map of saliency."""
        salient = F.relu(self.norm(self.features(x)))  # (b, c, h, w)
        return salient * torch.sigmoid(max_pool_3x3(self.saliency(x)))  # (b, c, h, w)


class ComplementaryDetail(nn.Module):
    """The complementary detail subnetwork: two branches of two scales.

    After each layer the features of both branches are concatenated and fed to the next layer of
    both; skip connections carry the input past the layers. The coarse branch works on half the
    resolution, or, at ``full_resolution``, with kernels of 5 x 5.
    """

    def __init__(
        self, channels: int, coarse_channels: int, layers: int, full_resolution: bool
    ) -> None:
        super().__init__()
        self.step = 1 if full_resolution else 2
        kernel = 5 if full_resolution else 3
        fine, coarse = channels, channels
        self.fine, self.coarse = nn.ModuleList(), nn.ModuleList()
        for _ in range(layers):
            self.fine.append(nn.Conv2d(fine, channels, 3, padding=1))
            self.coarse.append(nn.Conv2d(coarse, coarse_channels, kernel, padding=kernel // 2))
            fine = coarse = channels + coarse_channels
        self.merge = nn.Conv2d(fine, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Detail features (b, c, h, w) of even h and w."""
        fine, coarse = x, self.down(x)  # (b, c, h, w), (b, c, h/2, w/2)
        for fine_layer, coarse_layer in zip(self.fine, self.coarse, strict=True):
            sharp, broad = F.relu(fine_layer(fine)), F.relu(coarse_layer(coarse))
            sharp = sharp + x  # skip: (b, c, h, w)
            fine = join_channels(sharp, self.up(broad))  # (b, c + k, h, w)
            coarse = join_channels(self.down(sharp), broad)  # (b, c + k, h/2, w/2)
        detail: Tensor = self.merge(fine)
        return detail  # (b, c, h, w)

    def down(self, x: Tensor) -> Tensor:
        """``x`` (b, c, h, w) at the coarse branch's resolution."""
        return x if self.step == 1 else F.avg_pool2d(x, self.step)

    def up(self, x: Tensor) -> Tensor:
        """``x`` of the coarse branch at that of the fine one."""
        if self.step == 1:
            return x
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class TransformerBlock(nn.Module):
    """``F' = MSA(LN(F)) + F`` (Eq. 2) and ``F'' = MLP(LN(F')) + F'`` (Eq. 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b, n, d) after one block."""
        x = x + self.attend(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))  # type: ignore[no-any-return]

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention of tokens (b, n, d)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (b, heads, n, d / heads)
        out: Tensor = self.project(mixed.transpose(1, 2).reshape(b, n, d))
        return out


class GlobalCorrelation(nn.Module):
    """The global correlation module: stacked Transformer blocks over patches of the slice."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.step = 1 if config.full_resolution else 2
        width, patch = config.width, config.patch // self.step
        self.embed = nn.Conv2d(config.channels, width, patch, stride=patch)
        blocks = (TransformerBlock(width, config.heads) for _ in range(config.blocks))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features (b, c, h, w), smooth across patches, of h and w that the patch divides."""
        b, c, h, w = x.shape
        grid = self.embed(F.avg_pool2d(x, self.step))  # (b, d, h/p, w/p)
        rows, columns = min(grid.shape[2], MAX_PATCHES), min(grid.shape[3], MAX_PATCHES)
        if grid.shape[2:] != (rows, columns):
            grid = F.adaptive_avg_pool2d(grid, (rows, columns))
        tokens = grid.flatten(2).transpose(1, 2)  # (b, n, d)
        places = positional_encoding(rows, columns, tokens.shape[2], tokens.device)
        tokens = tokens + places.to(tokens.dtype)
        tokens = self.expand(self.norm(self.blocks(tokens)))  # (b, n, c)
        grid = tokens.transpose(1, 2).reshape(b, c, rows, columns)
        return F.interpolate(grid, size=(h, w), mode="bilinear", align_corners=False)


class S3IMFusion(nn.Module):
    """Fuses slices of two registered sources: (n, 2, h, w) in 0..1 to (n, 1, h, w) in 0..1.

    Channel 0 is the anatomical source (MRI, visible), channel 1 the other one. Any height and width
    from one pixel up is taken. What the last tanh means is the configuration's ``output``:

    - ``residual``: it is added to the anatomical source, so that what the other source shows may be
      brighter or darker than both; where both sources are empty the slice is exactly black.
    - ``tanh``: it is the fused value itself, as the paper prints it, from -1..1 to 0..1.
    - ``between``: it says where between the darker and the brighter source the fused value lies;
      the weights of 0.1.0.

    Args:
        config: widths, depths and ``output``.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.hybrid = nn.Conv2d(2, c, 3, padding=1)
        self.salient = SalientBranch(c)
        self.detail = ComplementaryDetail(
            c, config.coarse_channels, config.detail_layers, config.full_resolution
        )
        self.correlation = GlobalCorrelation(config)
        self.mix = nn.Parameter(torch.ones(3, c, 1, 1))
        self.fuse = nn.Conv2d(c, 1, 3, padding=1)

    def forward(self, sources: Tensor) -> Tensor:
        """The fused slices (n, 1, h, w) in 0..1 (in training a little beyond, see ``LEAK``)."""
        h, w = sources.shape[2:]
        x = self.pad(sources)  # (n, 2, H, W), multiples of the patch
        features = F.relu(self.hybrid(x))  # (n, c, H, W)
        salient, detail, broad = self.mix
        mixed = salient * self.salient(features) + detail * self.detail(features)
        mixed = mixed + broad * self.correlation(features)  # (n, c, H, W)
        level = self.fuse(F.leaky_relu(mixed, self.config.leak))  # (n, 1, H, W)
        level = torch.tanh(level) + (0 if self.config.output == "tanh" else SLOPE) * level
        margin = self.config.margin
        level = level[:, :, margin : margin + h, margin : margin + w]  # (n, 1, h, w)
        match self.config.output:
            case "residual":
                return self.residual(sources, level)
            case "tanh":
                value: Tensor = (1 + level.to(sources.dtype)) / 2
                return value
            case _:
                return self.between(sources, level)

    def pad(self, x: Tensor) -> Tensor:
        """``x`` with a replicated margin, its sides brought up to multiples of the patch."""
        margin, patch = self.config.margin, self.config.patch
        below, right = (margin + -(side + 2 * margin) % patch for side in x.shape[2:])
        return F.pad(x, (margin, right, margin, below), mode="replicate")

    def residual(self, sources: Tensor, level: Tensor) -> Tensor:
        """The anatomical source plus ``level`` (n, 1, h, w), black where both sources are.

        In training the values beyond 0..1 keep a small slope.
        """
        fused = sources[:, :1] + level.to(sources.dtype)
        inside = fused.clamp(0, 1)
        fused = inside + LEAK * (fused - inside) if self.training else inside
        seen = (sources.amax(1, keepdim=True) / EMPTY).clamp(max=1)
        shown: Tensor = fused * seen
        return shown

    def between(self, sources: Tensor, level: Tensor) -> Tensor:
        """The value (n, 1, h, w) at ``level``, -1 for the darker and 1 for the brighter source.

        In training the levels beyond both keep a small slope.
        """
        dark, bright = sources.amin(1, keepdim=True), sources.amax(1, keepdim=True)
        share = (1 + STRETCH * level.to(sources.dtype)) / 2
        inside = share.clamp(0, 1)
        share = inside + LEAK * (share - inside) if self.training else inside
        value: Tensor = dark + (bright - dark) * share
        return value


def join_channels(*parts: Tensor) -> Tensor:
    """``parts`` (b, c, h, w) side by side as channels.

    Their gradients are slices of one tensor, over which the backward pass of an interpolation takes
    nine times as long on a CPU as over one that is put together first (benchmarks/training.py).
    """
    for part in parts:
        if part.requires_grad and part.device.type == "cpu":
            part.register_hook(_put_together)  # type: ignore[no-untyped-call]
    return torch.cat(parts, 1)


def _put_together(slope: Tensor) -> Tensor:
    return slope.contiguous(memory_format=torch.channels_last)


def max_pool_3x3(x: Tensor) -> Tensor:
    """MaxPool 3 x 3 with stride 1 of (b, 1, h, w), by shifts: ten times faster on a CPU."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def positional_encoding(
    rows: int, columns: int, width: int, device: torch.device | None = None
) -> Tensor:
    """Sines and cosines of the place in the slice, (rows * columns, width), for any grid.

    Places run over 0..1 along each side, so that one encoding serves every size. It is made on the
    device: a copy from the host would make each batch wait, and cannot be part of a CUDA graph.
    """
    count = width // 4
    frequency = torch.pi * 2.0 ** torch.linspace(
        0, 5, count, device=device
    )  # half a wave to 16 waves a side
    y = ((torch.arange(rows, device=device) + 0.5) / rows)[:, None, None] * frequency
    x = ((torch.arange(columns, device=device) + 0.5) / columns)[None, :, None] * frequency
    y, x = y.expand(rows, columns, count), x.expand(rows, columns, count)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 2).reshape(rows * columns, -1)
