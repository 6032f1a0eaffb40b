"""Volumes carried onto a rectangular, regular grid by physical position."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mmif.errors import GeometryError
from mmif.geometry import Matrix, apply, spacing_mm
from mmif.io.checks import MAX_VOXELS
from mmif.io.dicom.read.geometry import Placement

Volume = npt.NDArray[np.float32]

SHEAR_MM = 0.05
"""A corner may be so far from its place on a rectangular grid before a volume is resampled."""


def onto_grid(volume: Volume, placement: Placement, fill: float) -> Volume:
    """A stack of slices on the regular grid of ``placement``.

    Sideways by linear, along the normal by monotone cubic interpolation (Fritsch and Carlson
    1980), which invents no value beyond its two neighbours.

    Args:
        volume: (columns, rows, n) slices in the order of their depth.
        placement: where they lie.
        fill: value where no slice lies.

    Returns:
        ``placement.shape`` volume.
    """
    result = np.full(placement.shape, fill, dtype=np.float32, order="F")
    below = np.searchsorted(placement.depths, np.arange(placement.shape[2]) + 1e-6) - 1
    between = _Between(volume, placement, fill)
    for k, low in enumerate(np.clip(below, 0, len(placement.depths) - 2)):
        result[:, :, k] = between(int(low), k)
    return result


class _Between:
    """Values between neighbouring slices; holds the few slices that are needed at a time."""

    def __init__(self, volume: Volume, placement: Placement, fill: float) -> None:
        self._volume, self._placement, self._fill = volume, placement, fill
        self._slices: dict[int, Volume] = {}
        self._slopes: dict[int, Volume] = {}

    def __call__(self, low: int, depth: float) -> Volume:
        """Values at ``depth`` (voxels of the grid), between slices ``low`` and ``low + 1``."""
        start, end = self._placement.depths[low : low + 2]
        t = np.float32(np.clip((depth - start) / (end - start), 0, 1))
        if t < 1e-4 or t > 1 - 1e-4:
            return self._slice(low + round(float(t)))
        self._slopes = {n: m for n, m in self._slopes.items() if n >= low}
        gap, rest = np.float32(end - start), 1 - t
        values = (1 + 2 * t) * rest * rest * self._slice(low) + t * t * (3 - 2 * t) * self._slice(
            low + 1
        )
        values += gap * t * rest * (rest * self._slope(low) - t * self._slope(low + 1))
        return values

    def _slice(self, n: int) -> Volume:
        """Slice ``n``, moved sideways to its place."""
        if n not in self._slices:
            self._slices = {m: image for m, image in self._slices.items() if m >= n - 3}
            self._slices[n] = _shift(self._volume[:, :, n], self._placement, n, self._fill)
        return self._slices[n]

    def _slope(self, n: int) -> Volume:
        """The change per voxel along the normal at slice ``n``, 0 at an extremum."""
        if n not in self._slopes:
            self._slopes[n] = self._fresh_slope(n)
        return self._slopes[n]

    def _fresh_slope(self, n: int) -> Volume:
        """As `_slope`: the weighted harmonic mean of the slopes on both sides."""
        sides = [m for m in (n - 1, n) if 0 <= m < len(self._placement.depths) - 1]
        gaps = [self._placement.depths[m + 1] - self._placement.depths[m] for m in sides]
        slopes = [
            (self._slice(m + 1) - self._slice(m)) / np.float32(gap)
            for m, gap in zip(sides, gaps, strict=True)
        ]
        if len(sides) == 1:
            return slopes[0]
        before, after = np.float32(gaps[0] + 2 * gaps[1]), np.float32(2 * gaps[0] + gaps[1])
        product = slopes[0] * slopes[1]
        denominator = before * slopes[1] + after * slopes[0]
        same_way = (product > 0) & (denominator != 0)
        return np.asarray(
            np.divide(
                (before + after) * product, denominator, out=np.zeros_like(product), where=same_way
            )
        )


def _shift(image: Volume, placement: Placement, n: int, fill: float) -> Volume:
    """Slice ``n`` moved sideways to its place on the grid."""
    shape = placement.shape[:2]
    shift = placement.shifts[n]
    if shape == image.shape and np.abs(shift).max() < 1e-3:
        return image
    moved = ndimage.shift(
        np.pad(
            image,
            [(0, wide - own) for wide, own in zip(shape, image.shape, strict=True)],
            constant_values=fill,
        ),
        shift,
        order=1,
        mode="constant",
        cval=fill,
        output=np.float32,
    )
    return np.asarray(moved, dtype=np.float32)


def rectangular(affine: Matrix) -> Matrix:
    """The affine with perpendicular axes nearest to ``affine``, same spacing, same first voxel."""
    u, _, vt = np.linalg.svd(affine[:3, :3] / spacing_mm(affine))
    nearest = np.array(affine, dtype=np.float64)
    nearest[:3, :3] = (u @ vt) * spacing_mm(affine)
    return nearest


def shear_mm(affine: Matrix, shape: tuple[int, int, int]) -> float:
    """How far a corner of a volume is from where perpendicular axes would put it."""
    bits = np.array([[(n >> b) & 1 for b in range(3)] for n in range(8)])
    corners = bits * (np.array(shape) - 1)
    centre = (np.array(shape) - 1) / 2
    moved = apply(affine, corners) - apply(rectangular(affine), corners)
    moved -= apply(affine, centre) - apply(rectangular(affine), centre)
    return float(np.linalg.norm(moved, axis=1).max())


def unshear(volume: Volume, affine: Matrix, fill: float, where: str) -> tuple[Volume, Matrix]:
    """A sheared volume resampled (linearly) on perpendicular axes that cover all of it.

    Raises:
        GeometryError: the axes are so skewed that the grid would be four times as large.
    """
    target = rectangular(affine)
    bits = np.array([[(n >> b) & 1 for b in range(3)] for n in range(8)])
    corners = apply(np.linalg.inv(target) @ affine, bits * (np.array(volume.shape) - 1))
    low, high = corners.min(axis=0), corners.max(axis=0)
    shape = np.ceil(high - low - 1e-3).astype(int) + 1
    most = min(4 * volume.size, MAX_VOXELS)
    if not np.isfinite(corners).all() or np.prod(shape.astype(float)) > most:
        raise GeometryError(f"{where}: axes too skewed to resample; expected nearly perpendicular")
    target[:3, 3] = apply(target, low)
    to_source = np.linalg.inv(affine) @ target
    resampled = ndimage.affine_transform(
        volume,
        to_source[:3, :3],
        to_source[:3, 3],
        tuple(shape),
        order=1,
        mode="constant",
        cval=fill,
        output=np.float32,
    )
    return np.asarray(resampled, dtype=np.float32), target
