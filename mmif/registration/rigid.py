"""Rigid registration of two volumes of one head, from anywhere, with a verdict."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from mmif.config import RegistrationConfig
from mmif.errors import RegistrationError
from mmif.geometry import Matrix, world_ras_lps
from mmif.io.source import source_of
from mmif.registration.anatomy import inside_skull, why_no_head
from mmif.registration.measures import Measures, information_gain, measure
from mmif.registration.poses import distance_mm, inverse
from mmif.registration.prepare import Kind, Prepared, prepare
from mmif.registration.refine import Refined, is_stripped_pair, refine
from mmif.registration.result import Registration
from mmif.registration.search import Candidates, global_search
from mmif.registration.verdict import (
    checks_of,
    limits_for,
    reasons_of,
    verdict_of,
)

CLEARLY = 1.05  # a pose other than the headers' must score this many times better in one frame
SMALL_MM = 1.0  # a shorter move than this is not worth leaving the headers
METHOD = "rigid; mutual information; global search over all rotations, refined both ways"


@dataclass(frozen=True)
class Clock:
    """Calling it raises once the time is over."""

    started: float
    limit_s: float

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def __call__(self) -> None:
        """Nothing, or a RegistrationError after the limit."""
        if self.seconds > self.limit_s:
            raise RegistrationError(
                f"registration stopped after {self.limit_s:g} s; expected it to end before that "
                "(--registration-timeout)"
            )


@dataclass(frozen=True, eq=False)
class Pair:
    """Two prepared volumes, and what every step needs to know."""

    fixed: Prepared
    moving: Prepared
    seed: int
    clock: Clock
    device: str

    @property
    def headers(self) -> Matrix:
        """The pose that the headers say, between centred millimetres."""
        pose = np.eye(4)
        pose[:3, 3] = self.fixed.centre_ras - self.moving.centre_ras
        return pose

    def world_lps(self, pose: Matrix) -> Matrix:
        """``pose`` between centred millimetres as a transform between the scanners' frames."""
        to_centre, back = np.eye(4), np.eye(4)
        to_centre[:3, 3] = -self.fixed.centre_ras
        back[:3, 3] = self.moving.centre_ras
        return world_ras_lps(back @ pose @ to_centre)

    def to_centred(self, fixed_to_moving_lps: Matrix) -> Matrix:
        """A transform between the scanners' frames as a pose between centred millimetres."""
        out, back = np.eye(4), np.eye(4)
        out[:3, 3] = self.fixed.centre_ras
        back[:3, 3] = -self.moving.centre_ras
        return np.asarray(back @ world_ras_lps(fixed_to_moving_lps) @ out)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, afterwards on as many as before.

    The thousands of steps are so short that more threads mostly wait for one another: on a busy
    machine with two cores a registration took 21 to 83 s instead of 5 s.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def register(
    fixed: MetaTensor,
    moving: MetaTensor,
    config: RegistrationConfig | None = None,
    *,
    device: str = "cpu",
    accept_other_anatomy: bool = False,
) -> Registration:
    """The rigid transform that brings ``moving`` to ``fixed``, and a verdict on it.

    Two volumes with one FrameOfReferenceUID start from what their headers say, and leave it only
    where the images clearly match better elsewhere; `check_headers` does not search at all.

    Args:
        fixed: (1, X, Y, Z) a head, in HU or any other unit.
        moving: (1, X, Y, Z) the same head in any pose.
        config: seed and time limit.
        device: the torch device of the coarse search.
        accept_other_anatomy: search although a volume does not look like a head.

    Raises:
        RegistrationError: a volume that cannot be registered at all, one that is no head (without
            a common frame of reference), or no time left.
    """
    pair = prepare_pair(fixed, moving, config or RegistrationConfig(), device)
    no_heads = why_no_heads(pair)
    if one_frame(fixed, moving):
        return replace(in_one_frame(pair), of_heads=not no_heads)
    if no_heads and not accept_other_anatomy:
        raise RegistrationError(
            f"{no_heads}; without a common frame of reference heads are searched alone: expected "
            "one, --transform FILE, or --accept-other-anatomy"
        )
    found = search_candidates(pair)
    refined = refine(pair.fixed, pair.moving, found.poses[0], pair.seed, pair.clock)
    measures = measure_pair(pair, refined, found)
    result = judge(pair, refined.pose, measures, METHOD)
    return of_other_anatomy(result, no_heads) if no_heads else result


