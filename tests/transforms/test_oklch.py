"""The map whose hue and chroma say the activity alone."""

import numpy as np
import pytest
import torch

from mmif.transforms.colour import luminance, palette
from mmif.transforms.oklch import colour_at, oklab


def test_oklab_of_known_colours() -> None:
    """The values of Ottosson 2020 for white and for sRGB red, green and blue."""
    known = {
        (1, 1, 1): (1.0, 0.0, 0.0),
        (1, 0, 0): (0.62796, 0.22486, 0.12585),
        (0, 1, 0): (0.86644, -0.23389, 0.17950),
        (0, 0, 1): (0.45201, -0.03246, -0.31153),
    }
    for rgb, lab in known.items():
        np.testing.assert_allclose(oklab(np.array(rgb, float)), lab, atol=2e-4)


def test_lightness_hue_and_chroma_run_one_way() -> None:
    lab = oklab(palette("activity") / 255.0)
    assert (np.diff(lab[:, 0]) > -0.004).all()
    assert lab[0, 0] == 0
    hue = np.unwrap(np.arctan2(lab[20:, 2], lab[20:, 1]))
    assert (np.diff(hue) > -0.02).all()
    assert np.rad2deg(hue[-1] - hue[0]) == pytest.approx(230, abs=15)


@pytest.mark.parametrize("activity", [0.0, 0.1, 0.5, 1.0])
def test_the_fused_colour_has_the_luminance_that_it_was_given(activity: float) -> None:
    wanted = torch.linspace(0, 1, 101)[None]
    rgb = colour_at(wanted, torch.full_like(wanted, activity))
    torch.testing.assert_close(luminance(rgb), wanted, atol=1.5 / 255, rtol=0)
    assert 0 <= rgb.min() <= rgb.max() <= 1


def test_no_activity_is_grey_and_black_stays_black() -> None:
    grey = colour_at(torch.tensor([[0.5]]), torch.tensor([[0.0]]))
    assert float(grey.max() - grey.min()) < 1e-3
    assert float(colour_at(torch.tensor([[0.0]]), torch.tensor([[1.0]])).max()) < 1e-5


def test_a_cold_focus_is_told_from_a_hot_one_over_the_same_bright_tissue() -> None:
    bright = torch.full((1, 2), 0.7)
    lab = oklab(colour_at(bright, torch.tensor([[0.25, 0.75]])).numpy().T)
    assert np.linalg.norm(lab[0] - lab[1]) > 0.15
