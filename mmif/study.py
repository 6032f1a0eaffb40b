"""One study: files in, files out. The only place where fusion meets io.

``run_study`` reads as the command does: load, check, fuse, write, report. Outputs appear whole or
not at all: everything is written into a temporary folder beside the output and renamed.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from monai.data import MetaTensor

from mmif.config import Pipeline, load_pipeline, task_of
from mmif.errors import ConfigError, InputError, OutputError, RegistrationError
from mmif.fusion import FusionResult, Progress, fuse_volumes, fused_grid, silent
from mmif.io import load
from mmif.io.atomic import publish_together, refuse_existing, unfinished
from mmif.io.dicom.deidentify import DUMMY_TIME, deidentify_summary, deidentify_volumes
from mmif.io.dicom.write.derived import Alignment, DerivedSeries, DicomEncoding, Kind
from mmif.io.dicom.write.registration import write_spatial_registration
from mmif.io.source import Source, source_of
from mmif.io.transform_files import read_transform, write_itk_transform
from mmif.io.writing import write_dicom_series, write_nifti
from mmif.networks.inference import choose_device
from mmif.registration import Registration, check_transform, register, trust_headers
from mmif.summary import grid_summary, input_summary, summarise
from mmif.weights import Weights, load_weights

log = logging.getLogger(__name__)

OutputFormat = Literal["auto", "dicom", "nifti", "both"]


@dataclass(frozen=True)
class StudyRequest:
    """What to fuse, how, and where to.

    Attributes:
        inputs: role (``ct``, ``mri``, ``spect``, ``pet``) to a file, folder or zip.
        output: ``X.nii`` or ``X.nii.gz`` for one NIfTI file, else a folder.
        pipeline: the task.
        series_uid: role to the SeriesInstanceUID to take.
        frame: role to the frame to take of a 4-D volume.
        reference: role whose frame the fused volume has; the pipeline's by default.
        fov: ``reference`` or ``head``; the pipeline's by default.
        format: of the fused volume; ``auto`` is the reference's.
        dicom_encoding: ``series`` (one file a slice) or ``multiframe`` (colour only).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: shipped name or file; the pipeline's by default.
        transform: file with a given reference-to-moving transform.
        register: False trusts the headers.
        accept_registration: go on with a registration of verdict fail.
        accept_different_patients: go on with two PatientIDs.
        save_registered: write the moving volume on the fused grid too.
        report: write ``report.html`` (folder outputs).
        preview: PNG file for a contact sheet.
        overwrite: replace an output that exists.
        deidentify: leave no identity in any output.
        command: the command line, for the summary.
    """

    inputs: Mapping[str, Path]
    output: Path
    pipeline: Pipeline
    series_uid: Mapping[str, str] = field(default_factory=dict)
    frame: Mapping[str, int] = field(default_factory=dict)
    reference: str | None = None
    fov: Literal["reference", "head"] | None = None
    format: OutputFormat = "auto"
    dicom_encoding: DicomEncoding = "series"
    device: str = "auto"
    weights: str | None = None
    transform: Path | None = None
    register: bool = True
    accept_registration: bool = False
    accept_different_patients: bool = False
    save_registered: bool = False
    report: bool = True
    preview: Path | None = None
    overwrite: bool = False
    deidentify: bool = False
    command: str = ""

    @property
    def single_file(self) -> bool:
        """Whether the output is one NIfTI file rather than a folder."""
        return self.output.name.endswith((".nii", ".nii.gz"))

    @property
    def reference_role(self) -> str:
        """The role whose frame the fused volume has."""
        return self.reference or self.pipeline.reference

    @property
    def moving_role(self) -> str:
        """The other role."""
        first, second = self.pipeline.roles
        return second if self.reference_role == first else first


def run_study(
    request: StudyRequest,
    *,
    weights: Weights | None = None,
    progress: Progress = silent,
    seen: Callable[[FusionResult], None] | None = None,
) -> dict[str, Any]:
    """Fuse one study and write its outputs; the content of ``summary.json``.

    Args:
        request: what to do.
        weights: loaded weights (a batch loads them once); else loaded here.
        progress: called with a step's name and the share of it that is done.
        seen: called with the result before it is written (a batch makes its pictures of it).

    Raises:
        MmifError: whatever cannot be done right; nothing is left at the output then.
    """
    start = time.perf_counter()
    check_request(request)
    volumes = _load(request, progress)
    loaded = time.perf_counter()
    # A given DICOM transform is found by the true UIDs; nothing else may see them.
    shown = deidentify_volumes(volumes) if request.deidentify else volumes
    warnings = _check_pair(request, shown)
    weights = weights or load_weights(
        request.weights or request.pipeline.weights, request.pipeline.task
    )
    result = _fuse(request, volumes, weights, progress)
    result = replace(
        result,
        warnings=warnings + result.warnings,
        seconds={"read": loaded - start, **result.seconds},
    )
    if seen is not None:
        seen(result)
    return _write(request, result, shown, progress, start)


def fuse(
    *,
    output: str | Path | None = None,
    pipeline: str | Path | Pipeline | None = None,
    progress: Progress = silent,
    **inputs_and_options: Any,
) -> dict[str, Any] | FusionResult:
    """Fuse two volumes of one patient; the Python twin of ``mmif fuse``.

    Args:
        output: where to write, as the command's ``-o``. None fuses in memory.
        pipeline: name, YAML file or Pipeline; by default the task that the two roles name.
        progress: called with a step's name and the share of it that is done.
        **inputs_and_options: two roles of ``ct``, ``mri``, ``spect`` and ``pet`` (paths; or
            MetaTensors (1, X, Y, Z) with ``output=None``), and any field of `StudyRequest`.

    Returns:
        The summary (a dict) if ``output`` is given, else a `FusionResult`.

    Raises:
        MmifError: whatever cannot be done right.
    """
    roles = {
        k: inputs_and_options.pop(k)
        for k in ("ct", "mri", "spect", "pet")
        if inputs_and_options.get(k) is not None
    }
    chosen = (
        pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline or task_of(roles))
    )
    if set(roles) != set(chosen.roles):
        raise ConfigError(
            f"found {' and '.join(roles) or 'no input'}; "
            f"task {chosen.task} expects {' and '.join(chosen.roles)}"
        )
    in_memory = {k: v for k, v in roles.items() if isinstance(v, MetaTensor)}
    for name in ("transform", "preview"):
        if inputs_and_options.get(name) is not None:
            inputs_and_options[name] = Path(inputs_and_options[name])
    request = StudyRequest(
        inputs={k: Path(v) for k, v in roles.items() if k not in in_memory},
        output=Path(output) if output is not None else Path(),
        pipeline=chosen,
        **inputs_and_options,
    )
    if output is not None and not in_memory:
        return run_study(request, progress=progress)
    if output is not None:
        raise ConfigError(
            "volumes in memory are fused in memory; expected output=None, then mmif.save"
        )
    _check_in_memory(request, in_memory)
    volumes = {**_load(request, progress), **in_memory}
    warnings = _check_pair(request, volumes)
    weights = load_weights(request.weights or chosen.weights, chosen.task)
    result = _fuse(request, volumes, weights, progress)
    return replace(result, warnings=warnings + result.warnings)


def _check_in_memory(request: StudyRequest, volumes: Mapping[str, MetaTensor]) -> None:
    """Refuse what makes no sense without an output.

    Raises:
        MmifError: options that only files obey, or a volume of more than one channel.
    """
    _check_options(request)
    if request.preview or request.save_registered or request.deidentify:
        raise ConfigError("preview, save_registered and deidentify concern files; expected output")
    for role, volume in volumes.items():
        if volume.ndim != 4 or volume.shape[0] != 1:
            raise InputError(
                f"the {role.upper()} has shape {tuple(volume.shape)}; expected (1, X, Y, Z)"
            )


def check_request(request: StudyRequest) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        MmifError: a missing path, an output that exists or cannot be, options that contradict.
    """
    _check_options(request)
    if request.preview and not request.preview.absolute().parent.is_dir():
        raise OutputError(f"{request.preview.parent}: no such folder; expected one for the preview")
    if request.preview and request.output.resolve() in request.preview.resolve().parents:
        raise OutputError(f"{request.preview} lies inside the output; expected a place beside it")
    _check_targets(request)


