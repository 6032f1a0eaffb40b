"""Sets of rigid poses: a grid over all rotations, small steps, means, distances in mm."""

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from mmif.geometry import Matrix, Points, apply

HEAD_RADIUS_MM = 70.0  # a turn of 1 / 70 moves the surface of a head as far as a shift of 1 mm
Steps = npt.NDArray[np.float64]


def all_rotations(count: int) -> Matrix:
    """(count, 3, 3) rotations spread evenly over all there are (Alexa 2022, super-Fibonacci)."""
    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(count) + 0.5
    r, big_r = np.sqrt(s / count), np.sqrt(1 - s / count)
    alpha, beta = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    quaternions = np.stack(
        [r * np.sin(alpha), r * np.cos(alpha), big_r * np.sin(beta), big_r * np.cos(beta)], axis=1
    )
    return np.asarray(Rotation.from_quat(quaternions).as_matrix())


def move_poses(poses: Matrix, steps: Steps) -> Matrix:
    """``poses`` (..., 4, 4) moved by (..., 6): turns in mm at the head's radius, then shifts."""
    moved = np.array(poses)
    turn = Rotation.from_rotvec(np.reshape(steps[..., :3], (-1, 3)) / HEAD_RADIUS_MM).as_matrix()
    moved[..., :3, :3] = turn.reshape(moved[..., :3, :3].shape) @ moved[..., :3, :3]
    moved[..., :3, 3] += steps[..., 3:]
    return moved


def step_between(start: Matrix, end: Matrix) -> Steps:
    """(..., 6) the step that carries ``start`` (4, 4) to ``end`` (..., 4, 4); see `move_poses`."""
    turn = end[..., :3, :3] @ start[:3, :3].T
    vectors = Rotation.from_matrix(turn.reshape(-1, 3, 3)).as_rotvec() * HEAD_RADIUS_MM
    return np.concatenate(
        [vectors.reshape(*turn.shape[:-2], 3), end[..., :3, 3] - start[:3, 3]], axis=-1
    )


def inverse(poses: Matrix) -> Matrix:
    """The way back of ``poses`` (..., 4, 4)."""
    return np.asarray(np.linalg.inv(poses), dtype=np.float64)


def mean_pose(poses: Matrix) -> Matrix:
    """The mean of ``poses`` (n, 4, 4) that lie near one another (in the Lie algebra)."""
    return move_poses(poses[0], step_between(poses[0], poses).mean(axis=0))


def distance_mm(first: Matrix, second: Matrix, points: Points) -> float:
    """Mean distance in mm between where two poses put ``points`` (n, 3)."""
    return float(np.linalg.norm(apply(first, points) - apply(second, points), axis=1).mean())


def corners(points: Points) -> Points:
    """(8, 3) the corners of the box around ``points``."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.array([[(low, high)[(n >> a) & 1][a] for a in range(3)] for n in range(8)])
