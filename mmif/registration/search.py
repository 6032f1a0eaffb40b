"""From nowhere to a few good poses: every rotation on a coarse grid, then ascent of the best.

Works on the 8 mm and 4 mm levels with a few thousand samples, for many poses at once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mmif.geometry import Matrix, Points, apply, spacing_mm
from mmif.registration.poses import (
    HEAD_RADIUS_MM,
    all_rotations,
    corners,
    distance_mm,
    move_poses,
)
from mmif.registration.prepare import Level, Prepared
from mmif.registration.similarity import (
    Samples,
    information,
    information_gradient,
    mutual_information,
    pose_tensors,
    sample,
)

Scores = npt.NDArray[np.float64]
CheckTimeout = Callable[[], None]

# What each constant below moves at half and at twice its value: docs/registration.md, "Constants"
# (benchmarks/constants.py). About 30 degrees apart (the cube root of 8 pi^2 / 480): 0.1 mm
ROTATIONS = 480
# About what neighbouring rotations are apart at the surface of a head (70 mm): 0.2 mm
TRANSLATION_STEP_MM = 32.0
CHUNK = 400_000  # sample positions at once
# Of air about the body, so that its outline counts: 1.5 voxels of the 8 mm level: 0.2 mm
AIR_MARGIN_MM = 12.0
# Of 12 far starts of the sample SPECT one attempt missed 7; up to four missed none of 16
ATTEMPTS = 4
DISPUTED, ELSEWHERE_MM = 0.8, 30.0  # a pose that far away with that part of the best score


@dataclass(frozen=True)
class Ascent:
    """One run of stochastic gradient ascent: fresh samples at every step, steps that shrink."""

    level: int
    iterations: int
    batch: int
    bins: int
    first_mm: float
    last_mm: float

    def rate_mm(self, step: int) -> float:
        """How far ``step``, from 0, goes in each parameter."""
        return float(self.first_mm * (self.last_mm / self.first_mm) ** (step / self.iterations))


class Momentum:
    """The direction of each step of an ascent, about 1 in each parameter (Adam, Kingma 2015).

    Its memory is five slopes and twenty sizes, not Adam's ten and a thousand: ascents have 8 to 100
    steps.
    """

    def __init__(self) -> None:
        self.mean, self.square, self.count = np.zeros(6), np.zeros(6), 0

    def __call__(self, slope: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(..., 6) the direction after one more ``slope`` (..., 6)."""
        self.count += 1
        self.mean = 0.8 * self.mean + 0.2 * slope
        self.square = 0.95 * self.square + 0.05 * slope**2
        mean = self.mean / (1 - 0.8**self.count)
        return np.asarray(mean / (np.sqrt(self.square / (1 - 0.95**self.count)) + 1e-12))


