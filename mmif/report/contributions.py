"""Where each fused pixel comes from: a local regression of the fused volume on its two sources."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Slices = Callable[[int], tuple[Floats, Floats, Floats]]

# Two standard deviations to either side; narrower is noisier, wider tells less of where; chosen
WINDOW_PIXELS, SIGMA_PIXELS = 9, 2.0
# The square of 0.003, less than a grey level of 255: flat windows divide by it; chosen
RIDGE = 1e-5
# Ten grey levels of 255, from which on structure is shown at full brightness; chosen
VISIBLE = 0.04

STRONG = 0.06
"""A source's own structure (standard deviation in the window, after what the other source explains
of it) from here on is strong: fifteen grey levels of 255; chosen, not measured."""

LOST = 0.25
"""It is lost where the fused volume keeps less than this of its contrast; chosen, not measured."""


@dataclass(frozen=True, eq=False)
class SourceShare:
    """What the fused volume took from whom; all arrays (X, Y, Z).

    Attributes:
        moving: uint8, share of the moving volume in the structure around each pixel, 255 for all.
        strength: uint8, how much structure there is to share out; where it is 0 both are flat.
        explained: share of the fused volume's local structure that the regression explains, over
            the whole volume; NaN where the fused volume is flat.
        mean: ``moving``, weighted by the structure.
        lost: uint8, 1 where a strong structure of the reference alone is lost in the fused volume,
            2 where one of the moving volume is, 0 elsewhere.
        lost_shares: how much of the strong structures of the reference alone, and of the moving
            volume alone, is lost, 0..1; NaN where there are none.
    """

    moving: Bytes
    strength: Bytes
    explained: float
    mean: float
    lost: Bytes
    lost_shares: tuple[float, float]


def luminance(volume: npt.NDArray[Any]) -> Floats:
    """(X, Y, Z) brightness of (1 or 3, X, Y, Z) (ITU-R BT.601), finite."""
    bright = volume[0]
    if len(volume) == 3:
        bright = sum(w * c for w, c in zip((0.299, 0.587, 0.114), volume, strict=True))
    bright = np.asarray(bright, dtype=np.float32)
    return bright if np.isfinite(bright).all() else np.nan_to_num(bright)


def source_share(slices: Slices, shape: tuple[int, int, int]) -> SourceShare:
    """The shares of two sources in a fused volume, slice by slice.

    In a Gaussian window of 9 x 9 pixels the fused brightness F is fitted as a R + b M + c (least
    squares with a slight ridge). The share of M is |b| sd(M) / (|a| sd(R) + |b| sd(M)), sd the
    standard deviation in the window: how much of F's structure moves with M's. What R shows and M
    does not (the deviation that is left of R when M has explained what it can) is lost where it is
    `STRONG` and a is below `LOST`; the same for M and b.

    Args:
        slices: the number of a slice, from 0, to the brightness of the fused volume, the reference
            and the moving volume there, each (X, Y) in 0..1.
        shape: X, Y and Z of all.
    """
    x, y, z = shape
    shares, strength, lost = (np.zeros((z, x, y), np.uint8) for _ in range(3))

    def measure(k: int) -> tuple[float, ...]:
        """The sums of one slice; its maps go to their places."""
        return _share_of_slice(slices(k), shares[k], strength[k], lost[k])

    with ThreadPoolExecutor(torch.get_num_threads()) as cores:
        sums = np.array(list(cores.map(measure, range(z))))
    sums = sums.sum(axis=0) if len(sums) else np.zeros(8)
    structure, left, weight, weighted, *own = sums
    return SourceShare(
        np.moveaxis(shares, 0, 2),
        np.moveaxis(strength, 0, 2),
        explained=1 - _ratio(left, structure),
        mean=_ratio(weighted, weight),
        lost=np.moveaxis(lost, 0, 2),
        lost_shares=(_ratio(own[1], own[0]), _ratio(own[3], own[2])),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _share_of_slice(
    planes: tuple[Floats, Floats, Floats], shares: Bytes, strengths: Bytes, lost: Bytes
) -> tuple[float, ...]:
    """As `source_share`, of the ``planes`` of one slice, into ``shares``, ``strengths``, ``lost``.

    Returns:
        Sums over the slice: structure, what the fit leaves of it, strength, strength times share;
        pixels of strong structure of the reference alone, those of them that are lost; the same of
        the moving volume.
    """
    images = [np.ascontiguousarray(image) for image in planes]
    means = [_mean(image) for image in images]

    def moment(first: int, second: int) -> Floats:
        return _mean(images[first] * images[second]) - means[first] * means[second]

    ff, rr, mm = (np.maximum(moment(n, n), 0) for n in range(3))
    rm, fr, fm = moment(1, 2), moment(0, 1), moment(0, 2)
    # least squares of F on R and M in each window, by their moments
    det = (rr + RIDGE) * (mm + RIDGE) - rm**2
    a = (fr * (mm + RIDGE) - fm * rm) / det
    b = (fm * (rr + RIDGE) - fr * rm) / det
    of_reference, of_moving = np.abs(a) * np.sqrt(rr), np.abs(b) * np.sqrt(mm)
    total = of_reference + of_moving
    share = np.full_like(total, 0.5)
    np.divide(of_moving, total, out=share, where=total > 1e-6)
    strength = np.clip(np.sqrt(ff) / VISIBLE, 0, 1)
    shares[:], strengths[:] = np.rint(255 * share), np.rint(255 * strength)
    left = np.maximum(ff - 2 * (a * fr + b * fm) + a * a * rr + b * b * mm + 2 * a * b * rm, 0)
    # what of R the other does not show as well: its variance behind a fit of M
    strong_r = rr - rm**2 / (mm + RIDGE) > STRONG**2
    strong_m = mm - rm**2 / (rr + RIDGE) > STRONG**2
    lost_r, lost_m = strong_r & (a < LOST), strong_m & (b < LOST)
    lost[lost_r], lost[lost_m] = 1, 2
    sums = (ff, left, strength, share * strength, strong_r, lost_r, strong_m, lost_m)
    return tuple(float(one.sum(dtype=np.float64)) for one in sums)


def _mean(image: Floats) -> Floats:
    """The weighted mean over the window around each pixel of a slice."""
    settings = {"radius": WINDOW_PIXELS // 2, "mode": "nearest"}
    rows = ndimage.gaussian_filter1d(image, SIGMA_PIXELS, axis=0, **settings)
    mean: Floats = ndimage.gaussian_filter1d(rows, SIGMA_PIXELS, axis=1, **settings)
    return mean
