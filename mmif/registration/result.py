"""What a registration hands back: the transform, and how far it can be trusted."""

from dataclasses import dataclass
from typing import Literal

from mmif.geometry import Matrix

Verdict = Literal["pass", "review", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One check of a registration.

    Attributes:
        name: what was measured, its unit at the end.
        value: the figure.
        limit: where trust ends: the largest value that passes, or the smallest.
        passed: whether the value keeps the limit.
        meaning: in words, what a value beyond the limit says.
    """

    name: str
    value: float
    limit: float
    passed: bool
    meaning: str


@dataclass(frozen=True, eq=False)
class Registration:
    """A rigid transform between two volumes, and the reasons to trust it or not.

    Attributes:
        fixed_to_moving_lps: (4, 4) carries a point of the fixed volume (LPS mm) to the same
            anatomical point of the moving one, as ITK's resamplers want it.
        verdict: pass, review (use with care), fail (do not use), or skipped (nothing was checked).
        checks: what was measured, with limits.
        error_estimate_mm: the mean error over the head that nine of ten keep, or None where nothing
            was measured.
        method: how the transform came about, in words.
        reasons: why the verdict is not a plain pass, one line each.
        seconds: how long it took.
    """

    fixed_to_moving_lps: Matrix
    verdict: Verdict
    checks: tuple[Check, ...]
    error_estimate_mm: float | None
    method: str
    reasons: tuple[str, ...]
    seconds: float
