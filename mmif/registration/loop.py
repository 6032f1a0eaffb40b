"""Whether three registrations agree: around the loop of three volumes one comes back to the start.

CT and SPECT are both brought to the MRI. The two transforms say where the SPECT lies on the CT; the
two images, or a frame of reference that they share, say it again without the MRI.
"""

import math
from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor

from mmif.config import RegistrationConfig
from mmif.registration.estimate import EMISSION_FLOOR_MM
from mmif.registration.one_frame import CHECKED_MM, best_near
from mmif.registration.poses import distance_mm
from mmif.registration.refine import Refined
from mmif.registration.result import Registration
from mmif.registration.rigid import one_frame, one_thread, prepare_pair

SURE = 2.0  # the true error is below twice the estimate in 95 % (`registration.py estimates`)


@dataclass(frozen=True)
class LoopClosure:
    """What is left after one round of three volumes.

    Attributes:
        path: the roles in the order of the round, back to the first.
        residue_mm: how far the round leads from its start, as a mean over the body.
        expected_mm: up to here it may come of the estimated errors of its three legs.
        directly: how the leg without the reference was found: ``images`` or ``headers``.
    """

    path: tuple[str, ...]
    residue_mm: float
    expected_mm: float
    directly: str

    @property
    def is_closed(self) -> bool:
        """Whether the three registrations agree."""
        return self.residue_mm <= self.expected_mm


@one_thread()
def close_loop(
    first: MetaTensor,
    second: MetaTensor,
    legs: tuple[Registration, Registration],
    path: tuple[str, ...],
    config: RegistrationConfig | None = None,
) -> LoopClosure:
    """How far the way from ``first`` over the reference to ``second`` and back leads.

    Args:
        first: (1, X, Y, Z), one that was brought to the reference.
        second: (1, X, Y, Z), the other one.
        legs: the registrations of both, from the reference.
        path: roles for the record.
        config: the seed.

    Raises:
        RegistrationError: a volume that cannot be looked at.
    """
    unhurried = RegistrationConfig(seed=(config or RegistrationConfig()).seed, timeout_s=math.inf)
    pair = prepare_pair(first, second, unhurried, finest_mm=CHECKED_MM)
    to_first, to_second = (leg.fixed_to_moving_lps for leg in legs)
    over = pair.to_centred(to_second @ np.linalg.inv(to_first))
    shared = one_frame(first, second)
    direct = Refined(pair.headers, pair.headers) if shared else best_near(pair, over)
    points = pair.fixed.body_points[::5]
    apart_mm = distance_mm(direct.forward, direct.backward, points)
    # a given transform has no estimate: what no check sees is what it has at least
    legs_mm = (leg.error_estimate_mm or EMISSION_FLOOR_MM for leg in legs)
    errors_mm = (EMISSION_FLOOR_MM, apart_mm, *legs_mm)
    return LoopClosure(
        path=path,
        residue_mm=distance_mm(over, direct.pose, points),
        expected_mm=SURE * math.hypot(*errors_mm),
        directly="headers" if shared else "images",
    )
