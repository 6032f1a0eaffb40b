"""What a pose looks like from outside: figures that tell a right one from a wrong one."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from mmif.geometry import Matrix, Points, apply, spacing_mm
from mmif.registration.estimate import estimate_error, within
from mmif.registration.poses import corners, distance_mm, inverse
from mmif.registration.prepare import Kind, Prepared
from mmif.registration.refine import (
    QUICK,
    Refined,
    is_stripped_pair,
    keep_inside,
    refine_one_way,
    skin_margin_mm,
)
from mmif.registration.search import (
    AIR_MARGIN_MM,
    FIRST,
    MIDDLE,
    SECOND,
    Ascent,
    Candidates,
    CheckTimeout,
    ascend,
    draw_points,
    keep_distinct,
    runner_up_ratio,
)
from mmif.registration.similarity import (
    Samples,
    entropy,
    histogram,
    interpolate,
    pose_tensors,
    sample,
)

# As MIDDLE, but further down: two scores that are held against each other to 2 % must have arrived.
# No verdict of benchmarks/constants.py changes at half or twice its steps, bins and sizes
MIRRORED = Ascent(level=1, iterations=22, batch=1400, bins=20, first_mm=2.5, last_mm=0.2)
MIRRORED_FITS = 2  # of the four that are left: 0.2 s of CPU each; chosen
# Where a mirrored fit scores as well as this, refined fits are asked too. Right whole heads have at
# most 0.981, upper halves 0.997; mirrored ones 1.025 and more. By the refined fits right ones have
# 0.68 to 0.88, mirrored ones 1.09 and more (one half 1.01: its score tells; docs/registration.md)
NEARLY_ALIKE = 0.99
# Of the 3,000 points that an octant has at the start; half and twice as many change no verdict
BLOCK_SAMPLES = 1500
# 40 for each of 20 x 20 bins, so that information by chance is below 0.01; ten batches of MIDDLE
POINTS = 16_000
FAR_MM = 99.0  # stands for "no outline to measure to": beyond every limit
UNKNOWN_MM = 12.0  # as if the parts moved as far as they may
STIFFNESS = 0.1 / 8.0**2  # a shift of 8 mm must be worth a tenth of the agreement
# In steps of the 2 mm level, as far as the widest limit of `local_mm` (verdict.py)
OFFSETS_MM = np.array([-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0])


@dataclass(frozen=True)
class Measures:
    """Figures of one pose, fixed to moving.

    Attributes:
        nmi_before: normalised mutual information of the headers alone (1 none, 2 all).
        nmi_after: and of the pose.
        overlap: fraction of the smaller body that the other scan covers.
        spread_mm: how far the best few solutions lie apart at the corners of the head's box.
        rival: score of the best solution elsewhere (over 15 mm away), as a part of the best score.
        forward_backward_mm: how far the two directions of the refinement lie apart.
        dice: Dice overlap of the two bodies where both scans look.
        outline_mm: mean distance between the outlines of the two bodies where both scans look.
        mirrored: score of the best mirrored fit, as a part of the best score.
        local_mm: how far octants of the head would like to move, each for itself.
        farthest_mm: the probable error at the far end of the head (`mmif.registration.estimate`).
        inside_mm: and its mean where both scans look.
    """

    nmi_before: float
    nmi_after: float
    overlap: float
    spread_mm: float
    rival: float
    forward_backward_mm: float
    dice: float
    outline_mm: float
    mirrored: float
    local_mm: float
    farthest_mm: float = np.nan
    inside_mm: float = np.nan


def measure(
    fixed: Prepared,
    moving: Prepared,
    refined: Refined,
    found: Candidates,
    start: Matrix,
    seed: int,
    check_timeout: CheckTimeout,
) -> Measures:
    """The figures of ``refined``; ``found`` and ``start`` are fixed to moving as well."""
    pose = refined.pose
    box = corners(fixed.body_points)
    points = draw_points(fixed, POINTS, 0.0, seed)
    samples = sample(fixed.levels[2], points, MIDDLE.bins)
    with ThreadPoolExecutor(1) as other:
        mirrored = other.submit(mirror_ratio, fixed, moving, pose, seed, check_timeout)
        dice, outline = outlines(fixed, moving, pose)
        check_timeout()
        local_mm = local_shift(fixed, moving, pose, seed, check_timeout)
        error = estimate_error(fixed, moving, refined, local_mm)
    return Measures(
        nmi_before=normalised_information(moving, samples, start),
        nmi_after=normalised_information(moving, samples, pose),
        overlap=max(
            share_in_view(fixed, moving, pose), share_in_view(moving, fixed, inverse(pose))
        ),
        spread_mm=spread(found, pose, box),
        rival=runner_up_ratio(found, pose, box),
        forward_backward_mm=distance_mm(refined.forward, refined.backward, fixed.body_points[::5]),
        dice=dice,
        outline_mm=outline,
        mirrored=mirrored.result(),
        local_mm=local_mm,
        farthest_mm=error.farthest_mm,
        inside_mm=error.inside_mm,
    )


def measure_transform(
    fixed: Prepared,
    moving: Prepared,
    pose: Matrix,
    start: Matrix,
    seed: int,
    check_timeout: CheckTimeout,
) -> Measures:
    """The figures of a pose that was not searched; what only a search shows is NaN."""
    alone = Candidates(pose[None], np.ones(1))
    full = measure(fixed, moving, Refined(pose, pose), alone, start, seed, check_timeout)
    searched = ("spread_mm", "rival", "forward_backward_mm", "farthest_mm", "inside_mm")
    return replace(full, **dict.fromkeys(searched, np.nan))


def information_gain(fixed: Prepared, moving: Prepared, pose: Matrix, seed: int) -> float:
    """Normalised mutual information of ``pose`` beyond 1, inside the fixed body."""
    points = draw_points(fixed, POINTS, 0.0, seed)
    return normalised_information(moving, sample(fixed.levels[2], points, MIDDLE.bins), pose) - 1


def normalised_information(moving: Prepared, samples: Samples, pose: Matrix) -> float:
    """(H(fixed) + H(moving)) / H(both): 1 for nothing in common, 2 for everything."""
    rotations, translations = pose_tensors(pose[None])
    values, inside = interpolate(
        moving.levels[2], samples.points @ rotations.transpose(1, 2) + translations[:, None]
    )
    if inside.float().mean() < 0.02:  # 320 points fill no joint histogram
        return 1.0
    joint, _, _ = histogram(values, inside, samples)
    parts = entropy(joint.sum(dim=2)) + entropy(joint.sum(dim=1))
    return float(parts / entropy(joint.flatten(1)).clamp_min(1e-6))


def share_in_view(sampled: Prepared, other: Prepared, pose: Matrix) -> float:
    """The fraction of the body of ``sampled`` that lies in the field of view of ``other``."""
    return float(within(other, apply(pose, sampled.body_points)).mean())


def spread(found: Candidates, pose: Matrix, box: Points) -> float:
    """Mean distance at the box's corners of the solutions that score within 3 % of the best."""
    near = found.scores >= 0.97 * found.scores.max()
    return float(np.mean([distance_mm(p, pose, box) for p in found.poses[near]]))


