"""Resampling lands where the patient is, and nothing stands where no data are."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from mmif.errors import GeometryError
from mmif.geometry import FLIP_XY, Grid, apply, axial_grid, rigid, world_ras_lps
from mmif.io.source import Source
from mmif.result import Coverage
from mmif.transforms import slices
from mmif.transforms.slices import (
    anti_alias_sigma,
    coverage,
    covered_fraction,
    data_box,
    grid_of,
    on_grid,
    to_grid,
    to_slices,
)

PHASES = (Phase.explicit, Phase.generate)
ORDERS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def oblique(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    angles_deg: tuple[float, ...] = (0.0, 0.0, 0.0),
    centre: tuple[float, ...] = (0.0, 0.0, 0.0),
    order: np.ndarray | None = None,
) -> Grid:
    """A grid around ``centre``, turned by ``angles_deg`` from the patient's axes (or ``order``)."""
    turn = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3) if order is None else order) * spacing
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def blob(grid: Grid, centre: np.ndarray, width_mm: float = 6.0) -> MetaTensor:
    """A Gaussian around ``centre`` (RAS mm), seen by a scanner with the voxels of ``grid``."""
    squares = ((grid.points_ras() - centre) ** 2).sum(-1)
    return on_grid(1000 * np.exp(-squares / (2 * width_mm**2))[None], grid)


def centroid_ras(volume: MetaTensor) -> np.ndarray:
    values = volume[0].numpy().astype(np.float64)
    points = grid_of(volume).points_ras()
    return np.asarray((points * values[..., None]).sum((0, 1, 2)) / values.sum())


angles = st.tuples(*[st.floats(-25, 25)] * 3)
offsets = st.tuples(*[st.floats(-40, 40)] * 3)


@settings(max_examples=25, deadline=None, phases=PHASES)
@given(st.sampled_from(ORDERS), angles, angles, angles, offsets, offsets)
def test_every_voxel_shows_the_place_that_the_transform_says(
    order: np.ndarray,
    source_tilt: tuple[float, ...],
    grid_tilt: tuple[float, ...],
    turn: tuple[float, ...],
    shift: tuple[float, ...],
    centre: tuple[float, ...],
) -> None:
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    reference_to_source = rigid(rotation, shift, centre)  # LPS
    grid = oblique((16, 18, 9), (2.0, 2.0, 3.0), grid_tilt, (5, 6, 7), np.diag([-1.0, -1, 1]))
    places = apply(world_ras_lps(reference_to_source), grid.points_ras())  # in the source's frame
    source = oblique((24, 26, 22), (3.0, 3.1, 3.2), source_tilt, places.mean((0, 1, 2)), order)
    coordinates = on_grid(np.moveaxis(source.points_ras(), -1, 0), source)
    shown = to_grid(coordinates, grid, reference_to_source)
    np.testing.assert_allclose(np.moveaxis(shown.numpy(), 0, -1), places, atol=1e-3)


@pytest.mark.parametrize(("order", "tilt"), [(ORDERS[0], 12.0), (ORDERS[17], -7.0)])
def test_a_landmark_lands_within_a_hundredth_of_a_millimetre(
    order: np.ndarray, tilt: float
) -> None:
    turn = Rotation.from_euler("xyz", (6, -8, tilt), degrees=True).as_matrix()
    reference_to_source = rigid(turn, (20, -13, 17), (4, 5, 6))
    landmark = np.array([3.0, -5.0, 4.0])
    in_source = apply(world_ras_lps(reference_to_source), landmark)
    source = oblique((64, 64, 42), (1.5, 1.5, 2.4), (tilt, 4, 5), tuple(in_source + 1), order)
    grid = oblique((50, 50, 40), (2.0, 2.0, 2.6), (3, tilt, 2), (0, 0, 0), np.diag([-1.0, -1, 1]))
    result = to_grid(blob(source, in_source, 8), grid, reference_to_source, fill=0.0)
    assert np.linalg.norm(centroid_ras(result) - landmark) < 0.01


def test_a_volume_on_its_own_grid_is_itself() -> None:
    grid = oblique((20, 24, 9), (0.9, 1.1, 4.0), (9, -3, 4), (31.0, -7.0, 12.0))
    volume = on_grid(torch.randn(1, 20, 24, 9), grid)
    torch.testing.assert_close(to_grid(volume, grid), volume, atol=2e-4, rtol=0)


