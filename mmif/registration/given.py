"""A transform from elsewhere, and headers that are trusted: checked, never searched.

Heads are judged by the limits of a head that was searched. Any other part of a body, as volumes of
one frame are: is there a pose near by, where the headers put the two, or with the middles of both
on each other, that clearly matches better?
"""

import math
import time
from dataclasses import replace

import numpy as np
from monai.data import MetaTensor

from mmif.config import RegistrationConfig
from mmif.errors import RegistrationError
from mmif.geometry import Matrix, check_rigid
from mmif.registration.anatomy import why_no_head
from mmif.registration.estimate import overlap
from mmif.registration.measures import measure_transform
from mmif.registration.one_frame import is_emission, measure_pose, pose_checks, prepare_whole
from mmif.registration.prepare import TALLEST_MM
from mmif.registration.result import Check, Registration
from mmif.registration.rigid import Pair, judge, one_thread, prepare_pair

METHOD = "given transform, not searched"


@one_thread()
def check_transform(
    fixed_to_moving_lps: Matrix,
    fixed: MetaTensor,
    moving: MetaTensor,
    config: RegistrationConfig | None = None,
) -> Registration:
    """A transform from elsewhere as a Registration: checked like a found one, not searched.

    Its error is not estimated: the checks look for small errors around a pose that was searched.
    Nothing is searched, so there is no time limit.

    Args:
        fixed_to_moving_lps: (4, 4), LPS mm.
        fixed: (1, X, Y, Z), any part of a body.
        moving: (1, X, Y, Z).
        config: the seed.

    Raises:
        GeometryError: the matrix is not rigid.
        RegistrationError: a volume that cannot be looked at.
    """
    matrix = check_rigid(fixed_to_moving_lps, "the given transform")
    whole = prepare_whole(fixed, moving, config, matrix)
    if not shows_heads(whole, matrix):
        return judge_body(whole, matrix)
    unhurried = replace(config or RegistrationConfig(), timeout_s=math.inf)
    pair = prepare_pair(fixed, moving, unhurried)
    pose = pair.to_centred(matrix)
    measures = measure_transform(pair.fixed, pair.moving, pose, pair.headers, pair.seed, pair.clock)
    result = judge(pair, pose, measures, METHOD)
    return replace(result, fixed_to_moving_lps=matrix, alignment="given")


def trust_headers(
    fixed: MetaTensor, moving: MetaTensor, config: RegistrationConfig | None = None
) -> Registration:
    """The identity: the headers are trusted. What it looks like is measured where it can be."""
    started = time.monotonic()
    why: tuple[str, ...] = ("not registered: the headers were trusted (--no-register)",)
    checks: tuple[Check, ...] = ()
    try:
        looked_at = check_transform(np.eye(4), fixed, moving, config)
        checks = looked_at.checks
        why += looked_at.reasons
    except RegistrationError as error:
        why += (f"not checked: {error}",)
    return Registration(
        fixed_to_moving_lps=np.eye(4),
        verdict="skipped",
        checks=checks,
        error_estimate_mm=None,
        method="headers trusted",
        reasons=why,
        seconds=time.monotonic() - started,
        alignment="headers",
    )


def shows_heads(pair: Pair, fixed_to_moving_lps: Matrix) -> bool:
    """Whether both show a head, and not more of the patient than that both."""
    if why_no_head(pair.fixed) or why_no_head(pair.moving):
        return False
    shared, _ = overlap(pair.fixed, pair.moving, pair.to_centred(fixed_to_moving_lps))
    return bool(np.ptp(shared[:, 2]) < TALLEST_MM)


def judge_body(pair: Pair, fixed_to_moving_lps: Matrix) -> Registration:
    """A given transform by what can be measured in any part of a body."""
    middles = np.eye(4)  # of both bodies on each other
    measures = measure_pose(pair, pair.to_centred(fixed_to_moving_lps), (pair.headers, middles))
    better = (
        f"a pose {measures.moved_mm:.1f} mm from the given transform matches better (information "
        f"{measures.best_gain:.3f}, that of the transform {measures.gain:.3f})"
    )
    checks = pose_checks(measures, is_emission(pair), "given_mm", better)
    return Registration(
        fixed_to_moving_lps=fixed_to_moving_lps,
        verdict="pass" if all(check.passed for check in checks) else "review",
        checks=checks,
        error_estimate_mm=None,
        method=METHOD,
        reasons=tuple(dict.fromkeys(check.meaning for check in checks if not check.passed)),
        seconds=pair.clock.seconds,
        alignment="given",
    )
