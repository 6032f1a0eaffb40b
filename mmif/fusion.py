"""The fusion as a list of MONAI transforms, and the runner that goes through it.

`fusion_transforms` is the whole job, from paths to the fused (and saved) volume: ``mmif fuse`` and
``batch`` run exactly this list, ``train`` the same list up to the network.
"""

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, Unpack

from monai.transforms import Compose, MapTransform
from torch import nn

from mmif.config import Pipeline, load_pipeline
from mmif.errors import ConfigError
from mmif.memory import give_memory_back
from mmif.options import FuseOptions, OptionKeywords
from mmif.result import FUSED_KEY, STUDY_KEY, FusionResult, StepRecord, StudyRecord
from mmif.transforms.axial_grid import OutlinePatientd, ResampleToAxialGridd
from mmif.transforms.colour import ColourActivityd
from mmif.transforms.fuse import FuseSlicesd, MeasureFusiond, mean_metrics
from mmif.transforms.intensity import ChooseWindowsd, ScaleToUnitd
from mmif.transforms.load import CheckOnePatientd, LoadVolumed
from mmif.transforms.mark import MarkUnseend
from mmif.transforms.register import RegisterToReferenced
from mmif.transforms.save import WRITING, DeidentifyVolumesd, SaveFusedd
from mmif.transforms.step import Step, study_of
from mmif.transforms.suv import ConvertToSuvd
from mmif.weights import Weights

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Told a part of the job and the share of it that is done."""

FusionWeights = str | Path | Weights | nn.Module


def silent(part: str, share: float) -> None:
    """The progress of nobody watching."""


class FusionTransforms(Compose):  # type: ignore[misc]
    """MONAI's ``Compose`` of the steps of a fusion; printed, it is the list.

    Called as any Compose, it takes a dictionary of role to path (or volume) and gives it back with
    ``"fused"`` and the `StudyRecord` under ``"study"``. A refusal stays an `MmifError`: MONAI's own
    call would wrap it.

    Args:
        transforms: the steps, in the order they run.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        super().__init__(transforms)

    def __call__(self, data: Mapping[Hashable, Any], **_: Any) -> dict[Hashable, Any]:
        """``data`` through every step; what must be said of the study is logged as warnings."""
        done = run_steps(self, data)[0]
        study = done.get(STUDY_KEY)
        for warning in study.warnings if isinstance(study, StudyRecord) else ():
            log.warning("%s", warning)
        return done

    def __repr__(self) -> str:
        lines = "".join(f"    {step!r},\n" for step in self.transforms)
        return f"{type(self).__name__}([\n{lines}])"

    def exchange(self, step: type, by: Callable[..., Any]) -> Self:
        """The list with ``by`` in place of each step of the class ``step``.

        Raises:
            ConfigError: no such step in the list.
        """
        self._index(step)
        return type(self)([by if isinstance(one, step) else one for one in self.transforms])

    def up_to(self, step: type) -> Self:
        """The list before the first step of the class ``step``.

        Raises:
            ConfigError: no such step in the list.
        """
        return type(self)(self.transforms[: self._index(step)])

    def find(self, step: type) -> Any:
        """The first step of the class ``step``.

        Raises:
            ConfigError: no such step in the list.
        """
        return self.transforms[self._index(step)]

    def _index(self, step: type) -> int:
        names = [type(one).__name__ for one in self.transforms]
        for index, one in enumerate(self.transforms):
            if isinstance(one, step):
                return index
        raise ConfigError(f"no step {step.__name__} in the list; it has {', '.join(names)}")