def _check_options(request: StudyRequest) -> None:
    """Refuse inputs that are not there and options that contradict each other.

    Raises:
        MmifError: a missing path, or options that do not go together.
    """
    for role, path in request.inputs.items():
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; expected the {role.upper()}")
    if request.reference_role not in request.pipeline.roles:
        raise ConfigError(
            f"reference {request.reference_role}; expected {' or '.join(request.pipeline.roles)}"
        )
    for role in request.pipeline.roles:
        request.pipeline.intensity_of(role)
    if request.transform and not request.register:
        raise ConfigError("--transform and --no-register contradict each other; expected one")
    if request.single_file and request.format in ("dicom", "both"):
        raise ConfigError(f"{request.output}: one NIfTI file cannot hold format {request.format}")
    if request.single_file and request.save_registered:
        raise ConfigError(
            f"{request.output}: one NIfTI file cannot hold the registered volume too; "
            "expected a folder for --save-registered"
        )
    if request.preview and request.preview.suffix.lower() != ".png":
        raise ConfigError(f"{request.preview}: a preview is a PNG file; expected a name in .png")


def plan(request: StudyRequest) -> dict[str, Any]:
    """What `run_study` would do: inputs, grid and outputs, nothing registered or written.

    Raises:
        MmifError: whatever can be refused from the inputs alone.
    """
    check_request(request)
    load_weights(request.weights or request.pipeline.weights, request.pipeline.task)
    volumes = _load(request, silent)
    warnings = _check_pair(request, volumes)
    if request.transform:
        moving = source_of(volumes[request.moving_role])
        read_transform(request.transform, source_of(volumes[request.reference_role]), moving)
    reference = volumes[request.reference_role]
    return {
        "task": request.pipeline.task,
        "inputs": [input_summary(role, volumes[role]) for role in request.pipeline.roles],
        "reference": request.reference_role,
        "grid": grid_summary(fused_grid(reference, _pipeline(request).grid)),
        "outputs": _names(request, volumes),
        "warnings": list(warnings),
    }


