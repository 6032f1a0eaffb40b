"""Volumes of one frame of reference: their headers are the pose, and the images are asked.

One scanner made both while the patient lay still, so their headers are better than any search.
What the images can tell is whether the patient moved in between: whether a pose clearly matches
better. That is asked of any part of the body, at a spacing where it costs about a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from monai.data import MetaTensor

from mmif.config import RegistrationConfig
from mmif.geometry import Matrix, spacing_mm
from mmif.registration.estimate import estimate_error
from mmif.registration.measures import (
    information_gain,
    mirror_ratio,
    resample_mask,
    share_in_view,
)
from mmif.registration.poses import corners, distance_mm, inverse, move_poses
from mmif.registration.prepare import TRUNK_ML, Kind, Prepared, prepare
from mmif.registration.refine import QUICK, Refined, refine_one_way
from mmif.registration.result import Check, Registration
from mmif.registration.rigid import CLEARLY, Pair, one_thread, prepare_pair
from mmif.registration.search import (
    AIR_MARGIN_MM,
    FIRST,
    MIDDLE,
    SECOND,
    CheckTimeout,
    ascend,
    draw_points,
    keep_distinct,
)
from mmif.registration.similarity import sample

CHECKED_MM, CHECKED_VOXELS = 2.0, 4_000_000
"""The spacing of the check, coarser where a volume has more voxels of it: about a second for a
head, a few for a whole body, and shifts are found to 0.6 mm (docs/registration.md)."""

STARTS = np.concatenate([np.zeros((1, 6)), 20.0 * np.eye(6), -20.0 * np.eye(6)])
"""About the headers' pose: turns of 16 degrees and shifts of 20 mm along each axis."""

# Nearer optima than these are the images' own errors, not motion: on true headers they lie 0.1 to
# 1.4 mm away, on the given templates of PET and CT, of different people, 3.0 to 3.2 mm; of 12 mm at
# least 9.7 are found (benchmarks/registration.py headers).
STILL_MM, EMISSION_STILL_MM = 2.0, 4.0
# Looser than a head's limits (verdict.py), for any part of a body, whose sides may be alike: a
# mirrored fit must be as clearly better as a moved one. The true headers of `registration.py
# headers` pass them
LEAST_GAIN, LEAST_OVERLAP, MOST_MIRRORED = 0.005, 0.2, CLEARLY
FAR_MM, FAR_CLEARLY = 8.0, 1.02
"""Of so far away a pose need match better by less: a body is much the same along its axis. A drawn
chest 12 mm off along it has 1.04 (`benchmarks/body.py`); poses near true headers never lie so far
away."""

MOST_FLIPPED = 1.2
"""Drawn abdomens, legs and whole bodies upside down have 1.29 to 6.1, the sample's CT and SPECT
1.6; as they are at most 1.03, where a PET ends within the CT 1.06, and heads 0.38 to 0.82 (the true
pairs of `registration.py headers`). Chests upside down have 1.04 to 1.23 (`benchmarks/body.py`)."""

FLIP_SHIFTS_MM = (0.0, -40.0, 40.0, -80.0, 80.0)
"""Where the middle of a flipped scan may lie beside that of the body; chosen."""

METHOD = "one frame of reference: the headers' pose, checked against the images"


@dataclass(frozen=True, eq=False)
class PoseMeasures:
    """What the images say of a pose that was not searched: the headers', or a given one.

    Attributes:
        gain: normalised mutual information beyond 1 at the pose.
        best: the best pose near it, fixed to moving.
        best_gain: and its information.
        moved_mm: how far it lies away, as a mean over the body.
        overlap: fraction of one body that the other scan covers.
        mirrored: score of the best mirrored fit, as a part of that of the best pose.
        flipped: the same with head and feet, or front and back, exchanged.
    """

    gain: float
    best: Matrix
    best_gain: float
    moved_mm: float
    overlap: float
    mirrored: float
    flipped: float = 0.0


@one_thread()
def check_headers(
    fixed: MetaTensor, moving: MetaTensor, config: RegistrationConfig | None = None
) -> Registration:
    """The identity, with a verdict of review where the images clearly match better elsewhere.

    Nothing is searched, so there is no time limit, and the headers' pose is never left.

    Args:
        fixed: (1, X, Y, Z), any part of a body.
        moving: (1, X, Y, Z) of the same frame of reference.
        config: the seed.

    Raises:
        RegistrationError: a volume that cannot be looked at.
    """
    pair = prepare_whole(fixed, moving, config)
    measures = measure_pose(pair, pair.headers)
    checks = header_checks(measures, is_emission(pair))
    seen = Refined(pair.headers, measures.best)
    # the headers are the answer, not the mean: all that the two disagree by may be an error
    error = estimate_error(pair.fixed, pair.moving, seen, 0.0, least_share=1.0)
    return Registration(
        fixed_to_moving_lps=np.eye(4),
        verdict="pass" if all(check.passed for check in checks) else "review",
        checks=checks,
        error_estimate_mm=error.inside_mm,
        method=METHOD,
        reasons=tuple(dict.fromkeys(check.meaning for check in checks if not check.passed)),
        seconds=pair.clock.seconds,
        error_farthest_mm=error.farthest_mm,
        alignment="headers",
    )


