"""``mmif register``: two volumes in, a rigid transform and a verdict out."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmif.cli.from_options import PATH, add_options
from mmif.cli.progress import quiet, say
from mmif.errors import MmifError, OutputError
from mmif.roles import VOLUME_ROLES

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from mmif.registration import Registration

KEYS = ("fixed", "moving")
SHARED = (
    "device",
    "registration_timeout",
    "accept_registration",
    "accept_other_anatomy",
    "accept_different_patients",
    "overwrite",
    "deidentify",
)
"""The options that mean here what they mean to ``mmif fuse``."""


@click.command()
@click.option("--fixed", required=True, type=PATH, help="The volume at rest.")
@click.option("--moving", required=True, type=PATH, help="The one to bring.")
@click.option("--fixed-role", type=click.Choice(VOLUME_ROLES), help="What the fixed volume is.")
@click.option("--moving-role", type=click.Choice(VOLUME_ROLES), help="What the moving volume is.")
@click.option("-o", "--output", required=True, type=PATH, help="FILE.tfm to write.")
@add_options(SHARED)
def register(fixed: Path, moving: Path, output: Path, **options: Any) -> None:
    """Register two volumes of one head rigidly; write an ITK transform (fixed to moving, LPS)."""
    if not options["deidentify"]:
        _run({"fixed": fixed, "moving": moving}, output, options)
        return
    from mmif.io.dicom.deidentify import clean_error

    try:
        _run({"fixed": fixed, "moving": moving}, output, options)
    except MmifError as error:
        raise clean_error(error, {"FIXED": fixed, "MOVING": moving}) from None


def _run(inputs: Mapping[str, Path], output: Path, options: Mapping[str, Any]) -> None:
    """Read, register, write, say."""
    from mmif.io import load
    from mmif.io.atomic import staging_path
    from mmif.io.ownership import refuse_existing
    from mmif.io.transform_files import write_itk_transform

    if output.suffix.lower() not in {".tfm", ".txt"} or output.is_dir():
        raise OutputError(f"{output}: expected the name of a file ending in .tfm or .txt")
    refuse_existing(output, overwrite=options["overwrite"], inputs=inputs.values())
    volumes = {key: load(path, role=options[f"{key}_role"]) for key, path in inputs.items()}
    result, warnings = _register(volumes, options)
    with staging_path(output) as path:
        write_itk_transform(path, result.fixed_to_moving_lps)
    if quiet():
        return
    for warning in warnings:
        say(f"Warning: {warning}", err=True)
    for line in registration_lines(result, output):
        say(line)


def _register(
    volumes: "Mapping[str, MetaTensor]", options: Mapping[str, Any]
) -> "tuple[Registration, tuple[str, ...]]":
    """The registration, and what must be said of the two: by the steps of ``mmif fuse``."""
    from mmif.config import RegistrationConfig
    from mmif.fusion import FusionTransforms, run_steps
    from mmif.io.dicom.deidentify import clean_words, deidentify_volumes
    from mmif.pair import reader_warnings
    from mmif.transforms.load import CheckOnePatientd
    from mmif.transforms.register import RegisterToReferenced
    from mmif.transforms.step import study_of

    steps = FusionTransforms(
        [
            CheckOnePatientd(KEYS, "fixed", options["accept_different_patients"]),
            RegisterToReferenced(
                KEYS,
                "fixed",
                register=True,
                accept_registration=options["accept_registration"],
                accept_other_anatomy=options["accept_other_anatomy"],
                device=options["device"],
                timeout_s=options["registration_timeout"] or RegistrationConfig.timeout_s,
            ),
        ]
    )
    study = study_of(run_steps(steps, volumes)[0])
    if options["deidentify"]:
        volumes = deidentify_volumes(volumes)
    warnings = (*reader_warnings(volumes), *study.warnings)
    said = clean_words(warnings) if options["deidentify"] else warnings
    return study.registrations["moving"], said


def registration_lines(result: "Registration", output: Path) -> list[str]:
    """What the terminal shows."""
    near, far = result.error_estimate_mm, result.error_farthest_mm
    about = "" if near is None else f", error about {near:.1f} mm"
    about += "" if far is None else f", {far:.1f} mm at the far end"
    lines = [f"{output}: {result.verdict}{about}"]
    lines += [f"  {reason}" for reason in result.reasons]
    for check in result.checks:
        sign = "ok" if check.passed else "--"
        lines.append(f"  {sign} {check.name:20} {check.value:8.3f}   limit {check.limit:g}")
    return [*lines, f"  {result.method}; {result.seconds:.1f} s"]
