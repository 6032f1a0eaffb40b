"""A volume made ready to be registered: its body, its grey levels in 0..1, a pyramid in mm.

The cost of the search hardly grows with the size of the scan: a volume is averaged down to about
1.2 mm once, and everything else works on that, on coarser levels of it, and on samples.
"""

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.errors import RegistrationError
from mmif.geometry import Matrix, Points, apply, spacing_mm
from mmif.io.source import modality_of

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Twice as coarse moves RIRE's pose by 0.34 mm (docs/registration.md, "Constants")
FINEST_MM = 1.2
# Outlines differ by 1 mm and more (`outline_mm`); distances in a mask of 2 mm take 8 times as long
BODY_MM = 4.0
# Each half of the one before: the search is made on the first two, checks on the last
LEVELS_MM = (8.0, BODY_MM, 2.0)
FINE_LEVEL = 2  # of the levels: that of about 2 mm
# Below fat (about -100 HU), well above air (-1000); at the skin voxels hold both. -125 and -500
# move RIRE's pose by 0.22 mm
TISSUE_HU = -250.0
# Finer from -150 to 300 HU: simulated CT-T1 went from 0.33 to 0.20 mm (docs/registration.md)
CT_HU = (-1000.0, -150.0, 0.0, 100.0, 300.0, 1500.0)
CT_GREYS = (0.0, 0.30, 0.38, 0.50, 0.60, 1.0)  # the skull's edge is kept, the brain seen finer
# Beside a stripped brain most greys are the brain's: simulated T1 and T2 with CT went from 0.57 to
# 0.27 mm, and RIRE, stripped 2 mm tighter than its skull, from lost to 0.54 mm; which side is which
# shows in the brain as well (`registration.py stripped`)
BRAIN_GREYS_HU = ((-1000.0, -50.0, 0.0, 80.0, 150.0, 1500.0), (0.0, 0.1, 0.2, 0.8, 0.9, 1.0))
# Kept about the body: two of its voxels, so that no skin is lost; 4 and 16 mm move it by 0.14 mm
MARGIN_MM = 8.0
# More of a patient is no head: one with its neck has some 5 litres; chosen. The check of one frame
# and the windows (`mmif.transforms.intensity`) go by it as well
TRUNK_ML = 8000.0
# A part of the body has at least this share of the largest: an arm has 3 to 5 % of a trunk
LIMB_SHARE = 0.01
TALLEST_MM, HEAD_MM = 330.0, 250.0  # a body taller than the first is cut to the second


# Slices in a row, of some 2 to 6 mm: more than two that are missing are two scans; chosen
MOST_LOST = 2

# What cross-sections on both sides of lost slices share of the larger: RIRE's brain without its
# skull and what is left of its neck at most 0.36, a head's neighbours nearly all; chosen between
ALIKE = 0.6

# A stripped RIRE has 0.88 to 0.90 of its voxels at one value and is 0.91 to 0.94 as bright 8
# to 16 mm deep as further in; whole heads have at most 0.42, and 0.3 to 0.73 (six, T1, T2 and PD)
EMPTIED, BRIGHT_RIND, RIND_MM = 0.6, 0.8, (8.0, 16.0, 20.0)
# Of the range of what was kept, so that dark CSF stays apart from it: 0.25 loses some of RIRE's rim
# (Dice 0.86 with the cavity, 0.87 with 1 and 4), 4 leaves the brain a fifth of the greys
BELOW = 1.0


