"""Where the head is in a volume of any modality: a threshold, a mask, a box."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.errors import GeometryError
from mmif.geometry import Points, apply, spacing_mm
from mmif.registration.prepare import bridge_lost_slices

CT_AIR_HU = -400.0
"""Between air and skin in HU; a volume that goes below -500 is taken for CT."""

BODY_SHARE = 0.15
"""The body begins at this share of the way from the air's level to the tissue's."""

NOISE_SPREADS = 3.0
"""Noise reaches this many interquartile ranges above its median (Rayleigh: 99.9 % is at 2.8)."""

COARSE_MM = 2.5
"""Finer voxels than this are skipped over while the mask is sought."""

LIMB_SHARE = 0.01
"""A part of the body has at least this share of the largest: an arm has 3 to 5 % of a trunk."""

GAP_MM, LINK_MM = 6.0, 4.0
"""Gaps in the scalp up to this wide are closed; links to a holder up to this wide are cut."""


def body_threshold(values: npt.ArrayLike) -> float:
    """The value above which a voxel belongs to the body.

    CT: -400 HU. Otherwise 15 % of the way from the median of the air to that of the tissue, as
    Otsu's threshold parts them, or further, up to 30 %, where the noise of the air reaches there.

    Args:
        values: the voxels of one volume, physical values.
    """
    every = np.asarray(values, dtype=np.float32)
    # `flat`, where `ravel` would copy: volumes lie in memory slice after slice, not as their axes
    sample = every.flat[:: max(1, every.size // 1_000_000)]
    low, high = np.percentile(sample, [0, 99.5])
    if low < -500:  # no other modality has values that low
        return CT_AIR_HU
    if low == high:
        return float(high)
    part = otsu(sample.clip(low, high))
    quarter, air, most = np.percentile(sample[sample <= part], [25, 50, 75])
    reach = np.median(sample[sample > part]) - air
    noise = NOISE_SPREADS * (most - quarter)
    return float(air + np.clip(noise, BODY_SHARE * reach, 2 * BODY_SHARE * reach))


def otsu(values: npt.NDArray[np.float32]) -> float:
    """The threshold that parts ``values`` into the two most different classes (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * centres)
    difference = sums[:-1] / below.clip(1) - (sums[-1] - sums[:-1]) / above.clip(1)
    return float(edges[1 + np.argmax(below * above * difference**2)])


def head_mask(volume: MetaTensor) -> MetaTensor:
    """(1, X, Y, Z) bool: the head in ``volume`` (C, X, Y, Z), filled, without holder or noise.

    The largest connected part above `body_threshold`, with sinuses and a dark skull filled; slices
    without signal between others are bridged. Empty if nothing stands out.
    """
    return _mask_of(volume, lambda labels: labels == 1)


def limbs_mask(volume: MetaTensor) -> MetaTensor:
    """(1, X, Y, Z) bool: what of the patient is not connected with the largest part: arms, legs.

    Parts of at least `LIMB_SHARE` of the largest. Empty for a head.
    """
    return _mask_of(volume, _limbs)


def _limbs(labels: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """The parts of ``labels`` (1 the largest) that are large, but not the largest."""
    sizes = np.bincount(labels.ravel(), minlength=2)
    large = sizes >= max(1, LIMB_SHARE * sizes[1])
    large[:2] = False
    return np.asarray(large[labels])


def _mask_of(
    volume: MetaTensor, choose: Callable[[npt.NDArray[np.uint32]], npt.NDArray[np.bool_]]
) -> MetaTensor:
    """(1, X, Y, Z) bool: what ``choose`` takes of the labelled parts of the body, filled."""
    values = volume[0].detach().cpu().numpy()
    spacing = spacing_mm(np.asarray(volume.affine))
    x, y, z = strides = tuple(max(1, int(COARSE_MM / step)) for step in spacing)
    coarse = bridge_lost_slices(values[::x, ::y, ::z] > body_threshold(values))
    mask = _fill_parts(coarse, np.multiply(spacing, strides), choose)
    for axis, stride in enumerate(strides):
        mask = np.repeat(mask, stride, axis=axis)
    mask = mask[tuple(slice(n) for n in values.shape)]
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(mask))[None], affine=volume.affine)


def head_box_ras(volume: MetaTensor, margin_mm: float = 5.0) -> Points:
    """(8, 3) RAS mm: the corners of the box around the head, along the axes of ``volume``.

    Args:
        volume: (C, X, Y, Z), physical values.
        margin_mm: how much further out than the head the box reaches, inside the volume.

    Raises:
        GeometryError: no head stands out from the air.
    """
    mask = head_mask(volume)[0].numpy()
    if not mask.any():
        raise GeometryError("no head stands out from the air; expected one to frame (fov: head)")
    affine = np.asarray(volume.affine, dtype=np.float64)
    edges = []
    for axis, step in enumerate(spacing_mm(affine)):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        margin = margin_mm / step + 0.5
        first = max(filled[0] - margin, -0.5)
        edges.append((first, min(filled[-1] + margin, mask.shape[axis] - 0.5)))
    return apply(affine, np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(8, 3))


def _fill_parts(
    body: npt.NDArray[np.bool_],
    spacing: npt.NDArray[np.float64],
    choose: Callable[[npt.NDArray[np.uint32]], npt.NDArray[np.bool_]],
) -> npt.NDArray[np.bool_]:
    """Parts of ``body`` (X, Y, Z), closed, filled slice by slice, cut from a holder."""
    close, cut = ([round(width / 2 / step) for step in spacing] for width in (GAP_MM, LINK_MM))
    closed = sitk.BinaryMorphologicalClosing(_itk_mask(body), close[::-1])
    filled = _itk_mask(_fill(sitk.GetArrayFromImage(closed).astype(bool)))
    core = sitk.BinaryErode(filled, cut[::-1], boundaryToForeground=True)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(core), sortByObjectSize=True)
    chosen = choose(sitk.GetArrayFromImage(parts))
    grown = sitk.BinaryDilate(_itk_mask(chosen), cut[::-1])
    return np.asarray(sitk.GetArrayFromImage(grown & filled), dtype=bool)


def _itk_mask(mask: npt.NDArray[np.bool_]) -> sitk.Image:
    """``mask`` as an ITK image without a place, whose axes come in numpy's order, last first."""
    return sitk.GetImageFromArray(mask.astype(np.uint8))


def _fill(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``mask`` with the holes of its slices filled, along each of the three axes in turn."""
    for axis in range(3):
        planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)]
        mask = np.stack(planes, axis=axis)
    return mask
