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
    fixed: Prepared, moving: Prepared, refined: Refined, local_mm: float
) -> ErrorEstimate:
    """The probable error of ``refined.pose``.

    Args:
        fixed: the volume at rest.
        moving: the one that was brought to it.
        refined: the pose, found twice: how far the two lie apart is an error that is seen.
        local_mm: how far octants of the head would like to move; see `mmif.registration.measures`.
    """
    shared, either = overlap(fixed, moving, refined.pose)
    blind_mm = np.hypot(floor_mm(fixed, moving), LOCAL_SHARE * local_mm)
    apart_mm = distance_mm(refined.forward, refined.backward, shared)
    gaps = apply(refined.forward, either) - apply(refined.backward, either)
    seen_mm2 = (gaps**2).sum(axis=1)
    far_mm2 = seen_mm2 + blind_mm**2 * error_growth(shared, either) ** 2
    return ErrorEstimate(float(np.hypot(apart_mm, blind_mm)), float(np.sqrt(far_mm2.max())))


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