def _pipeline(request: StudyRequest) -> Pipeline:
    """The request's pipeline with the options that override it."""
    if request.fov is None:
        return request.pipeline
    return replace(request.pipeline, grid=replace(request.pipeline.grid, fov=request.fov))


def _load(request: StudyRequest, progress: Progress) -> dict[str, MetaTensor]:
    """Both volumes, read side by side."""
    progress("read", 0.0)

    def one(role: str) -> MetaTensor:
        return load(
            request.inputs[role],
            role=role,
            series_uid=request.series_uid.get(role),
            frame=request.frame.get(role),
        )

    with ThreadPoolExecutor(len(request.inputs) or 1) as pool:
        volumes = dict(zip(request.inputs, pool.map(one, request.inputs), strict=True))
    progress("read", 1.0)
    return volumes


def _check_pair(request: StudyRequest, volumes: Mapping[str, MetaTensor]) -> tuple[str, ...]:
    """What must be said of the two inputs together and each alone.

    Raises:
        InputError: two patients, not accepted.
    """
    warnings = _said_of_each(volumes)
    keys = {s.patient_key for s in map(source_of, volumes.values()) if s and s.patient_key}
    if len(keys) > 1:
        found = f"{' and '.join(str(p) for p in request.inputs.values())}: two different PatientIDs"
        if not request.accept_different_patients:
            raise InputError(f"{found}; expected one patient, or --accept-different-patients")
        warnings.append("the two inputs carry different PatientIDs; accepted by option")
    return tuple(warnings)


def _said_of_each(volumes: Mapping[str, MetaTensor]) -> list[str]:
    """What the readers warned of, by role."""
    sources = {role: source_of(volume) for role, volume in volumes.items()}
    return [f"{role.upper()}: {w}" for role, s in sources.items() if s for w in s.warnings]


def _fuse(
    request: StudyRequest,
    volumes: Mapping[str, MetaTensor],
    weights: Weights,
    progress: Progress,
) -> FusionResult:
    """Registration as the request wants it, then the fusion.

    Raises:
        RegistrationError: the two cannot be brought together; it names both inputs.
    """
    pipeline = _pipeline(request)
    reference, moving = volumes[request.reference_role], volumes[request.moving_role]

    def registering() -> Registration:
        if not request.register:
            return trust_headers(reference, moving, pipeline.registration)
        if request.transform:
            matrix = read_transform(request.transform, source_of(reference), source_of(moving))
            return check_transform(matrix, reference, moving, pipeline.registration)
        device = str(choose_device(request.device))
        return register(reference, moving, pipeline.registration, device=device)

    try:
        return fuse_volumes(
            reference,
            moving,
            pipeline,
            weights,
            reference_role=request.reference_role,
            registering=lambda: _judged(request, registering()),
            device=request.device,
            progress=progress,
        )
    except RegistrationError as error:
        paths = " and ".join(str(request.inputs.get(r, r)) for r in request.pipeline.roles)
        said = "; ".join([str(error), *_said_of_each(volumes)])  # which may be why
        raise RegistrationError(f"{paths}: {said}") from error


