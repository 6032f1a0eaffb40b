"""The section "What can be read here": what of each source a reader still sees, and the legend."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mmif.report.page import number
from mmif.report.pictures import Pixels, data_uri
from mmif.roles import label
from mmif.transforms.colour import ACTIVITY, colour_fused

if TYPE_CHECKING:
    from mmif.result import FusionResult, RegisteredSource

WANTED: Mapping[str, tuple[str, str, float, str]] = {
    "mri_gain": (
        "MRI gain",
        "≥",
        0.85,
        "How strongly the MRI's detail stands in the fused brightness; 1 is in full.",
    ),
    "mri_correlation": (
        "Correlation with the MRI",
        "≥",
        0.92,
        "Of the fused detail with the MRI's; below, something else covers it.",
    ),
    "not_mri": (
        "What is not MRI",
        "≤",
        0.40,
        "The other's findings and noise, as a multiple of the MRI's own contrast.",
    ),
    "noise": (
        "Noise of the CT",
        "≤",
        4.0,
        "Its grain in the fused brain, in grey levels of 255; an eye tells about 2 to 4 apart.",
    ),
    "ct_gain": (
        "CT gain",
        "≥",
        0.0,
        "How strongly the CT's detail stands there: what departs from its parenchyma is shown.",
    ),
    "bone": ("Bone", "≥", 0.93, "Mean brightness where the CT shows bone; 1 is white."),
    "activity_rho": (
        "Activity read back",
        "≥",
        0.96,
        "Correlation of the activity with what an eye reads from the colours. Where most has one "
        "level, as in a body, its noise lowers it: then the error tells.",
    ),
    "activity_error": (
        "Error of that reading",
        "≤",
        0.035,
        "Mean error, as a share of the activity's scale.",
    ),
    "anatomy_slope": (
        "Luminance by anatomy",
        "≥",
        0.6,
        "How much of the anatomy's brightness the fused volume has; two sources.",
    ),
    "activity_slope": (
        "Luminance by activity",
        "≥",
        0.25,
        "How much brighter the hottest activity is than none; two sources.",
    ),
}
"""Name, sign, what is wanted, what it says. The limits are those of `docs/evaluation.md`."""

UNDER_COLOUR = {"mri_gain": 0.6, "ct_gain": 0.45, "bone": 0.6}
"""What is wanted where an activity lies over one anatomy, which has 0.6 of the luminance then; a
CT's soft tissue takes 0.75 of its window (`mmif.result.SOFT_TISSUE`), and 0.45 of it is as much."""

LEGEND, MARGIN = (256, 128), (54, 40)
"""Pixels of the colour bar (activity by brightness), and of the words to its left and below."""

TABLE = (128, 64)
"""Steps of activity and of brightness by which the crosshair reads a colour."""

Colour = tuple[int, int, int]
# Words on white: a contrast of 5.7 (WCAG 2.1 asks for 4.5)
INK: Colour = (90, 104, 118)
PAPER: Colour = (255, 255, 255)  # that of the page


@dataclass(frozen=True)
class Figure:
    """One figure of readability, ready to be read."""

    name: str
    value: str
    limit: str
    tone: str
    meaning: str


def readability_rows(readability: Mapping[str, Any], sources: int) -> list[Figure]:
    """The rows of the table; the slopes of luminance hold for two sources alone.

    Args:
        readability: as ``summary.json`` has it.
        sources: how many were fused.
    """
    rows = []
    in_pair = UNDER_COLOUR if sources == 2 and "activity_rho" in readability else {}
    for key, (name, sign, grey, meaning) in WANTED.items():
        value, wanted = readability.get(key), in_pair.get(key, grey)
        if value is None or (sources > 2 and key.endswith("slope")):
            continue
        met = value >= wanted if sign == "≥" else value <= wanted
        limit = f"{sign} {wanted:g}"
        rows.append(Figure(name, number(value, 2), limit, "pass" if met else "review", meaning))
    return rows


def colour_bar(
    source: "RegisteredSource", room: float, ink: Colour = INK, ground: Colour = PAPER
) -> Pixels:
    """(rows, columns, 3): the legend, activity to the right, fused brightness upwards.

    Args:
        source: what is in colour.
        room: the brightest that a fused volume is (`FusionResult.colour_room`).
        ink: of the words.
        ground: behind them.
    """
    columns, rows = LEGEND
    bar = _colours(str(source.colour_map), room, columns, rows)
    left, below = MARGIN
    sheet = Image.new("RGB", (left + columns + 24, rows + below + 8), ground)
    sheet.paste(Image.fromarray(bar), (left, 8))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    top = room if source.colour_map == ACTIVITY else 1.0
    pen.text((left - 6, 8), f"{top:g}", fill=ink, font=font, anchor="rt")
    pen.text((left - 6, rows + 8), "0", fill=ink, font=font, anchor="rb")
    pen.text((left - 6, 8 + rows // 2), "bright", fill=ink, font=font, anchor="rm")
    window = source.window
    for place, value in ((0.0, window.low), (0.5, None), (1.0, window.high)):
        words = f"{value:.4g}" if value is not None else window.unit or "activity"
        pen.text((left + place * columns, rows + 14), words, fill=ink, font=font, anchor="mt")
    return np.asarray(sheet)


def _colours(colour_map: str, room: float, columns: int, rows: int) -> Pixels:
    """(rows, columns, 3): the fused colours, activity to the right, brightness upwards."""
    activity = torch.linspace(0, 1, columns)[None, None].expand(1, rows, columns)
    bright = torch.linspace(1, 0, rows)[None, :, None].expand(1, rows, columns)
    rgb = colour_fused(bright, activity, colour_map, room)
    return np.asarray((rgb.clamp(0, 1).movedim(0, -1).numpy() * 255).round(), dtype=np.uint8)


def in_colour(sources: Mapping[str, "RegisteredSource"]) -> "RegisteredSource | None":
    """The source that is shown in colour, None where all are grey."""
    return next((source for source in sources.values() if source.colour_map is not None), None)


def legend_table(result: "FusionResult") -> dict[str, Any] | None:
    """What the viewer reads a fused colour back by; None where nothing is in colour.

    Returns:
        ``colours``, base64 of (brightness, activity, RGB) bytes; ``steps`` of activity; the
        ``window`` (values at no activity and at the most) and its ``unit``.
    """
    coloured = in_colour(result.sources)
    if coloured is None:
        return None
    window = coloured.window
    table = _colours(str(coloured.colour_map), result.colour_room, *TABLE).tobytes()
    return {
        "colours": base64.b64encode(table).decode("ascii"),
        "steps": TABLE[0],
        "window": [float(window.low), float(window.high)],
        "unit": window.unit or "",
        "label": label(coloured.role),
    }


def legend(result: "FusionResult") -> dict[str, Any]:
    """The legend as a picture for the page; empty where nothing is in colour."""
    coloured = in_colour(result.sources)
    if coloured is None:
        return {}
    bar = colour_bar(coloured, result.colour_room)
    return {
        "uri": data_uri(bar, lossless=True),
        "width": bar.shape[1],
        "height": bar.shape[0],
        "alt": "Colours of the fused volume: activity to the right, brightness upwards",
    }
