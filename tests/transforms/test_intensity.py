"""One stated window for a whole volume, and black air."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.config import IntensityConfig
from mmif.errors import ConfigError, InputError
from mmif.geometry import Grid
from mmif.result import STUDY_KEY, Coverage, RegisteredSource, StudyRecord
from mmif.transforms.head import head_mask
from mmif.transforms.intensity import (
    ChooseWindowsd,
    Window,
    apply_window,
    window_of,
)
from mmif.transforms.slices import on_grid

BRAIN_WINDOW = IntensityConfig("window", -20, 100)
PERCENTILES = IntensityConfig("percentile", 0, 99.5)


def unit_of(
    volume: MetaTensor, config: IntensityConfig, head: MetaTensor | None = None
) -> tuple[MetaTensor, Window]:
    """``volume`` in 0..1, and the window that did it."""
    window = window_of(volume, config, head)
    return apply_window(volume, window), window


def ball_in(
    noise: float, tissue: float = 500.0, dark: float = 120.0
) -> tuple[MetaTensor, np.ndarray]:
    """A head with dark ventricles and a black skull in Rician noise, and its mask (X, Y, Z)."""
    x, y, z = np.ogrid[-50:50, -50:50, -24:24]
    radius = np.sqrt(x**2 + y**2 + (3 * z) ** 2)
    skull = (radius > 33) & (radius < 36)
    clean = np.select([radius < 10, skull, radius < 38], [dark, 5.0, tissue], 0.0)
    random = np.random.default_rng(3)
    real, imaginary = random.normal(0, noise, (2, *clean.shape))
    values = np.hypot(clean + real, imaginary)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    return MetaTensor(
        torch.as_tensor(values[None], dtype=torch.float32), affine=affine
    ), radius < 38


def far_air(head: np.ndarray) -> np.ndarray:
    return np.asarray(~ndimage.binary_dilation(head, iterations=4))


@pytest.mark.parametrize("noise", [0, 3, 15, 40])
def test_noisy_air_is_black_and_dark_tissue_is_not(noise: float) -> None:
    volume, head = ball_in(noise)
    unit, window = unit_of(volume, PERCENTILES)
    voxels = unit[0].numpy()
    air = voxels[far_air(head)]
    assert (air == 0).mean() > 0.99
    assert air.mean() < 0.1 / 255
    assert voxels[50, 50, 24] == pytest.approx(
        max(0, (float(volume[0, 50, 50, 24]) - window.low) / (window.high - window.low)), abs=1e-5
    )
    assert voxels[head].mean() > 0.4


def test_the_air_never_takes_more_than_a_quarter_of_the_window() -> None:
    volume, head = ball_in(5)
    ghost = volume.clone()
    ghost[0, :, :8] += 450  # as bright as tissue, outside of the head
    window = window_of(ghost, PERCENTILES)
    assert window.low <= 0.25 * window.high + 10
    assert apply_window(ghost, window)[0].numpy()[head].mean() > 0.4


def test_ct_takes_its_window_in_hu_as_it_is() -> None:
    volume = MetaTensor(torch.tensor([-1000.0, -20, 40, 100, 1500]).reshape(1, 5, 1, 1))
    volume.meta["source"] = SimpleNamespace(units="HU")
    unit, window = unit_of(volume, BRAIN_WINDOW)
    assert window == Window(-20, 100, "HU")
    assert str(window) == "-20..100 HU"
    torch.testing.assert_close(unit.flatten().as_tensor(), torch.tensor([0, 0, 0.5, 1, 1]))


def test_the_window_is_one_for_the_volume_not_one_a_slice() -> None:
    volume, _ = ball_in(4)
    volume[..., 30:] *= 0.5
    unit, window = unit_of(volume, PERCENTILES)
    expected = ((volume - window.low) / (window.high - window.low)).clamp(0, 1)
    assert torch.equal(unit, expected)
    assert unit[..., 34].max() < 0.6 * unit[..., 24].max()


def test_the_same_head_in_other_units_looks_the_same() -> None:
    volume, _ = ball_in(6)
    unit, _ = unit_of(volume, PERCENTILES)
    other, _ = unit_of(volume * 37.5, PERCENTILES)
    torch.testing.assert_close(unit, other, atol=1e-4, rtol=0)


def test_a_given_head_is_used_for_the_percentiles() -> None:
    volume, head = ball_in(3)
    centre = np.zeros_like(head)
    centre[48:52, 48:52, 23:25] = True  # dark tissue of 120 alone
    window = window_of(volume, PERCENTILES, MetaTensor(torch.as_tensor(centre[None])))
    assert 105 < window.low < window.high < 135


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN"), (float("inf"), "infinite"), (5.0, "between 5 and 5")],
)
def test_what_has_no_window_is_refused(value: float, message: str) -> None:
    volume = MetaTensor(torch.full((1, 8, 8, 8), 5.0))
    volume[0, 0, 0, 0] = value
    with pytest.raises(InputError, match=message):
        window_of(volume, PERCENTILES)


def test_rire_air_is_black_and_its_brain_stands_in_the_middle(shared_data: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(shared_data / "volumes/rire_training_001/training_001_mr_T1.nii.gz")
    volume = MetaTensor(
        torch.as_tensor(image.get_fdata(dtype=np.float32)[None]), affine=image.affine
    )
    head = head_mask(volume)
    unit = unit_of(volume, PERCENTILES, head)[0][0].numpy()
    assert unit[far_air(head[0].numpy())].mean() < 0.1 / 255
    assert 0.33 < np.median(unit[110:140, 110:140, 10:18]) < 0.67


BY_BRAIN = IntensityConfig("brain", 0.05, 0.65)


def head_with_fat(scale: float = 1.0, offset: float = 0.0) -> tuple[MetaTensor, np.ndarray]:
    """A head whose scalp is far brighter than its brain of 80..120, and the brain (X, Y, Z)."""
    x, y, z = np.ogrid[-50:50, -50:50, -30:30]
    radius = np.sqrt(x**2 + y**2 + z**2)
    brain = radius < 38
    inside = 100 + 20 * np.sin(x / 3.0) * np.cos(y / 3.0) + 0 * z
    values = np.select([brain, radius < 42, radius < 46], [inside, 5.0, 600.0], 0.0)
    volume = MetaTensor(
        torch.as_tensor(values[None] * scale + offset, dtype=torch.float32),
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
    )
    return volume, brain


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (37.5, 0), (0.01, 0), (1, -300), (4, 300)])
def test_the_brain_has_the_brightness_asked_for_whatever_the_fat_and_the_scale(
    scale: float, offset: float
) -> None:
    volume, brain = head_with_fat(scale, offset)
    unit, window = unit_of(volume, BY_BRAIN)
    assert window.by == "the brain, by its depth"
    shown = unit[0].numpy()[brain & (np.abs(np.arange(60) - 30) < 24)]
    assert np.percentile(shown, 99) == pytest.approx(0.65, abs=0.02)
    assert np.percentile(shown, 2) == pytest.approx(0.05, abs=0.03)
    assert float(unit[0, 0, 0, 0]) == 0


def test_a_skull_stripped_brain_has_the_same_window() -> None:
    volume, brain = head_with_fat()
    stripped = volume * torch.from_numpy(brain)[None]
    whole, alone = (window_of(v, BY_BRAIN) for v in (volume, stripped))
    assert alone.high == pytest.approx(whole.high, rel=0.02)
    assert alone.low == pytest.approx(whole.low, abs=4)


@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_a_slice_without_signal_does_not_move_the_window(offset: float) -> None:
    volume, brain = head_with_fat(offset=offset)
    lost = volume.clone()
    lost[..., 27:30] = float(volume.min())
    whole, gapped = (window_of(v, BY_BRAIN, brain=brain) for v in (volume, lost))
    assert gapped.low == pytest.approx(whole.low, abs=0.02 * (whole.high - whole.low))
    assert gapped.high == pytest.approx(whole.high, abs=0.02 * (whole.high - whole.low))


def test_the_brain_inside_of_a_skull_is_used_where_it_is_known() -> None:
    volume, brain = head_with_fat()
    window = window_of(volume, BY_BRAIN, brain=brain)
    assert window.by == "the brain, inside of the skull"
    assert window.high == pytest.approx(119 + 0.35 / 0.6 * (119 - 81), rel=0.03)


def test_bone_is_told_apart_above_soft_tissue() -> None:
    config = IntensityConfig("window", -20, 100, bone=1000)
    hu = [-1000.0, -20, 40, 100, 550, 1000, 3000]
    volume = MetaTensor(torch.tensor(hu).reshape(1, 7, 1, 1))
    volume.meta["source"] = SimpleNamespace(units="HU")
    unit, window = unit_of(volume, config)
    expected = [0, 0, 0.375, 0.75, 0.875, 1, 1]
    torch.testing.assert_close(unit.flatten().as_tensor(), torch.tensor(expected))
    assert str(window) == "-20..100 HU (0..0.75), bone to 1000"


def test_rire_brain_stands_below_its_fat_and_above_the_ct(shared_data: Path) -> None:
    import mmif

    folder = shared_data / "volumes/rire_training_001"
    result = mmif.fuse(
        ct=folder / "training_001_ct_on_mr_grid.nii.gz",
        mri=folder / "training_001_mr_T1.nii.gz",
        register=False,
    )
    assert result.windows["mri"].by == "the brain, inside of the skull"
    mri, ct = (result.sources[role] for role in ("mri", "ct"))
    brain = (ct.values[0] > 25) & (ct.values[0] < 50) & (mri.unit[0] > 0.1)
    assert float(ct.unit[0][brain].median()) < float(mri.unit[0][brain].median()) < 0.62


def test_soft_tissue_beside_hot_organs_is_shown_in_a_body() -> None:
    """Arms, and tissue that a PET's own outline leaves out, counted as air: the trunk was black."""
    ct, pet = np.full((100, 60, 40), -1000.0), np.full((100, 60, 40), 20.0)
    for part in (np.s_[20:80, 10:50], np.s_[4:14, 20:30], np.s_[86:96, 20:30]):
        ct[part], pet[part] = 40, 1000
    pet[40:60, 20:40, 10:30] = 12_000
    configs = {"ct": IntensityConfig("window", -160, 240), "pet": PERCENTILES}
    assert windows(configs, 5.0, ct=ct, pet=pet)["pet"].low < 100


