import pytest
import torch

from mmif.config import NetworkConfig
from mmif.networks.s3imfusion import (
    S3IMFusion,
    join_channels,
    max_pool_3x3,
    positional_encoding,
)


@pytest.fixture(scope="module")
def network() -> S3IMFusion:
    torch.manual_seed(1)
    return S3IMFusion(NetworkConfig()).eval()


@pytest.fixture(scope="module", params=["between", "residual"])
def either(request: pytest.FixtureRequest) -> S3IMFusion:
    torch.manual_seed(1)
    return S3IMFusion(NetworkConfig(output=request.param)).eval()


@pytest.mark.parametrize("size", [(256, 256), (1, 1), (3, 17), (31, 250), (333, 127)])
def test_any_height_and_width_comes_back(network: S3IMFusion, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        fused = network(torch.rand(2, 2, *size))
    assert fused.shape == (2, 1, *size)
    assert 0 <= fused.min() <= fused.max() <= 1


def test_grids_beyond_the_largest_are_averaged_down() -> None:
    small = S3IMFusion(NetworkConfig(channels=4, coarse_channels=4, width=8, blocks=1)).eval()
    with torch.inference_mode():
        assert small(torch.rand(1, 2, 1100, 40)).shape == (1, 1, 1100, 40)


def test_a_residual_may_be_brighter_and_darker_than_both_sources() -> None:
    network = S3IMFusion(NetworkConfig(output="residual")).eval()
    sources = torch.full((1, 2, 2, 2), 0.5)
    for level, expected in ((0.3, 0.8), (-0.3, 0.2), (0.9, 1.0)):
        shown = network.residual(sources, torch.full((1, 1, 2, 2), level))
        torch.testing.assert_close(shown, torch.full((1, 1, 2, 2), expected))


def test_the_papers_output_is_its_own_tanh_at_full_resolution() -> None:
    torch.manual_seed(2)
    config = NetworkConfig(channels=4, coarse_channels=4, output="tanh", full_resolution=True)
    network = S3IMFusion(config).eval()
    assert [layer.kernel_size for layer in network.detail.coarse] == [(5, 5), (5, 5)]
    with torch.inference_mode():
        fused = network(torch.rand(1, 2, 33, 40))
    assert fused.shape == (1, 1, 33, 40)
    assert 0 <= fused.min() <= fused.max() <= 1


def test_air_stays_exactly_black(either: S3IMFusion) -> None:
    sources = torch.zeros(1, 2, 64, 64)
    sources[:, :, 20:40, 20:40] = 0.8
    with torch.inference_mode():
        fused = either(sources)[0, 0]
    away = torch.ones(64, 64, dtype=torch.bool)
    away[20:40, 20:40] = False
    assert fused[away].max() == 0


def test_no_pixel_is_darker_or_brighter_than_both_sources(network: S3IMFusion) -> None:
    sources = torch.rand(2, 2, 50, 70)
    with torch.inference_mode():
        fused = network(sources)[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(sources)[:, 0]
    for image in (fused, mixed):
        assert (image >= sources.amin(1) - 1e-6).all()
        assert (image <= sources.amax(1) + 1e-6).all()


def test_both_sources_are_reached_exactly(network: S3IMFusion) -> None:
    sources = torch.rand(1, 2, 5, 5)
    for level, expected in ((-1.0, sources.amin(1)), (1.0, sources.amax(1))):
        shown = network.between(sources, torch.full((1, 1, 5, 5), level))
        torch.testing.assert_close(shown[:, 0], expected)


def test_a_slice_does_not_depend_on_its_batch(network: S3IMFusion) -> None:
    sources = torch.rand(3, 2, 48, 48)
    with torch.inference_mode():
        together, alone = network(sources)[1:2], network(sources[1:2])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_channels_last_gives_the_same(network: S3IMFusion) -> None:
    sources = torch.rand(1, 2, 64, 80)
    with torch.inference_mode():
        plain = network(sources)
        last = network(sources.to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)


def test_autocast_runs_and_stays_near(network: S3IMFusion) -> None:
    sources = torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        plain = network(sources)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(sources).float()
    assert (plain - mixed).abs().quantile(0.99) < 0.05


def test_the_shipped_size_is_within_the_budget(network: S3IMFusion) -> None:
    assert sum(p.numel() for p in network.parameters()) <= 300_000


def test_training_leaves_a_slope_beyond_the_range() -> None:
    network = S3IMFusion(NetworkConfig(channels=4, coarse_channels=4, width=8, blocks=1)).train()
    sources = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1)
    for level in (-1.0, 1.0):
        beyond = torch.full((1, 1, 1, 1), level, requires_grad=True)
        network.between(sources, beyond).sum().backward()
        assert (beyond.grad > 0).all()


@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_what_is_darker_in_the_second_source_is_learnt_only_past_a_leak(leak: float) -> None:
    """Tissue for which all features are below 0 passes nothing back through a plain ReLU."""
    network = S3IMFusion(NetworkConfig(output="residual", leak=leak)).train()
    with torch.no_grad():
        network.mix.neg_()  # features behind a ReLU, now none of them is positive
        network.detail.merge.weight.abs_()
        network.detail.merge.bias.abs_()
        network.correlation.expand.weight.zero_()
        network.correlation.expand.bias.abs_()
    fused = network(torch.full((2, 2, 32, 32), 0.4))
    (fused - 0.3).square().mean().backward()  # type: ignore[no-untyped-call]
    slope = network.hybrid.weight.grad
    assert slope is not None
    assert bool(slope.any()) == (leak > 0)


def test_peak_is_max_pooling() -> None:
    x = torch.randn(2, 1, 9, 13)
    torch.testing.assert_close(max_pool_3x3(x), torch.nn.functional.max_pool2d(x, 3, 1, 1))


def test_positional_encoding_tells_places_apart() -> None:
    code = positional_encoding(17, 17, 32)
    assert code.shape == (289, 32)
    assert torch.cdist(code, code).fill_diagonal_(1).min() > 0.01


def test_joined_channels_are_a_concatenation_whose_slopes_lie_in_one_piece() -> None:
    parts = [torch.rand(2, 3, 8, 8, requires_grad=True) for _ in range(2)]
    doubled, slopes = [2 * part for part in parts], []
    whole = join_channels(*doubled)
    for part in doubled:
        part.register_hook(slopes.append)  # after the one of the function, and so behind it
    assert torch.equal(whole, torch.cat(doubled, 1))
    (whole**2).sum().backward()
    for part in parts:
        torch.testing.assert_close(part.grad, 8 * part.detach())
    assert len(slopes) == 2
    assert all(slope.is_contiguous(memory_format=torch.channels_last) for slope in slopes)
