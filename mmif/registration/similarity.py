"""Mutual information of two volumes at points of one of them, for many poses at once.

The points lie off both grids (Mattes 2003; the joint histogram has a cubic B-spline window along
the interpolated volume's grey levels), so that no pose is favoured because grids coincide. The
gradient with respect to the pose is exact.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from mmif.geometry import Matrix, Points
from mmif.registration.prepare import Level

PAD = 2  # bins at each end of the histogram, for the spline's reach


@dataclass(frozen=True, eq=False)
class Samples:
    """Points of the sampled volume and what it shows there.

    Attributes:
        points: (n, 3) float32 mm about its body's centre.
        bins: (n,) int64 grey level of the sampled volume.
        bin_count: how many grey levels each volume has.
    """

    points: torch.Tensor
    bins: torch.Tensor
    bin_count: int

    def draw(self, count: int, generator: torch.Generator) -> Self:
        """``count`` of them by ``generator``, some of them twice."""
        drawn = torch.randint(len(self.bins), (count,), generator=generator)
        # what [drawn] would give, in a third of its time
        points, bins = self.points.index_select(0, drawn), self.bins.index_select(0, drawn)
        return replace(self, points=points, bins=bins)


def sample(level: Level, points: Points, bin_count: int, device: str = "cpu") -> Samples:
    """The grey levels of ``level`` at ``points`` (n, 3) mm; points outside of it are left out."""
    where = torch.as_tensor(points, dtype=torch.float32, device=device)
    values, inside = interpolate(level, where[None])
    bins = torch.clamp((values[0] * bin_count).long(), max=bin_count - 1)
    keep = inside[0]
    return Samples(where[keep], bins[keep], bin_count)


def interpolate(level: Level, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of ``level`` at ``points`` (p, n, 3) mm, trilinear, and whether they lie inside."""
    grid, inside, _ = grid_coordinates(level, points)
    return values_at(level, grid), inside


def values_at(level: Level, grid: torch.Tensor) -> torch.Tensor:
    """(p, n) values of ``level`` at the coordinates ``grid`` (p, n, 3) of `grid_coordinates`."""
    values = F.grid_sample(
        level.values, grid[None, None], padding_mode="border", align_corners=True
    )
    return values[0, 0, 0]


def point_gradient(
    level: Level, grid: torch.Tensor, matrix: torch.Tensor, slope: torch.Tensor
) -> torch.Tensor:
    """How ``sum(slope * values)`` of `values_at` changes with the points; (p, n, 3) a mm.

    By the operations that autograd calls, without its graph: at its first call autograd imports
    sympy, 0.25 s (benchmarks/startup.py).

    Args:
        level: the interpolated volume.
        grid: (p, n, 3) coordinates of the points, and
        matrix: (3, 3) coordinates a mm, both of `grid_coordinates`.
        slope: (p, n).
    """
    bilinear, border, wanted = 0, 1, [False, True]  # the names of grid_sample, as ATen has them
    _, pull = torch.ops.aten.grid_sampler_3d_backward(
        slope[None, None, None], level.values, grid[None, None], bilinear, border, True, wanted
    )
    turned: torch.Tensor = pull[0, 0].flip(-1) @ matrix
    return turned


