"""One study: files in, files out.

``run_study`` reads as the command does: check, run the steps of `mmif.fusion_transforms`, write,
report. Outputs appear whole or not at all: everything is written into a temporary folder beside
the output and renamed.
"""

import inspect
import logging
import shutil
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack, overload

from monai.data import MetaTensor

from mmif.config import Pipeline, load_pipeline
from mmif.errors import ConfigError, InputError, OutputError
from mmif.fusion import (
    FusionTransforms,
    Progress,
    fuse_volumes,
    fusion_transforms,
    given_transforms,
    save_step,
    silent,
    time_part,
)
from mmif.io.atomic import commit_together, staging_folder
from mmif.io.dicom.deidentify import PROFILE, WITHHELD, clean_words
from mmif.io.ownership import foreign_study, record_of, refuse_existing, summary_beside
from mmif.io.seals import sealed_json
from mmif.io.source import source_of
from mmif.io.transform_files import read_transform
from mmif.options import FuseOptions, OptionKeywords
from mmif.pair import check_one_patient, reader_warnings
from mmif.result import FUSED_KEY, STUDY_KEY, FusionResult, StudyRecord
from mmif.roles import VOLUME_ROLES, task_of
from mmif.summary import (
    GridSummary,
    InputSummary,
    Summary,
    summarise,
    summarise_grid,
    summarise_volume,
)
from mmif.transforms.axial_grid import fused_grid
from mmif.transforms.load import LoadVolumed
from mmif.transforms.save import SaveFusedd
from mmif.weights import Weights, load_passes

if TYPE_CHECKING:
    from mmif.report.document import DrawnReport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyRequest:
    """What to fuse, how, and where to.

    Attributes:
        inputs: role (``ct``, ``mri``, ``spect``, ``pet``) to a file, folder or zip.
        output: ``X.nii`` or ``X.nii.gz`` for one NIfTI file, else a folder.
        pipeline: the task, with what the options say in place of its own.
        options: how; `mmif.options.FuseOptions`.
        command: the command line, for the summary.
    """

    inputs: Mapping[str, Path]
    output: Path
    pipeline: Pipeline
    options: FuseOptions = field(default_factory=FuseOptions)
    command: str = ""

    def __post_init__(self) -> None:
        """Let the pipeline say what the options say."""
        object.__setattr__(self, "pipeline", self.pipeline.with_options(self.options))

    @property
    def single_file(self) -> bool:
        """Whether the output is one NIfTI file rather than a folder."""
        return self.output.name.endswith((".nii", ".nii.gz"))

    def steps(self, weights: Sequence[Weights] = ()) -> FusionTransforms:
        """The steps from paths to files; loaded ``weights``, one a pass, in place of loading."""
        loaded = weights or load_passes(self.pipeline)
        return fusion_transforms(
            self.pipeline, output=self.output, weights=loaded, options=self.options
        )


@dataclass(frozen=True)
class StudyPlan:
    """What `run_study` would do, known before anything is registered or written."""

    task: str
    inputs: tuple[InputSummary, ...]
    reference: str
    grid: GridSummary
    outputs: tuple[str, ...]
    warnings: tuple[str, ...]


def run_study(
    request: StudyRequest,
    *,
    weights: Sequence[Weights] = (),
    progress: Progress = silent,
    pictures: Mapping[str, Callable[[FusionResult], bytes]] = MappingProxyType({}),
) -> Summary:
    """Fuse one study and write its outputs.

    Args:
        request: what to do.
        weights: loaded weights, one a pass (a batch loads them once); else loaded here.
        progress: called with a part of the job and the share of it that is done.
        pictures: name of a further file in the output folder to what makes its content.

    Raises:
        MmifError: whatever cannot be done right; nothing is left at the output then.
    """
    start = time.perf_counter()
    check_request(request)
    steps = request.steps(weights)
    task = request.pipeline.task
    result = fuse_volumes(request.inputs, steps.up_to(SaveFusedd), task, progress)
    made = {name: make(result) for name, make in pictures.items()}
    return _write(request, steps.find(SaveFusedd), result, progress, start, made)


class FuseKeywords(OptionKeywords, total=False):
    """The sources of `fuse` by role, and its options."""

    ct: str | Path | MetaTensor | None
    mri: str | Path | MetaTensor | None
    spect: str | Path | MetaTensor | None
    pet: str | Path | MetaTensor | None
    weights: str | None


@overload
def fuse(
    *,
    output: str | Path,
    pipeline: str | Path | Pipeline | None = None,
    progress: Progress = silent,
    **inputs_and_options: Unpack[FuseKeywords],
) -> Summary: ...


@overload
def fuse(
    *,
    output: None = None,
    pipeline: str | Path | Pipeline | None = None,
    progress: Progress = silent,
    **inputs_and_options: Unpack[FuseKeywords],
) -> FusionResult: ...


