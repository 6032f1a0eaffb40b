"""The colour map ``activity``: hue, chroma and lightness that all run one way with activity.

In OKLCH (Ottosson 2020, "A perceptual color space for image processing") equal steps look equal,
and a colour can be made lighter or darker without turning its hue. So the fused brightness can be
that of anatomy and activity together, while hue and chroma say the activity alone: the gyri are
seen through the colour, and a cold focus over bright tissue is blue and not pale.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]

HUES = (-150.0, 100.0)
"""Degrees at activity 0 and 1: blue, violet, red, orange, yellow."""

CHROMA, FULL_CHROMA_AT = 0.19, 0.15
"""The chroma of all activities above 0.15 of the scale, cut where sRGB ends; 0 at activity 0."""

LIGHTNESS = (0.30, 0.95)
"""Of the map alone, at activity 0 and 1: hotter is lighter as well."""

FADE = 0.03
"""Below this share of the scale the map alone fades to black, so that no activity is no colour."""

# Entries of a palette of 8 bits
LEVELS = 256

# Ottosson 2020, "A perceptual color space for image processing": linear sRGB to LMS
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
# The same: cube roots of LMS to L, a, b
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FROM_LMS, _FROM_LAB = np.linalg.inv(_TO_LMS), np.linalg.inv(_TO_LAB)
# ITU-R BT.601
_LUMA = np.array([0.299, 0.587, 0.114])


def activity_palette() -> npt.NDArray[np.uint8]:
    """The (256, 3) 8-bit RGB entries of the map alone, from no activity to the most."""
    activity = np.linspace(0, 1, LEVELS)
    low, high = LIGHTNESS
    fade = np.clip(activity / FADE, 0, 1)
    lightness = (low + (high - low) * activity) * fade
    rgb = _within_srgb(lightness, *_hue_and_chroma(activity))
    return np.asarray(np.floor(rgb * 255 + 0.5), dtype=np.uint8)


def oklab(rgb: Array) -> Array:
    """OKLab (..., 3) of sRGB (..., 3) in 0..1: lightness, green to red, blue to yellow."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T)


def colour_at(luminance: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
    """RGB (3, ...) of the luminance Y (1, ...) in the hue and chroma of ``activity`` (1, ...).

    All 0..1; the luminance (BT.601) of the result is that given, to a grey level of 255.
    """
    table = torch.from_numpy(_table()).to(luminance.device)
    plain = (x.as_subclass(torch.Tensor)[0].clamp(0, 1) for x in (luminance, activity))
    row, column = ((x * (LEVELS - 1)) for x in plain)
    r, c = (x.floor().clamp(max=LEVELS - 2).long() for x in (row, column))
    dr, dc = (row - r)[..., None], (column - c)[..., None]
    dark = torch.lerp(table[r, c], table[r, c + 1], dc)
    light = torch.lerp(table[r + 1, c], table[r + 1, c + 1], dc)
    return torch.lerp(dark, light, dr).movedim(-1, 0)


@cache
def _table() -> npt.NDArray[np.float32]:
    """(256, 256, 3): RGB for each luminance and activity."""
    activity = np.linspace(0, 1, LEVELS)
    lightness = np.linspace(0, 1, 129)
    hue, chroma = _hue_and_chroma(activity)
    rgb = _within_srgb(lightness[:, None], hue[None], chroma[None])  # (129, 256, 3)
    luma = np.maximum.accumulate(rgb @ _LUMA, axis=0)
    wanted = np.linspace(0, 1, LEVELS)
    table = np.empty((LEVELS, LEVELS, 3), dtype=np.float32)
    for column in range(LEVELS):
        for channel in range(3):
            table[:, column, channel] = np.interp(wanted, luma[:, column], rgb[:, column, channel])
    return table


def _hue_and_chroma(activity: Array) -> tuple[Array, Array]:
    hue = np.deg2rad(HUES[0] + (HUES[1] - HUES[0]) * activity)
    return hue, CHROMA * np.clip(activity / FULL_CHROMA_AT, 0, 1)


def _within_srgb(lightness: Array, hue: Array, chroma: Array) -> Array:
    """sRGB (..., 3) in 0..1; chroma is cut where the gamut ends, at constant lightness and hue."""
    shape = np.broadcast_shapes(lightness.shape, hue.shape, chroma.shape)
    least, most = np.zeros(shape), np.broadcast_to(chroma, shape).copy()
    most_rgb = _linear_rgb(lightness, hue, most)
    inside = np.all((most_rgb >= -1e-6) & (most_rgb <= 1 + 1e-6), axis=-1)
    least = np.where(inside, most, least)
    for _ in range(12):  # to 0.19 / 4096, far below what can be seen
        middle = (least + most) / 2
        rgb = _linear_rgb(lightness, hue, middle)
        fits = np.all((rgb >= -1e-6) & (rgb <= 1 + 1e-6), axis=-1)
        least, most = np.where(fits, middle, least), np.where(fits, most, middle)
    linear = _linear_rgb(lightness, hue, least).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _linear_rgb(lightness: Array, hue: Array, chroma: Array) -> Array:
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    lab = np.stack(np.broadcast_arrays(lightness, a, b), axis=-1)
    rgb: Any = (lab @ _FROM_LAB.T) ** 3 @ _FROM_LMS.T
    return np.asarray(rgb)
