"""What of a body a volume shows: whether it is a head, and what of it lies inside of the skull.

Without a common frame of reference the search is made for heads: its starts, its radius for turns
and the limits of its verdict are a head's. So it is asked first whether both volumes are heads.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from mmif.geometry import spacing_mm
from mmif.registration.prepare import (
    BODY_MM,
    BRAIN_GREYS_HU,
    FINE_LEVEL,
    Kind,
    Mask,
    Prepared,
    average_blocks,
    fill_slices,
)

UPPER_MM = 150.0
"""Below the vertex, so far down there is head; then may come neck and shoulders."""

SECTION_CM2 = (50.0, 450.0)
"""Median area of a head's axial sections in its upper part: 231 to 293 in eight adults' heads, up
to 420 where the field of view is filled; a newborn's are about 60, and adults' chests and bellies
have 450 and more."""

FILLED = 0.99
"""Of all voxels: a CT that is body throughout shows no air, and is not in HU. RIRE's and the
sample's are body to 0.25 and 0.37, two without air to 1.00 (`benchmarks/constants.py heads`)."""

SKULL_HU = 250.0
"""Above brain and fresh blood (below 100) and most contrast agent, below bone that is not thin.
From 125 to 500 RIRE's skull closes around 100 to 48 mm, four times `LEAST_SKULL_MM` and more,
the sample's around 126 to 130 mm (`benchmarks/constants.py heads`)."""

SUTURE_MM = 4.0
"""Sutures, foramina and thin bone leave gaps of up to twice this in the skull."""

CAVITY_CM2 = 30.0
"""A slice whose largest cavity is smaller shows sinuses, eyes or the vertex, and no brain."""

LEAST_SKULL_MM = 12.0
"""So much of the head with a closed skull says that it is one; a slab of a CT shows more."""


def why_no_head(volume: Prepared) -> str:
    """Why ``volume`` is taken for no head, in words; "" for one that looks like a head.

    A CT is asked for a skull, unless all of it is body: then it has no air, and is not in HU. An
    MR, SPECT or PET can only be asked for its size: a thigh of an MR is as thick as a head.
    """
    area = section_cm2(volume)
    low, high = SECTION_CM2
    if not low <= area <= high:
        return f"its sections have {area:.0f} cm2, a head's {low:.0f} to {high:.0f}"
    if volume.kind is Kind.CT and volume.body.mean() < FILLED:
        cavity = skull_cavity(volume)
        height_mm = cavity.any(axis=(0, 1)).sum() * _steps(volume, FINE_LEVEL)[2]
        if height_mm < LEAST_SKULL_MM:
            return f"a skull closes around {height_mm:.0f} mm, expected {LEAST_SKULL_MM:g} or more"
    return ""


def section_cm2(volume: Prepared) -> float:
    """The median area of the body's axial sections in its upper `UPPER_MM`, in cm2."""
    to_mm = np.linalg.inv(volume.levels[1].to_voxel)
    heights = volume.body_points[:, 2]
    heights = heights[heights > heights.max() - UPPER_MM]
    step_mm = max(spacing_mm(to_mm))
    counts = np.bincount(np.floor((heights - heights.min()) / step_mm).astype(int))
    voxel_mm3 = abs(np.linalg.det(to_mm[:3, :3]))
    return float(np.median(counts[counts > 0]) * voxel_mm3 / step_mm / 100)


def skull_cavity(ct: Prepared) -> Mask:
    """(X, Y, Z) what the skull closes around, slice by slice, on the 2 mm level."""
    greys = ct.levels[FINE_LEVEL].values[0, 0].numpy()
    steps = _steps(ct, FINE_LEVEL)
    bone = greys > np.interp(SKULL_HU, *ct.hu_greys)
    reach = max(1, round(SUTURE_MM / min(steps[:2])))
    inside = np.zeros(bone.shape, dtype=bool)
    for k in np.flatnonzero(bone.any(axis=(0, 1))):
        shell = ndimage.binary_closing(np.pad(bone[..., k], reach), iterations=reach)
        shell = shell[reach:-reach, reach:-reach]
        cavities, count = ndimage.label(ndimage.binary_fill_holes(shell) & ~shell)
        sizes = np.bincount(cavities.ravel(), minlength=count + 1)[1:]
        if count and sizes.max() * steps[0] * steps[1] / 100 > CAVITY_CM2:
            inside[..., k] = cavities == 1 + int(np.argmax(sizes))
    return inside


def inside_skull(ct: Prepared) -> Prepared:
    """``ct`` with what lies inside of its skull as its body; as it is where no skull closes.

    The levels keep skull and scalp: where a stripped MR shows nothing, they are what it lacks. Most
    of their greys become the brain's.
    """
    cavity = np.asarray(skull_cavity(ct), dtype=np.float32)
    to_mm = np.asarray(np.linalg.inv(ct.levels[FINE_LEVEL].to_voxel), dtype=np.float64)
    body = average_blocks(cavity, to_mm, BODY_MM)[0] >= 0.5  # the voxels of `prepare`'s body
    if not body.any():
        return ct
    levels = tuple(replace(level, values=brain_greys(level.values, ct)) for level in ct.levels)
    inside = replace(ct, levels=levels, body=fill_slices(body), hu_greys=BRAIN_GREYS_HU)
    return recentre(inside)


def brain_greys(values: torch.Tensor, ct: Prepared) -> torch.Tensor:
    """The grey levels of ``ct`` as those of `BRAIN_GREYS_HU`."""
    units, levels = ct.hu_greys
    hu = np.interp(values.numpy(), levels, units)
    return torch.from_numpy(np.interp(hu, *BRAIN_GREYS_HU).astype(np.float32))


def recentre(volume: Prepared) -> Prepared:
    """``volume`` with the middle of its body as the origin of its millimetres."""
    middle = volume.body_points.mean(axis=0)
    shift = np.eye(4)
    shift[:3, 3] = middle
    levels = tuple(replace(level, to_voxel=level.to_voxel @ shift) for level in volume.levels)
    return replace(volume, levels=levels, centre_ras=volume.centre_ras + middle)


def _steps(volume: Prepared, level: int) -> npt.NDArray[np.float64]:
    """The voxel spacing of one level in mm."""
    return np.array(spacing_mm(np.linalg.inv(volume.levels[level].to_voxel)))