def test_interpolation_does_not_overshoot_at_bone() -> None:
    step = torch.zeros(1, 30, 30, 30)
    step[:, 10:20] = 1500.0
    volume = on_grid(step, oblique((30, 30, 30), (1, 1, 1)))
    result = to_grid(volume, oblique((60, 60, 60), (0.37, 0.37, 0.37), (20, 10, 5)))
    assert result.min() == 0
    assert result.max() == 1500


def test_outside_of_the_source_stands_air() -> None:
    grid = oblique((10, 10, 10), (1, 1, 1))
    volume = on_grid(torch.full((1, 10, 10, 10), 40.0), grid)
    volume[0, 0, 0, 0] = -1000
    wide = oblique((30, 10, 10), (1, 1, 1))
    assert (to_grid(volume, wide)[0, :9] == -1000).all()
    assert (to_grid(volume, wide, fill=7.0)[0, :9] == 7).all()


def test_every_channel_is_carried_and_meta_goes_along() -> None:
    grid = oblique((12, 12, 12), (1, 1, 1))
    volume = on_grid(torch.rand(3, 12, 12, 12), grid)
    volume.meta["source"] = "where it came from"
    target = oblique((8, 8, 8), (1.1, 1.1, 1.1), (5, 5, 5))
    result = to_grid(volume, target)
    assert result.shape == (3, 8, 8, 8)
    assert result.dtype == torch.float32
    assert result.meta["source"] == "where it came from"
    np.testing.assert_array_equal(np.asarray(result.affine), target.affine_ras)
    for channel in range(3):
        alone = to_grid(
            on_grid(volume[channel : channel + 1], grid), target, fill=float(volume.min())
        )
        torch.testing.assert_close(result[channel], alone[0])


def test_only_a_transform_takes_the_source_out_of_its_frame() -> None:
    grid = oblique((8, 8, 8), (1, 1, 1))
    source = Source(
        Path("ct"), "dicom", "CT", grid.shape, grid.spacing_mm, frame_of_reference_uid="1.2"
    )
    volume, reference = on_grid(torch.rand(1, 8, 8, 8), grid), on_grid(torch.rand(1, 8, 8, 8), grid)
    volume.meta["source"] = source
    reference.meta["source"] = replace(source, frame_of_reference_uid="1.3")
    assert to_grid(volume, grid).meta["source"] == source
    unknown = to_grid(volume, grid, np.eye(4)).meta["source"]
    assert (unknown.frame_of_reference_uid, unknown.moved) == (None, True)
    known = to_grid(volume, grid, np.eye(4), reference=reference).meta["source"]
    assert (known.frame_of_reference_uid, known.moved) == ("1.3", True)
    assert volume.meta["source"] == source


def test_a_coarser_grid_averages_instead_of_skipping() -> None:
    fine = oblique((64, 64, 64), (0.5, 0.5, 0.5))
    stripes = torch.zeros(1, 64, 64, 64)
    stripes[:, :, :, ::2] = 100.0
    coarse = to_grid(on_grid(stripes, fine), oblique((24, 24, 6), (1.0, 1.0, 4.0)))
    torch.testing.assert_close(
        coarse.as_tensor(), torch.full_like(coarse, 50.0).as_tensor(), atol=1, rtol=0
    )


def test_smoothing_widens_a_voxel_to_the_grids_and_no_further() -> None:
    fine, coarse = oblique((9, 9, 9), (1, 1, 1)), oblique((9, 9, 9), (1, 1, 5))
    x, y, z = anti_alias_sigma(fine, coarse)
    assert (x, y) == (0, 0)
    assert z == pytest.approx(np.sqrt(24) / 2.3548, rel=1e-4)
    assert anti_alias_sigma(coarse, fine) == (0, 0, 0)


@pytest.mark.parametrize("degrees", [0, 5, 12, 20])
def test_slices_of_one_thickness_are_not_smoothed_for_being_tilted(degrees: float) -> None:
    source, grid = oblique((9, 9, 9), (1, 1, 4)), oblique((9, 9, 9), (1, 1, 4), (degrees, 0, 0))
    assert anti_alias_sigma(source, grid) == (0, 0, 0)


def test_smoothing_follows_the_transform() -> None:
    fine, coarse = oblique((9, 9, 9), (1, 1, 1)), oblique((9, 9, 9), (1, 1, 4))
    quarter_turn = rigid(Rotation.from_euler("x", 90, degrees=True).as_matrix(), [0] * 3, [0] * 3)
    x, y, z = anti_alias_sigma(fine, coarse, quarter_turn)
    assert y > 1.5
    assert (x, z) == pytest.approx((0, 0), abs=1e-6)


