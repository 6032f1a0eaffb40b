import numpy as np
import pytest
import torch

from mmif.config import LossConfig
from mmif.metrics import METRICS
from mmif.training import losses


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fused, a, b (1, 1, 64, 64): smooth 8-bit images with an empty frame."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(3, 1, 16, 16, generator=generator)
    smooth = torch.nn.functional.interpolate(drawn, size=(64, 64), mode="bilinear")
    smooth[..., :6, :] = 0
    levels = (smooth * 255).round() / 255
    return levels[:1], levels[1:2], levels[2:]


def metric(name: str, images: tuple[torch.Tensor, ...]) -> float:
    return METRICS[name](*((x[0, 0] * 255).round().numpy().astype(np.uint8) for x in images))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_stochastic_similarity_of_copies_is_zero() -> None:
    x = torch.rand(2, 1, 64, 64)
    assert losses.stochastic_similarity_loss(x, x, x, generator()) == pytest.approx(0, abs=1e-6)


def test_stochastic_similarity_is_that_of_permuted_windows(images) -> None:
    f, a, b = images
    order = torch.randperm(64 * 64, generator=generator())
    scores = []
    for source in (a, b):
        for k in range(0, 4096, 16):
            x, y = (z.flatten()[order[k : k + 16]].double() for z in (source, f))
            cov = ((x - x.mean()) * (y - y.mean())).mean()
            top = (2 * x.mean() * y.mean() + 1e-4) * (2 * cov + 9e-4)
            low = x.mean() ** 2 + y.mean() ** 2 + 1e-4
            scores.append(top / (low * (x.var(correction=0) + y.var(correction=0) + 9e-4)))
    first_permutation = 1 - float(torch.stack(scores).mean())
    whole = float(losses.stochastic_similarity_loss(f, a, b, generator()))
    assert whole == pytest.approx(first_permutation, abs=0.02)  # ten permutations, not one


def test_stochastic_similarity_follows_its_generator(images) -> None:
    once, again = (losses.stochastic_similarity_loss(*images, generator()) for _ in range(2))
    assert once == again
    other = losses.stochastic_similarity_loss(*images, torch.Generator().manual_seed(1))
    assert once != other


def test_gradient_loss_wants_the_stronger_gradient(images) -> None:
    _, a, _ = images
    assert losses.gradient_loss(a, a, torch.zeros_like(a)) == pytest.approx(0, abs=1e-7)
    assert losses.gradient_loss(torch.zeros_like(a), a, a) > 0.01


def test_gradient_loss_sees_no_edge_at_the_border() -> None:
    flat = torch.full((1, 1, 8, 8), 0.7)
    assert losses.gradient_loss(torch.zeros_like(flat), flat, flat) == pytest.approx(0, abs=1e-7)


def test_smooth_loss_is_least_half_way() -> None:
    a, b = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert losses.smooth_loss((a + b) / 2, a, b) == pytest.approx(0.5)
    assert losses.smooth_loss(a, a, b) == pytest.approx(1.0)


@pytest.mark.parametrize("loss", [losses.saliency_loss, losses.bone_loss])
def test_saliency_and_bone_are_zero_at_the_maximum(images, loss) -> None:
    _, a, b = images
    assert loss(torch.maximum(a, b), a, b) == 0


def test_edge_loss_is_one_minus_qabf(images) -> None:
    assert float(losses.edge_loss(*images)) == pytest.approx(1 - metric("Qabf", images), abs=0.01)


def test_structure_loss_is_the_published_ssim(images) -> None:
    expected = 1 - metric("SSIM", images) / 2
    assert float(losses.structure_loss(*images)) == pytest.approx(expected, abs=0.01)


def test_difference_loss_is_two_minus_scd(images) -> None:
    expected = 2 - metric("SCD", images)
    assert float(losses.difference_loss(*images)) == pytest.approx(expected, abs=1e-3)


def test_information_loss_is_minus_mi(images) -> None:
    expected = -metric("MI", images) / 4
    assert float(losses.information_loss(*images)) == pytest.approx(expected, abs=1e-3)


def test_entropy_loss_counts_the_foreground_only() -> None:
    f = torch.zeros(1, 1, 32, 32)
    f[..., 16:, :16], f[..., 16:, 16:] = 51 / 255, 102 / 255
    assert float(losses.entropy_loss(f, f, f)) == pytest.approx(-1 / 8, abs=1e-3)


def test_sharpness_loss_is_relative_to_the_maximum(images) -> None:
    _, a, b = images
    assert losses.sharpness_loss(torch.maximum(a, b), a, b) == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("name", losses.TERMS)
def test_every_term_has_finite_gradients_where_all_is_empty(name: str) -> None:
    config = LossConfig(**{**dict.fromkeys(losses.TERMS, 0.0), name: 1.0})
    f = torch.zeros(2, 1, 32, 32, requires_grad=True)
    total, parts = losses.fusion_loss(
        f, torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32), config
    )
    total.backward()
    assert set(parts) == {name}
    assert torch.isfinite(f.grad).all()


