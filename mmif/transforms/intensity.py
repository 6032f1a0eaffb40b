"""Physical values to the network's 0..1, by one stated window for a whole volume."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from scipy import ndimage

from mmif.config import IntensityConfig, build
from mmif.errors import ConfigError, InputError
from mmif.geometry import spacing_mm
from mmif.io.source import source_of
from mmif.registration.prepare import TRUNK_ML
from mmif.result import STUDY_KEY, RegisteredSource, StudyRecord, Window
from mmif.roles import ROLES
from mmif.transforms.brain import COVERED, brain_by_depth, brain_in_skull, is_enough
from mmif.transforms.head import COARSE_MM, head_mask, outline
from mmif.transforms.slices import grid_of, on_grid, slabs
from mmif.transforms.step import Data, Step, study_of
from mmif.transforms.suv import SUVBW

AIR_PERCENTILE = 99.5
"""The air's level: what this share of the voxels outside of the head stay below."""

AIR_MARGIN_MM = 8.0
"""Air begins this far from the head, so that neither blur nor ears count as air."""

BRAIN_PERCENTILES = (2.0, 99.0)
"""Of the brain, whose darkest and brightest voxels are vessels, air of a sinus and artefacts."""

SIGNAL = 0.2
"""A slice whose brain is darker than this share of the volume's was not measured: with coils and
bias fields the darkest slice has 0.90 (RIRE) and 0.83 (the sample head) of the median."""

STATED = ("window", "suv")
"""Kinds whose numbers are the window."""

OWN_SHARE = 0.6
"""An activity is windowed by the anatomy's outline where its own holds less than this share of it,
or where that is no head, or more than one: hot organs are not the patient. SPECT and PET of heads
hold 0.72 to 0.76 (the sample, SPM's), a PET of a drawn chest 0.43 (`benchmarks/body.py`)."""

BRAIN_SHARE = 0.1
"""A CT of which the brain is more than this shows a head: it is 0.48 of the sample head and 0.43 of
RIRE's, 0 of a drawn chest. With neck and shoulders it is some 1.3 of 7 litres; chosen."""

DARK_SHARE = 0.25
"""The air's level never takes more than this share of the window: dark tissue stays visible."""


def window_of(
    volume: MetaTensor,
    config: IntensityConfig,
    head: MetaTensor | None = None,
    brain: npt.NDArray[np.bool_] | None = None,
    limbs: MetaTensor | None = None,
) -> Window:
    """The window of ``volume`` that ``config`` asks for.

    ``window``: the values of ``config``. ``percentile``: percentiles of the head's voxels.
    ``brain``: the brain's 2nd and 99th percentile come to lie at the two brightnesses of
    ``config``; fat, contrast agent and what else is brighter than the brain saturates. The low end
    is raised to the level of the air outside of the head, so that the noise of an MRI's background,
    or the scatter of a SPECT's, is black and no haze lies over the fused volume.

    Args:
        volume: (1, X, Y, Z), physical values.
        config: the kind of window and its numbers.
        head: (1, X, Y, Z) bool; found by `head_mask` when left out.
        brain: (X, Y, Z); what is deep in the head when left out.
        limbs: (1, X, Y, Z) bool, what else of a body is no air; None for a head. A body's window
            begins at its air, since no part of it need be without uptake.

    Raises:
        InputError: the window has no width, or the volume holds NaN or infinite values.
    """
    origin = source_of(volume)
    unit, name = str(getattr(origin, "units", "")), getattr(origin, "path", "the volume")
    values = volume[0].detach().cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values; expected finite ones")
    if config.kind == "suv" and unit != SUVBW:
        raise InputError(
            f"{name}: found values in {unit or 'no unit'} and headers that do not give SUV; "
            "expected weight, dose, times and decay correction, or a window of another kind"
        )
    if config.kind in STATED:
        return Window(config.low, config.high, unit, config.bone)
    mask = (head_mask(volume) if head is None else head)[0].numpy().astype(bool)
    spacing = spacing_mm(np.asarray(volume.affine))
    if config.kind == "brain":
        by = "the brain, inside of the skull" if brain is not None else "the brain, by its depth"
        place = brain_by_depth(mask, spacing) if brain is None else brain
        place = _with_signal(values, place)
        shown = values[place] if place.any() else values[mask] if mask.any() else values
        dark, bright = (float(p) for p in np.percentile(shown, BRAIN_PERCENTILES))
        # the line through both brightnesses, carried on to 0 and 1
        slope = (bright - dark) / (config.high - config.low)
        low, high = dark - config.low * slope, dark + (1 - config.low) * slope
    else:
        by = "the patient"
        shown = values[mask] if mask.any() else values
        low, high = (float(p) for p in np.percentile(shown, [config.low, config.high]))
    # noise of the background is black, but not at the cost of dark tissue: DARK_SHARE at most
    patient = mask if limbs is None else mask | limbs[0].numpy().astype(bool)
    air = _air_level(values, patient, spacing)
    if air is not None and limbs is not None:
        low = min(low, air)
    elif air is not None:
        low = max(low, min(air, low + DARK_SHARE * (high - low)))
    if not high > low:
        raise InputError(
            f"{name}: what decides its window lies between {low:.6g} and {high:.6g}; expected"
            " an image"
        )
    return Window(low, high, unit, by=by)


