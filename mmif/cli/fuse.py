"""``mmif fuse``."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmif.cli.from_options import PATH, add_options, chosen_options
from mmif.cli.progress import quiet, say
from mmif.errors import ConfigError, MmifError
from mmif.options import FuseOptions, specs
from mmif.roles import ACTIVITY_ROLES, IMAGE_ROLES, VOLUME_ROLES, label, task_of

if TYPE_CHECKING:
    from mmif.config import Pipeline
    from mmif.io.images import Image2D
    from mmif.study import StudyPlan
    from mmif.summary import Summary

ROLES = (*VOLUME_ROLES, *IMAGE_ROLES)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DEFAULT_OUTPUT = Path("fused")
IMAGE_OPTIONS = ("output", "device", "pipeline", "weights", "overwrite", "dry_run")


def _per_role(values: tuple[str, ...], option: str) -> dict[str, str]:
    """``ROLE=VALUE`` options as a mapping; a bare VALUE stands under the key ""."""
    chosen: dict[str, str] = {}
    for value in values:
        role, equals, rest = value.partition("=")
        if equals and role not in ROLES:
            raise click.UsageError(
                f"{option} {value}: expected ROLE=VALUE, ROLE of {', '.join(ROLES)}"
            )
        chosen[role if equals else ""] = rest if equals else value
    return chosen


def _role_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with a path for each role of the table."""
    for role in reversed(ROLES):
        command = click.option(f"--{role}", type=PATH, help=_role_help(role))(command)
    return command


def _role_help(role: str) -> str:
    """What may be given for ``role``."""
    if role in IMAGE_ROLES:
        return f"{label(role).capitalize()} image (2-D)."
    with_anatomy = ": with CT, MRI or both" if role in ACTIVITY_ROLES else ""
    return f"{label(role)}{with_anatomy}: file, folder or zip."


@click.command()
@_role_options
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=DEFAULT_OUTPUT,
    show_default=True,
    help="A folder, or X.nii / X.nii.gz for one NIfTI file; in 2-D an image file (fused.png).",
)
@click.option("--pipeline", help="Shipped name or YAML file. [by the roles]")
@add_options(specs(FuseOptions))
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
def fuse(**options: Any) -> None:
    """Fuse two or three volumes (or registered 2-D images) of one patient.

    \b
    mmif fuse --ct ct/ --mri mri.nii.gz -o fused
    mmif fuse --spect spect.dcm --mri mri/ -o fused.nii.gz
    mmif fuse --ct ct/ --mri mri/ --spect spect.dcm
    mmif fuse --ir ir.png --visible visible.png -o fused.png
    """
    inputs = {role: options[role] for role in ROLES if options[role] is not None}
    if len(inputs) not in (2, 3):
        raise click.UsageError(
            "expected two or three of --ct, --mri and one of --spect and --pet; or --ir with "
            "--visible"
        )
    if all(path.suffix.lower() in IMAGE_SUFFIXES for path in inputs.values()):
        _fuse_images(inputs, options)
    else:
        _fuse_volumes(inputs, options)


def _pipeline(inputs: dict[str, Path], options: dict[str, Any]) -> "Pipeline":
    """The pipeline of the options, its task that of the inputs."""
    from mmif.config import load_pipeline

    try:
        task = task_of(inputs)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    pipeline = load_pipeline(options["pipeline"] or task)
    if set(pipeline.roles) != set(inputs):
        raise ConfigError(
            f"pipeline {options['pipeline']} fuses {' and '.join(pipeline.roles)}, "
            f"found {' and '.join(inputs)}"
        )
    return pipeline


def _fuse_images(inputs: dict[str, Path], options: dict[str, Any]) -> None:
    """Registered 2-D images into one."""
    _refuse_unused()
    pipeline = _pipeline(inputs, options)
    output, overwrite = options["output"], options["overwrite"]
    if output == DEFAULT_OUTPUT:
        output = output.with_suffix(".png")
    from mmif.images import fuse_images, plan_images

    if options["dry_run"]:
        images, warnings = plan_images(inputs, output, pipeline, overwrite=overwrite)
        _say_image_plan(dict(zip(pipeline.roles, images, strict=True)), output, warnings)
        return
    fuse_images(
        inputs,
        output,
        pipeline,
        weights=options["weights"],
        device=options["device"],
        overwrite=overwrite,
    )
    if not quiet():
        say(f"{output}: fused")


def _say_image_plan(images: "dict[str, Image2D]", output: Path, warnings: tuple[str, ...]) -> None:
    """The dry run of 2-D images on the terminal."""
    for role, image in images.items():
        colour = "colour" if image.is_colour else "grey"
        say(f"{role}: {image.path} ({image.format}, {' x '.join(map(str, image.size))}, {colour})")
    say(f"would write {output}")
    for warning in warnings:
        say(f"Warning: {warning}", err=True)


def _fuse_volumes(inputs: dict[str, Path], options: dict[str, Any]) -> None:
    """Two or three volumes into one."""
    if not set(inputs) <= set(VOLUME_ROLES):
        found = " and ".join(str(path) for path in inputs.values())
        raise ConfigError(
            f"{found}: infrared and visible are fused as 2-D images; expected PNG, JPEG or TIFF"
        )
    pipeline = _pipeline(inputs, options)
    if not options["deidentify"]:
        _run(inputs, pipeline, options)
        return
    from mmif.io.dicom.deidentify import clean_error

    try:
        _run(inputs, pipeline, options)
    except MmifError as error:
        paths = {f"the {label(role)}": path for role, path in inputs.items()}
        raise clean_error(error, paths) from None


