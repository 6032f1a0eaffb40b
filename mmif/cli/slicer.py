"""``mmif slicer``: the command line module of 3D Slicer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mmif.cli.from_options import PATH
from mmif.cli.progress import say
from mmif.errors import ConfigError, OutputError
from mmif.roles import VOLUME_ROLES, label

ENDINGS = {"fused": (".nrrd",), "registered": (".nrrd",), "transform": (".tfm", ".txt")}
"""What the three results may be called; Slicer names them after the description's endings."""


@click.command()
@click.option("--xml", is_flag=True, help="Print the module's description and exit.")
@click.option("--fixed", type=PATH, help="The volume at rest: its frame is the fused volume's.")
@click.option("--moving", type=PATH, help="The other volume of the same head.")
@click.option("--fixedrole", type=click.Choice(VOLUME_ROLES), default="mri", show_default=True)
@click.option("--movingrole", type=click.Choice(VOLUME_ROLES), default="ct", show_default=True)
@click.option("--fused", type=PATH, help="The fused volume to write, .nrrd.")
@click.option("--registered", type=PATH, help="The moving volume on the fused grid, .nrrd.")
@click.option("--transform", type=PATH, help="Fixed to moving, .tfm.")
@click.option("--acceptregistration", is_flag=True, help="Go on with a verdict of fail.")
@click.option("--processinformationaddress", hidden=True)
@click.option("--returnparameterfile", hidden=True)
def slicer(**options: Any) -> None:
    """Fuse two volumes as a module inside 3D Slicer.

    Slicer calls this itself, by deploy/slicer/MmifFuse in its module paths. An output that stands
    already is replaced, for Slicer makes the names; an input, a link or a folder is not.
    """
    if options["xml"]:
        click.echo(description(), nl=False)
        return
    if options["fixed"] is None or options["moving"] is None:
        raise click.UsageError("expected --fixed and --moving, or --xml")
    if options["fixedrole"] == options["movingrole"]:
        raise ConfigError(f"both volumes are {label(options['fixedrole'])}; expected two roles")
    from mmif.io.ownership import refuse_existing

    outputs = {name: options[name] for name in ENDINGS if options[name] is not None}
    if not outputs:
        raise click.UsageError(f"expected at least one of {', '.join(f'--{n}' for n in ENDINGS)}")
    for name, path in outputs.items():
        if path.suffix.lower() not in ENDINGS[name]:
            raise OutputError(f"{path}: expected a name ending in {' or '.join(ENDINGS[name])}")
    refuse_existing(
        *outputs.values(),
        overwrite=True,
        inputs=[options["fixed"], options["moving"]],
        foreign=lambda path: "a folder" if path.is_dir() else "",
    )
    _fuse(options, outputs)


def _fuse(options: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Fuse in memory, then write the wanted ``outputs``, all of them or none."""
    from contextlib import ExitStack

    import mmif
    from mmif.io.atomic import commit_together, staging_folder
    from mmif.io.transform_files import write_itk_transform

    fixed, moving = options["fixedrole"], options["movingrole"]
    result: Any = mmif.fuse(
        **{fixed: options["fixed"], moving: options["moving"]},
        reference=fixed,
        accept_registration=options["acceptregistration"],
        progress=_tell_slicer(),
    )
    source = result.sources[moving]
    write: dict[str, Callable[[Path], object]] = {
        "fused": lambda path: mmif.save(result.fused, path),
        "registered": lambda path: mmif.save(source.values, path),
        "transform": lambda path: write_itk_transform(
            path, source.registration.fixed_to_moving_lps
        ),
    }
    with ExitStack() as stack:
        pairs = []
        for name, path in outputs.items():
            staged = stack.enter_context(staging_folder(path)) / path.name
            write[name](staged)
            pairs.append((staged, path))
        commit_together(pairs)
    for warning in result.warnings:
        say(f"Warning: {warning}", err=True)
    click.echo(f"registration: {source.registration.verdict}")


def _tell_slicer() -> Callable[[str, float], None]:
    """Progress in the words that Slicer reads from stdout (its execution schema, section 3)."""
    last = ""

    def progress(step: str, share: float) -> None:
        nonlocal last
        if step != last:
            last = step
            click.echo(f"<filter-comment>{step}</filter-comment>")
        click.echo(f"<filter-progress>{min(max(share, 0.0), 1.0):.2f}</filter-progress>")

    return progress


def description() -> str:
    """The module's description in Slicer's execution schema."""
    from xml.etree import ElementTree as xml

    from mmif import __version__

    root = xml.Element("executable")
    _texts(
        root,
        category="Registration",
        title="Fuse CT, MRI, SPECT and PET (mmif)",
        description="Registers two volumes of one head rigidly and fuses them. Research use only.",
        version=__version__,
        license="Apache-2.0",
        contributor="The mmif developers",
    )
    volumes = _group(root, "Volumes", "Two volumes of one patient's head")
    _file(volumes, "image", "fixed", "input", "Volume at rest; the result lies in its frame")
    _roles(volumes, "fixedrole", "What the volume at rest is", "mri")
    _file(volumes, "image", "moving", "input", "The other volume")
    _roles(volumes, "movingrole", "What the other volume is", "ct")
    results = _group(root, "Results", "What is given back")
    fused = _file(results, "image", "fused", "output", "Fused volume; colour with SPECT or PET")
    fused.set("type", "any")
    _file(results, "image", "registered", "output", "The other volume on the fused grid")
    _file(results, "transform", "transform", "output", "Brings the other volume to the one at rest")
    choice = _group(root, "Choices", "What is gone on with")
    accept = xml.SubElement(choice, "boolean")
    _texts(
        accept,
        name="acceptregistration",
        longflag="--acceptregistration",
        label="Accept a failed registration",
        description="Go on where the registration's own verdict is fail",
        default="false",
    )
    xml.indent(root)
    text = xml.tostring(root, encoding="unicode", short_empty_elements=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _texts(parent: Any, **texts: str) -> None:
    """A child with text for each keyword."""
    from xml.etree import ElementTree as xml

    for name, text in texts.items():
        xml.SubElement(parent, name).text = text


def _group(root: Any, name: str, words: str) -> Any:
    """One box of parameters."""
    from xml.etree import ElementTree as xml

    group = xml.SubElement(root, "parameters")
    _texts(group, label=name, description=words)
    return group


def _file(group: Any, kind: str, name: str, channel: str, words: str) -> Any:
    """A volume or transform that travels as a file."""
    from xml.etree import ElementTree as xml

    ending = ENDINGS.get(name, (".nrrd",))[0]
    found = xml.SubElement(group, kind, fileExtensions=ending)
    if kind == "transform":
        found.set("type", "linear")
    _texts(
        found,
        name=name,
        longflag=f"--{name}",
        label=name.capitalize(),
        description=words,
        channel=channel,
    )
    return found


def _roles(group: Any, name: str, words: str, default: str) -> None:
    """The choice of what a volume is."""
    from xml.etree import ElementTree as xml

    found = xml.SubElement(group, "string-enumeration")
    _texts(
        found,
        name=name,
        longflag=f"--{name}",
        label=f"{name.removesuffix('role').capitalize()} is",
        description=words,
        default=default,
    )
    for role in VOLUME_ROLES:
        xml.SubElement(found, "element").text = role