def outlines(fixed: Prepared, moving: Prepared, pose: Matrix) -> tuple[float, float]:
    """Dice of the two bodies, and mean distance of their outlines in mm, where both scans look."""
    there = resample_mask(moving.body, moving, fixed, pose)
    shared = there >= 0
    inner = ndimage.binary_erosion(np.pad(shared, 1))[1:-1, 1:-1, 1:-1]
    a, b = fixed.body & shared, there == 1
    total = a.sum() + b.sum()
    if total == 0:
        return 0.0, FAR_MM
    # in the common field of view alone: what one scan cut off is no disagreement
    dice = 2 * float((a & b).sum()) / float(total)
    spacing = spacing_mm(np.linalg.inv(fixed.levels[1].to_voxel))
    distances = [surface_distances(a, b, inner, spacing), surface_distances(b, a, inner, spacing)]
    both = np.sort(np.concatenate(distances))
    kept = both[: int(0.9 * len(both))]  # ears, nose, a holder's rest
    return dice, float(kept.mean()) if len(kept) else FAR_MM


def resample_mask(
    mask: npt.NDArray[np.bool_], owner: Prepared, onto: Prepared, pose: Matrix
) -> npt.NDArray[np.int8]:
    """``mask`` of ``owner`` at the body voxels of ``onto``: 1, 0, or -1 outside the scan."""
    matrix = owner.levels[1].to_voxel @ pose @ np.linalg.inv(onto.levels[1].to_voxel)
    found = ndimage.affine_transform(
        mask.astype(np.int8),
        matrix[:3, :3],
        matrix[:3, 3],
        onto.body.shape,
        order=0,
        mode="grid-constant",
        cval=-1,
        output=np.int8,
    )
    return np.asarray(found, dtype=np.int8)


