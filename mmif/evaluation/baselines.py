"""The three simple fusion rules that every network is measured against.

Each takes two stacks (or images) of equal shape (..., rows, columns) in 8-bit grey and returns
their fusion in 8-bit grey. They know no roles: exchanging the sources changes nothing.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Stack = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

BURT_KERNEL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # Burt and Adelson 1983
# Chosen, not measured: 256 pixels become 16 at the coarsest
PYRAMID_LEVELS = 4


def maximum(a: Stack, b: Stack) -> Stack:
    """The brighter of both sources, pixel by pixel."""
    return np.maximum(a, b)


def average(a: Stack, b: Stack) -> Stack:
    """The mean of both sources, rounded."""
    return np.rint((a.astype(np.float64) + b) / 2).astype(np.uint8)


def laplacian_pyramid(a: Stack, b: Stack, levels: int = PYRAMID_LEVELS) -> Stack:
    """The stronger detail of both sources at each scale, on the mean of their coarsest scale.

    Args:
        a: (..., rows, columns) uint8.
        b: likewise.
        levels: scales of detail; each halves the image.
    """
    first = _pyramid(a.astype(np.float64), levels)
    second = _pyramid(b.astype(np.float64), levels)
    fused = (first[-1] + second[-1]) / 2
    for x, y in zip(first[-2::-1], second[-2::-1], strict=True):
        fused = _grown(fused, x.shape) + np.where(np.abs(x) >= np.abs(y), x, y)
    return np.rint(np.clip(fused, 0, 255)).astype(np.uint8)


BASELINES: dict[str, Callable[[Stack, Stack], Stack]] = {
    "maximum": maximum,
    "average": average,
    "laplacian pyramid": laplacian_pyramid,
}


def _pyramid(image: Floats, levels: int) -> list[Floats]:
    """``levels`` images of detail, the finest first, and what is left at the coarsest scale."""
    scales = []
    for _ in range(levels):
        coarse = _smooth(image)[..., ::2, ::2]
        scales.append(image - _grown(coarse, image.shape))
        image = coarse
    return [*scales, image]


def _grown(coarse: Floats, shape: tuple[int, ...]) -> Floats:
    """``coarse`` at twice its size, smoothed, cut to ``shape``."""
    grown = np.zeros(shape)
    grown[..., ::2, ::2] = coarse
    return 4 * _smooth(grown)


def _smooth(image: Floats) -> Floats:
    rows = ndimage.correlate1d(image, BURT_KERNEL, axis=-2, mode="mirror")
    return np.asarray(ndimage.correlate1d(rows, BURT_KERNEL, axis=-1, mode="mirror"))
