"""Affines, grids and rigid transforms, for any orientation a scanner may choose."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mmif.errors import GeometryError
from mmif.geometry import (
    Grid,
    apply,
    axial_grid,
    check_rigid,
    main_axes,
    plane,
    ras_lps,
    rigid,
    rotation_deg,
    spacing_mm,
    world_ras_lps,
)

ORDERS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
"""All 48 ways in which voxel axes can run along the patient's axes."""


@st.composite
def grids(draw: st.DrawFn, tilt_deg: float = 20.0) -> Grid:
    """A grid of any orientation, tilted by up to ``tilt_deg`` from the patient's axes."""
    order = draw(st.sampled_from(ORDERS))
    angles = [draw(st.floats(-tilt_deg, tilt_deg)) for _ in range(3)]
    spacing = [draw(st.floats(0.3, 8)) for _ in range(3)]
    shape = [draw(st.integers(3, 300)) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ order * spacing
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return Grid((shape[0], shape[1], shape[2]), affine)


def contains(grid: Grid, points_ras: np.ndarray, axes: list[int], slack: float) -> bool:
    index = apply(np.linalg.inv(grid.affine_ras), points_ras)[:, axes]
    upper = np.asarray(grid.shape)[axes] - 0.5
    return bool(((index > -0.5 - slack) & (index < upper + slack)).all())


@settings(max_examples=50)
@given(grids())
def test_axial_grid_has_square_pixels_and_covers_the_field_of_view(volume: Grid) -> None:
    grid = axial_grid(volume, 256)
    x, y, _ = grid.spacing_mm
    assert grid.shape[:2] == (256, 256)
    assert x == pytest.approx(y)
    assert contains(grid, volume.corners_ras, [0, 1], slack=1e-6)
    assert contains(grid, volume.corners_ras, [2], slack=1e-3)
    np.testing.assert_allclose(grid.centre_ras, volume.centre_ras, atol=1e-6)


@settings(max_examples=50)
@given(grids())
def test_axial_grid_is_right_handed_with_the_directions_of_the_training_slices(
    volume: Grid,
) -> None:
    directions = axial_grid(volume).affine_ras[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    assert np.linalg.det(directions) == pytest.approx(1)
    columns, rows, slices = directions.T
    assert columns[0] < -0.5  # from the patient's right to left
    assert rows[1] < -0.5  # from anterior to posterior
    assert slices[2] > 0.5  # from inferior to superior


@settings(max_examples=50)
@given(grids())
def test_oblique_axial_keeps_its_tilt_and_slices_and_other_planes_are_reformatted(
    volume: Grid,
) -> None:
    grid = axial_grid(volume)
    normal = grid.affine_ras[:3, 2] / grid.spacing_mm[2]
    if plane(volume.affine_ras) == "axial":
        own = volume.affine_ras[:3, 2] / volume.spacing_mm[2]
        assert abs(normal @ own) == pytest.approx(1)
        assert grid.shape[2] == volume.shape[2]
        assert grid.spacing_mm[2] == pytest.approx(volume.spacing_mm[2])
        index = apply(np.linalg.inv(volume.affine_ras), apply(grid.affine_ras, [0, 0, 0]))
        assert index[2] == pytest.approx(round(index[2]), abs=1e-6)
    else:
        np.testing.assert_allclose(normal, [0, 0, 1], atol=1e-9)
        assert grid.spacing_mm[2] == pytest.approx(min(volume.spacing_mm))


@settings(max_examples=50)
@given(grids(), st.floats(20, 100))
def test_axial_grid_over_a_box_frames_the_box_and_keeps_every_slice(
    volume: Grid, half_mm: float
) -> None:
    corners = volume.centre_ras + half_mm * np.array([*itertools.product((-1, 1), repeat=3)])
    grid, whole = axial_grid(volume, 256, corners), axial_grid(volume, 256)
    assert contains(grid, corners, [0, 1], slack=1e-6)
    assert grid.shape == whole.shape
    assert grid.spacing_mm[2] == whole.spacing_mm[2]
    assert grid.spacing_mm[0] <= 2 * half_mm * 1.75 / 256


def test_a_square_axial_volume_in_the_convention_is_its_own_grid() -> None:
    affine = np.diag([-1.25, -1.25, 4.0, 1.0])
    grid = axial_grid(Grid((256, 256, 26), affine))
    assert grid.shape == (256, 256, 26)
    np.testing.assert_array_equal(grid.affine_ras, affine)


@pytest.mark.parametrize("order", ORDERS)
def test_main_axes_name_each_patient_axis_once(order: np.ndarray) -> None:
    tilt = Rotation.from_euler("xyz", [14, -9, 11], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = tilt @ order * [0.7, 2.0, 5.0]
    assert main_axes(affine) == tuple(np.abs(order).argmax(axis=0))


@settings(max_examples=50)
@given(grids())
def test_lps_and_ras_exchange_twice_is_nothing(grid: Grid) -> None:
    np.testing.assert_array_equal(ras_lps(ras_lps(grid.affine_ras)), grid.affine_ras)
    np.testing.assert_array_equal(world_ras_lps(world_ras_lps(grid.affine_ras)), grid.affine_ras)
    lps = apply(ras_lps(grid.affine_ras), [1, 2, 3])
    np.testing.assert_allclose(lps * [-1, -1, 1], apply(grid.affine_ras, [1, 2, 3]))


@settings(max_examples=50)
@given(grids())
def test_points_and_corners_of_a_grid_agree_with_its_affine(grid: Grid) -> None:
    small = Grid((3, 4, 5), grid.affine_ras)
    np.testing.assert_allclose(small.points_ras()[2, 1, 4], apply(small.affine_ras, [2, 1, 4]))
    np.testing.assert_allclose(small.corners_ras.mean(axis=0), small.centre_ras, atol=1e-6)
    extent = np.linalg.norm(small.corners_ras[-1] - small.corners_ras[0])
    assert extent == pytest.approx(
        np.linalg.norm(np.array([3, 4, 5]) * spacing_mm(grid.affine_ras))
    )


@settings(max_examples=50)
@given(st.floats(0, 179), st.tuples(*[st.floats(-50, 50)] * 3))
def test_rigid_turns_about_its_centre_and_says_its_angle(
    degrees: float, centre: tuple[float, float, float]
) -> None:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()
    matrix = rigid(turn, [1, 2, 3], centre)
    np.testing.assert_allclose(apply(matrix, centre), np.add(centre, [1, 2, 3]), atol=1e-9)
    assert rotation_deg(matrix) == pytest.approx(degrees, abs=1e-4)
    np.testing.assert_array_equal(check_rigid(matrix, "here"), matrix)


@pytest.mark.parametrize(
    ("matrix", "found"),
    [
        (np.eye(3), "expected a finite 4x4"),
        (np.full((4, 4), np.nan), "expected a finite 4x4"),
        (np.diag([1.1, 1, 1, 1]), "scales, shears or mirrors"),
        (np.diag([-1.0, 1, 1, 1]), "scales, shears or mirrors"),
        (np.eye(4) + np.eye(4, k=1) * 0.2, "scales, shears or mirrors"),
    ],
)
def test_what_is_not_rigid_is_refused(matrix: np.ndarray, found: str) -> None:
    with pytest.raises(GeometryError, match=f"a.tfm: .*{found}"):
        check_rigid(matrix, "a.tfm")