# Of 40 poses, 14 and 6: the fewer are left, the more steps and samples each gets: 0.28 mm
FIRST = Ascent(level=0, iterations=8, batch=500, bins=16, first_mm=8.0, last_mm=4.0)
# From about where FIRST ends, down to less than half a voxel of the 4 mm level: 0.23 mm
SECOND = Ascent(level=0, iterations=16, batch=700, bins=16, first_mm=5.0, last_mm=1.5)
# Down to an eighth of a voxel of the 4 mm level; refine.py does the rest: 0.32 mm
MIDDLE = Ascent(level=1, iterations=20, batch=1500, bins=20, first_mm=2.5, last_mm=0.5)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Poses from the sampled volume to the other one, the best first.

    Attributes:
        poses: (n, 4, 4) between centred millimetres.
        scores: (n,) information times overlap.
    """

    poses: Matrix
    scores: Scores


def draw_points(volume: Prepared, count: int, margin_mm: float, seed: int) -> Points:
    """(count, 3) points off the grid in the body of ``volume`` and ``margin_mm`` around it."""
    rng = np.random.default_rng(seed)
    level = volume.levels[1]
    to_mm = np.linalg.inv(level.to_voxel)
    spacing = spacing_mm(to_mm)
    pad = [int(np.ceil(margin_mm / s)) for s in spacing]
    body = np.pad(volume.body, [(p, p) for p in pad])
    if margin_mm > 0:
        body = ndimage.distance_transform_edt(~body, sampling=spacing) <= margin_mm
    voxels = np.argwhere(body) - pad
    chosen = voxels[rng.permutation(np.resize(np.arange(len(voxels)), max(count, len(voxels))))]
    return apply(to_mm, chosen[:count] + rng.uniform(-0.5, 0.5, (count, 3)))


def global_search(
    sampled: Prepared, other: Prepared, seed: int, check_timeout: CheckTimeout, device: str = "cpu"
) -> Candidates:
    """The best distinct poses anywhere, refined on the 4 mm level.

    The right pose scores far above all others, and its basin may fall between the starts. As long
    as no pose stands out, the search is made again from a grid that is turned.
    """
    # 30 batches of SECOND, 13 of MIDDLE: no ascent sees a point twice often
    points = draw_points(sampled, 20_000, AIR_MARGIN_MM, seed)
    coarse = sample(sampled.levels[0], points, FIRST.bins)
    middle = sample(sampled.levels[1], points, MIDDLE.bins)
    box = corners(sampled.body_points)
    starts = start_poses(sampled, other)
    found = Candidates(np.empty((0, 4, 4)), np.empty(0))
    for turn in (
        np.eye(3),
        *Rotation.random(ATTEMPTS - 1, rng=np.random.default_rng(seed)).as_matrix(),
    ):
        turned = starts.copy()
        turned[:, :3] = turn @ starts[:, :3]
        # as few as FIRST takes a step: 13,000 to 60,000 poses are looked at
        scanned = scan(other.levels[0], take(coarse, 500), turned, check_timeout, device)
        more = refine_candidates(other, scanned, coarse, middle, box, seed, check_timeout)
        found = rank(join(found, more))
        if runner_up_ratio(found, found.poses[0], box, ELSEWHERE_MM) < DISPUTED:
            break
    return found


def refine_candidates(
    other: Prepared,
    found: Candidates,
    coarse: Samples,
    middle: Samples,
    box: Points,
    seed: int,
    check_timeout: CheckTimeout,
) -> Candidates:
    """The best of ``found`` after ascents on the 8 mm and the 4 mm level, fewer at every step."""
    # apart: less than the scan's steps, then about twice what the ascent before could close
    found = keep_distinct(found, box, apart_mm=20.0, most=40)
    found = ascend(other, coarse, found.poses, FIRST, seed, check_timeout)
    found = keep_distinct(found, box, apart_mm=12.0, most=14)
    found = ascend(other, coarse, found.poses, SECOND, seed, check_timeout)
    found = keep_distinct(found, box, apart_mm=6.0, most=6)
    found = rank(ascend(other, middle, found.poses, MIDDLE, seed, check_timeout))
    best = ascend(other, middle, found.poses[:2], MIDDLE, seed + 1, check_timeout)
    return join(best, Candidates(found.poses[2:], found.scores[2:]))


def join(some: Candidates, more: Candidates) -> Candidates:
    """All of both."""
    return Candidates(
        np.concatenate([some.poses, more.poses]), np.concatenate([some.scores, more.scores])
    )


def runner_up_ratio(found: Candidates, pose: Matrix, box: Points, apart_mm: float = 15.0) -> float:
    """The best score of a solution over ``apart_mm`` away, as a part of the best of all."""
    far = [
        s
        for p, s in zip(found.poses, found.scores, strict=True)
        if distance_mm(p, pose, box) > apart_mm
    ]
    return float(max(far, default=0.0) / max(found.scores.max(), 1e-6))


def start_poses(sampled: Prepared, other: Prepared) -> Matrix:
    """(n, 4, 4) all rotations of the grid, each with shifts as far as the bodies' sizes differ."""
    apart = np.abs(np.sort(sampled.body_size_mm) - np.sort(other.body_size_mm)).max()
    # half of what one body is longer than the other, and half a step of the grid; at least a step
    # of 24 mm, at most what lies between a head's centre and a neck's
    reach = np.clip(apart / 2 + 16.0, 24.0, 90.0)
    steps = int(np.ceil(reach / TRANSLATION_STEP_MM))
    line = np.linspace(-reach, reach, 2 * min(steps, 2) + 1)
    shifts = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    rotations = np.concatenate([np.eye(3)[None], all_rotations(ROTATIONS)])
    poses = np.tile(np.eye(4), (len(rotations), len(shifts), 1, 1))
    poses[:, :, :3, :3] = rotations[:, None]
    poses[:, :, :3, 3] = shifts
    return poses.reshape(-1, 4, 4)