def _judged(request: StudyRequest, registration: Registration) -> Registration:
    """The registration, unless its verdict is a refusal.

    Raises:
        RegistrationError: the verdict is fail and was not accepted.
    """
    if registration.verdict == "fail" and not request.accept_registration:
        reasons = "; ".join(registration.reasons)
        raise RegistrationError(
            f"the registration failed ({reasons}); expected two volumes of one head, "
            "or --accept-registration"
        )
    return registration


# Writing


def _targets(request: StudyRequest) -> tuple[Path, ...]:
    """The paths that a run creates at the top: OUT, its JSON beside a single file, the preview."""
    preview = (request.preview,) if request.preview else ()
    if not request.single_file:
        return request.output, *preview
    stem = request.output.name.removesuffix(".gz").removesuffix(".nii")
    return request.output, request.output.with_name(f"{stem}.json"), *preview


def _check_targets(request: StudyRequest) -> None:
    """Refuse to write where something stands that may not be replaced.

    Raises:
        OutputError: one of the targets exists, or cannot be written.
    """
    given_files = [request.transform] if request.transform else []
    refuse_existing(
        *_targets(request),
        overwrite=request.overwrite,
        inputs=[*request.inputs.values(), *given_files],
        made_by_mmif=["summary.json"],
    )


def _formats(request: StudyRequest, reference: MetaTensor) -> tuple[bool, bool]:
    """Whether to write DICOM, and whether NIfTI."""
    if request.single_file:
        return False, True
    source = source_of(reference)
    came_as = "dicom" if source and source.format == "dicom" else "nifti"
    wanted = came_as if request.format == "auto" else request.format
    return wanted in ("dicom", "both"), wanted in ("nifti", "both")


def _names(request: StudyRequest, volumes: Mapping[str, MetaTensor]) -> list[str]:
    """What a run leaves at the output."""
    if request.single_file:
        return [path.name for path in _targets(request)[:2]]
    dicom, nifti = _formats(request, volumes[request.reference_role])
    kinds = ["fused", *["registered"] * request.save_registered]
    return [
        *[f"{kind}/*.dcm" for kind in kinds if dicom],
        *[f"{kind}.nii.gz" for kind in kinds if nifti],
        "registration.tfm",
        *["registration.dcm"] * _all_dicom(volumes),
        "summary.json",
        *["report.html"] * request.report,
    ]


def _write(
    request: StudyRequest,
    result: FusionResult,
    volumes: Mapping[str, MetaTensor],
    progress: Progress,
    start: float,
) -> dict[str, Any]:
    """Write every output, whole or not at all; the summary."""
    began = time.perf_counter()
    progress("write", 0.0)
    with unfinished(request.output) as folder:
        out = folder / "out"
        out.mkdir()
        warnings = _write_volumes(request, result, volumes, out)
        seconds = {**result.seconds, "write": time.perf_counter() - began}
        result = replace(result, warnings=result.warnings + warnings, seconds=seconds)
        summary = summarise(result, volumes, _pipeline(request), request.command)
        summary["outputs"] = _names(request, volumes)
        if request.deidentify:
            summary = deidentify_summary(summary)
        progress("write", 1.0)
        _write_pages(request, result, summary, out, progress)
        summary["seconds"]["total"] = round(time.perf_counter() - start, 3)
        _write_json(summary, out / "summary.json")
        _publish(request, out)
    return summary


