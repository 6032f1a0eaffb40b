"""Heads are told from other parts, and a stripped brain is brought to what its skull holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.errors import RegistrationError
from mmif.geometry import apply, spacing_mm, world_ras_lps
from mmif.io import load
from mmif.io.source import Source
from mmif.io.transform_files import read_transform
from mmif.registration import Registration, register, rigid
from mmif.registration.anatomy import inside_skull, skull_cavity, why_no_head
from mmif.registration.prepare import Kind, prepare
from mmif.registration.verdict import limits_for


def volume(values: np.ndarray, spacing: tuple[float, float, float], modality: str) -> MetaTensor:
    affine = np.diag([*spacing, 1.0])
    made = MetaTensor(
        torch.from_numpy(values.astype(np.float32))[None], affine=torch.from_numpy(affine)
    )
    made.meta["source"] = Source("made", "dicom", modality, (1, 1, 1), (1, 1, 1))
    return made


def body_ct(width_mm: float, depth_mm: float, bone_mm: float) -> MetaTensor:
    """A part of a body, an ellipse of soft tissue with a round bone in its middle, 4 mm voxels."""
    x, y = np.meshgrid(np.arange(-60, 60) * 4.0, np.arange(-50, 50) * 4.0, indexing="ij")
    inside = (x / width_mm) ** 2 + (y / depth_mm) ** 2 < 0.25
    section = np.where(inside, 40.0, -1000.0)
    section[np.hypot(x, y) < bone_mm / 2] = 600
    noise = np.random.default_rng(0).normal(0, 5, (120, 100, 60))
    return volume(section[..., None] + noise, (4, 4, 4), "CT")


def test_the_sample_head_is_one_in_every_modality(sample_data: Path) -> None:
    for name, role in (("ct", "ct"), ("mri.nii.gz", "mri"), ("spect.dcm", "spect")):
        assert why_no_head(prepare(load(sample_data / name, role=role), role)) == ""


@pytest.mark.parametrize(
    ("part", "why"),
    [((360, 230, 40), "its sections have"), ((170, 160, 30), "a skull closes around 0 mm")],
)
def test_a_chest_and_a_thigh_are_no_heads(part: tuple[float, float, float], why: str) -> None:
    assert why_no_head(prepare(body_ct(*part), "CT")).startswith(why)


def test_what_is_no_head_is_refused_with_its_reason_or_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SearchedError(Exception):
        pass

    def search(*_: object) -> None:
        raise SearchedError

    chest = body_ct(360, 230, 40)
    monkeypatch.setattr(rigid, "search_candidates", search)
    with pytest.raises(RegistrationError, match=r"look like a head: its sections.*--transform"):
        register(chest, chest)
    with pytest.raises(SearchedError):
        register(chest, chest, accept_other_anatomy=True)


def test_what_passes_of_other_anatomy_by_the_limits_of_heads_is_to_be_reviewed() -> None:
    passed = Registration(np.eye(4), "pass", (), 0.5, "searched", (), 1.0)
    found = rigid.of_other_anatomy(passed, "the fixed volume does not look like a head: wide")
    assert (found.verdict, found.of_heads) == ("review", False)
    assert found.reasons[0].startswith("the fixed volume does not look like a head: wide; searched")


def stripped_rire(folder: Path, less_mm: float) -> tuple[MetaTensor, MetaTensor, np.ndarray]:
    """RIRE's CT, its MR without what lies outside of the CT's skull, and points of the brain.

    ``less_mm`` more is taken: a mask of the brain alone leaves out what lies about it.
    """
    ct = load(folder / "training_001_ct_on_mr_grid.nii.gz", role="ct")
    mr = load(folder / "training_001_mr_T1.nii.gz", role="mri")
    gold = world_ras_lps(read_transform(folder / "training_001_ct_to_mr_T1_ground_truth.tfm"))
    prepared = prepare(ct, "CT")
    to_ras = np.linalg.inv(prepared.levels[2].to_voxel)
    depth = ndimage.distance_transform_edt(skull_cavity(prepared), sampling=spacing_mm(to_ras))
    cavity = (depth > less_mm).astype(np.float32)
    to_ras[:3, 3] += prepared.centre_ras
    to_cavity = np.linalg.inv(to_ras) @ np.linalg.inv(gold) @ mr.affine.numpy()
    share = ndimage.affine_transform(
        cavity, to_cavity[:3, :3], to_cavity[:3, 3], tuple(mr.shape[1:]), order=1
    )
    brain = MetaTensor(mr.as_tensor() * torch.from_numpy(share > 0.5), affine=mr.affine)
    brain.meta.update({k: v for k, v in mr.meta.items() if k != "affine"})
    return ct, brain, apply(to_ras, np.argwhere(cavity)[::997])


@pytest.mark.parametrize("less_mm", [0.0, 2.0])
def test_rire_with_a_stripped_mri_passes_within_2_mm_of_the_brain(
    shared_data: Path, less_mm: float
) -> None:
    folder = shared_data / "volumes" / "rire_training_001"
    ct, brain, in_ct = stripped_rire(folder, less_mm)
    assert prepare(brain, "MR").stripped
    assert not prepare(load(folder / "training_001_mr_T1.nii.gz", role="mri"), "MR").stripped
    gold = read_transform(folder / "training_001_ct_to_mr_T1_ground_truth.tfm")
    found = register(brain, ct)
    there = apply(world_ras_lps(found.fixed_to_moving_lps @ gold), in_ct)
    assert np.linalg.norm(there - in_ct, axis=1).mean() < 2.0
    assert found.verdict == "pass", found.reasons


@pytest.mark.parametrize(("background", "normalised"), [(-1000.0, False), (0.0, True)])
def test_what_was_stripped_may_have_any_value(
    shared_data: Path, background: float, normalised: bool
) -> None:
    _, brain, _ = stripped_rire(shared_data / "volumes" / "rire_training_001", 0.0)
    usual = prepare(brain, "MR")
    values = brain.as_tensor().clone()
    kept = values != 0
    if normalised:
        values = (values - values[kept].mean()) / values[kept].std()
    values[~kept] = background
    other = MetaTensor(values, affine=brain.affine)
    other.meta.update({k: v for k, v in brain.meta.items() if k != "affine"})
    found = prepare(other, "MR")
    assert found.stripped
    assert found.body_ml == pytest.approx(usual.body_ml, rel=0.01)
    torch.testing.assert_close(found.levels[2].values, usual.levels[2].values, atol=0.01, rtol=0)


def test_beside_a_stripped_brain_the_ct_shows_its_own_finely(shared_data: Path) -> None:
    folder = shared_data / "volumes" / "rire_training_001"
    ct = prepare(load(folder / "training_001_ct_on_mr_grid.nii.gz", role="ct"), "CT")
    inside = inside_skull(ct)
    assert inside.body_ml < 0.6 * ct.body_ml
    np.testing.assert_array_equal(skull_cavity(inside), skull_cavity(ct))
    brain, finer = (v.levels[2].values[0, 0].numpy()[skull_cavity(ct)] for v in (ct, inside))
    assert finer.std() > 3 * brain.std()


def test_a_ct_without_a_closed_skull_keeps_its_body() -> None:
    thigh = prepare(body_ct(170, 160, 30), "CT")
    assert inside_skull(thigh) is thigh


def test_a_mirrored_ct_of_a_stripped_brain_is_refused(shared_data: Path) -> None:
    """Their outlines are alike; what is inside of them is not."""
    ct, brain, _ = stripped_rire(shared_data / "volumes" / "rire_training_001", 0.0)
    mirrored = MetaTensor(ct.as_tensor().flip(1), affine=ct.affine)
    mirrored.meta.update({k: v for k, v in ct.meta.items() if k != "affine"})
    found = register(brain, mirrored)
    assert found.verdict == "fail"
    assert any("left and right" in reason for reason in found.reasons)


def test_a_mirrored_stripped_brain_that_fits_as_well_does_not_pass() -> None:
    limit = limits_for(Kind.CT, Kind.MR, stripped=True)["mirrored"]
    assert not limit.passes(1.0)
    assert limit.passes(0.85)  # RIRE, stripped 4 mm tighter than its skull: 0.83