def take(samples: Samples, count: int) -> Samples:
    """The first ``count`` of ``samples``, which are in random order."""
    return Samples(samples.points[:count], samples.bins[:count], samples.bin_count)


def scan(
    level: Level, samples: Samples, poses: Matrix, check_timeout: CheckTimeout, device: str = "cpu"
) -> Candidates:
    """Every pose scored: information times overlap, so that what lies outside tells nothing.

    The nearest voxel counts here, not an interpolated value: a tenth of the time, for many poses.
    """
    shape = level.values.shape[2:]
    bins = bin_levels(level, samples.bin_count).to(device)
    points, own_bins = samples.points.to(device), samples.bins.to(device)
    size = torch.as_tensor(shape, device=device)
    strides = torch.as_tensor([shape[1] * shape[2], shape[2], 1], device=device)
    matrix = torch.as_tensor(level.to_voxel, dtype=torch.float32)
    width = samples.bin_count + 1  # the last bin: outside
    step = max(1, CHUNK // len(samples.bins))

    def score(start: int) -> Scores:
        """Of a few poses."""
        check_timeout()
        rotations, translations = pose_tensors(poses[start : start + step])
        turn, shift = matrix[:3, :3] @ rotations, translations @ matrix[:3, :3].T + matrix[:3, 3]
        turn, shift = turn.to(device), shift.to(device)
        voxels = (points @ turn.transpose(1, 2) + shift[:, None]).round_().to(torch.int64)
        inside = ((voxels >= 0) & (voxels < size)).all(dim=-1)
        values = bins[torch.where(inside, (voxels * strides).sum(dim=-1), bins.numel() - 1)]
        row = torch.arange(len(values), device=device)[:, None] * samples.bin_count + own_bins
        counts = torch.bincount(
            (row * width + values).ravel(), minlength=len(values) * samples.bin_count * width
        )
        joint = counts.view(len(values), samples.bin_count, width)[:, :, :-1].float()
        total = joint.sum(dim=(1, 2), keepdim=True)
        overlap = total.ravel() / len(samples.bins)
        found: Scores = (information(joint / total.clamp_min(1)) * overlap).double().cpu().numpy()
        return found

    with ThreadPoolExecutor(2) as cores:
        scores = list(cores.map(score, range(0, len(poses), step)))
    return Candidates(poses, np.concatenate(scores))


def bin_levels(level: Level, bin_count: int) -> torch.Tensor:
    """(voxels + 1,) int64 grey level of every voxel, then ``bin_count`` for what lies outside."""
    bins = torch.clamp((level.values.ravel() * bin_count).long(), max=bin_count - 1)
    return torch.cat([bins, torch.tensor([bin_count])])


def keep_distinct(found: Candidates, box: Points, apart_mm: float, most: int) -> Candidates:
    """The best ``most`` poses that put ``box`` (8, 3) at least ``apart_mm`` apart."""
    order = np.argsort(-found.scores)[: 60 * most]
    kept: list[int] = []
    for index in order:
        pose = found.poses[index]
        if all(distance_mm(pose, found.poses[k], box) > apart_mm for k in kept):
            kept.append(int(index))
        if len(kept) == most:
            break
    return Candidates(found.poses[kept], found.scores[kept])


def rank(found: Candidates) -> Candidates:
    """The best first."""
    order = np.argsort(-found.scores)
    return Candidates(found.poses[order], found.scores[order])


def ascend(
    other: Prepared,
    samples: Samples,
    poses: Matrix,
    plan: Ascent,
    seed: int,
    check_timeout: CheckTimeout,
) -> Candidates:
    """``poses`` improved together by stochastic gradient ascent, scored at the end."""
    level = other.levels[plan.level]
    generator = torch.Generator().manual_seed(seed)
    scale = np.array([HEAD_RADIUS_MM] * 3 + [1.0] * 3)
    direction = Momentum()
    for k in range(plan.iterations):
        check_timeout()
        batch = samples.draw(plan.batch, generator)
        _, _, slope = information_gradient(level, batch, *pose_tensors(poses))
        slope_mm = slope.double().numpy() / scale
        poses = move_poses(poses, plan.rate_mm(k) * direction(slope_mm))
    gain, overlap = mutual_information(level, take(samples, 3 * plan.batch), *pose_tensors(poses))
    return Candidates(poses, (gain * overlap).double().numpy())