def _write_volumes(
    request: StudyRequest, result: FusionResult, volumes: Mapping[str, MetaTensor], out: Path
) -> tuple[str, ...]:
    """The fused and registered volumes and the transform; what the writers warn of."""
    dicom, nifti = _formats(request, volumes[result.reference_role])
    kinds: dict[Kind, MetaTensor] = {"fused": result.fused}
    if request.save_registered:
        kinds["registered"] = result.moving
    warnings: list[str] = []
    for kind, volume in kinds.items():
        if nifti:
            name = request.output.name if request.single_file else f"{kind}.nii.gz"
            write_nifti(volume, out / name)
        if dicom:
            warnings += write_dicom_series(
                volume, out / kind, _recipe(request, result, volumes, kind)
            )
    warnings += _write_transforms(request, result, volumes, out)
    return tuple(dict.fromkeys(warnings))


def _write_transforms(
    request: StudyRequest, result: FusionResult, volumes: Mapping[str, MetaTensor], out: Path
) -> tuple[str, ...]:
    """The registration for ITK, and for DICOM where both sources came as DICOM."""
    if request.single_file:
        return ()
    write_itk_transform(out / "registration.tfm", result.registration.fixed_to_moving_lps)
    if not _all_dicom(volumes):
        return ()
    recipe = _recipe(request, result, volumes, "registered")
    return tuple(write_spatial_registration(out / "registration.dcm", recipe))


def _all_dicom(volumes: Mapping[str, MetaTensor]) -> bool:
    sources = [source_of(volume) for volume in volumes.values()]
    return all(source is not None and source.format == "dicom" for source in sources)


def _source(volume: MetaTensor, role: str) -> Source:
    source = source_of(volume)
    if source is None:
        raise InputError(f"the {role.upper()} was made in memory; expected one read by mmif.load")
    return source


def _recipe(
    request: StudyRequest, result: FusionResult, volumes: Mapping[str, MetaTensor], kind: Kind
) -> DerivedSeries:
    """How a series of this study came about, for the DICOM writers."""
    pipeline = _pipeline(request)
    reference = _source(volumes[result.reference_role], result.reference_role)
    moving = _source(volumes[result.moving_role], result.moving_role)
    names = f"{result.moving_role.upper()} to {result.reference_role.upper()}"
    return DerivedSeries(
        reference=reference,
        others=(moving,),
        fixed_to_moving_lps=result.registration.fixed_to_moving_lps,
        alignment=_alignment(request),
        kind=kind,
        description=f"mmif {kind} {names}"
        + " RGB" * (result.fused.shape[0] == 3 and kind == "fused"),
        derivation=f"{names}: {result.registration.method}; trilinear resampling"
        + (f"; S3IMFusion, weights {result.fusion['weights']['name']}" if kind == "fused" else ""),
        parameters={
            "pipeline": asdict(pipeline),
            "transform": result.registration.fixed_to_moving_lps.round(6).tolist(),
            "deidentified": request.deidentify,
        },
        weights_sha256=result.fusion["weights"]["sha256"] if kind == "fused" else "",
        created=DUMMY_TIME if request.deidentify else datetime.now(),
        encoding=request.dicom_encoding,
    )


def _alignment(request: StudyRequest) -> Alignment:
    """Where the transform of this study is from."""
    if request.transform:
        return "given"
    return "searched" if request.register else "headers"


def _write_pages(
    request: StudyRequest,
    result: FusionResult,
    summary: dict[str, Any],
    out: Path,
    progress: Progress,
) -> None:
    """The report and the preview, where they are wanted."""
    began = time.perf_counter()
    if request.report and not request.single_file:
        from mmif.report import write_report

        progress("report", 0.0)
        write_report(result, summary, out / "report.html")
        progress("report", 1.0)
    if request.preview:
        from mmif.report import write_preview

        write_preview(result, out.parent / "preview.png")
    summary["seconds"]["report"] = round(time.perf_counter() - began, 3)


def _publish(request: StudyRequest, out: Path) -> None:
    """Move the finished work to its place, unless another run was there first.

    The preview may go to another disk: it is there, unfinished, before anything is shown.
    """
    _check_targets(request)
    finished = [out]
    if request.single_file:
        finished = [out / request.output.name, out / "summary.json"]
    with ExitStack() as stack:
        if request.preview:
            beside = stack.enter_context(unfinished(request.preview)) / "preview.png"
            finished.append(shutil.copyfile(out.parent / "preview.png", beside))
        publish_together(list(zip(finished, _targets(request), strict=True)))


def _write_json(summary: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
