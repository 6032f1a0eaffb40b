"""Pseudo-colour maps, and colours as brightness (Y) and chroma (U, V).

Every tensor here has its channel first: ``(1, ...)`` grey, ``(3, ...)`` RGB or YUV, and any shape
behind it, so that volumes, slices and stacks of them are all served.

YUV is BT.601 in full range, as JPEG has it: with values 0..1 in R, G and B,
Y = 0.299 R + 0.587 G + 0.114 B is 0..1, U = (B - Y) / 1.772 and V = (R - Y) / 1.402 are
-0.5..0.5 and 0 for grey.
"""

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection

from mmif.errors import ConfigError
from mmif.result import STUDY_KEY
from mmif.transforms.oklch import activity_palette, colour_at
from mmif.transforms.slices import slabs
from mmif.transforms.step import Data, Step, study_of

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of R, G and B in Y (ITU-R BT.601)."""

# 2 (1 - 0.114) and 2 (1 - 0.299), BT.601 in full range
U_SCALE, V_SCALE = 1.772, 1.402

Knots = tuple[tuple[int, int], ...]

PALETTES: Mapping[str, tuple[Knots, Knots, Knots]] = {
    "gray": (((0, 0), (255, 255)),) * 3,
    "hot-iron": (
        ((0, 0), (127, 254), (129, 255), (255, 255)),
        ((0, 0), (128, 0), (254, 252), (255, 255)),
        ((0, 0), (191, 0), (254, 252), (255, 255)),
    ),
    "pet": (
        ((0, 0), (63, 0), (64, 1), (149, 170), (150, 171), (192, 255), (255, 255)),
        (
            *((0, 0), (31, 62), (33, 67), (62, 125), (63, 128), (95, 64)),
            *((97, 61), (127, 1), (128, 0), (254, 252), (255, 255)),
        ),
        (
            *((0, 0), (1, 1), (128, 255), (130, 248), (192, 0)),
            *((233, 165), (235, 174), (254, 250), (255, 255)),
        ),
    ),
    "hot-metal-blue": (
        ((0, 0), (85, 0), (102, 50), (119, 90), (153, 190), (170, 255), (255, 255)),
        ((0, 0), (119, 0), (238, 224), (255, 255)),
        (
            *((0, 0), (17, 33), (42, 83), (43, 84), (76, 149), (93, 183), (94, 184)),
            *((102, 200), (119, 150), (136, 50), (153, 0), (170, 0), (238, 200), (255, 255)),
        ),
    ),
}
"""Red, green and blue as knots (entry, value), straight between them and rounded half up.

Filled in, ``hot-iron``, ``pet`` and ``hot-metal-blue`` are the well-known colour palettes of
DICOM PS3.6 Annex B.1, entry for entry.
"""


ACTIVITY = "activity"
"""The map of `mmif.transforms.oklch`, whose hue and chroma say the activity alone."""


@cache
def _palette(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if name == ACTIVITY:
        return activity_palette()
    if name not in PALETTES:
        known = ", ".join((ACTIVITY, *PALETTES))
        raise ConfigError(f"colour map {name!r} is unknown; expected one of {known}")
    entries = np.arange(256)
    channels = [np.interp(entries, *np.transpose(knots)) for knots in PALETTES[name]]
    table = np.floor(np.stack(channels, axis=-1) + 0.5).astype(np.uint8)
    table.flags.writeable = False
    return table


def palette(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The (256, 3) 8-bit RGB entries of the colour map ``name``, from lowest to highest.

    Raises:
        ConfigError: no such colour map.

    >>> palette("hot-iron")[[0, 64, 160, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [255, 64, 0], [255, 255, 255]]
    """
    return _palette(name)


def apply_colour_map(unit: torch.Tensor, name: str) -> torch.Tensor:
    """RGB of a grey tensor through the colour map ``name``, straight between its 256 entries.

    Args:
        unit: (1, ...), 0..1; what lies outside is taken to the nearer end.
        name: one of ``PALETTES``.

    Returns:
        (3, ...) of 0..1.
    """
    table = torch.as_tensor(palette(name) / np.float32(255), dtype=unit.dtype, device=unit.device)
    position = unit.as_subclass(torch.Tensor)[0].clamp(0, 1) * 255
    below = position.floor().clamp(max=254)
    fraction = (position - below)[..., None]
    entry = below.long()
    rgb = torch.lerp(table[entry], table[entry + 1], fraction)
    return rgb.movedim(-1, 0)


