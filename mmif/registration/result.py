"""What a registration hands back: the transform, and how far it can be trusted."""

from dataclasses import dataclass
from typing import Literal

from mmif.geometry import Alignment, Matrix

Verdict = Literal["pass", "review", "fail", "skipped"]
TRUSTED_FIRST: tuple[Verdict, ...] = ("pass", "skipped", "review", "fail")
"""Of several registrations the last one here is the verdict of the whole."""


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
        error_estimate_mm: the probable mean error where both scans look; None where nothing was
            measured.
        method: how the transform came about, in words.
        reasons: why the verdict is not a plain pass, one line each.
        seconds: how long it took.
        error_farthest_mm: the probable error at the point of the head, as far as either scan shows
            it, where it is largest; None where nothing was measured.
        alignment: where the transform is from: ``searched`` in the images, the ``headers`` of both
            volumes, or ``given``.
        of_heads: False where the search was made of something else.
    """

    fixed_to_moving_lps: Matrix
    verdict: Verdict
    checks: tuple[Check, ...]
    error_estimate_mm: float | None
    method: str
    reasons: tuple[str, ...]
    seconds: float
    error_farthest_mm: float | None = None
    alignment: Alignment = "searched"
    of_heads: bool = True