def is_emission(pair: Pair) -> bool:
    """Whether one of the two is a SPECT or a PET."""
    return Kind.EMISSION in (pair.fixed.kind, pair.moving.kind)


def prepare_whole(
    fixed: MetaTensor,
    moving: MetaTensor,
    config: RegistrationConfig | None = None,
    fixed_to_moving_lps: Matrix | None = None,
) -> Pair:
    """Both volumes (1, X, Y, Z), whole bodies too, at a spacing where a look costs a second.

    Args:
        fixed: any part of a body.
        moving: the same.
        config: the seed.
        fixed_to_moving_lps: where an activity has the body of the anatomy; the headers' when left
            out.
    """
    unhurried = replace(config or RegistrationConfig(), timeout_s=math.inf)
    finest_mm = max(checked_mm(volume) for volume in (fixed, moving))
    pair = prepare_pair(fixed, moving, unhurried, finest_mm=finest_mm, whole=True)
    pose = pair.headers if fixed_to_moving_lps is None else pair.to_centred(fixed_to_moving_lps)
    a, b = pair.fixed, pair.moving
    if a.kind is not b.kind and b.kind is Kind.EMISSION and a.body_ml > TRUNK_ML:
        return replace(pair, moving=with_body_of(a, moving, "moving", pose, finest_mm))
    if a.kind is not b.kind and a.kind is Kind.EMISSION and b.body_ml > TRUNK_ML:
        return replace(pair, fixed=with_body_of(b, fixed, "fixed", inverse(pose), finest_mm))
    return pair


def with_body_of(
    anatomy: Prepared, volume: MetaTensor, name: str, pose: Matrix, finest_mm: float
) -> Prepared:
    """An activity, prepared with the body of ``anatomy``: its own outline is its hot organs alone.

    Args:
        anatomy: of the same patient.
        volume: (1, X, Y, Z), the activity.
        name: as errors call it.
        pose: anatomy to activity.
        finest_mm: as for `prepare`.
    """
    activity = prepare(volume, name, finest_mm, whole=True, cleared=False)
    body = resample_mask(anatomy.body, anatomy, activity, inverse(pose)) == 1
    # the root of counts has one noise everywhere, and leaves the cool tissues some of the greys
    levels = tuple(replace(level, values=level.values.sqrt()) for level in activity.levels)
    return replace(activity, levels=levels, body=body if body.any() else activity.body)


def checked_mm(volume: MetaTensor) -> float:
    """The spacing at which ``volume`` (1, X, Y, Z) has at most `CHECKED_VOXELS`, or 2 mm."""
    cubic_mm = math.prod(spacing_mm(np.asarray(volume.affine))) * math.prod(volume.shape[-3:])
    return float(max(CHECKED_MM, np.cbrt(cubic_mm / CHECKED_VOXELS)))


def measure_pose(pair: Pair, pose: Matrix, others: Sequence[Matrix] = ()) -> PoseMeasures:
    """``pose`` (fixed to moving) beside the best one near it, and near ``others``."""
    gain = gain_of(pair, pose, pose)
    best, best_gain = pose, gain
    near = best_near(pair, pose, others).pose
    if (near_gain := gain_of(pair, near, pose)) > gain:
        best, best_gain = near, near_gain
    return PoseMeasures(
        gain=gain,
        best=best,
        best_gain=best_gain,
        moved_mm=distance_mm(best, pose, pair.fixed.body_points[::5]),
        overlap=max(
            share_in_view(pair.fixed, pair.moving, pose),
            share_in_view(pair.moving, pair.fixed, inverse(pose)),
        ),
        mirrored=mirror_ratio(pair.fixed, pair.moving, best, pair.seed, pair.clock),
        flipped=flip_ratio(pair, best),
    )


def flip_ratio(pair: Pair, pose: Matrix) -> float:
    """How well the best pose with head and feet, or front and back, exchanged scores against it.

    Slices that were stacked the wrong way round lie so.
    """
    a, b, seed, clock = pair.fixed, pair.moving, pair.seed, pair.clock
    points = draw_points(a, 8_000, AIR_MARGIN_MM, seed)  # as for the mirrored fits
    coarse = sample(a.levels[0], points, FIRST.bins)
    middle = sample(a.levels[1], points, MIDDLE.bins)
    flips = np.tile(np.eye(4), (2, len(FLIP_SHIFTS_MM), 1, 1))
    for flip, axis in zip(flips, (1, 2), strict=True):
        flip[:, axis, axis] = -1.0
        flip[:, axis, 3] = FLIP_SHIFTS_MM
    found = ascend(b, coarse, pose @ flips.reshape(-1, 4, 4), SECOND, seed, clock)
    found = keep_distinct(found, corners(a.body_points), apart_mm=6.0, most=4)
    final = ascend(b, middle, np.concatenate([pose[None], found.poses]), MIDDLE, seed, clock)
    return float(final.scores[1:].max() / max(final.scores[0], 1e-6))