def windows(
    configs: dict[str, IntensityConfig], step_mm: float, **volumes: np.ndarray
) -> dict[str, Window]:
    """The windows of volumes (X, Y, Z) on one grid of cubes, with some noise."""
    shape = volumes["ct"].shape
    grid = Grid(shape, np.diag([step_mm, step_mm, step_mm, 1.0]))
    whole = Coverage.whole(shape)
    sources = {}
    for role, values in volumes.items():
        noisy = values + np.random.default_rng(0).normal(0, 5, shape)
        made = on_grid(noisy[None], grid)
        sources[role] = RegisteredSource(role, made, made, whole, np.ones(shape[2]), shape)
    data = {STUDY_KEY: StudyRecord("ct", grid, sources=sources)}
    chosen = ChooseWindowsd(list(volumes), configs)(data)[STUDY_KEY].sources
    return {role: source.window for role, source in chosen.items()}


@pytest.mark.parametrize(("bone", "low"), [(1000.0, -20.0), (45.0, -160.0)])
def test_a_head_is_shown_by_its_brain_and_other_parts_by_their_soft_tissue(
    bone: float, low: float
) -> None:
    """Without a skull the same cylinder is a limb, or a belly."""
    across, along, _ = np.mgrid[:56, :56, :16] - 27.5
    from_axis_mm = 4 * np.hypot(across, along)
    ct = np.where(from_axis_mm < 95, 45.0, -1000.0)
    ct[(from_axis_mm > 76) & (from_axis_mm < 90)] = bone
    spect = np.where(from_axis_mm < 72, 900.0, 20.0)
    shown = IntensityConfig("window", -160, 240, 1200, head=(-20, 100, 1000))
    found = windows({"ct": shown, "spect": PERCENTILES}, 4.0, ct=ct, spect=spect)
    assert found["ct"].low == low


def test_a_window_of_the_head_is_checked() -> None:
    with pytest.raises(ConfigError, match="found bone 50"):
        IntensityConfig("window", -160, 240, 1200, head=(-20, 100, 50))
    with pytest.raises(ConfigError, match="found head for kind percentile"):
        IntensityConfig(head=(-20, 100, 1000))