class Kind(Enum):
    """What the values of a volume are, as far as registration cares."""

    CT = "CT"
    MR = "MR"
    EMISSION = "emission"  # SPECT and PET: smooth, the scalp is faint


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a volume.

    Attributes:
        values: (1, 1, X, Y, Z) float32, 0..1 over the range of grey levels that counts.
        to_voxel: 4x4, from RAS mm about the body's centre to voxel indices.
    """

    values: torch.Tensor
    to_voxel: Matrix


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume ready to be registered. Points are RAS mm about ``centre_ras``.

    Attributes:
        kind: CT, MR or emission.
        levels: coarse to fine: about 8, 4 and 2 mm, and the scan's own (at least 1.2 mm).
        body: (X, Y, Z) what belongs to the patient, on the voxels of ``levels[1]``.
        centre_ras: (3,) RAS mm, the middle of the body.
        stripped: whether it is an MR of which only the brain was kept.
        hu_greys: of a CT, HU and the grey levels that they have.
    """

    kind: Kind
    levels: tuple[Level, ...]
    body: Mask
    centre_ras: Points
    stripped: bool = False
    hu_greys: tuple[tuple[float, ...], tuple[float, ...]] = (CT_HU, CT_GREYS)

    @property
    def body_ml(self) -> float:
        """The volume of the body in millilitres."""
        voxel_mm3 = abs(np.linalg.det(np.linalg.inv(self.levels[1].to_voxel[:3, :3])))
        return float(self.body.sum() * voxel_mm3 / 1000)

    @property
    def body_size_mm(self) -> Points:
        """(3,) how far the body reaches along the scan's own axes."""
        steps = np.array(spacing_mm(np.linalg.inv(self.levels[1].to_voxel)))
        return np.asarray((np.ptp(np.argwhere(self.body), axis=0) + 1) * steps)

    @property
    def body_points(self) -> Points:
        """(n, 3) the body's voxel centres."""
        return apply(np.linalg.inv(self.levels[1].to_voxel), np.argwhere(self.body))


def prepare(
    volume: MetaTensor,
    name: str,
    finest_mm: float = FINEST_MM,
    whole: bool = False,
    cleared: bool = True,
) -> Prepared:
    """``volume`` (1, X, Y, Z) ready to be registered; ``name`` stands in errors.

    Args:
        volume: physical values.
        name: as errors call it.
        finest_mm: the spacing that the finest level comes near.
        whole: keep all of a body that is taller than a head and neck, not only its upper end.
        cleared: take away what lies outside of the body.

    Raises:
        RegistrationError: not one 3-D volume of at least 3 slices, not finite, constant or empty.
    """
    array, affine = check_volume(volume, name)
    kind = scan_kind(volume, array)
    if kind is Kind.CT and array.min() >= 0:
        array = array + np.float32(CT_HU[0])  # stored without its intercept, or in Cormack units
    emptied = kind is Kind.MR and is_emptied(array)
    if emptied:
        array = darken_background(array)
    array, affine = average_blocks(array, affine, finest_mm)
    array = greys(array, kind, name)
    stack = [(array, affine)]
    for level_mm in reversed(LEVELS_MM):
        stack.insert(0, average_blocks(*stack[0], level_mm))
    coarse = stack[1][0], spacing_mm(stack[1][1]), kind
    body = whole_body(*coarse) if whole else upper_part(body_mask(*coarse), stack[1][1])
    if not body.any():
        raise RegistrationError(f"the {name} volume shows no body; expected a head")
    centre = apply(stack[1][1], np.argwhere(body)).mean(axis=0)
    depth = ndimage.distance_transform_edt(~body, sampling=spacing_mm(stack[1][1]))
    near = (depth <= MARGIN_MM) | (not cleared)
    levels = tuple(clear_surroundings(a, m, near, stack[1][1], centre) for a, m in stack)
    stripped = emptied and not has_rind(*stack[1], body)
    return Prepared(kind, levels, body, centre, stripped)


def check_volume(volume: MetaTensor, name: str) -> tuple[Array, Matrix]:
    """The voxels (X, Y, Z) and the affine of a volume that can be registered, or an error."""
    shape = tuple(volume.shape)
    if len(shape) != 4 or shape[0] != 1:
        raise RegistrationError(f"the {name} volume has shape {shape}; expected (1, X, Y, Z)")
    if min(shape[1:]) < 3:
        raise RegistrationError(
            f"the {name} volume has {min(shape[1:])} slices; registration needs at least 3"
        )
    array = volume.as_tensor()[0].cpu().numpy().astype(np.float32, copy=False)
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise RegistrationError(f"the {name} volume holds NaN or Inf; expected finite values")
    if low == high:
        raise RegistrationError(f"the {name} volume is constant ({low:g}); nothing to register")
    return array, np.asarray(volume.affine, dtype=np.float64)


