"""A contact sheet: a few axial slices of both sources and of the fused volume, as one PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmif.io.images import save_pixels
from mmif.report.figures import content_box
from mmif.report.pictures import Floats, Pixels, grey, plane_spacing, rgb, to_aspect
from mmif.report.readability import colour_bar, in_colour
from mmif.report.study_view import StudyView, axial_slice
from mmif.roles import label

if TYPE_CHECKING:
    from mmif.result import FusionResult

# A choice of layout, as what follows
COLUMNS = 6
# Pixels: the width of a slice, between slices, and the line of words above a row
TILE, GAP, HEAD = 224, 6, 28
# Words, numbers and what lies behind: contrasts of 16.3 and 8.9 (WCAG 2.1 asks for 4.5)
INK, MUTED, GROUND = (232, 238, 243), (165, 179, 192), (12, 16, 20)


def write_preview(result: "FusionResult", path: Path) -> None:
    """Write the contact sheet of ``result`` to ``path`` (PNG)."""
    save_pixels(contact_sheet(result), path)


def contact_sheet(result: "FusionResult", slices: Sequence[int] = ()) -> Pixels:
    """(rows, columns, 3): one row each for the reference, each moving and the fused volume.

    The slices asked for, or up to six, evenly spread over those that show the head, from feet to
    head; the patient's right is at the left. The numbers are those of the slices, from 1.
    """
    view = StudyView(result)
    slices = slices or spread_slices(view.survey.area / math.prod(view.shape[:2]))
    box = content_box(view.survey.fused_shadow.T)
    names = [
        view.reference_label,
        *(f"{label(one.role)}, registered" for one in result.moving),
        "Fused",
    ]
    sources = (view.reference, *result.moving)
    tiles = [[_tile(view, axial_slice(one, k), box) for k in slices] for one in sources]
    tiles.append([_tile(view, view.fused[..., k], box) for k in slices])
    height = max(tile.shape[0] for row in tiles for tile in row)
    wide = GAP + len(slices) * (TILE + GAP)
    sheet = Image.new("RGB", (wide, len(names) * (HEAD + height + GAP) + GAP), GROUND)
    pen = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(size=16), ImageFont.load_default(size=13)
    for n, name in enumerate(names):
        top = GAP + n * (HEAD + height + GAP)
        pen.text((GAP + 2, top + 3), name, fill=INK, font=font)
        for m, tile in enumerate(tiles[n]):
            left = GAP + m * (TILE + GAP)
            sheet.paste(Image.fromarray(tile), (left, top + HEAD))
            if n == 0:
                pen.text((left + 6, top + HEAD + 4), f"{slices[m] + 1}", fill=MUTED, font=small)
    return _with_legend(np.asarray(sheet), result)


def _with_legend(sheet: Pixels, result: "FusionResult") -> Pixels:
    """The sheet with the legend of its colours below, where it has any."""
    coloured = in_colour(result.sources)
    if coloured is None:
        return sheet
    bar = colour_bar(coloured, result.colour_room, ink=MUTED, ground=GROUND)
    wide = max(sheet.shape[1], bar.shape[1] + 2 * GAP)
    whole = np.full((sheet.shape[0] + bar.shape[0] + 2 * GAP, wide, 3), GROUND, np.uint8)
    whole[: sheet.shape[0], : sheet.shape[1]] = sheet
    whole[sheet.shape[0] + GAP : -GAP, GAP : GAP + bar.shape[1]] = bar
    return whole


def spread_slices(filled: Floats) -> list[int]:
    """Up to six slices, evenly spread over those with anything bright.

    Args:
        filled: (Z,), the share of each slice that is bright.
    """
    used = np.flatnonzero(filled > 0.01)
    if not len(used):
        used = np.arange(len(filled))
    places = np.linspace(0, len(used) - 1, min(COLUMNS, len(used)) + 2)[1:-1]
    return sorted({int(used[round(float(place))]) for place in places})


def _tile(view: StudyView, values: Floats, box: tuple[slice, slice]) -> Pixels:
    """A slice (1 or 3, X, Y) in 0..1, as wide as a tile."""
    pixels = grey(values.transpose(2, 1, 0))[box]
    row_mm, column_mm = plane_spacing(view.result.grid.spacing_mm, "axial")
    grey_or_rgb = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return rgb(to_aspect(np.ascontiguousarray(grey_or_rgb), row_mm, column_mm, TILE))
