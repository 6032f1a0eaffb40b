"""What of each source a reader still sees, measured in the fused volume."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.report.readability import WANTED, colour_bar, readability_rows
from mmif.result import Coverage, Window
from mmif.transforms.colour import ACTIVITY, colour_fused
from mmif.transforms.oklch import colour_at
from mmif.transforms.readability import readability, readability_warnings

SPACING = (2.0, 2.0, 4.0)
SHAPE = (96, 96, 20)


def volume(values: np.ndarray) -> MetaTensor:
    return MetaTensor(
        torch.as_tensor(values[None], dtype=torch.float32), affine=np.diag([2, 2, 4, 1.0])
    )


def source(values: np.ndarray) -> Any:
    return SimpleNamespace(
        values=volume(values),
        coverage=Coverage.whole(SHAPE),
        head=None,
        window=Window(-20, 100),
    )


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    """CT, MRI and activity of a round head: textured brain in a skull in air."""
    random = np.random.default_rng(5)
    x, y, _ = np.ogrid[-48:48, -48:48, 0:20]
    radius = np.sqrt(x**2 + y**2) + np.zeros(SHAPE)
    brain, skull = radius < 36, (radius >= 36) & (radius < 41)
    texture = ndimage.gaussian_filter(random.normal(size=SHAPE), (1.5, 1.5, 0.5))
    mri = np.where(brain, 300 + 300 * texture / texture.std() * 0.2, 0)
    mri[skull] = 5
    grain = ndimage.gaussian_filter(random.normal(size=SHAPE), (0.7, 0.7, 0))
    ct = np.select([brain, skull], [35 + 3 * grain / grain.std(), 1000], -1000)
    spot = np.exp(-(((x - 10) ** 2 + y**2) / 300)) + 0.3 + np.zeros(SHAPE)
    return {"mri": mri, "ct": ct, "spect": np.where(brain, 100 * spot, 0)}


def unit(mri: np.ndarray) -> np.ndarray:
    return np.clip(mri / 600, 0, 1)


def measured(fused: np.ndarray, head: dict[str, np.ndarray], *roles: str) -> dict[str, float]:
    return readability(fused, {role: source(head[role]) for role in roles}, SPACING)


def test_the_grain_of_the_ct_is_told_in_grey_levels(head: dict[str, np.ndarray]) -> None:
    ct = np.clip((head["ct"] + 20) / 120, 0, 1)
    grain = (ct - ndimage.gaussian_filter(ct, (1, 1, 0)))[30:66, 30:66]  # deep in the brain
    half = measured((0.5 * ct + 0.5 * unit(head["mri"]))[None], head, "mri", "ct")["noise"]
    assert half == pytest.approx(0.5 * 255 * grain.std(), rel=0.1)
    assert measured(unit(head["mri"])[None], head, "mri", "ct")["noise"] < 0.1


def test_a_bone_that_is_not_shown_is_warned_of() -> None:
    (line,) = readability_warnings({"mri_gain": 0.9, "bone": 0.3})
    assert "bone is hardly visible" in line


def test_the_mri_itself_is_seen_in_full(head: dict[str, np.ndarray]) -> None:
    found = measured(unit(head["mri"])[None], head, "mri", "ct")
    assert found["mri_gain"] > 0.6
    assert found["mri_correlation"] > 0.99
    assert found["not_mri"] < 0.05
    assert abs(found["ct_gain"]) < 0.05
    assert found["bone"] < 0.05


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_gain_follows_how_much_of_the_mri_is_shown(
    head: dict[str, np.ndarray], share: float
) -> None:
    whole = measured(unit(head["mri"])[None], head, "mri", "ct")["mri_gain"]
    part = measured(share * unit(head["mri"])[None], head, "mri", "ct")["mri_gain"]
    assert part == pytest.approx(share * whole, rel=0.01)


def test_a_ct_in_place_of_the_mri_is_said(head: dict[str, np.ndarray]) -> None:
    found = measured(np.clip((head["ct"] + 20) / 120, 0, 1)[None], head, "mri", "ct")
    assert found["mri_gain"] < 0.1
    assert found["ct_gain"] > 0.9
    assert found["bone"] == 1
    assert any("MRI is hardly visible" in line for line in readability_warnings(found))


@pytest.mark.parametrize(
    ("colours", "low", "high"),
    [
        (lambda y, a: colour_at(y, a), 0.97, 1.0),
        (lambda y, a: torch.cat([y, y, y]), -0.3, 0.6),
    ],
)
def test_activity_is_read_back_from_colours_and_not_from_grey(
    head: dict[str, np.ndarray], colours: Callable[..., torch.Tensor], low: float, high: float
) -> None:
    bright = torch.as_tensor(0.7 * unit(head["mri"])[None], dtype=torch.float32)
    activity = torch.as_tensor((head["spect"] / 130)[None], dtype=torch.float32).clamp(0, 1)
    found = measured(colours(bright, activity).numpy(), head, "mri", "spect")
    assert low < found["activity_rho"] <= high
    assert found["mri_correlation"] > 0.97


@pytest.mark.parametrize("anatomy", ["mri", "ct"])
def test_an_anatomy_is_told_under_colour_too(head: dict[str, np.ndarray], anatomy: str) -> None:
    shown = unit(head["mri"]) if anatomy == "mri" else np.clip((head["ct"] + 20) / 120, 0, 1)
    grey = measured(shown[None], head, "mri", "ct")
    activity = torch.as_tensor((head["spect"] / 130)[None], dtype=torch.float32).clamp(0, 1)
    bright = torch.as_tensor(shown[None], dtype=torch.float32)
    fused = colour_fused(bright, activity, ACTIVITY, 0.8).numpy()
    found = measured(fused, head, anatomy, "spect")
    gain = f"{anatomy}_gain"
    assert found[gain] == pytest.approx(0.8 * grey[gain], rel=0.1)
    if anatomy == "ct":
        assert found["bone"] == pytest.approx(0.8, abs=0.05)
        assert "noise" not in found  # its own grain covers nothing


def test_a_low_correlation_of_a_plateau_that_is_read_without_error_is_no_doubt() -> None:
    assert not readability_warnings({"activity_rho": 0.7, "activity_error": 0.017})
    (line,) = readability_warnings({"activity_rho": 0.87, "activity_error": 0.054})
    assert "can hardly be read from the colours (correlation 0.87" in line


def test_a_ct_that_is_the_only_anatomy_has_to_be_seen() -> None:
    (line,) = readability_warnings({"ct_gain": 0.3, "bone": 0.99})
    assert "soft tissue is hardly visible" in line
    assert readability_warnings({"ct_gain": 0.3, "mri_gain": 0.9}) == ()
    rows = readability_rows({"ct_gain": 0.4, "bone": 0.7, "activity_rho": 0.99}, 2)
    assert [row.tone for row in rows] == ["review", "pass", "pass"]


def test_the_soft_tissue_of_a_body_counts_by_its_window(head: dict[str, np.ndarray]) -> None:
    """Fat, muscle and vessels of a trunk without a skull, as its window of 400 HU shows them."""
    random = np.random.default_rng(7)
    texture = ndimage.gaussian_filter(random.normal(size=SHAPE), (2, 2, 1))
    inside = head["ct"] > -500
    ct = np.where(inside, 40 + 60 * texture / texture.std(), -1000)
    trunk, pet = source(ct), source(head["spect"])
    trunk.window = Window(-160, 240)
    bright = torch.as_tensor(np.clip((ct + 160) / 400, 0, 1)[None], dtype=torch.float32)
    level = torch.as_tensor((head["spect"] / 130)[None], dtype=torch.float32).clamp(0, 1)
    fused = colour_fused(bright, level, ACTIVITY, 1.0).numpy()
    assert readability(fused, {"ct": trunk, "pet": pet}, SPACING)["ct_gain"] > 0.9


def test_the_figures_know_no_unit_of_the_activity(head: dict[str, np.ndarray]) -> None:
    """Bq/ml of a day after, or of a cyclotron: the same picture."""
    bright = torch.as_tensor(unit(head["mri"])[None], dtype=torch.float32)
    level = torch.as_tensor((head["spect"] / 130)[None], dtype=torch.float32).clamp(0, 1)
    fused = colour_fused(bright, level, ACTIVITY, 0.8).numpy()
    found = [
        measured(fused, {**head, "spect": head["spect"] * scale}, "mri", "spect")
        for scale in (1e-12, 1, 1e12)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[2] == pytest.approx(found[1], rel=1e-3)


def test_an_empty_volume_has_no_figures() -> None:
    empty = {"mri": np.zeros(SHAPE), "ct": np.full(SHAPE, -1000.0)}
    assert measured(np.zeros((1, *SHAPE)), empty, "mri", "ct") == {}


def test_the_table_says_what_is_not_met() -> None:
    rows = readability_rows({"mri_gain": 0.3, "bone": 0.99}, 2)
    assert [(row.name, row.tone) for row in rows] == [("MRI gain", "review"), ("Bone", "pass")]
    slopes = {"anatomy_slope": 0.1, "activity_slope": 0.1}
    assert readability_rows(slopes, 3) == []
    assert len(readability_rows(dict.fromkeys(WANTED, 0.5), 2)) == len(WANTED)


def test_the_legend_has_the_colours_of_the_fused_volume() -> None:
    from mmif.result import Window

    shown = SimpleNamespace(window=Window(0, 12, "g/ml"), colour_map="activity")
    bar = colour_bar(shown, 0.75)  # type: ignore[arg-type]
    middle = bar[8 + 64, 54 + 128] / 255.0
    wanted = colour_at(torch.tensor([[0.75 * 0.5]]), torch.tensor([[0.5]])).numpy()[:, 0]
    np.testing.assert_allclose(middle, wanted, atol=0.02)
