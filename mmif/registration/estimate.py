"""How far a registration is probably off: where both scans look, and at the far end of the head.

An error that is small where the scans overlap grows with the distance from there, the faster the
thinner the overlap is. The field's law for it (Fitzpatrick, West and Maurer 1998, eq. 46): of
errors that are independent of each other at many points, a rigid fit leaves at a point r

    TRE^2(r) ~ 1 + (d_1^2 / f_1^2 + d_2^2 / f_2^2 + d_3^2 / f_3^2) / 3

with d_k the distance of r from the k-th principal axis of those points, and f_k their own root
mean square distance from it. Its mean over the points themselves is 2.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmif.geometry import Matrix, Points, apply
from mmif.registration.poses import distance_mm, inverse
from mmif.registration.prepare import Kind, Prepared
from mmif.registration.refine import Refined, is_stripped_pair, skin_margin_mm

# What no check sees: interpolation and noise, the blur of emission, and the skin where it had to
# help (refine.py), which lies differently in every scan; `registration.py estimates` measures them.
FLOOR_MM, EMISSION_FLOOR_MM, SKIN_FLOOR_MM, STRIPPED_FLOOR_MM = 0.6, 0.8, 1.4, 1.2
# Of what the two directions differ by, as their mean is the answer. Were it always half, slabs that
# are 4.4 and 5.6 mm off would pass; were it always all, halves of a head, 1.7 mm off, would not
OF_THE_MEAN = 0.5
LOCAL_SHARE = 0.3  # of what octants of the head would move, each for itself
FEWEST, ENOUGH = 50, 100_000  # points of an overlap that has axes; those that are asked of a body


@dataclass(frozen=True)
class ErrorEstimate:
    """What a registration is probably off, in mm.

    Attributes:
        inside_mm: the mean where both scans look.
        farthest_mm: at the point of the head, as far as either scan shows it, where it is largest.
    """

    inside_mm: float
    farthest_mm: float


def estimate_error(
    fixed: Prepared,
    moving: Prepared,
    refined: Refined,
    local_mm: float,
    least_share: float = OF_THE_MEAN,
) -> ErrorEstimate:
    """The probable error of ``refined.pose``, or of one of the two that it is the mean of.

    Args:
        fixed: the volume at rest.
        moving: the one that was brought to it.
        refined: the pose, found twice: how far the two lie apart is an error that is seen.
        local_mm: how far octants of the head would like to move; see `mmif.registration.measures`.
        least_share: of what the two poses differ by; 1 where one of the two is the answer.
    """
    shared, either = overlap(fixed, moving, refined.pose)
    blind_mm = np.hypot(floor_mm(fixed, moving), LOCAL_SHARE * local_mm)
    apart_mm = distance_mm(refined.forward, refined.backward, shared)
    gaps_mm = np.linalg.norm(
        apply(refined.forward, either) - apply(refined.backward, either), axis=1
    )
    inside_mm = probable_error(apart_mm, blind_mm, least_share)
    far_mm = probable_error(gaps_mm, blind_mm * error_growth(shared, either), least_share)
    return ErrorEstimate(float(inside_mm), float(far_mm.max()))


def probable_error(
    apart_mm: npt.ArrayLike, blind_mm: npt.ArrayLike, least_share: float = OF_THE_MEAN
) -> npt.NDArray[np.float64]:
    """The probable error of a pose that was found twice, from what the two differ by.

    As long as what neither sees explains it, half of their difference is the error of their mean.
    The more they differ the more of it counts, and all of it beyond that: one of them may have gone
    astray.

    Args:
        apart_mm: (n,) how far apart the two put a point.
        blind_mm: (n,) the error there that neither sees.
        least_share: of ``apart_mm`` that counts at least.
    """
    share = np.clip(np.divide(apart_mm, blind_mm), least_share, 1.0)
    return np.asarray(np.hypot(np.multiply(share, apart_mm), blind_mm))


def floor_mm(fixed: Prepared, moving: Prepared) -> float:
    """The error that no check of such a pair sees, in mm."""
    if Kind.EMISSION in (fixed.kind, moving.kind):
        return EMISSION_FLOOR_MM
    if is_stripped_pair(fixed, moving):
        return STRIPPED_FLOOR_MM
    return SKIN_FLOOR_MM if skin_margin_mm(fixed, moving) > 0 else FLOOR_MM


def overlap(fixed: Prepared, moving: Prepared, pose: Matrix) -> tuple[Points, Points]:
    """The points of the body that both scans show, and those that either does.

    Returns:
        (n, 3) and (m, 3) in the fixed volume's centred millimetres; where nearly none is shared,
        all of them.
    """
    own, other = thin_out(fixed.body_points), apply(inverse(pose), thin_out(moving.body_points))
    either = np.concatenate([own, other])
    inside = [within(moving, apply(pose, own)), within(fixed, other)]
    shared = np.concatenate([own[inside[0]], other[inside[1]]])
    return (shared if len(shared) >= FEWEST else either), either


def thin_out(points: Points) -> Points:
    """At most about `ENOUGH` of ``points`` (n, 3), evenly."""
    return points[:: max(1, len(points) // ENOUGH)]


def within(volume: Prepared, points: Points) -> npt.NDArray[np.bool_]:
    """(n,) which of ``points`` (n, 3) lie in the field of view of ``volume``."""
    voxels = apply(volume.levels[1].to_voxel, points)
    last = np.array(volume.body.shape) - 0.5
    return np.asarray(((voxels >= -0.5) & (voxels <= last)).all(axis=1))


def error_growth(fitted: Points, points: Points) -> npt.NDArray[np.float64]:
    """(m,) how many times larger an error is at ``points`` (m, 3) than over ``fitted`` (n, 3).

    Fitzpatrick, West and Maurer 1998, eq. 46, over its root mean square at ``fitted``.
    """
    middle = fitted.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov((fitted - middle).T))
    away2 = ((points - middle) @ axes) ** 2
    from_axis2 = away2.sum(axis=1, keepdims=True) - away2
    own2 = spread.sum() - spread
    return np.asarray(np.sqrt((1 + (from_axis2 / own2.clip(1.0)).sum(axis=1) / 3) / 2))