def fuse(
    *,
    output: str | Path | None = None,
    pipeline: str | Path | Pipeline | None = None,
    progress: Progress = silent,
    **inputs_and_options: Unpack[FuseKeywords],
) -> Summary | FusionResult:
    """Fuse the volumes of one patient; the Python twin of ``mmif fuse``.

    Args:
        output: where to write, as the command's ``-o``. None fuses in memory.
        pipeline: name, YAML file or Pipeline; by default the task that the roles name.
        progress: called with a part of the job and the share of it that is done.
        **inputs_and_options: roles, ``ct``, ``mri``, ``spect`` and ``pet``, as paths, or as
            MetaTensors (1, X, Y, Z) with ``output=None``; and any of `FuseOptions` by name.

    Returns:
        The `Summary` if ``output`` is given, else a `FusionResult`.

    Raises:
        MmifError: whatever cannot be done right.
        UnknownOptionError: a name that is no option; it says the nearest one.
    """
    given: dict[str, Any] = {k: v for k, v in inputs_and_options.items() if v is not None}
    roles = {role: given.pop(role) for role in VOLUME_ROLES if role in given}
    options = FuseOptions.of(given, also=(*VOLUME_ROLES, "output", "pipeline", "progress"))
    chosen = (
        pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline or task_of(roles))
    )
    if set(roles) != set(chosen.roles):
        raise ConfigError(
            f"found {' and '.join(roles) or 'no input'}; "
            f"task {chosen.task} expects {' and '.join(chosen.roles)}"
        )
    in_memory = {k: v for k, v in roles.items() if isinstance(v, MetaTensor)}
    request = StudyRequest(
        inputs={k: Path(v) for k, v in roles.items() if k not in in_memory},
        output=Path(output) if output is not None else Path("fused"),
        pipeline=chosen,
        options=options,
    )
    if output is not None and not in_memory:
        return run_study(request, progress=progress)
    if output is not None:
        raise ConfigError(
            "volumes in memory are fused in memory; expected output=None, then mmif.save"
        )
    _check_options(request)
    if options.preview or options.save_registered or options.deidentify:
        raise ConfigError("preview, save_registered and deidentify concern files; expected output")
    steps = request.steps().up_to(SaveFusedd)
    return fuse_volumes({**request.inputs, **in_memory}, steps, chosen.task, progress)


def _keywords() -> inspect.Signature:
    """The signature of `fuse` with every keyword by its name, of the one table of options."""
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [p for p in inspect.signature(fuse).parameters.values() if p.kind is kind]
    roles = [inspect.Parameter(role, kind, default=None) for role in VOLUME_ROLES]
    plain = FuseOptions()
    options = [
        inspect.Parameter(f.name, kind, default=getattr(plain, f.name), annotation=f.type)
        for f in fields(FuseOptions)
    ]
    return inspect.Signature([*roles, *own, *options])


fuse.__signature__ = _keywords()  # type: ignore[attr-defined]


