"""The summary of one study: everything that was done; ``summary.json`` is its plain form."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from monai.data import MetaTensor

import mmif
from mmif.config import Pipeline
from mmif.geometry import Grid
from mmif.io.source import Source, SuvScale, source_of
from mmif.registration.loop import LoopClosure
from mmif.registration.result import TRUSTED_FIRST, Registration, Verdict
from mmif.result import FusionResult

NOTICE = "Research use only. Not for primary diagnosis."


@dataclass(frozen=True)
class InputSummary:
    """What is said of one input; shape and spacing as stored, before any step.

    ``units`` are those of the values that were fused; ``suvbw_per_unit`` is the factor that makes
    SUV by body weight of the values as stored, and ``suv`` what it follows from.
    """

    role: str
    path: str | None
    format: str
    shape: tuple[int, ...]
    modality: str = ""
    spacing_mm: tuple[float, ...] = ()
    units: str = ""
    suvbw_per_unit: float | None = None
    suv: Mapping[str, Any] | None = None
    series_uid: str | None = None
    selection: str = ""


@dataclass(frozen=True)
class GridSummary:
    """The fused grid: voxels along i, j, k, their spacing, and where they lie (RAS mm)."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affine_ras: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class CheckSummary:
    """One check of a registration."""

    value: float | None
    limit: float
    passed: bool
    meaning: str


@dataclass(frozen=True)
class RegistrationSummary:
    """One registration: its transform (fixed point to moving point, LPS mm) and verdict.

    ``error_estimate_mm`` is the mean where both scans look, ``error_farthest_mm`` that at the far
    end of the head; ``alignment`` is where the transform is from: searched, headers or given.
    """

    verdict: Verdict
    fixed_to_moving_lps: tuple[tuple[float, ...], ...]
    error_estimate_mm: float | None
    method: str
    reasons: tuple[str, ...]
    checks: Mapping[str, CheckSummary]
    seconds: float
    error_farthest_mm: float | None = None
    alignment: str = "searched"


@dataclass(frozen=True)
class LoopSummary:
    """Whether three registrations agree: the round of ``path`` leads ``residue_mm`` away."""

    path: tuple[str, ...]
    residue_mm: float
    expected_mm: float
    closed: bool
    directly: str


@dataclass(frozen=True)
class StepSummary:
    """One step as it ran."""

    name: str
    parameters: Mapping[str, Any]
    seconds: float
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """What was done, as ``docs/summary.md`` describes it.

    ``files`` are the outputs one by one, with their sizes in bytes, but for ``summary.json``, and
    ``sha256`` their checksums: nothing else is removed when they are replaced.
    ``summary["grid"]["shape"]`` reads the plain form of a field, as ``summary.json`` has it.

    Attributes:
        mmif_version: what did it.
        notice: research use only.
        task: one of `mmif.roles.VOLUME_TASKS`.
        command: the command line to repeat it; "" from Python.
        inputs: each source as it was read.
        reference: the role whose frame the fused volume has.
        grid: shape, spacing in mm, affine to RAS mm.
        registration: of several the one that is trusted least: its verdict is that of the whole.
        registrations: all of them, by role.
        coverage: share of the reference's head that is covered: ``mean``, ``per_slice`` and
            ``by_role``.
        windows: role to the physical values that became 0 and 1.
        fusion: device, precision, weights name and sha256, slices, seconds.
        metrics: the eight and SSIM255, mean over the slices; None where undefined.
        readability: what of each source a reader still sees.
        outputs: what was written, relative to the output.
        warnings: all that a reader of the volume must know.
        seconds: time by part of the job.
        steps: each step with parameters, seconds and figures.
        pipeline: every setting.
        deidentified: the profile that was kept to; None where identities may stand.
        loop_closure: of three sources, how well the three registrations agree; None for two.
    """

    mmif_version: str
    notice: str
    task: str
    command: str
    inputs: tuple[InputSummary, ...]
    reference: str
    grid: GridSummary
    registration: RegistrationSummary
    registrations: Mapping[str, RegistrationSummary]
    coverage: Mapping[str, Any]
    windows: Mapping[str, Mapping[str, Any]]
    fusion: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    readability: Mapping[str, float]
    outputs: tuple[str, ...]
    files: Mapping[str, int]
    sha256: Mapping[str, str]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    steps: tuple[StepSummary, ...]
    pipeline: Mapping[str, Any]
    deidentified: str | None = field(default=None)
    loop_closure: LoopSummary | None = None

    def __getitem__(self, name: str) -> Any:
        """The plain form of a field."""
        return plain(getattr(self, name))

    def plain(self) -> dict[str, Any]:
        """The content of ``summary.json``: numbers, texts, lists and dicts; NaN is None."""
        whole: dict[str, Any] = plain(self)
        for name in ("deidentified", "loop_closure"):
            if whole[name] is None:
                del whole[name]
        return whole


