"""How far a fused volume can be trusted: what of each source a reader still sees in it.

The eight fusion metrics say nothing of it (``docs/evaluation.md``): the pixel maximum is among the
best by them, and shows a CT's noise in place of an MRI's contrast. These figures are measured in
the volume itself, inside of the brain, or in the soft tissue of a body:

- ``mri_gain``, ``ct_gain``: how strongly each grey source's detail stands in the fused brightness,
  by a regression on all sources, all without their broad course (Gaussian, 8 pixels). The MRI
  counts from 0 to its brain's 99th percentile at 0.85, the CT from -20 to 100 HU; in a body by its
  window.
- ``mri_correlation``: of the fused detail with the MRI's.
- ``not_mri``: what is not the MRI's detail, as a multiple of it: the CT's findings, and its noise,
  or the activity.
- ``noise``: the CT's grain in the fused brain beside an MRI, in grey levels of 255: what a Gaussian
  of one pixel takes away of the CT, as strongly as it stands in the same of the fused volume.
- ``bone``: mean brightness where the CT is above 500 HU.
- ``activity_rho``, ``activity_error``: the activity (0..1) read back from the colours by an eye
  that cannot tell colours closer than 0.02 in OKLab: Spearman's correlation and mean error.
- ``anatomy_slope``, ``activity_slope``: fused luminance by anatomy and by activity, both 0..1.

Of a picture in colours its luminance counts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mmif.result import SOFT_TISSUE, RegisteredSource
from mmif.roles import ACTIVITY_ROLES
from mmif.transforms.brain import brain_by_depth, find_brain
from mmif.transforms.colour import LUMINANCE
from mmif.transforms.head import head_mask
from mmif.transforms.oklch import oklab

Volume = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BROAD_PIXELS = (8.0, 8.0, 0.0)
"""Detail is what a Gaussian of this width within a slice takes away; sulci and lesions are
smaller."""

GRAIN_PIXELS = 1.0
"""A CT's noise is finer than this behind the interpolation to the fused grid."""

BRAIN_TOP = 0.85
"""Where the brain's 99th percentile stands when the MRI counts as shown in full."""

# HU: the soft tissue window of pipelines/ct-mri.yaml
CT_RANGE = (-20.0, 100.0)
# HU: cortical bone lies above it, cancellous bone and contrast agent mostly below
BONE_HU = 500.0
SLICES = 24
"""At most so many slices are measured, evenly spread; more move no figure by 0.01 (measured)."""

SURFACE_MM = 12.0
"""The activity is read this deep in the head: on the rim it blurs into nothing."""

JUST_NOTICEABLE = 0.02
"""The OKLab distance that an eye tells apart, about (Ottosson 2020)."""

COLOURS, NEIGHBOURS = 12_000, 9
"""So many voxels are learnt from, and as many asked of; the mean of so many nearest colours."""

LEAST = 500
"""Fewer voxels say nothing."""

HARDLY_VISIBLE = 0.5
"""Below this gain a reader is warned."""

LEAST_RHO = 0.9
"""Below this correlation too: hot-iron and grey, in which brightness says both sources at once,
have 0.87 and 0.62 on the sample head, the others 0.90 and more (benchmarks/colour_maps.py)."""

MOST_ERROR = 0.035
"""If the reading is off by more than this as well. Most of a body has one level, whose noise has
ranks that no eye reads: the drawn one (benchmarks/body.py) has 0.70 to 0.71 and an error of 0.017
in every map, in which voxels drawn evenly from all levels are read with 0.98 and more; grey has
0.57 and 0.0353. Of the head above, the two have 0.054 and 0.147 over the CT."""


