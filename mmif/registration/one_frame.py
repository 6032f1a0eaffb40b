"""Volumes of one frame of reference: their headers are the pose, and the images are asked.

One scanner made both while the patient lay still, so their headers are better than any search.
What the images can tell is whether the patient moved in between: whether a pose clearly matches
better. That is asked of any part of the body, at a spacing where it costs about a second.
"""

import math
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
from mmif.registration.prepare import Kind, Prepared, prepare
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
TRUNK_ML = 8000.0
"""More of a patient than this is no head: one with its neck has some 5 litres; chosen. Its window
goes by it as well (`mmif.transforms.intensity`)."""

METHOD = "one frame of reference: the headers' pose, checked against the images"


@dataclass(frozen=True, eq=False)
class HeaderMeasures:
    """What the images say of the headers' pose.

    Attributes:
        gain: normalised mutual information beyond 1 at the headers' pose.
        best: the best pose near it, fixed to moving.
        best_gain: and its information.
        moved_mm: how far it lies away, as a mean over the body.
        overlap: fraction of one body that the other scan covers.
        mirrored: score of the best mirrored fit, as a part of that of the best pose.
    """

    gain: float
    best: Matrix
    best_gain: float
    moved_mm: float
    overlap: float
    mirrored: float


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
    pair = prepare_frame(fixed, moving, config)
    measures = measure_headers(pair)
    checks = header_checks(measures, Kind.EMISSION in (pair.fixed.kind, pair.moving.kind))
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


def prepare_frame(
    fixed: MetaTensor, moving: MetaTensor, config: RegistrationConfig | None = None
) -> Pair:
    """Both volumes (1, X, Y, Z), whole bodies too, at a spacing where a look costs a second."""
    unhurried = replace(config or RegistrationConfig(), timeout_s=math.inf)
    finest_mm = max(checked_mm(volume) for volume in (fixed, moving))
    pair = prepare_pair(fixed, moving, unhurried, finest_mm=finest_mm, whole=True)
    a, b = pair.fixed, pair.moving
    if a.kind is not b.kind and b.kind is Kind.EMISSION and a.body_ml > TRUNK_ML:
        return replace(pair, moving=with_body_of(a, moving, "moving", pair.headers, finest_mm))
    if a.kind is not b.kind and a.kind is Kind.EMISSION and b.body_ml > TRUNK_ML:
        to_fixed = inverse(pair.headers)
        return replace(pair, fixed=with_body_of(b, fixed, "fixed", to_fixed, finest_mm))
    return pair


def with_body_of(
    anatomy: Prepared, volume: MetaTensor, name: str, pose: Matrix, finest_mm: float
) -> Prepared:
    """An activity, prepared with the body of ``anatomy``: its own outline is its hot organs alone.

    Args:
        anatomy: of the same frame.
        volume: (1, X, Y, Z), the activity.
        name: as errors call it.
        pose: anatomy to activity, as the headers say.
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


def measure_headers(pair: Pair) -> HeaderMeasures:
    """The headers' pose beside the best one near it."""
    headers = pair.headers
    gain = gain_of(pair, headers)
    best, best_gain = headers, gain
    near = best_near(pair, headers).pose
    if (near_gain := gain_of(pair, near)) > gain:
        best, best_gain = near, near_gain
    return HeaderMeasures(
        gain=gain,
        best=best,
        best_gain=best_gain,
        moved_mm=distance_mm(best, headers, pair.fixed.body_points[::5]),
        overlap=max(
            share_in_view(pair.fixed, pair.moving, headers),
            share_in_view(pair.moving, pair.fixed, inverse(headers)),
        ),
        mirrored=mirror_ratio(pair.fixed, pair.moving, best, pair.seed, pair.clock),
    )


def gain_of(pair: Pair, pose: Matrix) -> float:
    """Normalised mutual information of ``pose`` beyond 1, less where it puts less into view.

    A body that is much the same along its axis would match best where hardly any of it is left.
    """
    seen, kept = (share_in_view(pair.fixed, pair.moving, p) for p in (pair.headers, pose))
    gain = information_gain(pair.fixed, pair.moving, pose, pair.seed)
    return gain * min(1.0, kept / max(seen, 1e-6))


def best_near(pair: Pair, pose: Matrix) -> Refined:
    """The best pose within a few centimetres of ``pose``, fixed to moving, refined both ways."""
    a, b, seed, clock = pair.fixed, pair.moving, pair.seed, pair.clock
    if a.body_ml <= b.body_ml:
        found = ascend_near(a, b, pose, seed, clock)
    else:
        found = inverse(ascend_near(b, a, inverse(pose), seed, clock))
    found = max(pose, found, key=lambda p: gain_of(pair, p))  # the coarse levels may mislead
    forward = refine_one_way(a, b, found, 0.0, seed, clock, QUICK)
    backward = refine_one_way(b, a, inverse(found), 0.0, seed + 1, clock, QUICK)
    return Refined(forward, inverse(backward))


def ascend_near(
    sampled: Prepared, other: Prepared, pose: Matrix, seed: int, check_timeout: CheckTimeout
) -> Matrix:
    """The best of ascents from about ``pose`` (sampled to other) on the 8 mm and the 4 mm level."""
    points = draw_points(sampled, 20_000, AIR_MARGIN_MM, seed)
    coarse = sample(sampled.levels[0], points, FIRST.bins)
    middle = sample(sampled.levels[1], points, MIDDLE.bins)
    starts = move_poses(np.tile(pose, (len(STARTS), 1, 1)), STARTS)
    found = ascend(other, coarse, starts, SECOND, seed, check_timeout)
    found = keep_distinct(found, corners(sampled.body_points), apart_mm=6.0, most=3)
    near = np.concatenate([pose[None], found.poses])
    found = ascend(other, middle, near, MIDDLE, seed, check_timeout)
    return np.asarray(found.poses[np.argmax(found.scores)])


def header_checks(measures: HeaderMeasures, emission: bool) -> tuple[Check, ...]:
    """What is asked of the headers' pose; one check that does not pass is a reason to look."""
    still_mm = EMISSION_STILL_MM if emission else STILL_MM
    ratio = measures.best_gain / max(measures.gain, 1e-6)
    moved = ratio > CLEARLY and measures.moved_mm > still_mm
    better = (
        f"the headers say one frame, but a pose {measures.moved_mm:.1f} mm away matches better "
        f"(information {measures.best_gain:.3f}, that of the headers {measures.gain:.3f}); "
        "--register searches"
    )
    return (
        Check("headers_mm", measures.moved_mm, still_mm, not moved, better),
        Check("better", ratio, CLEARLY, not moved, better),
        Check(
            "nmi_after",
            1 + measures.gain,
            1 + LEAST_GAIN,
            measures.gain >= LEAST_GAIN,
            "the images have little in common where the headers put them",
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
    )
