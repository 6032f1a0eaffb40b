"""From a good pose to the best one: stochastic ascent on the scans' own resolution, both ways.

Where both scans show the whole head, only points inside the body count. The skin lies differently
in every scan (head holder, pillow, fat shift of the MR), and an edge that strong pulls the whole
head with it: 1.5 mm on RIRE instead of 0.6 mm. Where one scan lacks a part of the head, the skull
that is left may not hold the pose, and the skin has to help.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from mmif.errors import RegistrationError
from mmif.geometry import Matrix, apply, spacing_mm
from mmif.registration.poses import HEAD_RADIUS_MM, inverse, mean_pose, move_poses
from mmif.registration.prepare import Kind, Level, Prepared
from mmif.registration.search import Ascent, CheckTimeout, Momentum, draw_points
from mmif.registration.similarity import Samples, information_gradient, pose_tensors, sample

# Points that the steps draw from, 16 batches of FINE: half as many move RIRE's pose by 0.49 mm,
# twice as many by 0.19 mm (docs/registration.md, "Constants")
POOL = 80_000
# More than the pose still moves, so that samples stay inside: 2 and 8 mm make 0.20 mm
BORDER_MM = 4.0
# Measured: docs/registration.md, "Three choices came from data"; the last in `skin_margin_mm`
WHOLE, SKIN_MM, INNER_MM = 0.88, 10.0, 4.0
# 100 steps: measured together with CT_GREYS (docs/registration.md); half as many of half the batch
# leave RIRE at 0.62 mm in three quarters of the time, twice both at 0.78 mm in twice the time
FINE = Ascent(level=3, iterations=100, batch=5000, bins=24, first_mm=1.5, last_mm=0.08)
# On the level of 2 mm, with fewer steps: `registration.py headers` measures what is found so
QUICK = replace(FINE, level=2, iterations=60)


@dataclass(frozen=True, eq=False)
class Refined:
    """The same pose found twice, each time with the other volume interpolated.

    All carry the fixed volume's centred millimetres to the moving volume's.
    """

    forward: Matrix
    backward: Matrix

    @property
    def pose(self) -> Matrix:
        """The mean of both: their errors of interpolation point opposite ways."""
        return mean_pose(np.stack([self.forward, self.backward]))


def refine(
    fixed: Prepared, moving: Prepared, pose: Matrix, seed: int, check_timeout: CheckTimeout
) -> Refined:
    """``pose`` (fixed to moving) refined with the points of either volume.

    One after the other: steps are so short that two threads hand Python's lock to and fro. On RIRE
    two took 0.31 s and 0.57 of CPU, one 0.32 and 0.33 (docs/scaling.md).
    """
    there, back = skin_margin_mm(fixed, moving), skin_margin_mm(moving, fixed)
    forward = refine_one_way(fixed, moving, pose, there, seed, check_timeout)
    backward = refine_one_way(moving, fixed, inverse(pose), back, seed + 1, check_timeout)
    return Refined(forward, inverse(backward))


def is_stripped_pair(fixed: Prepared, moving: Prepared) -> bool:
    """Whether a stripped brain is brought to a CT, whose skull stands where the brain ends."""
    return {fixed.kind, moving.kind} == {Kind.CT, Kind.MR} and (fixed.stripped or moving.stripped)


def skin_margin_mm(sampled: Prepared, other: Prepared) -> float:
    """How far around the body points are drawn: 0, unless a part of the head is missing.

    Around a stripped brain, so that the skull stands where the MR has nothing; from inside of the
    skull hardly, since no stripped brain ends just where its skull begins. On RIRE, stripped 1.5 mm
    too tightly, these two margins lead to 0.3 mm, 0 and 0 to 17 and 0.5 mm, 14 and 14 to 0.7 and
    2.2 mm.
    """
    if is_stripped_pair(sampled, other):
        return SKIN_MM if sampled.stripped else INNER_MM
    smaller, larger = sorted((sampled.body_ml, other.body_ml))
    whole = smaller > WHOLE * larger or Kind.EMISSION in (sampled.kind, other.kind)
    return 0.0 if whole else SKIN_MM


def refine_one_way(
    sampled: Prepared,
    other: Prepared,
    pose: Matrix,
    margin_mm: float,
    seed: int,
    check_timeout: CheckTimeout,
    plan: Ascent = FINE,
) -> Matrix:
    """``pose`` (sampled to other) after one ascent; the mean over the second half of its steps.

    Raises:
        RegistrationError: no point of one volume lies well inside the other.
    """
    level = other.levels[plan.level]
    points = draw_points(sampled, POOL, margin_mm, seed)
    samples = keep_inside(level, sample(sampled.levels[plan.level], points, plan.bins), pose)
    if not len(samples.bins):
        raise RegistrationError(
            "the two volumes hardly overlap where they fit best; expected two scans of one part of "
            "the body"
        )
    generator = torch.Generator().manual_seed(seed)
    scale = np.array([HEAD_RADIUS_MM] * 3 + [1.0] * 3)
    direction = Momentum()
    visited = []
    for k in range(plan.iterations):
        check_timeout()
        batch = samples.draw(plan.batch, generator)
        _, _, slope = information_gradient(level, batch, *pose_tensors(pose[None]), beyond=True)
        slope_mm = slope[0].double().numpy() / scale
        pose = move_poses(pose, plan.rate_mm(k) * direction(slope_mm))
        if k >= plan.iterations // 2:
            visited.append(pose)
    return mean_pose(np.stack(visited))


def keep_inside(
    level: Level, samples: Samples, pose: Matrix, border_mm: float = BORDER_MM
) -> Samples:
    """The samples that ``pose`` puts at least a few mm inside ``level``.

    One set for the whole ascent: samples that came and went would move the optimum.
    """
    spacing = np.array(spacing_mm(np.linalg.inv(level.to_voxel)))
    last = np.array(level.values.shape[2:]) - 1
    margin = np.minimum(border_mm / spacing, last / 4)
    voxels = apply(level.to_voxel @ pose, samples.points.numpy())
    keep = torch.from_numpy(((voxels >= margin) & (voxels <= last - margin)).all(axis=1))
    return Samples(samples.points[keep], samples.bins[keep], samples.bin_count)