def scan_kind(volume: MetaTensor, array: Array) -> Kind:
    """CT, MR or emission: by the DICOM modality where it is known, else by the values."""
    modality = modality_of(volume)
    known = {"CT": Kind.CT, "MR": Kind.MR, "NM": Kind.EMISSION, "PT": Kind.EMISSION}
    if modality in known:
        return known[modality]
    thin = array[::2, ::2, ::2]
    # air about a head fills half of a CT's field of view, a tenth where it is cut close
    return Kind.CT if (thin < -500).mean() > 0.05 else Kind.MR


def average_blocks(array: Array, affine: Matrix, target_mm: float) -> tuple[Array, Matrix]:
    """Blocks of voxels averaged, so that a finer spacing comes near ``target_mm``."""
    factors = [max(1, round(target_mm / s)) for s in spacing_mm(affine)]
    factors = [min(f, n // 2) if n > 3 else 1 for f, n in zip(factors, array.shape, strict=True)]
    if factors == [1, 1, 1]:
        return array, affine
    for axis, factor in enumerate(factors):
        if factor > 1:
            n = array.shape[axis] // factor
            whole = array[(slice(None),) * axis + (slice(n * factor),)]  # a view, not a copy
            blocks = whole.reshape(*array.shape[:axis], n, factor, *array.shape[axis + 1 :])
            array = blocks.mean(axis=axis + 1, dtype=np.float32)
    step = np.eye(4)
    step[:3, :3] = np.diag(factors)
    step[:3, 3] = [(f - 1) / 2 for f in factors]
    return array, affine @ step


def greys(array: Array, kind: Kind, name: str) -> Array:
    """``array`` as grey levels in 0..1: those of HU for CT, a range of percentiles otherwise."""
    if kind is Kind.CT:
        return np.interp(array, CT_HU, CT_GREYS).astype(np.float32)
    step = max(1, round((array.size / 500_000) ** (1 / 3)))
    thin = array[::step, ::step, ::step]
    # 0.2 % are vessels and fat by the coil, or a tracer's hottest voxels: they would take the range
    low, high = (float(v) for v in np.percentile(thin, [1, 99.8]))
    if not high > low:
        low, high = float(array.min()), float(array.max())
    if not high > low:
        raise RegistrationError(f"the {name} volume is constant ({low:g}); nothing to register")
    return np.asarray(np.clip((array - low) / (high - low), 0, 1, dtype=np.float32))


def body_mask(array: Array, spacing: tuple[float, float, float], kind: Kind) -> Mask:
    """The patient without table, holder and noise: the largest part that is thick everywhere."""
    parts, sizes = body_parts(array, spacing, kind)
    return fill_slices((parts == np.argmax(sizes)) & (parts > 0))


def whole_body(array: Array, spacing: tuple[float, float, float], kind: Kind) -> Mask:
    """`body_mask` with arms and legs beside the largest part, where all are more than a head."""
    parts, sizes = body_parts(array, spacing, kind)
    limbs = sizes >= max(1, LIMB_SHARE * sizes.max())
    if sizes[limbs].sum() * np.prod(spacing) / 1000 > TRUNK_ML:
        return fill_slices(limbs[parts])
    return body_mask(array, spacing, kind)


def body_parts(
    array: Array, spacing: tuple[float, float, float], kind: Kind
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """What is thick everywhere, as labels (X, Y, Z) of its parts, and voxels by label; none of 0.

    A table or holder is a thin shell; an opening by 10 mm takes it off before the parts are told
    apart.
    """
    ct = kind is Kind.CT
    solid = array > (np.interp(TISSUE_HU, CT_HU, CT_GREYS) if ct else foreground_level(array))
    # an MR shows no table, only coils and noise, and a small SPECT must not be opened away
    opened = opening(fill_slices(bridge_lost_slices(solid)), 10.0 if ct else 6.0, spacing)
    kept = opened if ct or opened.any() else solid
    parts, count = ndimage.label(kept)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return parts, sizes


def bridge_lost_slices(solid: Mask) -> Mask:
    """``solid`` (X, Y, Z) with what its neighbours share in slices without anything between them.

    A scan that lost a slice or two in its middle is still one body; a neck that ends below an empty
    slice and a brain that begins above it are two things.
    """
    filled = np.flatnonzero(solid.any(axis=(0, 1)))
    bridged = solid
    for low, high in pairwise(filled):
        between = solid[..., low] & solid[..., high]
        alike = between.sum() >= ALIKE * max(solid[..., low].sum(), solid[..., high].sum())
        if 1 < high - low <= MOST_LOST + 1 and alike:
            bridged = bridged.copy() if bridged is solid else bridged
            bridged[..., low + 1 : high] = between[..., None]
    return bridged


def is_emptied(array: Array) -> bool:
    """Whether most voxels have one and the same value: the surroundings were taken away."""
    thin = array[::2, ::2, ::2]
    return bool((thin == np.median(thin)).mean() > EMPTIED)


def darken_background(array: Array) -> Array:
    """``array`` with what was taken away darker than the darkest of what was kept.

    It may be far below it (-1000), or in its midst: 0 in a brain of mean 0 and deviation 1.
    """
    taken = array == np.median(array[::2, ::2, ::2])
    low, high = np.percentile(array[~taken], [1, 99.8])
    return np.where(taken, low - BELOW * (high - low), array).astype(np.float32)


def has_rind(array: Array, affine: Matrix, body: Mask) -> bool:
    """Whether an MR's ``body`` is darker under its surface, where the skull is, than further in."""
    spacing = spacing_mm(affine)
    depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    skull, brain = array[(depth > RIND_MM[0]) & (depth <= RIND_MM[1])], array[depth > RIND_MM[2]]
    return not (skull.size and brain.size) or float(np.median(skull)) < BRIGHT_RIND * float(
        np.median(brain)
    )


def upper_part(body: Mask, affine: Matrix) -> Mask:
    """The head of a body that reaches further down than a head and its neck do."""
    heights = apply(affine, np.argwhere(body))[:, 2] if body.any() else np.zeros(1)
    if np.ptp(heights) < TALLEST_MM:
        return body
    kept = np.zeros_like(body)
    kept[tuple(np.argwhere(body)[heights > heights.max() - HEAD_MM].T)] = True
    return kept


def foreground_level(array: Array) -> float:
    """The grey level between air and tissue: Otsu's on values where bright ones count less."""
    values = np.sqrt(array[array > 0])
    counts, edges = np.histogram(values, 128, (0, 1))
    middle = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts)
    total = np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] * weight / weight[-1] - total) ** 2 / (weight * (weight[-1] - weight))
    best = float(middle[np.argmax(np.nan_to_num(between[:-1]))])
    return 0.8 * best**2  # a little lower than Otsu's: skin at the border of the coil is darker


