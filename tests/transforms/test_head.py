"""The head is found in CT, MRI and counts, through noise, tilt and a holder."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from mmif.errors import GeometryError
from mmif.geometry import Grid, apply
from mmif.transforms.head import body_threshold, head_box_ras, head_mask, outline

RADII = (70.0, 85.0, 80.0)


def grid(tilt_deg: float = 0.0) -> Grid:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [tilt_deg, 0, tilt_deg / 2], degrees=True).as_matrix()
    affine[:3, :3] = turn * [2.0, 2.0, 4.0]
    affine[:3, 3] = -affine[:3, :3] @ [54.5, 59.5, 26.5]
    return Grid((110, 120, 54), affine)


def head(kind: str, where: Grid) -> tuple[MetaTensor, np.ndarray]:
    """A simulated volume of ``kind`` and the true head, (X, Y, Z) bool."""
    points, random = where.points_ras(), np.random.default_rng(0)
    depth = np.linalg.norm(points / np.asarray(RADII), axis=-1)
    inside, skull, brain = depth < 1, (depth > 0.85) & (depth < 0.93), depth < 0.8
    sinus = np.linalg.norm(points - [0, 60, -20], axis=-1) < 12
    if kind == "ct":
        values = np.select([sinus, skull, inside], [-1000, 1200, 40], -1000.0)
        holder = np.abs(points[..., 1] + 96) < 3  # a plate behind the head, 8 mm away
        values = np.where(holder, 0, values) + random.normal(0, 15, values.shape)
    elif kind == "mri":
        values = np.select([sinus | skull, brain, inside], [10, 400, 900], 0.0)
        values = np.hypot(
            values + random.normal(0, 30, values.shape), random.normal(0, 30, values.shape)
        )
    else:
        values = random.poisson(np.select([brain, inside], [300, 90], 1)).astype(float)
    volume = MetaTensor(torch.as_tensor(values[None], dtype=torch.float32), affine=where.affine_ras)
    return volume, inside


@pytest.mark.parametrize("kind", ["ct", "mri", "counts"])
def test_the_mask_is_the_head_filled_and_without_holder_or_noise(kind: str) -> None:
    volume, truth = head(kind, grid())
    mask = head_mask(volume)
    assert mask.shape == volume.shape
    assert torch.equal(mask.affine, volume.affine)
    found = mask[0].numpy().astype(bool)
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert overlap > 0.96


@pytest.mark.parametrize("kind", ["ct", "mri"])
def test_the_box_frames_a_tilted_head_within_a_voxel_of_its_margin(kind: str) -> None:
    where = grid(12)
    volume, truth = head(kind, where)
    corners = apply(np.linalg.inv(where.affine_ras), head_box_ras(volume, margin_mm=8))
    margin = 8 / np.array(where.spacing_mm)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(truth.any(axis=others))
        assert corners[:, axis].min() == pytest.approx(filled[0] - 0.5 - margin[axis], abs=2)
        assert corners[:, axis].max() == pytest.approx(filled[-1] + 0.5 + margin[axis], abs=2)


def test_the_box_stays_inside_the_volume() -> None:
    where = grid()
    corners = apply(np.linalg.inv(where.affine_ras), head_box_ras(head("mri", where)[0], 500))
    np.testing.assert_allclose(corners.min(axis=0), -0.5, atol=1e-6)
    np.testing.assert_allclose(corners.max(axis=0), np.array(where.shape) - 0.5, atol=1e-6)


def test_nothing_to_frame_is_said() -> None:
    empty = MetaTensor(torch.zeros(1, 20, 20, 20), affine=np.eye(4))
    assert not head_mask(empty).any()
    with pytest.raises(GeometryError, match="no head stands out"):
        head_box_ras(empty)


def test_threshold_lies_between_noise_and_dark_tissue() -> None:
    volume, truth = head("mri", grid())
    noise = volume[0].numpy()[~truth]
    assert np.percentile(noise, 99.9) < body_threshold(volume) < 200
    assert body_threshold(head("ct", grid())[0]) == -400


def test_arms_are_limbs_and_a_head_has_none() -> None:
    values = torch.full((1, 100, 60, 12), -1000.0)
    values[:, 20:80, 10:50] = 40  # 240 x 160 mm
    values[:, 4:12, 20:28] = 40  # 32 x 32 mm, 16 mm away
    values[:, 90:92, 20:22] = 40  # a tube
    trunk = MetaTensor(values, affine=np.diag([4.0, 4.0, 4.0, 1.0]))
    limbs = outline(trunk).limbs[0].numpy()
    assert limbs[6:10, 22:26].all()
    assert not limbs[13:].any()
    assert not outline(head("ct", grid())[0]).limbs.any()


@pytest.mark.parametrize("lost", [1, 2])
def test_a_head_whose_middle_slices_are_empty_is_one(lost: int) -> None:
    volume, _ = head("mri", grid())
    middle = volume.shape[-1] // 2
    whole = head_mask(volume)
    holed = volume.clone()
    holed[..., middle : middle + lost] = 0
    assert float((head_mask(holed) & whole).sum() / whole.sum()) > 0.97
