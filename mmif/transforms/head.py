"""Where the head is in a volume of any modality: a threshold, a mask, a box."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.errors import GeometryError
from mmif.geometry import Points, apply, spacing_mm
from mmif.registration.prepare import LIMB_SHARE, bridge_lost_slices

Mask = npt.NDArray[np.bool_]

CT_AIR_HU = -400.0
"""Between air and skin in HU; a volume that goes below -500 is taken for CT."""

BODY_SHARE = 0.15
"""The body begins at this share of the way from the air's level to the tissue's."""

NOISE_SPREADS = 3.0
"""Noise reaches this many interquartile ranges above its median (Rayleigh: 99.9 % is at 2.8)."""

COARSE_MM = 2.5
"""Finer voxels than this are skipped over while the mask is sought."""

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
    # all of them as they lie in memory; of more some, by `flat`, where `ravel` would copy across it
    step = every.size // 1_000_000
    sample = every.flat[::step] if step > 1 else every.ravel(order="K")
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


@dataclass(frozen=True, eq=False)
class Outline:
    """Where the patient is in a volume.

    Attributes:
        head: (1, X, Y, Z) bool, the largest part of the body.
        limbs: (1, X, Y, Z) bool, what of the patient is not connected with it: arms, legs.
    """

    head: MetaTensor
    limbs: MetaTensor


def head_mask(volume: MetaTensor) -> MetaTensor:
    """(1, X, Y, Z) bool: the head in ``volume`` (C, X, Y, Z), filled, without holder or noise.

    The largest connected part above `body_threshold`, with sinuses and a dark skull filled; slices
    without signal between others are bridged. Empty if nothing stands out.
    """
    parts = _body_parts(volume)
    return parts.mask(parts.order[:1])


def outline(volume: MetaTensor) -> Outline:
    """The `head_mask` of ``volume`` (C, X, Y, Z), and its limbs; a head has none.

    Limbs are parts of at least `LIMB_SHARE` of the largest.
    """
    parts = _body_parts(volume)
    first, others = parts.order[:1], parts.order[1:]
    large = others[parts.sizes[others] >= max(1, LIMB_SHARE * parts.sizes[first].sum())]
    return Outline(parts.mask(first), parts.mask(large))


@dataclass(frozen=True, eq=False)
class _Parts:
    """The connected parts of a body, cut from each other and from a holder.

    Attributes:
        filled: (X, Y, Z), the body before it was cut, in steps of ``strides`` voxels.
        labels: (X, Y, Z), the part that a voxel belongs to, 0 for none.
        sizes: voxels by label; none of label 0.
        cut: voxels along each axis that the cut took away.
        strides: voxels of ``volume`` to one of these, along each axis.
        volume: what it was made of.
    """

    filled: Mask
    labels: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    cut: list[int]
    strides: tuple[int, ...]
    volume: MetaTensor

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """The labels of all parts, the largest first."""
        order = np.argsort(-self.sizes, kind="stable")
        return np.asarray(order[self.sizes[order] > 0])

    def mask(self, labels: npt.NDArray[np.int64]) -> MetaTensor:
        """(1, X, Y, Z) bool on the grid of the volume: the parts ``labels`` at their full size."""
        table = np.zeros(len(self.sizes), dtype=bool)
        table[labels] = True
        chosen = np.empty(self.labels.shape, dtype=bool)
        for line, part in zip(chosen, self.labels, strict=True):  # indices of all take 8 bytes each
            line[:] = table[part]
        grown = sitk.GetArrayFromImage(sitk.BinaryDilate(_itk_mask(chosen), self.cut[::-1]))
        mask = np.logical_and(grown, self.filled)
        for axis, stride in enumerate(self.strides):
            mask = np.repeat(mask, stride, axis=axis) if stride > 1 else mask
        mask = mask[tuple(slice(n) for n in self.volume.shape[1:])]
        voxels = torch.from_numpy(np.ascontiguousarray(mask))[None]
        return MetaTensor(voxels, affine=self.volume.affine)


def _body_parts(volume: MetaTensor) -> _Parts:
    """The parts of the body in ``volume`` (C, X, Y, Z), in voxels of about `COARSE_MM`."""
    values = volume[0].detach().cpu().numpy()
    spacing = spacing_mm(np.asarray(volume.affine))
    x, y, z = strides = tuple(max(1, int(COARSE_MM / step)) for step in spacing)
    steps = np.multiply(spacing, strides)
    close, cut = ([round(width / 2 / step) for step in steps] for width in (GAP_MM, LINK_MM))
    coarse = bridge_lost_slices(values[::x, ::y, ::z] > body_threshold(values))
    closed = sitk.BinaryMorphologicalClosing(_itk_mask(coarse), close[::-1])
    filled = _fill(sitk.GetArrayFromImage(closed).astype(bool))
    core = sitk.BinaryErode(_itk_mask(filled), cut[::-1], boundaryToForeground=True)
    labels, count = ndimage.label(sitk.GetArrayViewFromImage(core))
    sizes = np.zeros(count + 1, dtype=np.int64)
    for part in labels:
        sizes += np.bincount(part.ravel(), minlength=count + 1)
    sizes[0] = 0
    return _Parts(filled, labels, sizes, cut, strides, volume)


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


def _itk_mask(mask: Mask) -> sitk.Image:
    """``mask`` as an ITK image without a place, whose axes come in numpy's order, last first."""
    return sitk.GetImageFromArray(mask.view(np.uint8))


def _fill(mask: Mask) -> Mask:
    """``mask`` with the holes of its slices filled, along each of the three axes in turn."""
    for axis in range(3):
        filled = np.empty_like(mask)
        planes = zip(np.moveaxis(filled, axis, 0), np.moveaxis(mask, axis, 0), strict=True)
        for whole, plane in planes:
            whole[:] = _fill_plane(plane)
        mask = filled
    return mask


def _fill_plane(plane: Mask) -> Mask:
    """``plane`` with its holes filled: in half of the time of `ndimage.binary_fill_holes`."""
    background, count = ndimage.label(~plane)
    outside = np.zeros(count + 1, dtype=bool)
    for side in (background[0], background[-1], background[:, 0], background[:, -1]):
        outside[side] = True
    outside[0] = False
    return np.asarray(~outside[background])
