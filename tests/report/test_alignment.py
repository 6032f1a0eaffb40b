import numpy as np
import pytest

from mmif.geometry import Grid, apply, rigid, world_ras_lps
from mmif.report.alignment import before_voxels, motion, plane_before
from mmif.report.figures import end_marks
from mmif.report.pictures import CONTOUR_LEVELS, Cut, contours, cut_plane, edges, square_pixels
from mmif.report.viewer import axis_letters, framed_grid, reduced_grid


@pytest.fixture
def grid() -> Grid:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[:3, 3] = [40, 40, -30]
    return Grid((40, 40, 20), affine)


def test_motion_names_turn_and_shift(grid) -> None:
    angle = np.radians(10)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    ras = rigid(turn, [3.0, -4.0, 12.0], grid.centre_ras)
    found = motion(world_ras_lps(ras), grid)
    assert found.turn_deg == pytest.approx(10)
    assert (found.nod_deg, found.tilt_deg, found.turn_left_deg) == pytest.approx((0, 0, 10))
    assert found.shift_mm == pytest.approx((3, -4, 12))
    assert found.distance_mm == pytest.approx(13)


def test_before_shows_the_moving_volume_where_its_headers_put_it(grid) -> None:
    """A point of the fixed frame at p lies at p + shift in the moving frame: there it was."""
    shift_ras = np.array([-8.0, 6.0, 9.0])
    registered = np.zeros(grid.shape, np.float32)
    registered[20, 20, 10] = 1
    ras = np.eye(4)
    ras[:3, 3] = shift_ras
    to_voxels = before_voxels(world_ras_lps(ras), grid)
    moved = (20 + 4, 20 - 3, 10 + 3)
    for plane in ("axial", "coronal", "sagittal"):
        picture = plane_before(registered[None], to_voxels, plane, Cut(*moved))
        expected = np.zeros(grid.shape, np.float32)
        expected[moved] = 1
        assert np.allclose(picture, cut_plane(expected, plane, Cut(*moved)), atol=1e-6)


def test_planes_lie_as_a_reader_expects(grid) -> None:
    """Patient's right at the left; front (axial) or top (coronal, sagittal) up."""
    volume = np.zeros(grid.shape, np.float32)
    volume[5, 8, 3] = 1
    at = Cut(5, 8, 3)
    assert np.argwhere(cut_plane(volume, "axial", at)).tolist() == [[8, 5]]
    assert np.argwhere(cut_plane(volume, "coronal", at)).tolist() == [[16, 5]]
    assert np.argwhere(cut_plane(volume, "sagittal", at)).tolist() == [[16, 8]]
    assert axis_letters(grid.affine_ras) == [["R", "L"], ["A", "P"], ["I", "S"]]


def test_a_reduced_grid_covers_the_same_space(grid) -> None:
    assert np.allclose(reduced_grid(grid, (2, 2, 1)).corners_ras, grid.corners_ras)


def test_a_framed_grid_keeps_each_voxel_in_its_place(grid) -> None:
    framed = framed_grid(grid, slice(5, 30), slice(8, 40))
    assert framed.shape == (25, 32, 20)
    here, there = apply(framed.affine_ras, [3, 4, 5]), apply(grid.affine_ras, [8, 12, 5])
    assert np.allclose(here, there)


def test_no_edge_is_marked_where_the_coverage_ends() -> None:
    coverage = np.ones((20, 20), np.float32)
    coverage[:, 12:] = 0
    hidden = end_marks(coverage)
    assert hidden[:, 9:].all()
    assert not hidden[:, :9].any()


def test_a_blurred_source_gets_closed_lines_of_equal_brightness() -> None:
    rows, columns = np.mgrid[:60, :60]
    blob = np.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / 400)
    marked = contours(blob)
    distance = np.hypot(rows - 30, columns - 30)[marked]
    radii = [np.sqrt(-400 * np.log(level)) for level in CONTOUR_LEVELS]
    assert all(min(abs(d - r) for r in radii) < 1.6 for d in distance)
    assert marked.sum() > 100
    assert not contours(np.zeros((8, 8))).any()


def test_an_edge_is_as_thin_across_the_slices_as_along_them() -> None:
    rows, columns = np.mgrid[:30, :90]
    ball = ((3 * (rows - 14.5)) ** 2 + (columns - 44.5) ** 2 < 30**2).astype(np.float32)
    fine = square_pixels(ball, 3.0, 1.0)
    assert fine.shape == (90, 90)
    marked = edges(fine)
    assert 0 < marked[:, 45].sum() <= 4
    assert 0 < marked[45].sum() <= 4
    assert square_pixels(ball, 2.0, 2.0) == pytest.approx(ball)