def check_request(request: StudyRequest) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        MmifError: a missing path, an output that exists or cannot be, options that contradict.
    """
    _check_options(request)
    preview = request.options.preview
    if preview and not preview.absolute().parent.is_dir():
        raise OutputError(f"{preview.parent}: no such folder; expected one for the preview")
    if preview and request.output.resolve() in preview.resolve().parents:
        raise OutputError(f"{preview} lies inside the output; expected a place beside it")
    _check_targets(request)


def _check_options(request: StudyRequest) -> None:
    """Refuse inputs that are not there and options that contradict each other.

    Raises:
        MmifError: a missing path, or options that do not go together.
    """
    options, pipeline = request.options, request.pipeline
    for role, path in request.inputs.items():
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; expected the {role.upper()}")
    for role in pipeline.roles:
        pipeline.intensity_of(role)
    if options.transform and options.register is not None:
        flag = "--register" if options.register else "--no-register"
        raise ConfigError(f"--transform and {flag} contradict each other; expected one")
    given_transforms(pipeline, options)
    save_step(pipeline, request.output, options)
    if options.preview and options.preview.suffix.lower() != ".png":
        raise ConfigError(f"{options.preview}: a preview is a PNG file; expected a name in .png")


def plan(request: StudyRequest) -> StudyPlan:
    """What `run_study` would do: inputs, grid and outputs, nothing registered or written.

    Raises:
        MmifError: whatever can be refused from the inputs alone.
    """
    check_request(request)
    steps, pipeline, options = request.steps(), request.pipeline, request.options
    volumes = steps.find(LoadVolumed)(request.inputs)
    said = check_one_patient(volumes, options.accept_different_patients)
    warnings = (*reader_warnings(volumes), *said)
    origins = {role: source_of(volumes[role]) for role in pipeline.roles}
    for role, path in given_transforms(pipeline, options).items():
        read_transform(path, origins[pipeline.reference], origins[role])
    outputs = steps.find(SaveFusedd).names(origins, pipeline.reference)
    return StudyPlan(
        task=pipeline.task,
        inputs=tuple(summarise_volume(role, volumes[role]) for role in pipeline.roles),
        reference=pipeline.reference,
        grid=summarise_grid(fused_grid(volumes[pipeline.reference], pipeline.grid)),
        outputs=(*outputs, *_page_names(request)),
        warnings=warnings,
    )


# Writing


def _targets(request: StudyRequest) -> tuple[Path, ...]:
    """The paths that a run creates at the top: OUT, its JSON beside a single file, the preview."""
    preview = (request.options.preview,) if request.options.preview else ()
    if not request.single_file:
        return request.output, *preview
    return request.output, summary_beside(request.output), *preview


def _check_targets(request: StudyRequest) -> None:
    """Refuse to write where something stands that may not be replaced.

    Raises:
        OutputError: one of the targets exists, or cannot be written.
    """
    refuse_existing(
        *_targets(request),
        overwrite=request.options.overwrite,
        inputs=[*request.inputs.values(), *request.options.transform.values()],
        foreign=foreign_study(request.output if request.single_file else None),
    )


def _page_names(request: StudyRequest) -> list[str]:
    """What a run leaves beside the volumes and transforms."""
    if request.single_file:
        return [_targets(request)[1].name]
    return ["summary.json", *["report.html"] * request.options.report]


def _write(
    request: StudyRequest,
    save: SaveFusedd,
    result: FusionResult,
    progress: Progress,
    start: float,
    pictures: Mapping[str, bytes],
) -> Summary:
    """Write every output, whole or not at all; the report is drawn meanwhile."""
    seconds = dict(result.seconds)
    paged = request.options.preview or (request.options.report and not request.single_file)
    # the folder goes after the thread has ended, whatever happens
    with staging_folder(request.output) as folder, ThreadPoolExecutor(1) as other:
        out = folder / "out"
        out.mkdir()
        progress("write", 0.0)
        writing = other.submit(_timed, lambda: save.write(_data(result), out))
        with time_part(seconds, "report", progress if paged else silent):
            report = _draw_report(request, result)
            warnings, seconds["write"] = writing.result()
            progress("write", 1.0)
            result = replace(result, warnings=result.warnings + warnings, seconds=seconds)
            summary = _summarise(request, save, result)
            _write_pages(request, result, summary, report, out)
        for name, content in pictures.items():
            (out / name).write_bytes(content)
        record = record_of(out)
        seconds["total"] = time.perf_counter() - start
        summary = replace(
            summary,
            seconds={part: round(s, 3) for part, s in seconds.items()},
            files=record.sizes,
            sha256=record.sha256,
        )
        _write_json(summary, out / "summary.json")
        _commit_outputs(request, out)
    return summary


def _timed(call: Callable[[], tuple[str, ...]]) -> tuple[tuple[str, ...], float]:
    """What ``call`` gives, and its seconds."""
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def _summarise(request: StudyRequest, save: SaveFusedd, result: FusionResult) -> Summary:
    """The summary of ``result``, without identity where none may be said."""
    origins = {role: source.origin for role, source in result.sources.items()}
    summary = replace(
        summarise(result, request.pipeline, request.command),
        outputs=(*save.names(origins, result.reference), *_page_names(request)),
    )
    if not request.options.deidentify:
        return summary
    return replace(
        summary,
        command=WITHHELD,
        warnings=clean_words(summary.warnings),
        # parameters name files and series; figures hold numbers alone
        steps=tuple(replace(step, parameters={}) for step in summary.steps),
        deidentified=PROFILE,
    )


def _data(result: FusionResult) -> dict[Hashable, Any]:
    """``result`` as the steps hand it on."""
    study = StudyRecord(result.reference, sources=result.sources, fusion=result.fusion)
    return {FUSED_KEY: result.fused, STUDY_KEY: study}


def _draw_report(request: StudyRequest, result: FusionResult) -> "DrawnReport | None":
    """The report but for its words, where it is wanted."""
    if not request.options.report or request.single_file:
        return None
    from mmif.report import draw_report

    return draw_report(result)


def _write_pages(
    request: StudyRequest,
    result: FusionResult,
    summary: Summary,
    report: "DrawnReport | None",
    out: Path,
) -> None:
    """The report and the preview, where they are wanted."""
    if report is not None:
        report.write(summary.plain(), out / "report.html")
    if request.options.preview:
        from mmif.report import write_preview

        write_preview(result, out.parent / "preview.png")


def _commit_outputs(request: StudyRequest, out: Path) -> None:
    """Move the finished work to its place, unless another run was there first.

    The preview may go to another disk: it is there, unfinished, before anything is shown.
    """
    _check_targets(request)
    finished = [out]
    if request.single_file:
        finished = [out / request.output.name, out / "summary.json"]
    with ExitStack() as stack:
        if request.options.preview:
            beside = stack.enter_context(staging_folder(request.options.preview)) / "preview.png"
            finished.append(shutil.copyfile(out.parent / "preview.png", beside))
        commit_together(list(zip(finished, _targets(request), strict=True)))


def _write_json(summary: Summary, path: Path) -> None:
    path.write_text(sealed_json(summary.plain()), encoding="utf-8")