@settings(max_examples=10, deadline=None, phases=PHASES)
@given(st.sampled_from(ORDERS), angles, offsets, st.floats(0, 20, allow_subnormal=False))
def test_coverage_is_soft_inside_the_field_of_view_and_nothing_outside(
    order: np.ndarray, tilt: tuple[float, ...], shift: tuple[float, ...], transition_mm: float
) -> None:
    source = oblique((30, 26, 20), (3.0, 3.0, 4.0), tilt, (0, 0, 0), order)
    grid = oblique((28, 28, 24), (5.0, 5.0, 5.0))
    matrix = rigid(Rotation.from_euler("y", 7, degrees=True).as_matrix(), shift, [0, 0, 0])
    weight = coverage(on_grid(torch.rand(1, 30, 26, 20), source), grid, matrix, transition_mm)[0]
    in_source = apply(FLIP_XY @ matrix @ FLIP_XY, grid.points_ras())
    index = apply(np.linalg.inv(source.affine_ras), in_source)
    inside = np.minimum(index + 0.5, np.asarray(source.shape) - 0.5 - index) * source.spacing_mm
    depth = torch.as_tensor(inside.min(axis=-1))
    assert (weight[depth < -1e-3] == 0).all()
    assert (weight[depth > transition_mm + 1e-3] == 1).all()
    between = (depth > 1e-2) & (depth < transition_mm - 1e-2)
    expected = 0.5 - 0.5 * torch.cos(torch.pi * depth[between] / max(transition_mm, 1e-9))
    torch.testing.assert_close(weight[between], expected.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("tilt", [0.0, 10.0])
def test_coverage_is_kept_as_what_changes_along_few_axes_and_made_where_it_is_asked_for(
    tilt: float,
) -> None:
    source, grid = oblique((20, 20, 12), (3, 3, 4)), oblique((28, 26, 24), (3, 3, 3))
    about_z = rigid(Rotation.from_euler("z", tilt, degrees=True).as_matrix(), [0] * 3, [0] * 3)
    weight = coverage(on_grid(torch.rand(1, 20, 20, 12), source), grid, about_z)
    flat = [(1, 28, 26, 1), (1, 1, 1, 24)]
    straight = [(1, 28, 1, 1), (1, 1, 26, 1), (1, 1, 1, 24)]
    assert [tuple(one.shape) for one in weight.factors] == (flat if tilt else straight)
    whole = weight[...]
    assert whole.shape == (1, *grid.shape)
    assert ((whole > 0) & (whole < 1)).any()
    assert torch.equal(weight[..., 3:9], whole[..., 3:9])
    assert torch.equal(weight.part(slice(3, 9))[...], whole[..., 3:9])
    np.testing.assert_array_equal(np.asarray(weight, dtype=np.float64), whole)
    np.testing.assert_array_equal(weight.above(0.4), whole[0] > 0.4)
    assert torch.equal(weight.either(weight)[...], whole)
    assert weight.either(Coverage.whole(grid.shape))[...].min() == 1


def test_a_negative_transition_is_refused() -> None:
    volume = on_grid(torch.rand(1, 4, 4, 4), oblique((4, 4, 4), (1, 1, 1)))
    with pytest.raises(GeometryError, match="-1 mm, expected >= 0"):
        coverage(volume, grid_of(volume), transition_mm=-1)


def ball_of_hu(radius_mm: float, air: float = -1000.0) -> torch.Tensor:
    squares = (oblique((40, 40, 40), (2, 2, 2)).points_ras() ** 2).sum(-1)
    return torch.as_tensor(np.where(squares < radius_mm**2, 40.0, air))[None]


def test_planes_of_padding_where_the_head_is_cut_are_not_covered() -> None:
    voxels = ball_of_hu(30)
    voxels[..., :12] = -1000  # the head is cut here, through 26 of its 30 mm of radius
    volume = on_grid(voxels, oblique((40, 40, 40), (2, 2, 2)))
    assert data_box(volume) == ((0, 0, 12), (39, 39, 39))
    weight = coverage(volume, grid_of(volume), transition_mm=6)
    assert (weight[..., :12] == 0).all()
    assert (weight[0, 20, 20, 16:37] == 1).all()


def test_padding_around_a_round_field_of_view_is_covered() -> None:
    voxels = ball_of_hu(30)
    outside_of_circle = ball_of_hu(38)[..., 20:21] < 0
    voxels[outside_of_circle.expand_as(voxels)] = -1024  # a padding value that became air
    assert data_box(on_grid(voxels, oblique((40, 40, 40), (2, 2, 2)))) == ((0,) * 3, (39,) * 3)


def test_covered_fraction_counts_the_head_where_there_is_one() -> None:
    weight = torch.zeros(1, 4, 4, 3)
    weight[:, :2, :, :2] = 0.3
    whole = Coverage((weight,), (1, 4, 4, 3))
    head = torch.zeros(1, 4, 4, 3, dtype=torch.bool)
    head[:, 1:4, :, 1] = True
    np.testing.assert_allclose(covered_fraction(whole), [0.5, 0.5, 0])
    np.testing.assert_allclose(covered_fraction(whole, head), [0.5, 1 / 3, 0])


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_a_large_source_is_carried_in_blocks_to_the_same_values(
    degrees: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = oblique((50, 44, 40), (1, 1, 1.5), (3, -2, 5))
    volume = on_grid(torch.rand(1, 50, 44, 40) * 1000, source)
    grid = axial_grid(source, size=24)  # coarser: smoothed as well
    turn = Rotation.from_euler("xyz", [degrees, -degrees, 3], degrees=True).as_matrix()
    transform = world_ras_lps(rigid(turn, np.array([2.0, -4.0, 9.0]), source.centre_ras))
    whole = to_grid(volume, grid, transform)
    monkeypatch.setattr(slices, "BLOCK_VOXELS", 9000)
    torch.testing.assert_close(to_grid(volume, grid, transform), whole, rtol=0, atol=1e-3)
    away = world_ras_lps(rigid(np.eye(3), np.array([0.0, 0.0, 30.0]), np.zeros(3)))
    assert to_grid(volume, grid, away, fill=-7.0)[0, 12, 12, -1] == -7  # blocks that need nothing


def test_a_stack_is_slices_rows_and_columns() -> None:
    volume = on_grid(torch.rand(1, 3, 4, 5), oblique((3, 4, 5), (1, 1, 1)))
    stack = to_slices(volume)
    assert type(stack) is torch.Tensor
    assert stack.shape == (5, 4, 3)
    assert stack[4, 3, 2] == volume[0, 2, 3, 4]


@pytest.mark.parametrize("order", ORDERS[::5])
def test_slices_show_the_patient_as_the_training_slices_do(order: np.ndarray) -> None:
    source = oblique((60, 60, 60), (3, 3, 3), order=order)
    for towards, row, column in (((0, 50, 0), 0, 128), ((50, 0, 0), 128, 0)):  # front, right
        volume = blob(source, np.array(towards, float), 8)
        stack = to_slices(to_grid(volume, axial_grid(source)))
        _, r, c = np.unravel_index(int(stack.argmax()), stack.shape)
        assert abs(r - row) < 128 - 60
        assert abs(c - column) < 128 - 60
    top = to_slices(to_grid(blob(source, np.array([0.0, 0, 60]), 8), axial_grid(source)))
    assert int(top.argmax()) // 256**2 > 40


def test_rire_reference_is_its_own_grid_and_the_ct_ends_inside_its_top_slices(
    shared_data: Path,
) -> None:
    nibabel = pytest.importorskip("nibabel")
    folder = shared_data / "volumes" / "rire_training_001"
    volumes = {}
    for name in ("mr_T1", "ct_on_mr_grid"):
        image = nibabel.load(folder / f"training_001_{name}.nii.gz")
        grid = Grid(image.shape, image.affine.astype(np.float64))
        volumes[name] = on_grid(image.get_fdata(dtype=np.float32)[None], grid)
    mri, ct = volumes.values()
    lines = (folder / "training_001_ct_to_mr_T1_ground_truth.tfm").read_text().splitlines()
    numbers = [float(n) for n in lines[3].split()[1:]]
    ct_to_mri = rigid(
        Rotation.from_euler("YXZ", np.array(numbers)[[1, 0, 2]]).as_matrix(), numbers[3:], [0] * 3
    )
    grid = axial_grid(grid_of(mri))
    assert torch.equal(to_grid(mri, grid), mri)
    covered = covered_fraction(coverage(ct, grid, np.linalg.inv(ct_to_mri)))
    assert (covered[:18] > 0.8).all()
    assert (covered[22:] == 0).all()
