"""What a reader should see, and how a scanner would show it."""

import numpy as np
import pytest

from mmif.config import ConfigError, load_pipeline
from mmif.training.batches import draw_batch
from mmif.training.pairs import Pair
from mmif.training.scanner import show_as_scanner
from mmif.training.targets import (
    DARK_LIMIT,
    DARK_STRENGTH,
    FAINT,
    STRENGTH,
    denoise,
    reader_target,
    with_truth,
)

PARENCHYMA = 0.4


def head() -> tuple[np.ndarray, np.ndarray]:
    """An MRI and a CT slice (64, 64) of 0..1: brain in a skull in air."""
    y, x = np.mgrid[:64, :64]
    radius = np.hypot(y - 32, x - 32)
    mri = np.where(radius < 22, 0.5 + 0.1 * np.sin(x / 2), 0).astype(np.float32)
    ct = np.select([radius < 22, radius < 26], [PARENCHYMA, 1.0], 0.0).astype(np.float32)
    return mri, ct


def spot(radius: float) -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.hypot(y - 30, x - 36) < radius


def test_the_target_is_the_mri_where_the_ct_shows_plain_brain_and_bone_where_it_shows_bone() -> (
    None
):
    mri, ct = head()
    target = reader_target(mri, ct, PARENCHYMA)
    brain = mri > 0
    np.testing.assert_allclose(target[brain], mri[brain], atol=1e-6)
    assert target[ct == 1].min() == 1
    assert target[(ct == 0) & (mri == 0)].max() == 0


@pytest.mark.parametrize("departure", [0.1, 0.2, 0.3])
def test_a_bleed_is_brighter_in_the_target_even_where_the_mri_is_brighter_still(
    departure: float,
) -> None:
    mri, ct = head()
    bleeding = ct + departure * spot(5)
    change = reader_target(mri, bleeding, PARENCHYMA) - reader_target(mri, ct, PARENCHYMA)
    np.testing.assert_allclose(change[spot(4)], STRENGTH * (departure - FAINT), atol=1e-5)


def test_an_infarct_is_shown_and_fluid_does_not_undo_the_mri() -> None:
    mri, ct = head()
    change = [
        (reader_target(mri, ct - deep * spot(8), PARENCHYMA) - mri)[spot(6)].mean()
        for deep in (0.0625, 0.19)  # -10 HU and fluid, behind the volume window
    ]
    assert change[0] < -0.045
    assert change[1] >= -DARK_LIMIT * DARK_STRENGTH


def test_a_ct_without_mri_stands_alone() -> None:
    _, ct = head()
    np.testing.assert_allclose(reader_target(np.zeros_like(ct), ct, PARENCHYMA), ct, atol=1e-6)


def test_the_parenchyma_is_found_one_for_each_case_and_noise_is_taken_away() -> None:
    mri, ct = head()
    random = np.random.default_rng(0)
    noisy = ct + (ct > 0) * (ct < 1) * random.normal(0, 0.03, ct.shape)
    grey = [np.uint8(np.clip(x, 0, 1) * 255) for x in (mri, noisy)]
    pair, other = with_truth([Pair("1", "a", *grey), Pair("2", "a", grey[0], grey[1] * 0)])
    assert pair.parenchyma == other.parenchyma == pytest.approx(PARENCHYMA, abs=0.03)
    brain = spot(6)
    assert pair.clean is not None
    assert pair.clean[brain].std() < 0.5 * grey[1][brain].std()
    edge = denoise(grey[1])[32, 54:58].astype(int)
    assert edge.min() > 200


def test_a_scanned_pair_has_the_target_of_its_clean_form() -> None:
    mri, ct = head()
    for seed in range(40):
        shown = show_as_scanner(mri, ct, PARENCHYMA, np.random.default_rng(seed))
        assert shown.sources.shape == (2, 64, 64)
        for part in (shown.sources, shown.target):
            assert np.isfinite(part).all()
            assert 0 <= part.min() <= part.max() <= 1
        assert shown.sources[:, :3].max() == 0  # air stays air
        assert shown.target[:3].max() == 0
        assert shown.weight.min() >= 1


def test_batches_carry_targets_for_pairs_with_a_clean_ct_alone() -> None:
    recipe = load_pipeline("ct-mri").training
    mri, ct = head()
    grey = [np.uint8(x * 255) for x in (mri, ct)]
    plain = [Pair("1", "a", *grey)]
    from dataclasses import replace

    small = replace(recipe, batch=8, crop=48)
    assert draw_batch(plain, small, 0).targets is None
    batch = draw_batch(with_truth(plain), small, 0)
    assert batch.targets is not None
    assert batch.weights is not None
    assert batch.targets.shape == batch.weights.shape == (8, 1, 48, 48)
    assert 0 < batch.drawn.sum() <= 8


def test_a_target_is_of_ct_and_mri_alone(tmp_path) -> None:
    recipe = (
        "task: pet-mri\nroles: [mri, pet]\nreference: mri\nweights: pet-mri\nloss: {target: 1}\n"
    )
    (tmp_path / "mine.yaml").write_text(recipe)
    with pytest.raises(ConfigError, match="found a target for task pet-mri"):
        load_pipeline(tmp_path / "mine.yaml")
