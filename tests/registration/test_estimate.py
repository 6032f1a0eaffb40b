"""The probable error: small where both scans look, larger far from there."""

import numpy as np
import pytest

from mmif.registration.estimate import error_growth, probable_error


def box(size: tuple[float, float, float], count: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)) * size


def test_over_the_fitted_points_the_growth_is_one_on_average() -> None:
    points = box((140, 180, 36))
    assert np.sqrt((error_growth(points, points) ** 2).mean()) == pytest.approx(1, abs=1e-3)


def test_an_error_grows_with_the_distance_from_a_slab_and_less_from_a_whole_head() -> None:
    far = np.array([[0.0, 0.0, -150.0]])
    slab, head = (error_growth(box((140, 180, h)), far)[0] for h in (36, 200))
    assert slab > 1.3 * head


def test_the_growth_is_what_rigid_fits_to_noisy_points_leave() -> None:
    """Fitzpatrick's law against a simulation: 400 fits to 30 points with independent errors."""
    rng = np.random.default_rng(1)
    points, far = box((140, 180, 40), 30), np.array([0.0, 60.0, -120.0])
    middle = points.mean(axis=0)
    own, there = [], []
    for _ in range(400):
        noisy = points + rng.normal(0, 1, points.shape)
        a, b = points - middle, noisy - noisy.mean(axis=0)
        u, _, vt = np.linalg.svd(a.T @ b)
        turn = vt.T @ np.diag([1, 1, np.linalg.det(vt.T @ u.T)]) @ u.T
        gap = lambda p, turn=turn, noisy=noisy: (  # noqa: E731
            (p - middle) @ turn.T + noisy.mean(axis=0) - p
        )
        own.append((gap(points) ** 2).sum(axis=1).mean())
        there.append((gap(far) ** 2).sum())
    measured = np.sqrt(np.mean(there) / np.mean(own))
    assert error_growth(points, far[None])[0] == pytest.approx(measured, rel=0.1)


def test_half_of_what_two_directions_differ_by_counts_until_one_has_gone_astray() -> None:
    apart = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 6.0])
    seen = np.sqrt(probable_error(apart, 2.0) ** 2 - 2.0**2)
    np.testing.assert_allclose(seen, [0.0, 0.25, 0.5, 2.0, 3.0, 6.0], atol=1e-9)
    grid = np.linspace(0, 8, 200)
    assert (np.diff(probable_error(grid, 2.0)) > 0).all()
    kept = probable_error(apart, 2.0, least_share=1.0)  # one of the two is the answer
    np.testing.assert_allclose(kept, np.hypot(apart, 2.0))
