"""Mutual information and its gradient."""

import numpy as np
import torch

from mmif.registration.prepare import Level
from mmif.registration.similarity import grid_coordinates, interpolate, point_gradient


def test_the_gradient_by_points_is_that_of_autograd_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, 1, 20, 22, 24, generator=generator)
    level = Level(values, np.linalg.inv(np.diag([4.0, 4.0, 4.0, 1.0])))
    points = torch.rand(5, 1000, 3, generator=generator) * 90 - 5  # some of them outside
    slope = torch.randn(5, 1000, generator=generator)
    followed = points.clone().requires_grad_(True)
    seen, _ = interpolate(level, followed)
    (expected,) = torch.autograd.grad(seen, followed, slope)
    grid, _, matrix = grid_coordinates(level, points)
    assert torch.equal(point_gradient(level, grid, matrix, slope), expected)
