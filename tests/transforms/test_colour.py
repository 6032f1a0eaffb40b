"""Colour maps are the standard's, and a restored colour keeps its hue and its brightness."""

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from mmif.errors import ConfigError
from mmif.transforms.colour import (
    PALETTES,
    apply_colour_map,
    luminance,
    palette,
    restore_colour,
    rgb_to_yuv,
    yuv_to_rgb,
)

WELL_KNOWN = {"hot-iron": "hotiron", "pet": "pet", "hot-metal-blue": "hotmetalblue"}


@pytest.fixture
def rgb() -> torch.Tensor:
    return torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def hue_deg(rgb: torch.Tensor) -> torch.Tensor:
    """Hue of the colour circle (HSV), in degrees."""
    r, g, b = rgb.double()
    return torch.rad2deg(torch.atan2(math.sqrt(3) * (g - b), 2 * r - g - b))


def turned_deg(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((hue_deg(a) - hue_deg(b) + 180) % 360 - 180).abs()


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_well_known_palettes_are_those_of_the_standard(name: str) -> None:
    folder = Path(pydicom.__file__).parent / "data" / "palettes"
    dataset = pydicom.dcmread(folder / f"{WELL_KNOWN[name]}.dcm")
    keyword = "{}PaletteColorLookupTableData"
    channels = [
        np.frombuffer(dataset[keyword.format(c)].value, np.uint8) for c in ("Red", "Green", "Blue")
    ]
    np.testing.assert_array_equal(palette(name), np.stack(channels, axis=-1))


@pytest.mark.parametrize("name", PALETTES)
def test_colour_map_hits_every_entry(name: str) -> None:
    unit = torch.arange(256)[None] / 255
    levels = (apply_colour_map(unit, name) * 255).round().to(torch.uint8)
    np.testing.assert_array_equal(levels.T.numpy(), palette(name))


def test_colour_map_holds_outside_values_at_its_ends() -> None:
    ends = apply_colour_map(torch.tensor([[-3.0, 7.0]]), "hot-iron")
    assert ends.T.tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("name", ["gray", "hot-iron"])
def test_brightness_of_the_map_rises_with_the_value(name: str) -> None:
    y = luminance(apply_colour_map(torch.linspace(0, 1, 1001)[None], name))
    assert (y.diff() > 0).all()


def test_unknown_colour_map_is_refused_with_the_known_names() -> None:
    with pytest.raises(
        ConfigError, match="'jet' is unknown; expected one of activity, gray, hot-iron"
    ):
        palette("jet")


def test_yuv_is_the_full_range_bt_601() -> None:
    red = rgb_to_yuv(torch.tensor([1.0, 0.0, 0.0])[:, None])
    torch.testing.assert_close(red[:, 0], torch.tensor([0.299, -0.168736, 0.5]))


def test_yuv_round_trip(rgb: torch.Tensor) -> None:
    torch.testing.assert_close(yuv_to_rgb(rgb_to_yuv(rgb)), rgb)
    torch.testing.assert_close(rgb_to_yuv(rgb)[0:1], luminance(rgb))


def test_restored_colour_keeps_hue_and_fused_brightness_and_the_gamut(rgb: torch.Tensor) -> None:
    fused_y = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    _, u, v = rgb_to_yuv(rgb).split(1)
    result = restore_colour(fused_y, u, v)
    assert result.min() >= 0
    assert result.max() <= 1
    torch.testing.assert_close(luminance(result), fused_y, atol=1e-6, rtol=0)
    assert turned_deg(result, rgb).max() < 0.1


def test_clipping_instead_would_turn_the_hue(rgb: torch.Tensor) -> None:
    yuv = rgb_to_yuv(rgb)
    yuv[0] = 0.95
    assert turned_deg(yuv_to_rgb(yuv).clamp(0, 1), rgb).median() > 3


def test_colour_that_fits_is_given_back_whole(rgb: torch.Tensor) -> None:
    torch.testing.assert_close(restore_colour(*rgb_to_yuv(rgb).split(1)), rgb)


def test_black_white_and_grey_stay_colourless() -> None:
    y = torch.tensor([[0.0, 0.4, 1.0]])
    grey = restore_colour(y, torch.zeros(1, 3), torch.zeros(1, 3))
    assert torch.equal(grey, y.expand(3, 3))
    assert torch.equal(restore_colour(y[:, ::2], torch.ones(1, 2), -torch.ones(1, 2))[0], y[0, ::2])
