import numpy as np
import pytest
from scipy import ndimage

from mmif.report.contributions import SourceShare, luminance, source_share


def share_out(*volumes: np.ndarray) -> SourceShare:
    """The shares of (X, Y, Z) volumes: fused, reference, moving."""
    return source_share(lambda k: tuple(one[..., k] for one in volumes), volumes[0].shape)


@pytest.fixture(scope="module")
def textures() -> tuple[np.ndarray, np.ndarray]:
    """Two unrelated textures (X, Y, Z) in 0..1."""
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(2, 64, 64, 3)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, (0, 1.2, 1.2, 0))
    return tuple(np.clip(0.5 + smooth / smooth.std() * 0.15, 0, 1))


def test_a_fused_volume_that_is_one_source_is_shared_out_to_it(textures) -> None:
    a, b = textures
    assert share_out(a, a, b).mean < 0.02
    assert share_out(b, a, b).mean > 0.98


def test_an_average_is_shared_out_half_and_half(textures) -> None:
    a, b = textures
    share = share_out((a + b) / 2, a, b)
    assert share.mean == pytest.approx(0.5, abs=0.03)
    assert share.explained > 0.99


def test_the_share_follows_the_weights(textures) -> None:
    a, b = textures
    assert share_out(0.8 * a + 0.2 * b, a, b).mean == pytest.approx(0.2, abs=0.03)


def test_a_flat_volume_has_no_shares() -> None:
    flat = np.full((16, 16, 2), 0.4, np.float32)
    share = share_out(flat, flat, flat)
    assert np.isnan(share.mean)
    assert share.strength.max() < 0.05 * 255


def test_where_the_moving_volume_is_empty_all_comes_from_the_reference(textures) -> None:
    a, _ = textures
    assert share_out(a, a, np.zeros_like(a)).mean < 0.02


def test_what_one_source_alone_shows_and_the_fused_volume_does_not_is_lost(textures) -> None:
    a, b = textures
    a, b = a.copy(), np.full_like(b, 0.4)
    a[:32], b[40:48, 20:40] = 0.5, 0.8  # the reference is flat on the left, the focus alone in b
    kept = share_out(np.maximum(a, b), a, b)
    lost = share_out(a, a, b)
    there = np.s_[40:48, 19:21]  # an edge of the focus
    assert (lost.lost[there] == 2).all()
    assert lost.lost_shares[1] > 0.9
    assert (lost.lost == 1).sum() == 0
    assert (kept.lost[there] == 2).mean() < 0.5
    half = share_out(np.where(np.arange(64)[:, None, None] < 48, a, 0.5), a, b)
    assert (half.lost[52:60] == 1).mean() > 0.5
    assert half.lost_shares[0] == pytest.approx(0.5, abs=0.15)


def test_where_no_source_has_structure_of_its_own_nothing_can_be_lost(textures) -> None:
    a, _ = textures
    shares = share_out(np.full_like(a, 0.5), a, a)
    assert shares.lost.max() == 0
    assert np.isnan(shares.lost_shares).all()


def test_luminance_weighs_colours_and_keeps_grey() -> None:
    assert luminance(np.ones((3, 1, 1, 1))) == pytest.approx(1)
    assert luminance(np.full((1, 1, 1, 1), 0.3)) == pytest.approx(0.3)
