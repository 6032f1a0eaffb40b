"""Pass, review or fail: the measures against limits that were chosen from data.

The limits come from ``benchmarks/registration.py limits``; ``docs/registration.md`` holds the
table of errors against verdicts that they were chosen from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

import numpy as np

from mmif.registration.measures import Measures
from mmif.registration.prepare import Kind
from mmif.registration.result import Check, Verdict


@dataclass(frozen=True)
class Limit:
    """Up to ``review`` a measure passes, beyond ``fail`` the registration is refused.

    Where ``review`` is above ``fail``, larger values are better.
    """

    review: float
    fail: float
    meaning: str

    def passes(self, value: float) -> bool:
        """Whether ``value`` is on the good side of the limit."""
        return value >= self.review if self.review > self.fail else value <= self.review

    def fails(self, value: float) -> bool:
        """Whether ``value`` alone is a reason to refuse."""
        return value < self.fail if self.review > self.fail else value > self.fail


# Room for the draw of the samples: a ninth of what CT with MR must have beyond 1 (0.045); chosen
NO_WORSE = 0.005
TOO_MANY = 3  # checks that do not pass, each by a little, are together a reason to refuse
# In the gap between the right pairs and the nearest wrong one of 1,100 (seed 2025), as
# `registration.py limits` prints it; `farthest_mm` is chosen (docs/registration.md)
COMMON: Mapping[str, Limit] = MappingProxyType(
    {
        "nmi_after": Limit(1.045, 1.01, "the images have little in common where they were put"),
        "overlap": Limit(0.60, 0.15, "the scans hardly show the same part of the head"),
        "spread_mm": Limit(8.0, 60.0, "the best solutions disagree"),
        "rival": Limit(0.96, 1.05, "another pose fits as well"),
        "forward_backward_mm": Limit(1.6, 8.0, "the two directions of the search disagree"),
        "dice": Limit(0.95, 0.6, "the outlines of the two heads do not match"),
        "outline_mm": Limit(1.8, 8.0, "the skins of the two heads lie apart"),
        "mirrored": Limit(
            1.02, 1.04, "a mirrored volume fits better: left and right are exchanged"
        ),
        "local_mm": Limit(
            3.2, 6.0, "parts of the head would move different ways, or too little is shown to tell"
        ),
        "farthest_mm": Limit(3.0, 12.0, "the far end of the head may be off by more"),
    }
)
CT_MR = COMMON
# One kind agrees better than CT with MR: from the same pairs, in the same way
ALIKE: Mapping[str, Limit] = MappingProxyType(
    {
        **COMMON,
        "nmi_after": replace(COMMON["nmi_after"], review=1.06),
        "local_mm": replace(COMMON["local_mm"], review=1.5, fail=5.0),
    }
)
# SPECT and PET are blurred and show no skin: from the same pairs, in the same way
EMISSION: Mapping[str, Limit] = MappingProxyType(
    {
        **COMMON,
        "nmi_after": replace(COMMON["nmi_after"], review=1.035),
        "rival": replace(COMMON["rival"], review=0.9),
        "spread_mm": replace(COMMON["spread_mm"], review=15.0),
        "dice": replace(COMMON["dice"], review=0.6, fail=0.3),
        "outline_mm": replace(COMMON["outline_mm"], review=14.0, fail=30.0),
        "local_mm": replace(COMMON["local_mm"], review=1.6),
        "farthest_mm": replace(COMMON["farthest_mm"], review=4.0, fail=16.0),
    }
)


# RIRE stripped by the cavity of its CT, by less and by itself, simulated brains with holes and with
# eyes and neck: `registration.py stripped`
STRIPPED: Mapping[str, Limit] = MappingProxyType(
    {
        **COMMON,
        "nmi_after": replace(COMMON["nmi_after"], review=1.01, fail=1.003),
        "spread_mm": replace(COMMON["spread_mm"], review=6.0),
        "rival": replace(COMMON["rival"], review=0.85),
        "dice": replace(COMMON["dice"], review=0.78),
        "outline_mm": replace(COMMON["outline_mm"], review=4.0),
        # Right ones have 0.3 to 1.6, bent heads of other people 2.7 and more
        "local_mm": replace(COMMON["local_mm"], review=2.2, fail=8.0),
        "farthest_mm": replace(COMMON["farthest_mm"], review=4.0),
        # By the brain's own information right ones have 0.48 to 0.83, mirrored ones 1.25 to 1.55
        "mirrored": Limit(
            0.95, 1.15, "a mirrored brain fits as well: left and right cannot be told apart"
        ),
    }
)


def limits_for(fixed: Kind, moving: Kind, stripped: bool = False) -> Mapping[str, Limit]:
    """The limits for a pair of kinds: alike ones agree everywhere, SPECT and PET show no skin.

    Args:
        fixed: of the volume at rest.
        moving: and of the other one.
        stripped: whether one is a CT, and the other one an MR's brain alone.
    """
    if Kind.EMISSION in (fixed, moving):
        return EMISSION
    if fixed is moving:
        return ALIKE
    return STRIPPED if stripped else CT_MR


def checks_of(measures: Measures, limits: Mapping[str, Limit]) -> tuple[Check, ...]:
    """The measures as checks; those that were not taken (NaN) are left out."""
    values = {f.name: float(getattr(measures, f.name)) for f in fields(measures)}
    before = Check(
        "nmi_before",
        measures.nmi_before,
        measures.nmi_after + NO_WORSE,
        measures.nmi_before <= measures.nmi_after + NO_WORSE,
        "the headers' own pose fits better than the one found",
    )
    return before, *(
        Check(name, values[name], limit.review, limit.passes(values[name]), limit.meaning)
        for name, limit in limits.items()
        if not np.isnan(values[name])
    )


def verdict_of(checks: tuple[Check, ...], limits: Mapping[str, Limit]) -> Verdict:
    """Fail where one check is far off or several are off, pass where all are good."""
    refused = any(limits[c.name].fails(c.value) for c in checks if c.name in limits)
    if refused or sum(not c.passed for c in checks) >= TOO_MANY:
        return "fail"
    return "pass" if all(c.passed for c in checks) else "review"


def reasons_of(checks: tuple[Check, ...]) -> tuple[str, ...]:
    """One line for each check that did not pass."""
    return tuple(
        f"{c.meaning} ({c.name} {c.value:.4g}, limit {c.limit:.4g})" for c in checks if not c.passed
    )
