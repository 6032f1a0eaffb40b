"""A volume's grid as DICOM image planes: rows, columns and slices along the normal, in LPS mm."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.valuerep import DSfloat, format_number_as_ds

from mmif.errors import GeometryError
from mmif.geometry import Grid, Points, ras_lps, spacing_mm


@dataclass(frozen=True, eq=False)
class Planes:
    """Where the slices of one series lie (PS3.3 C.7.6.2.1.1).

    Attributes:
        row: (3,) direction in which the column index grows, ImageOrientationPatient 1..3.
        column: (3,) direction in which the row index grows, ImageOrientationPatient 4..6.
        positions: (slices, 3) ImagePositionPatient, in order along ``row x column``.
        pixel_mm: distance between rows, distance between columns (the order of PixelSpacing).
        slice_mm: distance between slices.
        rows: rows of a slice.
        columns: columns of a slice.
        reversed: whether that order runs against the k of the volume.
    """

    row: Points
    column: Points
    positions: Points
    pixel_mm: tuple[float, float]
    slice_mm: float
    rows: int
    columns: int
    reversed: bool

    @property
    def normal(self) -> Points:
        """(3,) unit vector from slice to slice."""
        return np.asarray(np.cross(self.row, self.column))

    def corners(self, index: int, thickness_mm: float) -> Points:
        """(8, 3) LPS mm of the outer corners of slice ``index``, taken as a slab."""
        width, height = self.columns * self.pixel_mm[1], self.rows * self.pixel_mm[0]
        first = self.positions[index] - self.row * self.pixel_mm[1] / 2
        first = first - self.column * self.pixel_mm[0] / 2
        half = self.normal * thickness_mm / 2
        steps = [
            a * width * self.row + b * height * self.column + c * half
            for a in (0, 1)
            for b in (0, 1)
            for c in (-1, 1)
        ]
        return np.asarray(first + np.stack(steps))

    def order_slices(self, voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A view of ``voxels`` (C, X, Y, Z) as (slices, rows, columns[, C]); one channel goes."""
        stack = np.transpose(voxels, (3, 2, 1, 0))
        stack = stack[::-1] if self.reversed else stack
        return stack[..., 0] if stack.shape[-1] == 1 else stack


def planes_of(grid: Grid, where: str) -> Planes:
    """The image planes of ``grid``: i becomes the column index, j the row index, k the slice.

    Raises:
        GeometryError: the axes are not at right angles, or not finite.
    """
    affine_lps = ras_lps(grid.affine_ras)
    spacing = spacing_mm(affine_lps)
    axes = affine_lps[:3, :3] / spacing
    if not np.isfinite(affine_lps).all() or not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise GeometryError(f"{where}: the voxel axes are sheared or empty; expected right angles")
    row, column = _make_perpendicular(axes[:, 0], axes[:, 1])
    backwards = bool(np.dot(np.cross(row, column), axes[:, 2]) < 0)
    slices = np.arange(grid.shape[2])[:: -1 if backwards else 1]
    return Planes(
        row=row,
        column=column,
        positions=affine_lps[:3, 3] + slices[:, None] * affine_lps[:3, 2],
        pixel_mm=(spacing[1], spacing[0]),
        slice_mm=spacing[2],
        rows=grid.shape[1],
        columns=grid.shape[0],
        reversed=backwards,
    )


def _make_perpendicular(row: Points, column: Points) -> tuple[Points, Points]:
    """Both unit vectors, exactly perpendicular: readers check it to the last digits."""
    row = row / np.linalg.norm(row)
    column = column - row * np.dot(row, column)
    return row, column / np.linalg.norm(column)


def plane_elements(planes: Planes, index: int) -> Dataset:
    """The Image Plane module (C.7.6.2) of slice ``index``, and its PatientOrientation."""
    ds = Dataset()
    ds.ImagePositionPatient = decimals(planes.positions[index])
    ds.ImageOrientationPatient = decimals((*planes.row, *planes.column))
    ds.PixelSpacing = decimals(planes.pixel_mm)
    ds.SliceThickness = decimal(planes.slice_mm)
    ds.SliceLocation = decimal(float(planes.positions[index] @ planes.normal))
    ds.PatientOrientation = [orientation_letters(planes.row), orientation_letters(planes.column)]
    return ds


def orientation_letters(direction: Points) -> str:
    """The letters of PatientOrientation for an LPS direction, the main axis first (C.7.6.1.1.1).

    >>> orientation_letters(np.array([0.9, 0.0, -0.43]))
    'LF'
    """
    letters = ("RL", "AP", "FH")
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(letters[a][int(direction[a] > 0)] for a in order if abs(direction[a]) > 1e-3)


def decimal(value: float) -> DSfloat:
    """``value`` as a decimal string of at most 16 characters (PS3.5 6.2), never ``-0``."""
    rounded = round(float(value), 10) + 0.0
    return DSfloat(format_number_as_ds(rounded))


def decimals(values: Iterable[float]) -> list[DSfloat]:
    """``values`` as decimal strings."""
    return [decimal(value) for value in values]