def luminance(rgb: torch.Tensor) -> torch.Tensor:
    """Y of ``rgb`` (3, ...) as (1, ...)."""
    r, g, b = LUMINANCE
    return r * rgb[0:1] + g * rgb[1:2] + b * rgb[2:3]


def rgb_to_yuv(rgb: torch.Tensor) -> torch.Tensor:
    """YUV (3, ...) of ``rgb`` (3, ...), 0..1."""
    y = luminance(rgb)
    return torch.cat([y, (rgb[2:3] - y) / U_SCALE, (rgb[0:1] - y) / V_SCALE])


def yuv_to_rgb(yuv: torch.Tensor) -> torch.Tensor:
    """RGB (3, ...) of ``yuv`` (3, ...): the inverse of `rgb_to_yuv`, not held to 0..1."""
    y = yuv[0:1]
    return y + _chroma(yuv[1:2], yuv[2:3])


def restore_colour(fused_y: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """RGB of a fused brightness with the hue of a colour source.

    Where brightness and chroma together leave the RGB cube, clipping the channels would turn the
    hue. Instead the chroma is scaled towards grey, as little as needed, at the same Y: hue and
    brightness both stay, and only the saturation gives way.

    Args:
        fused_y: (1, ...), the fused brightness, 0..1.
        u: (1, ...), chroma of the colour source, as `rgb_to_yuv` gives it.
        v: (1, ...), the same.

    Returns:
        (3, ...) in 0..1, whose luminance is ``fused_y``.
    """
    y = fused_y.clamp(0, 1)
    chroma = _chroma(u, v)  # (3, ...), R - Y, G - Y, B - Y
    tiny = torch.finfo(chroma.dtype).tiny
    headroom = torch.where(chroma > 0, 1 - y, y) / chroma.abs().clamp_min(tiny)
    scale = headroom.amin(dim=0, keepdim=True).clamp(max=1)
    return (y + scale * chroma).clamp(0, 1)


def colour_fused(
    fused_y: torch.Tensor, activity: torch.Tensor, name: str, room: float
) -> torch.Tensor:
    """RGB (3, ...) of a fused brightness, in the colours of an activity.

    Args:
        fused_y: (1, ...), 0..1.
        activity: (1, ...), 0..1, before its colour map.
        name: of the colour map; ``activity`` has colours for every brightness, of another one the
            hue is taken.
        room: the brightest that anything is in the map ``activity``, as in
            `mmif.config.FusionConfig`.
    """
    if name == ACTIVITY:
        return colour_at(room * fused_y, activity)
    yuv = rgb_to_yuv(apply_colour_map(activity, name))
    return restore_colour(fused_y, yuv[1:2], yuv[2:3])


def shown(
    unit: torch.Tensor, colour_map: str | None, part: int | slice = slice(None)
) -> torch.Tensor:
    """The slices ``part`` of ``unit`` (1, X, Y, Z) as a reader sees them, in 0..1.

    Returns:
        (1, X, Y, ...) where ``colour_map`` is None, else RGB (3, X, Y, ...).
    """
    level = unit.as_subclass(torch.Tensor)[..., part]
    return level if colour_map is None else apply_colour_map(level, colour_map)


def shown_brightness(unit: torch.Tensor, colour_map: str | None) -> torch.Tensor:
    """(1, X, Y, Z): the luminance of ``unit`` (1, X, Y, Z) as it is shown; itself where grey."""
    plain = unit.as_subclass(torch.Tensor)
    if colour_map is None:
        return plain
    bright = torch.empty_like(plain)
    for part in slabs(plain.shape[-1]):
        bright[..., part] = luminance(shown(plain, colour_map, part))
    return bright


def _chroma(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(3, ...) of R - Y, G - Y and B - Y; its luminance is zero."""
    red, blue = V_SCALE * v, U_SCALE * u
    green = -(LUMINANCE[0] * red + LUMINANCE[2] * blue) / LUMINANCE[1]
    return torch.cat([red, green, blue])


class ColourActivityd(Step):
    """Each key is shown through a colour map from here on: fused in its colours, and written so.

    The volumes stay (1, X, Y, Z) of 0..1: their colours are made where they are needed, a few
    slices at a time (`shown`), since those of a whole body would take a gigabyte.

    Args:
        keys: roles, SPECT or PET.
        colour_map: ``activity`` or one of ``PALETTES``.
    """

    part = "resample"

    def __init__(self, keys: KeysCollection, colour_map: str) -> None:
        super().__init__(keys, colour_map=colour_map)
        palette(colour_map)
        self.colour_map = colour_map

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the colour map in its record."""
        return {**data, STUDY_KEY: study_of(data).with_colour_map(self.keys, self.colour_map)}