def fusion_transforms(
    task_or_pipeline: str | Path | Pipeline,
    *,
    output: str | Path | None = None,
    weights: FusionWeights | Sequence[FusionWeights] | None = None,
    options: FuseOptions | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FusionTransforms:
    """The whole job as a MONAI ``Compose``: from paths to the fused (and saved) volume.

    Args:
        task_or_pipeline: a task (``ct-mri``), a pipeline file, or a `Pipeline`.
        output: where to save; None leaves the volume in the dictionary, under ``"fused"``.
        weights: in place of the pipeline's; of three sources a sequence of two.
        options: how; see `mmif.options.FuseOptions`.
        **keywords: the same by name.

    Returns:
        A list to be called with ``{"ct": path, "mri": path}``.

    Raises:
        ConfigError: no such pipeline or option.
    """
    pipeline = (
        task_or_pipeline
        if isinstance(task_or_pipeline, Pipeline)
        else load_pipeline(task_or_pipeline)
    )
    chosen = options or FuseOptions.of({**keywords, **_named_weights(weights)})
    pipeline = pipeline.with_options(chosen)
    roles, reference = pipeline.roles, pipeline.reference
    steps: list[MapTransform] = [
        LoadVolumed(roles, chosen.series_uid, chosen.frame, chosen.fill_gaps),
        CheckOnePatientd(roles, reference, chosen.accept_different_patients),
        *([ConvertToSuvd("pet")] if "pet" in roles else []),
        RegisterToReferenced(
            roles,
            reference,
            transform=given_transforms(pipeline, chosen),
            register=chosen.register,
            accept_registration=chosen.accept_registration,
            accept_other_anatomy=chosen.accept_other_anatomy,
            device=chosen.device,
            **asdict(pipeline.registration),
        ),
        *([DeidentifyVolumesd(roles)] if chosen.deidentify else []),
        ResampleToAxialGridd(
            roles,
            reference,
            **asdict(pipeline.grid),
            transition_mm=pipeline.fusion.transition_mm,
        ),
        OutlinePatientd(roles, reference),
        ChooseWindowsd(roles, {role: pipeline.intensity_of(role) for role in roles}),
        ScaleToUnitd(roles),
        *_colour_steps(pipeline),
        FuseSlicesd(
            roles,
            _passes(pipeline, weights),
            device=chosen.device,
            colour_map=pipeline.colour_map,
            **asdict(pipeline.fusion),
        ),
        MeasureFusiond(roles),
        MarkUnseend(roles),
        *([save_step(pipeline, output, chosen)] if output is not None else []),
    ]
    return FusionTransforms(steps)


def save_step(pipeline: Pipeline, output: str | Path, options: FuseOptions) -> SaveFusedd:
    """The step that writes what ``options`` want to ``output``."""
    return SaveFusedd(
        pipeline.roles,
        output,
        recipe={"pipeline": asdict(pipeline)},
        **{name: getattr(options, name) for name in WRITING},
    )


def given_transforms(pipeline: Pipeline, options: FuseOptions) -> dict[str, Path]:
    """Role to the file of its given transform.

    Raises:
        ConfigError: a transform without its role where several sources move, or of no source.
    """
    moving = [role for role in pipeline.roles if role != pipeline.reference]
    by_role = dict(options.transform)
    if "" in by_role and len(moving) == 1:
        by_role[moving[0]] = by_role.pop("")
    for role, path in by_role.items():
        if role not in moving:
            expected = " or ".join(f"{one}={path.name}" for one in moving)
            raise ConfigError(f"transform {role or path}: expected {expected}")
    return by_role


def fuse_volumes(
    volumes: Mapping[str, Any],
    steps: Compose,
    task: str,
    progress: Progress = silent,
) -> FusionResult:
    """The result of ``steps`` (those of `fusion_transforms`) on ``volumes``.

    Args:
        volumes: role to a path, or to a volume (1, X, Y, Z) in physical values.
        steps: up to the fused volume.
        task: what the result is called.
        progress: told each part of the job and its share done.

    Raises:
        MmifError: whatever cannot be done right.
    """
    data, records = run_steps(steps, volumes, progress)
    study = study_of(data)
    return FusionResult(
        task=task,
        reference=study.reference,
        grid=study.grid if study.grid is not None else _refuse_missing("grid"),
        fused=data[FUSED_KEY],
        sources=study.sources,
        metrics=mean_metrics(study.metrics_per_slice),
        metrics_per_slice=study.metrics_per_slice,
        fusion=study.fusion,
        warnings=study.warnings,
        readability=study.readability,
        seconds=seconds_by_part(steps, records),
        steps=records,
        loop=study.loop,
    )


def run_steps(
    steps: Compose, data: Mapping[Any, Any], progress: Progress = silent
) -> tuple[dict[Hashable, Any], tuple[StepRecord, ...]]:
    """``data`` through ``steps`` one by one, and the time and figures of each.

    Progress, times and figures are the runner's; the steps know nothing of them.
    """
    flowing: dict[Hashable, Any] = dict(data)
    records = []
    parts = [part_of(step) for step in steps.transforms]
    for index, step in enumerate(steps.transforms):
        if index == 0 or parts[index] != parts[index - 1]:
            progress(parts[index], 0.0)
        began = time.perf_counter()
        flowing = step(flowing)
        give_memory_back()
        seconds = time.perf_counter() - began
        record = _record(step, flowing, seconds)
        records.append(record)
        log.info("  %s %.2f s %s", record.name, seconds, _in_words(record.figures))
        if index + 1 == len(parts) or parts[index] != parts[index + 1]:
            progress(parts[index], 1.0)
    return flowing, tuple(records)


def part_of(step: Callable[..., Any]) -> str:
    """The part of the job that the time of ``step`` counts to; its own name if it is not ours."""
    return step.part if isinstance(step, Step) and step.part else type(step).__name__


def seconds_by_part(steps: Compose, records: Sequence[StepRecord]) -> dict[str, float]:
    """Seconds by part of the job, in the order they ran."""
    seconds: dict[str, float] = {}
    for step, record in zip(steps.transforms, records, strict=True):
        seconds[part_of(step)] = seconds.get(part_of(step), 0.0) + record.seconds
    return seconds


@contextmanager
def time_part(seconds: dict[str, float], part: str, progress: Progress = silent) -> Iterator[None]:
    """Count what runs inside as ``part`` of the job."""
    progress(part, 0.0)
    began = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began
    progress(part, 1.0)


def _record(step: Callable[..., Any], data: Mapping[Hashable, Any], seconds: float) -> StepRecord:
    if not isinstance(step, Step):
        return StepRecord(type(step).__name__, {}, seconds, {})
    return StepRecord(type(step).__name__, step.parameters, seconds, step.figures(data))


def _in_words(figures: Mapping[str, Any]) -> str:
    """Figures in one line of a log: numbers and words, no nested ones."""
    plain = {k: v for k, v in figures.items() if isinstance(v, float | int | str) and v != ""}
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in plain.items()
    )


def _colour_steps(pipeline: Pipeline) -> list[MapTransform]:
    """The activity in colour, where the pipeline names a colour map."""
    activity = pipeline.activity
    if activity is None or pipeline.colour_map is None:
        return []
    return [ColourActivityd(activity, pipeline.colour_map)]


def _passes(
    pipeline: Pipeline, weights: FusionWeights | Sequence[FusionWeights] | None
) -> list[FusionWeights]:
    """The weights of each pass of the network."""
    if weights is None:
        return list(pipeline.passes)
    if isinstance(weights, str | Path | Weights | nn.Module):
        return [*pipeline.passes[:-1], weights]
    return list(weights)


def _named_weights(weights: Any) -> dict[str, str]:
    return {"weights": str(weights)} if isinstance(weights, str | Path) else {}


def _refuse_missing(what: str) -> Any:
    raise ConfigError(f"the steps left no {what}; expected those of mmif.fusion_transforms")
