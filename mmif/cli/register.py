"""``mmif register``: two volumes in, a rigid transform and a verdict out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmif.cli.progress import quiet

if TYPE_CHECKING:
    from mmif.registration import Registration

ROLES = ("ct", "mri", "spect", "pet")


@click.command()
@click.option("--fixed", required=True, type=click.Path(path_type=Path), help="The volume at rest.")
@click.option("--moving", required=True, type=click.Path(path_type=Path), help="The one to bring.")
@click.option("--fixed-role", type=click.Choice(ROLES), help="What the fixed volume is.")
@click.option("--moving-role", type=click.Choice(ROLES), help="What the moving volume is.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.tfm to write."
)
@click.option(
    "--registration-timeout",
    type=click.FloatRange(min=1),
    help="Seconds the search may take (120).",
)
@click.option("--accept-registration", is_flag=True, help="Write a transform of verdict fail.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def register(
    fixed: Path,
    moving: Path,
    fixed_role: str | None,
    moving_role: str | None,
    output: Path,
    registration_timeout: float | None,
    accept_registration: bool,
    overwrite: bool,
) -> None:
    """Register two volumes of one head rigidly; write an ITK transform (fixed to moving, LPS)."""
    from mmif.config import RegistrationConfig
    from mmif.errors import OutputError, RegistrationError
    from mmif.io import load
    from mmif.io.atomic import publish, refuse_existing, unfinished
    from mmif.io.source import source_of
    from mmif.io.transform_files import write_itk_transform
    from mmif.registration import register as registered

    if output.suffix.lower() not in {".tfm", ".txt"} or output.is_dir():
        raise OutputError(f"{output}: expected the name of a file ending in .tfm or .txt")
    refuse_existing(output, overwrite=overwrite, inputs=[fixed, moving])
    config = RegistrationConfig()
    if registration_timeout:
        config = replace(config, timeout_s=registration_timeout)
    volumes = load(fixed, role=fixed_role), load(moving, role=moving_role)
    sources = [source_of(volume) for volume in volumes]
    warnings = [f"{source.path}: {w}" for source in sources if source for w in source.warnings]
    if len({source.patient_key for source in sources if source and source.patient_key}) > 1:
        warnings.append("the two volumes carry different PatientIDs")
    for warning in warnings if not quiet() else ():
        click.echo(f"Warning: {warning}", err=True)
    result = registered(*volumes, config)
    if result.verdict == "fail" and not accept_registration:
        raise RegistrationError(
            f"{moving}: no reliable pose on {fixed} ({'; '.join(result.reasons)}); "
            "--accept-registration writes it all the same"
        )
    with unfinished(output) as folder:
        publish(write_itk_transform(folder / output.name, result.fixed_to_moving_lps), output)
    for line in said(result, output) if not quiet() else ():
        click.echo(line)


def said(result: "Registration", output: Path) -> list[str]:
    """What the terminal shows."""
    error = result.error_estimate_mm
    about = "" if error is None else f", error about {error:.1f} mm"
    lines = [f"{output}: {result.verdict}{about}"]
    lines += [f"  {reason}" for reason in result.reasons]
    for check in result.checks:
        sign = "ok" if check.passed else "--"
        lines.append(f"  {sign} {check.name:20} {check.value:8.3f}   limit {check.limit:g}")
    return [*lines, f"  {result.method}; {result.seconds:.1f} s"]