def _run(inputs: dict[str, Path], pipeline: "Pipeline", options: dict[str, Any]) -> None:
    """Plan two or three volumes, or fuse them."""
    from mmif.cli.progress import show_progress
    from mmif.io.ahead import fetch_ahead

    fetch_ahead(inputs.values())  # while torch and MONAI are imported
    from mmif.study import StudyRequest, check_request, plan, run_study

    request = StudyRequest(
        inputs=inputs,
        output=options["output"],
        pipeline=pipeline,
        options=FuseOptions.of(
            {
                **chosen_options(options),
                "series_uid": _series(inputs, options["series_uid"]),
                "frame": _frames(inputs, options["frame"]),
                "transform": _transforms(inputs, options["transform"]),
            }
        ),
        command=shlex.join(["mmif", *sys.argv[1:]]),
    )
    check_request(request)
    if options["dry_run"]:
        planned = plan(request)
        _say_plan(planned if not options["deidentify"] else _without_identity(planned))
        return
    with show_progress() as progress:
        summary = run_study(request, progress=progress)
    _say_summary(request.output, summary)


def _refuse_unused() -> None:
    """Refuse options that 2-D images have no use for, rather than ignore them."""
    context = click.get_current_context()
    given = [
        name
        for name in context.params
        if name not in (*ROLES, *IMAGE_OPTIONS)
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        names = ", ".join(f"--{name.rstrip('_').replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names}: of no use for 2-D images, which are fused as they are")


def _frames(inputs: dict[str, Path], values: tuple[str, ...]) -> dict[str, int]:
    """``--frame ROLE=N`` by role."""
    chosen = _per_role(values, "--frame")
    if "" in chosen:
        raise click.UsageError(f"--frame {chosen['']}: expected ROLE=N, as mri=0")
    _refuse_strangers(inputs, chosen)
    return {role: _number(value, "--frame") for role, value in chosen.items()}


def _transforms(inputs: dict[str, Path], values: tuple[str, ...]) -> dict[str, Path]:
    """``--transform`` by role; a bare FILE stands under the key ""."""
    chosen = _per_role(values, "--transform")
    _refuse_strangers(inputs, chosen)
    return {role: Path(value) for role, value in chosen.items()}


def _refuse_strangers(inputs: dict[str, Path], chosen: dict[str, str]) -> None:
    """Refuse ``ROLE=VALUE`` of a role that has no input."""
    for role in chosen:
        if role and role not in inputs:
            raise click.UsageError(f"{role}={chosen[role]}: no --{role} was given")


def _number(value: str, option: str) -> int:
    if not value.isdecimal():
        raise click.UsageError(f"{option}: found {value!r}, expected a number from 0")
    return int(value)


def _series(inputs: dict[str, Path], values: tuple[str, ...]) -> dict[str, str]:
    """``--series-uid`` by role; a bare UID belongs to the input that holds the series."""
    from mmif.io.dicom.read.series import find_series

    chosen: dict[str, str] = {}
    for value in values:
        named = _per_role((value,), "--series-uid")
        _refuse_strangers(inputs, named)
        for role, uid in named.items():
            holders = (
                [role]
                if role
                else [
                    name
                    for name, path in inputs.items()
                    if path.exists() and any(found.uid == uid for found in find_series(path))
                ]
            )
            if len(holders) != 1:
                found = "no input" if not holders else "several inputs"
                raise ConfigError(
                    f"--series-uid {uid}: in {found}; expected ROLE=UID of a series there"
                )
            chosen[holders[0]] = uid
    return chosen


def _without_identity(planned: "StudyPlan") -> "StudyPlan":
    """The plan without the paths and texts of its inputs."""
    from dataclasses import replace

    from mmif.io.dicom.deidentify import WITHHELD, clean_words

    inputs = tuple(replace(one, path=WITHHELD, selection="") for one in planned.inputs)
    return replace(planned, inputs=inputs, warnings=clean_words(planned.warnings))


def _say_plan(planned: "StudyPlan") -> None:
    """The dry run on the terminal."""
    for item in planned.inputs:
        shape = " x ".join(map(str, item.shape))
        spacing = " x ".join(f"{s:.3g}" for s in item.spacing_mm)
        say(f"{item.role}: {item.path} ({item.format}, {shape}, {spacing} mm)")
        if item.selection:
            say(f"    {item.selection}")
    grid = planned.grid
    spacing = " x ".join(f"{s:.3g}" for s in grid.spacing_mm)
    say(f"grid of the {planned.reference}: {' x '.join(map(str, grid.shape))}, {spacing} mm")
    for name in planned.outputs:
        say(f"would write {name}")
    for warning in planned.warnings:
        say(f"Warning: {warning}", err=True)


def _say_summary(output: Path, summary: "Summary") -> None:
    """What was chosen of each input, and what was done; warnings on stderr."""
    from mmif.transforms.readability import readability_line

    if quiet():
        return
    for item in summary.inputs:
        if item.selection:
            say(f"{item.role}: {item.selection}")
    for warning in summary.warnings:
        say(f"Warning: {warning}", err=True)
    for role, registration in summary.registrations.items():
        near, far = registration.error_estimate_mm, registration.error_farthest_mm
        about = "" if near is None else f", estimated error {near:.1f} mm"
        about += "" if far is None else f", {far:.1f} mm at the far end"
        of = f" of the {label(role)}" if len(summary.registrations) > 1 else ""
        say(f"registration{of}: {registration.verdict}{about}")
    if (loop := summary.loop_closure) is not None:
        way = " to ".join(map(label, loop.path))
        say(f"loop from {way}: {loop.residue_mm:.1f} mm, limit {loop.expected_mm:.1f} mm")
    if seen := readability_line(summary.readability):
        say(f"still seen of the sources: {seen}")
    say(f"{output}: {', '.join(summary.outputs)} in {summary.seconds['total']:.1f} s")
