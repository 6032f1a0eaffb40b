"""A rigid transform in words and pictures: before and after, degrees and mm."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mmif.geometry import Grid, Matrix, apply, rotation_deg, world_ras_lps
from mmif.report.pictures import Cut, Floats, PlaneName, cut_plane

if TYPE_CHECKING:
    from mmif.result import Coverage, UnitVolume


@dataclass(frozen=True)
class Motion:
    """A rigid transform as a reader thinks of it.

    Attributes:
        turn_deg: the angle of the whole rotation.
        nod_deg, tilt_deg, turn_left_deg: about the patient's R-L, A-P and I-S axis (the order of
            turning is x, y, z; right-handed in RAS).
        shift_mm: how far the middle of the fused grid moves, along R-L, A-P and I-S (RAS).
        distance_mm: the length of that.
    """

    turn_deg: float
    nod_deg: float
    tilt_deg: float
    turn_left_deg: float
    shift_mm: tuple[float, float, float]
    distance_mm: float


def motion(fixed_to_moving_lps: npt.ArrayLike, grid: Grid) -> Motion:
    """What ``fixed_to_moving_lps`` does to a head in ``grid``."""
    ras = world_ras_lps(fixed_to_moving_lps)
    x, y, z = Rotation.from_matrix(ras[:3, :3]).as_euler("xyz", degrees=True)
    shift = apply(ras, grid.centre_ras) - grid.centre_ras
    return Motion(
        rotation_deg(ras),
        float(x),
        float(y),
        float(z),
        (float(shift[0]), float(shift[1]), float(shift[2])),
        float(np.linalg.norm(shift)),
    )


def before_voxels(fixed_to_moving_lps: npt.ArrayLike, grid: Grid) -> Matrix:
    """4x4 from a voxel of ``grid`` to the voxel of the registered volume that lay there before.

    The registered volume at x shows the moving one at T x. So the moving volume where its own
    headers put it, at x, is the registered one at T^-1 x.
    """
    back = np.linalg.inv(world_ras_lps(fixed_to_moving_lps))
    return np.asarray(np.linalg.inv(grid.affine_ras) @ back @ grid.affine_ras)


def plane_before(
    volume: "Floats | Coverage | UnitVolume", to_voxels: Matrix, plane: PlaneName, at: Cut
) -> Floats:
    """One plane of ``volume`` (1, X, Y, Z) as it lay before registration; 0 outside."""
    indices = [np.arange(n) for n in volume.shape[1:]]
    indices[_normal(plane)] = np.array([_index(plane, at)])
    points = np.stack(np.meshgrid(*indices, indexing="ij"), axis=-1).astype(np.float64)
    voxels = apply(to_voxels, points)
    # the box around what is asked for: a coverage is made where it is looked at
    low = np.clip(np.floor(voxels.min(axis=(0, 1, 2))), 0, np.array(volume.shape[1:]) - 1)
    high = np.clip(np.ceil(voxels.max(axis=(0, 1, 2))), low, None) + 1
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    sampled = ndimage.map_coordinates(
        np.asarray(volume[0, i, j, k]),
        np.moveaxis(voxels - low, -1, 0),
        order=1,
        mode="constant",
    )
    return np.asarray(cut_plane(sampled, plane, _within_plane(plane, at)), dtype=np.float32)


def plane_part(plane: PlaneName, at: Cut) -> tuple[tuple[slice, slice, slice], Cut]:
    """The voxels of one plane, one thick, and ``at`` among them."""
    part = [slice(None)] * 3
    part[_normal(plane)] = slice(_index(plane, at), _index(plane, at) + 1)
    return (part[0], part[1], part[2]), _within_plane(plane, at)


def _normal(plane: PlaneName) -> int:
    """The voxel axis across ``plane``."""
    return {"sagittal": 0, "coronal": 1, "axial": 2}[plane]


def _index(plane: PlaneName, at: Cut) -> int:
    return (at.i, at.j, at.k)[_normal(plane)]


def _within_plane(plane: PlaneName, at: Cut) -> Cut:
    """``at`` in a volume of one plane's thickness."""
    index = [at.i, at.j, at.k]
    index[_normal(plane)] = 0
    return Cut(*index)