def prepare_pair(
    fixed: MetaTensor,
    moving: MetaTensor,
    config: RegistrationConfig,
    device: str = "cpu",
    **how: Any,
) -> Pair:
    """Both volumes prepared; ``how`` goes to `mmif.registration.prepare.prepare`."""
    clock = Clock(time.monotonic(), config.timeout_s)
    with ThreadPoolExecutor(2) as cores:
        a, b = cores.map(partial(prepare, **how), (fixed, moving), ("fixed", "moving"))
    clock()
    if a.stripped and b.kind is Kind.CT:
        b = inside_skull(b)
    elif b.stripped and a.kind is Kind.CT:
        a = inside_skull(a)
    return Pair(a, b, config.seed, clock, device)


def why_no_heads(pair: Pair) -> str:
    """Why one of the two does not look like a head; "" where both do."""
    for name, volume in (("fixed", pair.fixed), ("moving", pair.moving)):
        if why := why_no_head(volume):
            return f"the {name} volume does not look like a head: {why}"
    return ""


def of_other_anatomy(found: Registration, no_heads: str) -> Registration:
    """``found`` of something that is no head: by limits that were measured on heads nothing passes.

    Args:
        found: what the search gave.
        no_heads: why it is none.
    """
    said = f"{no_heads}; searched as accepted, with limits that were measured on heads"
    return replace(
        found,
        verdict="review" if found.verdict == "pass" else found.verdict,
        reasons=(said, *found.reasons),
        of_heads=False,
    )


def one_frame(fixed: MetaTensor, moving: MetaTensor) -> bool:
    """Whether both volumes say that they share one frame of reference."""
    uids = [getattr(source_of(v), "frame_of_reference_uid", None) for v in (fixed, moving)]
    return uids[0] is not None and uids[0] == uids[1]


def search_candidates(pair: Pair) -> Candidates:
    """The best poses anywhere, fixed to moving; points are drawn in the smaller body."""
    a, b = pair.fixed, pair.moving
    if a.body_ml <= b.body_ml:
        return global_search(a, b, pair.seed, pair.clock, pair.device)
    found = global_search(b, a, pair.seed, pair.clock, pair.device)
    return Candidates(inverse(found.poses), found.scores)


def in_one_frame(pair: Pair) -> Registration:
    """The headers' pose, unless the images clearly match better at another one."""
    identity = pair.headers
    found = search_candidates(pair)
    # the headers refined, and the best of a search: either must beat the headers as they are
    near = refine(pair.fixed, pair.moving, identity, pair.seed, pair.clock)
    far = refine(pair.fixed, pair.moving, found.poses[0], pair.seed, pair.clock)
    stay, move, jump = (
        information_gain(pair.fixed, pair.moving, p, pair.seed)
        for p in (identity, near.pose, far.pose)
    )
    points = pair.fixed.body_points[::5]
    best, score = (far, jump) if jump > move else (near, move)
    moved_mm = distance_mm(best.pose, identity, points)
    if score < CLEARLY * stay or moved_mm < SMALL_MM:
        measures = measure_pair(pair, Refined(identity, identity), found)
        return judge(
            pair,
            identity,
            measures,
            "one frame of reference: the headers' pose, no other is clearly better",
        )
    measures = measure_pair(pair, best, found)
    result = judge(
        pair,
        best.pose,
        measures,
        f"one frame of reference, but refined: {moved_mm:.1f} mm away the images match better",
    )
    if moved_mm < 10 or result.verdict != "pass":
        return result
    # nobody moves that far between two scans on one table without getting up
    reason = f"the headers say one frame, the images say {moved_mm:.0f} mm apart"
    return replace(result, verdict="review", reasons=(*result.reasons, reason))


def measure_pair(pair: Pair, refined: Refined, found: Candidates) -> Measures:
    """The figures of ``refined``."""
    return measure(pair.fixed, pair.moving, refined, found, pair.headers, pair.seed, pair.clock)


def judge(pair: Pair, pose: Matrix, measures: Measures, method: str) -> Registration:
    """``pose`` with its checks, verdict and estimated error."""
    fixed, moving = pair.fixed, pair.moving
    limits = limits_for(fixed.kind, moving.kind, stripped=is_stripped_pair(fixed, moving))
    checks = checks_of(measures, limits)
    return Registration(
        fixed_to_moving_lps=pair.world_lps(pose),
        verdict=verdict_of(checks, limits),
        checks=checks,
        error_estimate_mm=measured_or_none(measures.inside_mm),
        method=method,
        reasons=reasons_of(checks),
        seconds=pair.clock.seconds,
        error_farthest_mm=measured_or_none(measures.farthest_mm),
    )


def measured_or_none(value: float) -> float | None:
    """``value``, None where it was not measured."""
    return None if math.isnan(value) else value