def opening(mask: Mask, thickness_mm: float, spacing: tuple[float, float, float]) -> Mask:
    """``mask`` without its parts thinner than ``thickness_mm``."""
    padded = np.pad(mask, 1, mode="edge")
    inner = ndimage.distance_transform_edt(padded, sampling=spacing) > thickness_mm / 2
    outer = ndimage.distance_transform_edt(~inner, sampling=spacing) <= thickness_mm / 2
    return np.asarray((outer & padded)[1:-1, 1:-1, 1:-1])


def fill_slices(mask: Mask) -> Mask:
    """``mask`` with the holes of every slice filled, so that sinuses belong to the head."""
    return np.stack([ndimage.binary_fill_holes(m) for m in np.moveaxis(mask, 2, 0)], axis=2)


def clear_surroundings(
    array: Array, affine: Matrix, near: Mask, near_affine: Matrix, centre_ras: Points
) -> Level:
    """A level with all that is not ``near`` the body (table, holder, far noise) set to the darkest
    grey, in centred millimetres.
    """
    to_body = np.linalg.inv(near_affine) @ affine
    index = [
        np.clip(np.round(to_body[a, a] * np.arange(n) + to_body[a, 3]).astype(int), 0, m - 1)
        for a, (n, m) in enumerate(zip(array.shape, near.shape, strict=True))
    ]
    kept = np.where(near[np.ix_(*index)], array, np.float32(0))
    shift = np.eye(4)
    shift[:3, 3] = centre_ras
    return Level(torch.from_numpy(kept)[None, None], np.linalg.inv(affine) @ shift)