def summarise(result: FusionResult, pipeline: Pipeline, command: str = "") -> Summary:
    """What was done.

    Args:
        result: the fusion.
        pipeline: with all options applied.
        command: the command line to repeat it.
    """
    registrations = {
        source.role: summarise_registration(source.registration)
        for source in result.moving
        if source.registration is not None
    }
    covered = {source.role: source.covered_fraction for source in result.moving}
    first = next(iter(covered.values()))
    return Summary(
        mmif_version=mmif.__version__,
        notice=NOTICE,
        task=result.task,
        command=command,
        inputs=tuple(
            summarise_input(role, result.sources[role].origin, result.sources[role].shape)
            for role in pipeline.roles
        ),
        reference=result.reference,
        grid=summarise_grid(result.grid),
        registration=max(registrations.values(), key=lambda one: TRUSTED_FIRST.index(one.verdict)),
        registrations=registrations,
        coverage=plain(
            {
                "mean": first.mean(),
                "per_slice": first,
                "by_role": {role: share.mean() for role, share in covered.items()},
            }
        ),
        windows={role: asdict(window) for role, window in result.windows.items()},
        fusion=dict(result.fusion),
        metrics=plain(result.metrics),
        readability=dict(result.readability),
        outputs=(),
        files={},
        sha256={},
        warnings=result.warnings,
        seconds={part: round(s, 3) for part, s in result.seconds.items()},
        steps=tuple(
            StepSummary(s.name, plain(s.parameters), round(s.seconds, 3), plain(s.figures))
            for s in result.steps
        ),
        pipeline=plain(asdict(pipeline)),
        loop_closure=summarise_loop(result.loop),
    )


def summarise_volume(role: str, volume: MetaTensor) -> InputSummary:
    """What is said of one input as it was read."""
    return summarise_input(role, source_of(volume), tuple(volume.shape[1:]))


def summarise_input(role: str, source: Source | None, shape: tuple[int, ...]) -> InputSummary:
    """What is said of one input; one that was made in memory has a ``shape`` alone."""
    if source is None:
        return InputSummary(role, None, "memory", shape)
    return InputSummary(
        role=role,
        path=str(source.path),
        format=source.format,
        shape=source.shape,
        modality=source.modality,
        spacing_mm=tuple(round(s, 6) for s in source.spacing_mm),
        units=source.units,
        suvbw_per_unit=None if source.suv is None or source.suv.withheld else source.suv.factor,
        suv=summarise_suv(source.suv),
        series_uid=source.series_uid,
        selection=source.selection,
    )


def summarise_suv(suv: SuvScale | None) -> dict[str, Any] | None:
    """What the factor of SUV follows from, without what is None; None where there is no SUV."""
    if suv is None:
        return None
    said = {
        name: value for name, value in asdict(suv).items() if name not in {"factor", "withheld"}
    }
    return {name: value for name, value in said.items() if value is not None}


def summarise_grid(grid: Grid) -> GridSummary:
    """What is said of the fused grid."""
    affine = tuple(tuple(row) for row in grid.affine_ras.tolist())
    return GridSummary(grid.shape, tuple(round(s, 6) for s in grid.spacing_mm), affine)


def summarise_registration(registration: Registration) -> RegistrationSummary:
    """What is said of one registration."""
    return RegistrationSummary(
        verdict=registration.verdict,
        fixed_to_moving_lps=tuple(tuple(row) for row in registration.fixed_to_moving_lps.tolist()),
        error_estimate_mm=registration.error_estimate_mm,
        method=registration.method,
        reasons=registration.reasons,
        checks={
            check.name: CheckSummary(plain(check.value), check.limit, check.passed, check.meaning)
            for check in registration.checks
        },
        seconds=round(registration.seconds, 3),
        error_farthest_mm=registration.error_farthest_mm,
        alignment=registration.alignment,
    )


def summarise_loop(loop: LoopClosure | None) -> LoopSummary | None:
    """What is said of the round of three registrations; None where there is none."""
    if loop is None:
        return None
    residue_mm, expected_mm = round(loop.residue_mm, 3), round(loop.expected_mm, 3)
    return LoopSummary(loop.path, residue_mm, expected_mm, loop.is_closed, loop.directly)


def plain(value: Any) -> Any:
    """``value`` as what JSON holds: numbers of Python, lists, dicts; not finite becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type | str):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
