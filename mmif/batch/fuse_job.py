"""The work of a real batch: one study from files to files, with everything warm."""

import hashlib
import io
import json
import resource
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmif.batch.jobs import Job
from mmif.batch.pseudonyms import WITHHELD
from mmif.batch.results import METRICS, THUMBNAIL
from mmif.batch.run_job import Step
from mmif.config import Pipeline, load_pipeline, shipped_path
from mmif.errors import ConfigError, MmifError
from mmif.networks.remote import GpuAddress
from mmif.options import FuseOptions

if TYPE_CHECKING:
    from mmif.result import FusionResult
    from mmif.summary import Summary
    from mmif.weights import Weights

# Of the longer side, in the table of the batch's page; a choice of layout
THUMBNAIL_PIXELS = 128


@dataclass
class FuseWork:
    """`mmif.study.run_study`, with imports and weights paid once per worker.

    Attributes:
        pipelines: task to pipeline.
        options: what all studies have in common.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        gpu: the process that owns the GPU, if there is one.
    """

    pipelines: Mapping[str, Pipeline]
    options: FuseOptions = field(default_factory=FuseOptions)
    device: str = "auto"
    gpu: GpuAddress | None = None
    _weights: dict[str, tuple["Weights", ...]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Import everything and load the weights of all tasks."""
        import mmif.report.document
        import mmif.study  # noqa: F401
        from mmif.weights import load_passes

        for task, pipeline in self.pipelines.items():
            self._weights[task] = tuple(
                self._where_they_run(weights, name)
                for weights, name in zip(load_passes(pipeline), pipeline.passes, strict=True)
            )

    def _where_they_run(self, weights: "Weights", name: str) -> "Weights":
        """``weights`` with the network of the process that owns the GPU, if there is one."""
        if self.gpu is None:
            return weights
        from mmif.networks.remote import RemoteNetwork

        network: Any = RemoteNetwork(self.gpu, name)
        return replace(weights, network=network)

    def __call__(self, job: Job, output: Path, step: Step) -> Mapping[str, Any]:
        """Fuse one study into ``output``; what the ledger keeps of its summary."""
        from mmif.study import StudyRequest, run_study

        request = StudyRequest(
            inputs={role: source.path for role, source in job.inputs.items()},
            output=output,
            pipeline=self.pipelines[job.task],
            options=replace(
                self.options,
                series_uid={r: s.series_uid for r, s in job.inputs.items() if s.series_uid},
                device=self.device,
                overwrite=True,
            ),
            command=_command(job, output, self.options),
        )
        try:
            summary = run_study(
                request,
                weights=self._weights[job.task],
                progress=step,
                pictures={THUMBNAIL: thumbnail} if self.options.report else {},
            )
        except MmifError as error:
            if not self.options.deidentify:
                raise
            # reasons quote paths and headers; the traceback would as well
            raise type(error)(WITHHELD) from None
        return ledger_figures(summary)


def ledger_figures(summary: "Summary") -> dict[str, Any]:
    """What the ledger keeps of the summary of a study; of several registrations the worst error."""
    found, fusion = summary.registrations.values(), summary.fusion
    errors = [one.error_estimate_mm for one in found if one.error_estimate_mm is not None]
    return {
        "verdict": summary.registration.verdict,
        "registration_error_mm": max(errors, default=None),
        "metrics": {name: summary.metrics.get(name) for name in METRICS},
        "seconds": summary.seconds["total"],
        "steps": dict(summary.seconds),
        "device": fusion["device"],
        "warnings": len(summary.warnings),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def thumbnail(result: "FusionResult") -> bytes:
    """The fullest axial slice of the fused volume as a small JPEG, the patient's right at left."""
    from PIL import Image

    volume = result.fused.numpy()  # (C, X, Y, Z)
    brightness = volume.mean(axis=0)
    inside = brightness > 0.05
    k = int(inside.sum(axis=(0, 1)).argmax())
    columns, rows = (inside[:, :, k].any(axis=axis).nonzero()[0] for axis in (1, 0))
    picture = (volume[:, :, :, k].T * 255).round().clip(0, 255).astype("uint8")  # (Y, X, C)
    if len(columns) and len(rows):
        picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    x, y, _ = result.grid.spacing_mm
    scale = THUMBNAIL_PIXELS / max(image.width * x, image.height * y)
    size = (max(1, round(image.width * x * scale)), max(1, round(image.height * y * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _command(job: Job, output: Path, options: FuseOptions) -> str:
    """The ``mmif fuse`` line that does this study alone."""
    words = ["mmif", "fuse"]
    for role, source in job.inputs.items():
        words += [f"--{role}", str(source.path)]
        if source.series_uid:
            words += ["--series-uid", f"{role}={source.series_uid}"]
    return shlex.join([*words, *options.arguments(), "-o", str(output)])


def pipelines_of(tasks: Sequence[str], files: Sequence[str]) -> dict[str, Pipeline]:
    """The pipeline of each of ``tasks``: one of ``files``, else the shipped one.

    Raises:
        ConfigError: a file that is no pipeline, or of another task.
    """
    own = {one.task: one for one in map(load_pipeline, files)}
    strange = sorted(set(own) - set(tasks))
    if strange:
        raise ConfigError(f"--pipeline of task {strange[0]}; expected {', '.join(tasks)}")
    return {task: own.get(task) or load_pipeline(task) for task in tasks}


def parameters(pipelines: Mapping[str, Pipeline], options: FuseOptions) -> dict[str, Any]:
    """What decides the results of a batch, as the head of its ledger holds it."""
    from mmif import __version__

    return {
        "mmif_version": __version__,
        **{name: value for name, value in options.shared_options().items() if name != "device"},
        **{f"pipeline {task}": _digest(one) for task, one in sorted(pipelines.items())},
        **{f"weights {task}": _weights_sha256(one) for task, one in sorted(pipelines.items())},
    }


def _digest(pipeline: Pipeline) -> str:
    """A hash of what a pipeline says of fusing; how its weights were trained is theirs to say."""
    endless = replace(pipeline.registration, timeout_s=0.0)  # decides whether, never what
    fields = asdict(replace(pipeline, registration=endless))
    said = {k: value for k, value in fields.items() if k not in ("network", "loss", "training")}
    text = json.dumps(said, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _weights_sha256(pipeline: Pipeline) -> str:
    """The sha256 of the weights of each pass, joined by a space."""
    return " ".join(map(_sha256_of, pipeline.passes))


def _sha256_of(name: str) -> str:
    """The sha256 of weights; found without importing torch, "" if they are not there."""
    given = Path(name)
    places = (
        given,
        given / "model.safetensors",
        shipped_path("weights") / given / "model.safetensors",
    )
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        return ""
    with found.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