def surface_distances(
    a: npt.NDArray[np.bool_],
    b: npt.NDArray[np.bool_],
    where: npt.NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> npt.NDArray[np.float64]:
    """Distances in mm from the surface of ``a`` (inside ``where``) to that of ``b``."""
    surface = a & ~ndimage.binary_erosion(a) & where
    if not b.any():
        return np.full(int(surface.sum()), FAR_MM)
    outside = ndimage.distance_transform_edt(~b, sampling=spacing)
    inside = ndimage.distance_transform_edt(b, sampling=spacing)
    step = min(spacing)
    return np.asarray(np.maximum(np.maximum(outside, inside) - step, 0.0)[surface])


def mirror_ratio(
    fixed: Prepared, moving: Prepared, pose: Matrix, seed: int, check_timeout: CheckTimeout
) -> float:
    """How well the best mirrored pose scores against the pose itself, both after one ascent.

    Of a stripped brain, and where the two are nearly alike, the refined fits are held against each
    other (`mirrored_gain_ratio`).

    Where the middle plane of the head lies is not known to better than the tilt of the head in
    the scanner, so planes with many tilts are tried.
    """
    points = draw_points(fixed, 8_000, AIR_MARGIN_MM, seed)  # half of POINTS: nine ascents
    coarse = sample(fixed.levels[0], points, FIRST.bins)
    middle = sample(fixed.levels[1], points, MIDDLE.bins)
    box = corners(fixed.body_points)
    # as far as a head is turned or tilted in a scanner; FIRST closes half a step of 14 degrees
    tilts = np.tan(np.radians([-28.0, -14.0, 0.0, 14.0, 28.0]))
    normals = np.array([[1.0, yaw, roll] for yaw in tilts for roll in tilts])
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    flips = np.tile(np.eye(4), (len(normals), 1, 1))
    flips[:, :3, :3] -= 2 * normals[:, :, None] * normals[:, None, :]
    found = ascend(moving, coarse, pose @ flips, FIRST, seed, check_timeout)
    found = keep_distinct(found, box, apart_mm=6.0, most=9)
    found = ascend(moving, coarse, found.poses, SECOND, seed, check_timeout)
    found = keep_distinct(found, box, apart_mm=3.0, most=4)
    final = ascend(
        moving, middle, np.concatenate([pose[None], found.poses]), MIRRORED, seed, check_timeout
    )
    ratio = float(final.scores[1:].max() / max(final.scores[0], 1e-6))
    stripped = is_stripped_pair(fixed, moving)
    if not stripped and (ratio < NEARLY_ALIKE or Kind.EMISSION in (fixed.kind, moving.kind)):
        return ratio
    best = final.poses[1:][np.argsort(-final.scores[1:])[:MIRRORED_FITS]]
    by_brain = mirrored_gain_ratio(fixed, moving, pose, best, seed, check_timeout)
    return by_brain if stripped else max(ratio, by_brain)


def mirrored_gain_ratio(
    fixed: Prepared,
    moving: Prepared,
    pose: Matrix,
    mirrored: Matrix,
    seed: int,
    check_timeout: CheckTimeout,
) -> float:
    """The best information of ``mirrored`` (n, 4, 4), refined, as a part of that of ``pose``.

    The outline of a brain is nearly its mirror image, and so may a skull be: what is inside of it
    has to tell, on the level of 2 mm.
    """
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    levels = tuple(replace(level, to_voxel=level.to_voxel @ flip) for level in fixed.levels)
    flipped = replace(fixed, levels=levels)  # so that its poses are rotations
    margin_mm = skin_margin_mm(fixed, moving)
    gains = [
        information_gain(
            flipped,
            moving,
            refine_one_way(flipped, moving, each @ flip, margin_mm, seed, check_timeout, QUICK),
            seed,
        )
        for each in mirrored
    ]
    return max(gains) / max(information_gain(fixed, moving, pose, seed), 1e-6)


def local_shift(
    fixed: Prepared, moving: Prepared, pose: Matrix, seed: int, check_timeout: CheckTimeout
) -> float:
    """Root mean square in mm of the shifts that octants of the head would like to make.

    All octants share the joint histogram of the whole head, so that a small part has not to learn
    what grey goes with what grey; only where it fits best is its own.
    """
    level = moving.levels[2]
    samples = sample(fixed.levels[2], draw_points(fixed, 24_000, 0.0, seed), MIDDLE.bins)
    # inside by as far as the offsets reach; 200 for each octant, else nothing can be said
    samples = keep_inside(level, samples, pose, border_mm=OFFSETS_MM.max())
    if len(samples.bins) < 8 * 200:
        return UNKNOWN_MM
    blocks = octants(samples.points.numpy())
    shifts = np.zeros((8, 3))
    table = agreement(moving, samples, pose)
    for _ in range(2):
        for axis in range(3):
            check_timeout()
            for block in range(8):
                offsets = np.tile(shifts[block], (len(OFFSETS_MM), 1))
                offsets[:, axis] += OFFSETS_MM
                chosen = np.flatnonzero(blocks == block)[:BLOCK_SAMPLES]
                part = Samples(samples.points[chosen], samples.bins[chosen], samples.bin_count)
                shifts[block, axis] += best_offset(moving, part, pose, offsets, table)
    held = np.clip(shifts, -UNKNOWN_MM, UNKNOWN_MM)
    return float(np.sqrt((held**2).sum(axis=1).mean()))


def octants(points: Points) -> npt.NDArray[np.int64]:
    """(n,) which of eight equally filled parts a point lies in: halves along x, then y, then z."""
    part = np.zeros(len(points), dtype=np.int64)
    for axis in range(3):
        upper = np.zeros(len(points), dtype=np.int64)
        for value in np.unique(part):
            mine = part == value
            upper[mine] = points[mine, axis] > np.median(points[mine, axis])
        part = 2 * part + upper
    return part


def agreement(moving: Prepared, samples: Samples, pose: Matrix) -> torch.Tensor:
    """(f, m) the log of how much more often two greys meet than by chance, at ``pose``."""
    rotations, translations = pose_tensors(pose[None])
    values, inside = interpolate(
        moving.levels[2], samples.points @ rotations.transpose(1, 2) + translations[:, None]
    )
    joint, _, _ = histogram(values, inside, samples)
    joint = joint[0] + 1e-5
    return torch.log(joint / (joint.sum(dim=0, keepdim=True) * joint.sum(dim=1, keepdim=True)))


def best_offset(
    moving: Prepared, part: Samples, pose: Matrix, offsets: Points, table: torch.Tensor
) -> float:
    """The offset along the line of ``offsets`` (of `OFFSETS_MM`) where ``part`` agrees best."""
    poses = np.tile(pose, (len(offsets), 1, 1))
    poses[:, :3, 3] += offsets
    rotations, translations = pose_tensors(poses)
    values, _ = interpolate(
        moving.levels[2], part.points @ rotations.transpose(1, 2) + translations[:, None]
    )
    position = values * part.bin_count + 1.5
    below = position.floor()
    weight = position - below
    low = table[part.bins, below.long()]
    high = table[part.bins, below.long() + 1]
    gain = (low + weight * (high - low)).mean(dim=1).double().numpy()
    gain = gain - STIFFNESS * np.abs(gain).max() * ((offsets - offsets.mean(axis=0)) ** 2).sum(
        axis=1
    )
    best = int(np.argmax(gain))
    if best in (0, len(gain) - 1):
        return float(OFFSETS_MM[best])
    # between the offsets by the parabola through the best and its neighbours
    left, middle, right = gain[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(
        OFFSETS_MM[best] + (left - right) / (2 * bend) * 2.0 if bend < 0 else OFFSETS_MM[best]
    )
