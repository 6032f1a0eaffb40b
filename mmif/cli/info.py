"""``mmif info``: what is at a path, and what it is usable for."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmif.cli.progress import say
from mmif.roles import ACTIVITY_ROLES

if TYPE_CHECKING:
    from mmif.io.dicom.read.series import SeriesInfo
    from mmif.io.inventory import Inventory, VolumeInfo

# Files named before "and N more"; a choice of layout
_SHOWN_IGNORED = 20


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON for scripts.")
def info(path: Path, as_json: bool) -> None:
    """List the series and volumes found at PATH, and what each is usable for.

    PATH is a file, a folder of any depth, or a zip. Files are judged by content, not by name.
    """
    from mmif.io.inventory import inventory

    found = inventory(path)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in _lines(found):
        say(line)


def _lines(found: "Inventory") -> list[str]:
    """The lines to print."""
    lines = [line for series in found.series for line in _series_lines(series)]
    lines += [line for volume in found.volumes for line in _volume_lines(volume)]
    if found.ignored:
        lines.append(f"{len(found.ignored)} other files")
        lines += [f"  {file.name}: {file.reason}" for file in found.ignored[:_SHOWN_IGNORED]]
        if len(found.ignored) > _SHOWN_IGNORED:
            lines.append(f"  and {len(found.ignored) - _SHOWN_IGNORED} more")
    return lines


def _series_lines(series: "SeriesInfo") -> list[str]:
    """One DICOM series, as text."""
    title = f"{series.modality or '??'} series {series.number or ''} {series.description!r}"
    lines = [" ".join(title.split()), f"  UID          {series.uid}"]
    lines.append(f"  object       {series.object_name}, {_image_type(series)}")
    size = f"{series.slices} slices"
    if series.matrix:
        size += f" of {series.matrix[0]} x {series.matrix[1]}"
    lines.append(f"  size         {size}, {len(series.files)} files")
    if series.spacing_mm:
        lines.append(f"  spacing      {_spacing(series.spacing_mm)}, {series.orientation}")
    if {*series.roles} & {*ACTIVITY_ROLES}:
        said = {True: "corrected", False: "not corrected (NAC)", None: "not stated"}
        lines.append(f"  attenuation  {said[series.attenuation_corrected]}")
    return [*lines, *_verdict(series)]


def _volume_lines(volume: "VolumeInfo") -> list[str]:
    """One volume file, as text."""
    lines = [f"{volume.format} volume {volume.path}"]
    if volume.matrix and volume.spacing_mm:
        frames = f", {volume.frames} volumes" if volume.frames > 1 else ""
        lines.append(f"  size         {' x '.join(map(str, volume.matrix))}{frames}")
        lines.append(f"  spacing      {_spacing(volume.spacing_mm)}, {volume.orientation}")
    return [*lines, *_verdict(volume)]


def _verdict(found: "SeriesInfo | VolumeInfo") -> list[str]:
    """What a series or volume is usable for, or why it is not, and what was noticed."""
    lines = [f"  usable as    {', '.join(found.roles)}"] if found.roles else []
    if found.reason:
        lines.append(f"  not usable   {found.reason}")
    return lines + [f"  note         {warning}" for warning in found.warnings]


def _image_type(series: "SeriesInfo") -> str:
    """ImageType as the standard writes it."""
    return "\\".join(series.image_type) or "no image type"


def _spacing(spacing_mm: tuple[float, float, float]) -> str:
    """Three lengths."""
    return " x ".join(f"{step:.4g}" for step in spacing_mm) + " mm"