def readability(
    fused: npt.NDArray[Any],
    sources: Mapping[str, RegisteredSource],
    spacing: tuple[float, float, float],
) -> dict[str, float]:
    """The figures above that can be had of ``sources``.

    Args:
        fused: (1 or 3, X, Y, Z), 0..1.
        sources: role to the registered source.
        spacing: mm.
    """
    step = max(1, -(-fused.shape[-1] // SLICES))
    shown = np.asarray(fused[..., ::step], dtype=np.float64)
    values = {
        role: source.values[0].numpy()[..., ::step].astype(np.float64)
        for role, source in sources.items()
    }
    some = slice(None, None, step)
    covered = np.all([s.coverage.part(some).above(0.99) for s in sources.values()], axis=0)
    apart = (spacing[0], spacing[1], spacing[2] * step)
    anatomy = next(role for role in ("mri", "ct") if role in values)
    known = sources[anatomy].head
    head = (head_mask(sources[anatomy].values) if known is None else known)[0].numpy()
    head = head[..., some].astype(bool) & covered
    activity = next((role for role in ACTIVITY_ROLES if role in values), None)
    bright = np.tensordot(LUMINANCE, shown, 1) if len(shown) == 3 else shown[0]
    figures: dict[str, float] = {}
    if len(values) > 1:
        ct_range = _ct_range(sources)
        tissue = _tissue(values, head, covered, apart, ct_range)
        figures |= _detail(bright, _units(values, activity, tissue, ct_range), tissue)
    if "ct" in values:
        figures |= _bone(bright, values["ct"], covered)
    if activity is not None and len(shown) == 3:
        deep = ndimage.distance_transform_edt(head, sampling=apart) > SURFACE_MM
        figures |= _activity(shown, values[anatomy], values[activity], deep)
    return {name: round(float(value), 4) for name, value in figures.items()}


def _ct_range(sources: Mapping[str, RegisteredSource]) -> tuple[float, float]:
    """The HU that count as soft tissue: those of a head, or of the window of a body's CT."""
    if "ct" not in sources or "mri" in sources:
        return CT_RANGE
    return sources["ct"].window.low, sources["ct"].window.high


def _tissue(
    values: Mapping[str, Volume],
    head: Mask,
    covered: Mask,
    spacing: tuple[float, float, float],
    ct_range: tuple[float, float],
) -> Mask:
    """Where details count: the brain of a head; the soft tissue of a body, a voxel from others."""
    if "ct" not in values:
        return brain_by_depth(head, spacing)
    if ct_range == CT_RANGE:
        return find_brain(values["ct"], head, covered, spacing)
    low, high = ct_range
    soft = head & (values["ct"] > low) & (values["ct"] < high)
    return np.asarray(ndimage.binary_erosion(soft, np.ones((3, 3, 1))), dtype=bool)


def _units(
    values: Mapping[str, Volume], activity: str | None, tissue: Mask, ct_range: tuple[float, float]
) -> dict[str, Volume]:
    """Each source in 0..1, as its detail counts; empty where there is too little tissue."""
    if tissue.sum() < LEAST:
        return {}
    units = {}
    if "mri" in values:
        mri = values["mri"]
        base = min(0.0, float(mri.min()))
        top = (float(np.percentile(mri[tissue], 99)) - base) / BRAIN_TOP
        units["mri"] = np.clip((mri - base) / max(top, 1e-9), 0, 1)
    if "ct" in values:
        low, high = ct_range
        units["ct"] = np.clip((values["ct"] - low) / (high - low), 0, 1)
    if activity is not None:
        top = float(np.percentile(values[activity][tissue], 99.8))
        units[activity] = np.clip(values[activity] / max(top, 1e-9), 0, 1)
    return units


TOLD = {
    "mri_gain": "MRI gain",
    "ct_gain": "CT gain",
    "bone": "bone",
    "activity_rho": "activity read back",
}
"""The figure of each source that a terminal shows, and its name there."""


def readability_line(figures: Mapping[str, float]) -> str:
    """What a reader still sees of each source, on one line; "" where nothing was measured.

    >>> readability_line({"ct_gain": 0.761, "bone": 0.973, "activity_rho": 0.9935, "noise": 1.0})
    'CT gain 0.76, bone 0.97, activity read back 0.99'
    """
    return ", ".join(f"{name} {figures[key]:.2f}" for key, name in TOLD.items() if key in figures)


def readability_warnings(figures: Mapping[str, float]) -> tuple[str, ...]:
    """One line for each source that is hardly visible."""
    said = []
    if figures.get("mri_gain", 1.0) < HARDLY_VISIBLE:
        said.append(
            f"the MRI is hardly visible in the fused brain (gain {figures['mri_gain']:.2f}, "
            f"expected at least {HARDLY_VISIBLE:g})"
        )
    if "mri_gain" not in figures and figures.get("ct_gain", 1.0) < HARDLY_VISIBLE * SOFT_TISSUE:
        said.append(
            "the CT's soft tissue is hardly visible in the fused volume (gain "
            f"{figures['ct_gain']:.2f}, expected at least {HARDLY_VISIBLE * SOFT_TISSUE:g})"
        )
    if figures.get("bone", 1.0) < HARDLY_VISIBLE:
        said.append(
            "the CT's bone is hardly visible in the fused volume (brightness "
            f"{figures['bone']:.2f}, expected at least {HARDLY_VISIBLE:g})"
        )
    rho, error = figures.get("activity_rho", 1.0), figures.get("activity_error", 1.0)
    if rho < LEAST_RHO and error > MOST_ERROR:
        said.append(
            f"the activity can hardly be read from the colours (correlation {rho:.2f}, expected at "
            f"least {LEAST_RHO:g}; error {error:.3f}, at most {MOST_ERROR:g})"
        )
    return tuple(said)


def _detail(bright: Volume, units: Mapping[str, Volume], tissue: Mask) -> dict[str, float]:
    """Gains, correlation, what is not MRI and noise; nothing where nothing varies."""
    if not units:
        return {}
    near = ndimage.gaussian_filter(tissue.astype(float), BROAD_PIXELS)
    details = {role: _without_course(unit, tissue, near) for role, unit in units.items()}
    fused = _without_course(bright, tissue, near)
    grey = [role for role in ("mri", "ct") if role in units]
    if min(fused.std(), details[grey[0]].std()) < 1e-6:
        return {}
    gains = dict(zip(details, _regress(fused, list(details.values())), strict=True))
    figures = {f"{role}_gain": gains[role] for role in grey}
    if "mri" in units:
        mri = details["mri"]
        figures["mri_correlation"] = np.corrcoef(fused, mri)[0, 1]
        figures["not_mri"] = (fused - gains["mri"] * mri).std() / mri.std()
    if {"ct", "mri"} <= set(units):
        grain = {role: _grain(unit, tissue) for role, unit in units.items()}
        # grain that stands in the fused volume as in the CT is its noise, not structure
        found = dict(
            zip(grain, _regress(_grain(bright, tissue), list(grain.values())), strict=True)
        )
        figures["noise"] = 255 * abs(found["ct"]) * grain["ct"].std()
    return figures


def _regress(fused: Volume, sources: list[Volume]) -> Volume:
    """(sources,): how strongly each stands in ``fused`` (voxels,)."""
    gains, *_ = np.linalg.lstsq(np.stack(sources, 1), fused, rcond=None)
    return np.asarray(gains)


def _grain(image: Volume, mask: Mask) -> Volume:
    """What a Gaussian of `GRAIN_PIXELS` takes away of ``image`` in ``mask``, (voxels,)."""
    return np.asarray(
        (image - ndimage.gaussian_filter(image, (GRAIN_PIXELS, GRAIN_PIXELS, 0)))[mask]
    )


def _without_course(image: Volume, mask: Mask, near: Volume) -> Volume:
    """The detail of ``image`` in ``mask``, (voxels,): its broad course taken away by slice.

    Args:
        near: ``mask`` under the Gaussian of the course.
    """
    broad = ndimage.gaussian_filter(image * mask.astype(float), BROAD_PIXELS)
    broad /= np.maximum(near, 1e-6)
    return np.asarray((image - broad)[mask])


def _bone(bright: Volume, ct: Volume, covered: Mask) -> dict[str, float]:
    bone = ndimage.binary_erosion(ct > BONE_HU) & covered
    return {"bone": bright[bone].mean()} if bone.sum() >= LEAST else {}


def _scale(values: Volume, percentile: float) -> Volume:
    """``values`` as 0..1, from 0 to a percentile of theirs."""
    top = float(np.percentile(values, percentile))
    return np.asarray(np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values))


def _activity(rgb: Volume, anatomy: Volume, activity: Volume, inside: Mask) -> dict[str, float]:
    """The activity read back from the colours, and the slopes of the luminance."""
    from scipy.spatial import cKDTree
    from scipy.stats import spearmanr

    if inside.sum() < LEAST:
        return {}
    level, tissue = _scale(activity[inside], 99.8), _scale(anatomy[inside], 99.0)
    if level.std() < 1e-6:
        return {}
    colours = rgb[:, inside].T
    random = np.random.default_rng(0)
    chosen = random.permutation(len(level))[: 2 * COLOURS]
    learnt, asked = chosen[::2], chosen[1::2]
    # an eye: colours are told apart no finer, and read by those that were seen before
    blur = random.normal(0, JUST_NOTICEABLE, (len(asked), 3))
    _, near = cKDTree(oklab(colours[learnt])).query(oklab(colours[asked]) + blur, k=NEIGHBOURS)
    seen = level[learnt][near].mean(axis=1)
    known = np.stack([tissue, level, np.ones_like(level)], axis=1)
    slopes, *_ = np.linalg.lstsq(known, colours @ np.array(LUMINANCE), rcond=None)
    return {
        "activity_rho": spearmanr(seen, level[asked])[0],
        "activity_error": np.abs(seen - level[asked]).mean(),
        "anatomy_slope": slopes[0],
        "activity_slope": slopes[1],
    }