@pytest.mark.parametrize("name", sorted(set(losses.TERMS) - {"edge"}))
def test_every_term_falls_along_its_gradient(name: str, images) -> None:
    config = LossConfig(**{**dict.fromkeys(losses.TERMS, 0.0), name: 1.0})
    f, a, b = images
    f = (0.8 * f + 0.05).requires_grad_(True)
    before, _ = losses.fusion_loss(f, a, b, config, generator())
    before.backward()
    step = 1e-4 * f.grad / f.grad.abs().max()
    after, _ = losses.fusion_loss(f.detach() - step, a, b, config, generator())
    assert after < before


def test_the_edge_term_can_be_descended(images) -> None:
    """Its gradient jumps where edges turn over, so that only a run of steps must gain."""
    f, a, b = images
    f = (0.8 * f + 0.05).requires_grad_(True)
    optimizer = torch.optim.Adam([f], 0.01)
    values = []
    for _ in range(20):
        loss = losses.edge_loss(f, a, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0] - 0.05


def test_the_weights_multiply_the_terms(images) -> None:
    config = LossConfig(similarity=0, gradient=2, smooth=3)
    total, parts = losses.fusion_loss(*images, config)
    assert total == pytest.approx(2 * parts["gradient"] + 3 * parts["smooth"])


def test_phantoms_count_only_in_the_terms_that_do_not_reward_edges(images) -> None:
    f, a, b = (x.repeat(2, 1, 1, 1) for x in images)
    f = torch.cat([f[: len(f) // 2], torch.rand_like(f[len(f) // 2 :])])
    drawn = torch.arange(len(f)) >= len(f) // 2
    config = LossConfig(similarity=0, gradient=1, smooth=1, edge=1)
    _, parts = losses.fusion_loss(f, a, b, config, drawn=drawn)
    _, real = losses.fusion_loss(*images, config)
    _, everything = losses.fusion_loss(f, a, b, config)
    for name in ("gradient", "edge"):
        assert parts[name] == pytest.approx(float(real[name]))
    assert parts["smooth"] == pytest.approx(float(everything["smooth"]))
    assert parts["smooth"] != pytest.approx(float(real["smooth"]))


def test_a_batch_of_phantoms_alone_has_a_loss(images) -> None:
    f, a, b = images
    f = f.clone().requires_grad_(True)
    drawn = torch.ones(len(f), dtype=torch.bool)
    total, parts = losses.fusion_loss(f, a, b, LossConfig(halo=1), drawn=drawn)
    total.backward()
    assert parts["similarity"] == parts["gradient"] == 0
    assert parts["smooth"] > 0


def test_halo_loss_sees_ringing_beside_an_edge_but_not_the_edge() -> None:
    a, b = torch.zeros(1, 1, 8, 16), torch.zeros(1, 1, 8, 16)
    a[..., 8:] = 0.6
    assert losses.halo_loss(a, a, b) == 0
    ringing = a.clone()
    ringing[..., 8] = 0.7
    assert losses.halo_loss(ringing, a, b) == pytest.approx(0.1 * 8 / (8 * 7 + 7 * 8))


def test_saliency_and_bone_weigh_bright_pixels_more() -> None:
    bright, faint = torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 4, 4), 0.5)
    for loss, power in ((losses.saliency_loss, 2), (losses.bone_loss, 6)):
        ratio = loss(bright - 0.1, bright, bright) / loss(faint - 0.1, faint, faint)
        assert ratio == pytest.approx(2.0**power, rel=1e-4)


def test_under_an_activity_the_detail_of_the_anatomy_stays_and_its_broad_course_follows() -> None:
    flat = torch.full((1, 1, 160, 160), 0.4)
    spot = flat.clone()
    spot[..., 77:83, 77:83] += 0.1
    hot, cold = losses.overlay(flat, flat + 0.5), losses.overlay(flat, flat - 0.3)
    assert (hot > flat + 0.1).all()
    assert (cold < flat - 0.05).all()
    change = (losses.overlay(spot, flat + 0.5) - hot)[..., 78:82, 78:82].mean()
    assert 0.1 <= change <= 0.1 * losses.DETAIL_GAIN  # all of it
    bone, air = torch.ones_like(flat), torch.zeros_like(flat)
    assert losses.overlay(bone, air).min() == 1  # nothing darkens it
    assert losses.overlay(air, air).max() == 0
    assert losses.overlay_loss(hot, flat, flat + 0.5) == 0


def test_an_overlay_has_no_rim_next_to_a_skull() -> None:
    tissue, activity = torch.full((1, 1, 160, 160), 0.4), torch.full((1, 1, 160, 160), 0.5)
    skull = tissue.clone()
    skull[..., 80:] = 1.0
    beside = (
        losses.overlay(skull, activity)[..., 80, 60:80]
        - losses.overlay(tissue, activity)[..., 80, 60:80]
    )
    assert beside.diff(dim=-1).abs().max() < 0.01