def _with_signal(values: npt.NDArray[Any], place: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``place`` (X, Y, Z) without the slices that were lost or never filled."""
    slices = np.flatnonzero(place.any(axis=(0, 1)))
    if len(slices) < 3:
        return place
    ground = float(values.min())
    medians = np.array([np.median(values[..., k][place[..., k]]) - ground for k in slices])
    empty = slices[medians < SIGNAL * np.median(medians)]
    kept = place.copy()
    kept[..., empty] = False
    return kept


def apply_window(volume: MetaTensor, window: Window) -> MetaTensor:
    """``volume`` (C, X, Y, Z) with ``window`` as 0..1; what lies outside is held at the ends."""
    unit = torch.empty_like(volume.as_subclass(torch.Tensor), dtype=torch.float32)
    for part in slabs(volume.shape[-1]):
        unit[..., part] = window.scale(volume[..., part])
    return on_grid(unit, grid_of(volume), like=volume)


class ChooseWindowsd(Step):
    """One window a volume, for each key on the grid; `window_of` for each role.

    The brain of an MRI is found inside of the skull of a registered CT, else by its depth.

    Args:
        keys: roles.
        intensity: role to the kind of window and its numbers (`IntensityConfig`, or its plain
            form).

    Raises:
        InputError: a volume cannot be windowed.
        ConfigError: a role of the keys has no window.
    """

    part = "resample"

    def __init__(
        self, keys: KeysCollection, intensity: Mapping[str, IntensityConfig | Mapping[str, Any]]
    ) -> None:
        self.intensity = {
            role: given
            if isinstance(given, IntensityConfig)
            else build(IntensityConfig, given, role)
            for role, given in intensity.items()
        }
        super().__init__(keys, intensity={r: asdict(i) for r, i in self.intensity.items()})
        for role in self.keys:
            if role not in self.intensity:
                raise ConfigError(f"no intensity for {role}; volumes need one")

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the windows in its record."""
        study = study_of(data)
        patient = Patient.of(study)
        configs = [self.intensity[role] for role in self.keys]
        small = patient is None or patient.volume_ml <= TRUNK_ML
        wanted = any(c.kind == "brain" or (c.head is not None and small) for c in configs)
        wanted = wanted or (patient is not None and small)  # a part of a body may be small as well
        brain = _brain(study) if wanted else None
        windows = {role: self._window(study.sources[role], brain, patient) for role in self.keys}
        if "ct" in windows:
            _check_shows_tissue(study, windows["ct"])
        return {**data, STUDY_KEY: study.with_windows(windows)}

    def _window(
        self,
        source: RegisteredSource,
        brain: npt.NDArray[np.bool_] | None,
        patient: "Patient | None",
    ) -> Window:
        """The window of one source, by what it covers of the grid."""
        config = self.intensity[source.role]
        if config.kind in STATED:
            shows_head = brain is not None and (patient is None or patient.is_head(brain))
            return window_of(source.values, config.of_head() if shows_head else config)
        covered = source.coverage.above(COVERED)
        head, limbs = _outline(source, brain, patient)
        if not covered.all():
            head = on_grid(head & torch.from_numpy(covered)[None], grid_of(head))
        seen = None if brain is None else brain & covered
        return window_of(source.values, config, head, seen, limbs)

    def figures(self, data: Data) -> dict[str, Any]:
        """The windows, in words."""
        return {role: str(source.window) for role, source in data[STUDY_KEY].sources.items()}


def _check_shows_tissue(study: StudyRecord, window: Window) -> None:
    """Refuse a CT of which most of the patient is brighter than its window: bone is not most.

    Raises:
        InputError: its values are no HU, most often stored ones, which lie 1024 higher.
    """
    head = next((one.head for one in study.sources.values() if one.head is not None), None)
    if head is None:
        return
    ct, coarse = study.sources["ct"], (0, *3 * [slice(None, None, 4)])
    seen = head[coarse].numpy() & (ct.coverage[coarse].numpy() > COVERED)
    values = ct.values[coarse].numpy()[seen]
    end = window.high if window.bone is None else window.bone
    if values.size and (middle := float(np.median(values))) > end:
        raise InputError(
            f"{source_of(ct.values) or 'CT'}: half of the patient lies above {middle:.0f}, and its "
            f"window ends at {end:g} HU; expected HU (stored values without RescaleIntercept?)"
        )


@dataclass(frozen=True, eq=False)
class Patient:
    """What of a study is no air, by its anatomy; an activity shows only where the tracer went.

    Attributes:
        body: (1, X, Y, Z) bool, all of the patient.
        limbs: (1, X, Y, Z) bool, arms and legs beside the largest part.
        by_ct: whether they were seen in a CT, in which a head shows its brain.
    """

    body: MetaTensor
    limbs: MetaTensor
    by_ct: bool

    def is_head(self, brain: npt.NDArray[np.bool_] | None) -> bool:
        """Whether the patient is a head, by its size and by the share of the ``brain`` in it."""
        share = 0.0 if brain is None else float(brain.sum()) / max(float(self.body.sum()), 1.0)
        return self.volume_ml <= TRUNK_ML and (share > BRAIN_SHARE or not self.by_ct)

    @property
    def volume_ml(self) -> float:
        """How large the patient is."""
        return float(self.body.sum()) * math.prod(spacing_mm(np.asarray(self.body.affine))) / 1000

    @classmethod
    def of(cls, study: StudyRecord) -> Self | None:
        """The patient in the anatomy below an activity; None where there is no activity."""
        roles = study.sources
        if not any(ROLES[role].kind == "activity" for role in roles):
            return None
        anatomy = next(role for role in ("ct", "mri") if role in roles)
        head, limbs = roles[anatomy].head, roles[anatomy].limbs
        if head is None or limbs is None:
            found = outline(roles[anatomy].values)
            head, limbs = found.head, found.limbs
        return cls(head | limbs, limbs, anatomy == "ct")


def _outline(
    source: RegisteredSource, brain: npt.NDArray[np.bool_] | None, patient: Patient | None
) -> tuple[MetaTensor, MetaTensor | None]:
    """What decides the window of ``source``, and what else is no air; None for a head."""
    of_patient = patient if ROLES[source.role].kind == "activity" else None
    if of_patient is not None and not of_patient.is_head(brain):
        return of_patient.body, of_patient.limbs
    own = head_mask(source.values) if source.head is None else source.head
    if of_patient is not None and float(own.sum()) < OWN_SHARE * float(of_patient.body.sum()):
        return of_patient.body, of_patient.limbs
    return own, None


def _brain(study: StudyRecord) -> npt.NDArray[np.bool_] | None:
    """The brain inside of the skull of the study's CT; None where there is none to be seen."""
    ct = study.sources.get("ct")
    if ct is None or study.grid is None:
        return None
    spacing, brain = study.grid.spacing_mm, study.brain
    if brain is None:
        brain = brain_in_skull(ct.values[0].numpy(), ct.coverage.above(COVERED), spacing)
    return brain if is_enough(brain, spacing) else None


class ScaleToUnitd(Step):
    """Each key in 0..1 by its window, faded out softly where its coverage ends.

    Args:
        keys: roles.
    """

    part = "resample"

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with volumes (1, X, Y, Z) in 0..1, also in its record."""
        study = study_of(data)
        units = {}
        for role in self.keys:
            source = study.sources[role]
            units[role] = apply_window(data[role], source.window)
            if role != study.reference:
                unit = units[role].as_subclass(torch.Tensor)
                for part in slabs(unit.shape[-1]):
                    unit[..., part] *= source.coverage[..., part]
        return {**data, **units, STUDY_KEY: study.with_units(units)}


def _air_level(
    values: np.ndarray[Any, Any], head: np.ndarray[Any, Any], spacing: tuple[float, float, float]
) -> float | None:
    """The value that the air outside of the head stays below, or None where there is no air."""
    strides = [max(1, int(COARSE_MM / step)) for step in spacing]
    every = tuple(slice(None, None, stride) for stride in strides)
    steps = zip(spacing, strides, strict=True)
    reach = [2 * round(AIR_MARGIN_MM / (step * stride)) + 1 for step, stride in steps]
    outside = values[every][~ndimage.maximum_filter(head[every], size=reach)]
    if outside.size < 1000:
        return None
    return float(np.percentile(outside, AIR_PERCENTILE))