def gain_of(pair: Pair, pose: Matrix, told: Matrix) -> float:
    """Normalised mutual information of ``pose`` beyond 1, less where it puts less into view.

    A body that is much the same along its axis would match best where hardly any of it is left: so
    less than the pose that was ``told`` puts there.
    """
    seen, kept = (share_in_view(pair.fixed, pair.moving, p) for p in (told, pose))
    gain = information_gain(pair.fixed, pair.moving, pose, pair.seed)
    return gain * min(1.0, kept / max(seen, 1e-6))


def best_near(pair: Pair, pose: Matrix, others: Sequence[Matrix] = ()) -> Refined:
    """The best pose within a few centimetres of ``pose``, fixed to moving, refined both ways.

    Args:
        pair: what is looked at.
        pose: where the search begins.
        others: where it begins as well.
    """
    a, b, seed, clock = pair.fixed, pair.moving, pair.seed, pair.clock
    told = np.stack([pose, *others])
    if a.body_ml <= b.body_ml:
        found = ascend_near(a, b, told, seed, clock)
    else:
        found = inverse(ascend_near(b, a, inverse(told), seed, clock))
    # the coarse levels may mislead
    found = max(*told, found, key=lambda p: gain_of(pair, p, pose))
    forward = refine_one_way(a, b, found, 0.0, seed, clock, QUICK)
    backward = refine_one_way(b, a, inverse(found), 0.0, seed + 1, clock, QUICK)
    return Refined(forward, inverse(backward))


def ascend_near(
    sampled: Prepared, other: Prepared, told: Matrix, seed: int, check_timeout: CheckTimeout
) -> Matrix:
    """The best of ascents on the 8 mm and the 4 mm level.

    From about the first of ``told`` (n, 4, 4, sampled to other), and from the others as they are.
    """
    points = draw_points(sampled, 20_000, AIR_MARGIN_MM, seed)
    coarse = sample(sampled.levels[0], points, FIRST.bins)
    middle = sample(sampled.levels[1], points, MIDDLE.bins)
    starts = move_poses(np.tile(told[0], (len(STARTS), 1, 1)), STARTS)
    starts = np.concatenate([starts, told[1:]])
    found = ascend(other, coarse, starts, SECOND, seed, check_timeout)
    found = keep_distinct(found, corners(sampled.body_points), apart_mm=6.0, most=3)
    near = np.concatenate([told[:1], found.poses])
    found = ascend(other, middle, near, MIDDLE, seed, check_timeout)
    return np.asarray(found.poses[np.argmax(found.scores)])


def header_checks(measures: PoseMeasures, emission: bool) -> tuple[Check, ...]:
    """What is asked of the headers' pose; one check that does not pass is a reason to look."""
    better = (
        f"the headers say one frame, but a pose {measures.moved_mm:.1f} mm away matches better "
        f"(information {measures.best_gain:.3f}, that of the headers {measures.gain:.3f}); "
        "--register searches"
    )
    return pose_checks(measures, emission, "headers_mm", better)


def pose_checks(
    measures: PoseMeasures, emission: bool, name: str, better: str
) -> tuple[Check, ...]:
    """What is asked of a pose that was not searched.

    Args:
        measures: of the pose.
        emission: whether a SPECT or a PET is one of the two.
        name: of the check of how far away the best pose lies, in mm.
        better: what it says where that one matches better.
    """
    still_mm = EMISSION_STILL_MM if emission else STILL_MM
    ratio = measures.best_gain / max(measures.gain, 1e-6)
    clearly = FAR_CLEARLY if measures.moved_mm > FAR_MM else CLEARLY
    moved = ratio > clearly and measures.moved_mm > still_mm
    return (
        Check(name, measures.moved_mm, still_mm, not moved, better),
        Check("better", ratio, clearly, not moved, better),
        Check(
            "nmi_after",
            1 + measures.gain,
            1 + LEAST_GAIN,
            measures.gain >= LEAST_GAIN,
            "the images have little in common where they were put",
        ),
        Check(
            "overlap",
            measures.overlap,
            LEAST_OVERLAP,
            measures.overlap >= LEAST_OVERLAP,
            "the scans hardly show the same part of the body",
        ),
        Check(
            "mirrored",
            measures.mirrored,
            MOST_MIRRORED,
            measures.mirrored <= MOST_MIRRORED,
            "a mirrored volume fits better: left and right may be exchanged",
        ),
        Check(
            "flipped",
            measures.flipped,
            MOST_FLIPPED,
            measures.flipped <= MOST_FLIPPED,
            "a flipped volume fits better: head and feet, or front and back, may be exchanged",
        ),
    )