def grid_coordinates(
    level: Level, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``points`` (p, n, 3) mm in the coordinates of ``grid_sample`` (z, y, x in -1..1).

    Returns:
        (p, n, 3) coordinates, (p, n) whether they lie inside, (3, 3) coordinates a mm.
    """
    shape = level.values.shape[2:]
    scale = np.array([2 / (s - 1) for s in shape])
    matrix = torch.as_tensor(scale[:, None] * level.to_voxel[:3, :3], dtype=torch.float32)
    shift = torch.as_tensor(scale * level.to_voxel[:3, 3] - 1, dtype=torch.float32)
    matrix = matrix.to(points.device)
    grid = points @ matrix.T + shift.to(points.device)
    return grid.flip(-1), (grid.abs() <= 1).all(dim=-1), matrix


def mutual_information(
    level: Level, samples: Samples, rotations: torch.Tensor, translations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mutual information in nats and overlap, for each pose; no gradient.

    Args:
        level: the interpolated volume.
        samples: the sampled one.
        rotations: (p, 3, 3); a point x of the sampled volume lies at ``R x + t`` in the other.
        translations: (p, 3) mm.

    Returns:
        (p,) information over the samples inside the other volume, (p,) their fraction.
    """
    points = samples.points @ rotations.transpose(1, 2) + translations[:, None]
    values, inside = interpolate(level, points)
    joint, _, _ = histogram(values, inside, samples)
    return information(joint), inside.float().mean(dim=1)


def information_gradient(
    level: Level,
    samples: Samples,
    rotations: torch.Tensor,
    translations: torch.Tensor,
    *,
    beyond: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `mutual_information`, and (p, 6) its gradient: by a turn in radians, by a shift in mm.

    With ``beyond``, samples that leave the volume see its border instead of being left out.
    """
    turned = samples.points @ rotations.transpose(1, 2)
    points = turned + translations[:, None]
    grid, inside, matrix = grid_coordinates(level, points)
    values, inside = values_at(level, grid), inside | beyond
    joint, first, part = histogram(values, inside, samples)
    slope = value_slope(joint, first, part, inside, samples)
    pull = point_gradient(level, grid, matrix, slope)
    turn = torch.linalg.cross(turned, pull).sum(dim=1)
    gradient = torch.cat([turn, pull.sum(dim=1)], dim=1)
    return information(joint), inside.float().mean(dim=1), gradient


def histogram(
    values: torch.Tensor, inside: torch.Tensor, samples: Samples
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(p, f, m) joint probabilities; each sample's first bin along m; its place in that bin."""
    p, _ = values.shape
    width = samples.bin_count + 2 * PAD
    position = values * samples.bin_count + (PAD - 0.5)
    base = position.floor()
    part = position - base
    row = torch.arange(p, device=values.device)[:, None] * samples.bin_count + samples.bins
    first = row * width + base.long() - 1
    size = p * samples.bin_count * width
    total = torch.zeros(size, dtype=torch.float32, device=values.device)
    for tap, weight in enumerate(spline(part)):
        total += torch.bincount((first + tap).ravel(), (weight * inside).ravel(), size)
    joint = total.view(p, samples.bin_count, width)
    return joint / joint.sum(dim=(1, 2), keepdim=True).clamp_min(1e-6), first, part


def spline(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The four weights of the cubic B-spline for a place ``x`` in 0..1 between two bins."""
    y = 1 - x
    return (y**3 / 6, (4 - 6 * x**2 + 3 * x**3) / 6, (4 - 6 * y**2 + 3 * y**3) / 6, x**3 / 6)


def spline_slope(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The derivatives of `spline` by ``x``."""
    y = 1 - x
    return (-(y**2) / 2, (3 * x**2 - 4 * x) / 2, (4 * y - 3 * y**2) / 2, x**2 / 2)


def information(joint: torch.Tensor) -> torch.Tensor:
    """(p,) mutual information in nats of (p, f, m) joint probabilities."""
    return entropy(joint.sum(dim=2)) + entropy(joint.sum(dim=1)) - entropy(joint.flatten(1))


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """(p,) entropy in nats along the last axis of (p, k)."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)


def value_slope(
    joint: torch.Tensor,
    first: torch.Tensor,
    part: torch.Tensor,
    inside: torch.Tensor,
    samples: Samples,
) -> torch.Tensor:
    """(p, n) the derivative of the information by each interpolated value."""
    tiny = 1e-10
    log_ratio = torch.log((joint + tiny) / (joint.sum(dim=1, keepdim=True) + tiny)).ravel()
    slope = torch.zeros_like(part)
    for tap, weight in enumerate(spline_slope(part)):
        slope += weight * log_ratio.take(first + tap)
    return slope * inside * samples.bin_count / inside.sum(dim=1, keepdim=True).clamp_min(1)


def pose_tensors(poses: Matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """(p, 3, 3) and (p, 3) float32 of ``poses`` (p, 4, 4)."""
    stack = torch.as_tensor(np.asarray(poses), dtype=torch.float32)
    return stack[:, :3, :3].contiguous(), stack[:, :3, 3].contiguous()
