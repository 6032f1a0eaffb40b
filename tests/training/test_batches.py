from dataclasses import replace

import numpy as np
import pytest
import torch

from mmif.config import TrainingConfig
from mmif.errors import TrainingError
from mmif.training.batches import (
    EDGE_STEP,
    EDGE_WEIGHT,
    PHANTOM_WEIGHT,
    augment,
    check_crops,
    draw_batch,
    phantom,
    steps_per_epoch,
)
from mmif.training.pairs import Pair
from mmif.training.targets import with_truth

CONFIG = TrainingConfig(batch=4, crop=16, augmentation=0.5, seed=3)


def pairs(count: int, shape: tuple[int, int] = (24, 24)) -> list[Pair]:
    drawn = np.random.default_rng(0).integers(0, 256, (count, 2, *shape), dtype=np.uint8)
    return [Pair(f"{i}", f"{i}", a, b) for i, (a, b) in enumerate(drawn)]


def test_a_step_draws_the_same_batch_again() -> None:
    once, again = (draw_batch(pairs(9), CONFIG, 5) for _ in range(2))
    assert once.names == again.names
    assert torch.equal(once.sources, again.sources)
    assert once.sources.shape == (4, 2, 16, 16)
    assert 0 <= once.sources.min() <= once.sources.max() <= 1


def test_ranks_share_the_crops_that_one_alone_would_see() -> None:
    whole = draw_batch(pairs(9), CONFIG, 2)
    for rank in (0, 1):
        share = draw_batch(pairs(9), CONFIG, 2, rank, 2)
        assert share.names == whole.names[rank::2]
        assert torch.equal(share.sources, whole.sources[rank::2])


def test_an_epoch_sees_every_pair() -> None:
    steps = steps_per_epoch(pairs(8), CONFIG.batch)
    seen = [name for step in range(steps) for name in draw_batch(pairs(8), CONFIG, step).names]
    assert sorted(seen) == sorted(p.name for p in pairs(8))


@pytest.mark.parametrize("side", [0, 25])
def test_crops_that_would_differ_in_size_are_refused(side: int) -> None:
    mixed = pairs(2, (40, 30)) + pairs(2, (24, 30))
    with pytest.raises(TrainingError, match=f"found training.crop {side}, expected 1 to 24"):
        check_crops(mixed, side)
    check_crops(mixed, 24)
    check_crops(pairs(2), side)


def test_without_augmentation_crops_are_the_sources() -> None:
    config = replace(CONFIG, crop=0, augmentation=0.0, batch=1)
    batch = draw_batch(pairs(1), config, 0)
    assert torch.equal(batch.sources[0, 0] * 255, torch.from_numpy(pairs(1)[0].anatomical).float())


def test_the_target_counts_most_where_the_ct_of_a_phantom_steps() -> None:
    config = replace(CONFIG, crop=0, batch=8, phantoms=1.0)
    batch = draw_batch(with_truth(pairs(8, (64, 64))), config, 0)
    assert batch.weights is not None
    steps = (batch.sources[:, 1:].diff(dim=3).abs() > 2 * EDGE_STEP).nonzero()
    assert len(steps) > 100
    for image, _, row, column in steps:
        assert (batch.weights[image, 0, row, column : column + 2] == EDGE_WEIGHT).all()
    assert (batch.weights == PHANTOM_WEIGHT).float().mean() > 0.3


def test_a_batch_says_which_of_its_places_are_phantoms() -> None:
    batch = draw_batch(
        pairs(8), replace(CONFIG, crop=0, batch=8, augmentation=0.0, phantoms=0.5), 0
    )
    assert 0 < batch.drawn.sum() < 8
    for sources, drawn in zip(batch.sources, batch.drawn, strict=True):
        assert (len(sources.unique()) <= 8) == bool(drawn)


def test_augmentation_keeps_the_range_and_sometimes_empties_a_source() -> None:
    generator = np.random.default_rng(1)
    crop = torch.rand(2, 8, 8)
    changed = [augment(crop, 1.0, generator) for _ in range(300)]
    assert all(c.min() >= 0 and c.max() <= 1 for c in changed)
    assert any((c.amax((1, 2)) == 0).any() for c in changed)


def test_phantoms_are_flat_regions_with_empty_air() -> None:
    generator = np.random.default_rng(4)
    for _ in range(20):
        drawn = phantom(32, 40, generator)
        assert drawn.shape == (2, 32, 40)
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        assert len(drawn.unique()) <= 8
