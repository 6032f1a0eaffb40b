"""Affines, grids and rigid transforms, in numpy alone.

Conventions, once for the whole package:

- An ``affine`` is 4x4 and carries voxel indices (i, j, k) to **RAS millimetres**, as NIfTI and
  MONAI keep it. DICOM and SimpleITK speak **LPS**: x and y change sign. Names say which.
- A rigid transform is a 4x4 matrix named from-to, ``fixed_to_moving_lps``: it carries a point of
  the fixed frame to the same anatomical point in the moving frame, as ITK resamplers want it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError

Matrix = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]

# RAS to LPS and back: x and y change their sign
FLIP_XY: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
# A volume of fewer has no slice between two others
MIN_SLICES = 3
Plane = Literal["axial", "coronal", "sagittal"]
Alignment = Literal["searched", "headers", "given"]
"""Where a transform between two volumes is from."""


def ras_lps(matrix: npt.ArrayLike) -> Matrix:
    """A voxel-to-world affine with RAS and LPS exchanged; its own inverse."""
    return FLIP_XY @ np.asarray(matrix, dtype=np.float64)


def world_ras_lps(matrix: npt.ArrayLike) -> Matrix:
    """A world-to-world transform with RAS and LPS exchanged on both sides; its own inverse."""
    return FLIP_XY @ np.asarray(matrix, dtype=np.float64) @ FLIP_XY


def apply(matrix: npt.ArrayLike, points: npt.ArrayLike) -> Points:
    """``points`` (..., 3) carried through the 4x4 ``matrix``."""
    m = np.asarray(matrix, dtype=np.float64)
    return np.asarray(np.asarray(points, dtype=np.float64) @ m[:3, :3].T + m[:3, 3])


def spacing_mm(affine: npt.ArrayLike) -> tuple[float, float, float]:
    """Distance in mm between neighbouring voxels along i, j and k."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def rigid(rotation: npt.ArrayLike, translation: npt.ArrayLike, centre: npt.ArrayLike) -> Matrix:
    """The 4x4 matrix of x -> R (x - c) + c + t; ``translation`` and ``centre`` in mm."""
    r = np.asarray(rotation, dtype=np.float64)
    c = np.asarray(centre, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = r
    matrix[:3, 3] = c + np.asarray(translation, dtype=np.float64) - r @ c
    return matrix


def rotation_deg(matrix: npt.ArrayLike) -> float:
    """The angle in degrees by which a rigid ``matrix`` turns."""
    trace = np.trace(np.asarray(matrix, dtype=np.float64)[:3, :3])
    return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))


def check_rigid(matrix: npt.ArrayLike, where: str) -> Matrix:
    """``matrix`` as float64, if it is a finite 4x4 rotation and translation.

    Raises:
        GeometryError: another shape, not finite, or not rigid (scales, shears or mirrors).
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape != (4, 4) or not np.isfinite(m).all() or not np.allclose(m[3], [0, 0, 0, 1]):
        raise GeometryError(f"{where}: expected a finite 4x4 matrix, found shape {m.shape}")
    r = m[:3, :3]
    if not np.allclose(r @ r.T, np.eye(3), atol=1e-4) or np.linalg.det(r) < 0:
        raise GeometryError(f"{where}: the matrix scales, shears or mirrors; expected a rigid one")
    return m


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular voxel grid in patient space.

    Attributes:
        shape: voxels along i, j, k.
        affine_ras: (4, 4) voxel index to RAS mm.
    """

    shape: tuple[int, int, int]
    affine_ras: Matrix

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel distances in mm along i, j, k."""
        return spacing_mm(self.affine_ras)

    @property
    def corners_ras(self) -> Points:
        """(8, 3) RAS mm of the outer corners of the corner voxels."""
        low, high = np.full(3, -0.5), np.asarray(self.shape) - 0.5
        bits = np.array([[(n >> b) & 1 for b in range(3)] for n in range(8)], dtype=bool)
        return apply(self.affine_ras, np.where(bits, high, low))

    @property
    def centre_ras(self) -> Points:
        """(3,) RAS mm of the middle of the grid."""
        return apply(self.affine_ras, (np.asarray(self.shape) - 1) / 2)

    def points_ras(self) -> Points:
        """(*shape, 3) RAS mm of every voxel centre."""
        indices = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), axis=-1)
        return apply(self.affine_ras, indices)


def main_axes(affine: npt.ArrayLike) -> tuple[int, int, int]:
    """For each voxel axis, the patient axis (0 = R-L, 1 = A-P, 2 = I-S) that it runs along most.

    Each patient axis is given once, the clearest first, so oblique volumes are unambiguous.
    """
    cosines = np.abs(np.asarray(affine, dtype=np.float64)[:3, :3] / spacing_mm(affine))
    axes = [0, 0, 0]
    for _ in range(3):
        world, voxel = np.unravel_index(np.argmax(cosines), (3, 3))
        axes[int(voxel)] = int(world)
        cosines[world, :] = cosines[:, voxel] = -1
    return axes[0], axes[1], axes[2]


def plane(affine: npt.ArrayLike) -> Plane:
    """The plane in which the slices (i, j) of a volume lie, the nearest of the three."""
    names: dict[int, Plane] = {0: "sagittal", 1: "coronal", 2: "axial"}
    return names[main_axes(affine)[2]]


def axial_grid(volume: Grid, size: int = 256, box_ras: Points | None = None) -> Grid:
    """The fused grid: ``size`` x ``size`` square pixels in axial slices over ``volume``.

    Columns (i) run from the patient's right to left, rows (j) from anterior to posterior, slices
    (k) from inferior to superior. An axial acquisition keeps its own tilt; another plane is
    reformatted to the patient's axes. The slice spacing is the volume's own along its
    inferior-superior axis for an axial acquisition, its finest spacing otherwise.

    Args:
        volume: the reference's grid.
        size: rows and columns.
        box_ras: (n, 3) RAS mm points to frame in the plane (a head's bounding box), instead of
            the whole field of view of ``volume``. Slices always cover the volume.

    Returns:
        The grid; its pixels are square and its in-plane extent covers the frame.
    """
    axes = np.eye(3)
    own = volume.affine_ras[:3, :3] / np.asarray(volume.spacing_mm)
    along = main_axes(volume.affine_ras)
    if along[2] == 2:
        for voxel, world in enumerate(along):
            axes[:, world] = own[:, voxel] * np.sign(own[world, voxel])
    columns, rows, normal = -axes[:, 0], -axes[:, 1], axes[:, 2]
    step = volume.spacing_mm[2] if along[2] == 2 else min(volume.spacing_mm)
    frame = np.stack([columns, rows, normal], axis=1)  # patient direction of i, j, k

    corners = volume.corners_ras @ np.linalg.inv(frame).T
    framed = corners if box_ras is None else np.asarray(box_ras) @ np.linalg.inv(frame).T
    low, high = framed.min(axis=0), framed.max(axis=0)
    pixel = float((high - low)[:2].max() / size)
    slices = max(1, math.ceil(float(np.ptp(corners[:, 2])) / step - 1e-3))
    first = np.empty(3)
    first[:2] = (low + high)[:2] / 2 - pixel * (size - 1) / 2
    first[2] = (corners[:, 2].min() + corners[:, 2].max()) / 2 - step * (slices - 1) / 2

    affine = np.eye(4)
    affine[:3, :3] = frame * [pixel, pixel, step]
    affine[:3, 3] = frame @ first
    return Grid((size, size, slices), affine)
