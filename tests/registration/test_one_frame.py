"""Volumes of one frame of reference: the headers stand, and a clearly better pose is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from mmif.errors import RegistrationError
from mmif.geometry import FLIP_XY, apply, rigid
from mmif.io import load
from mmif.io.source import Source
from mmif.registration import check_headers
from mmif.registration.one_frame import CHECKED_MM, checked_mm
from mmif.registration.prepare import prepare
from mmif.result import STUDY_KEY
from mmif.transforms import register as step
from mmif.transforms.register import RegisterToReferenced

FRAME = "1.2.3"


def placed(volume: MetaTensor, pose_ras: np.ndarray, frame: str = FRAME) -> MetaTensor:
    """``volume`` moved by ``pose_ras``, said to lie in ``frame``."""
    affine = torch.as_tensor(pose_ras @ volume.affine.numpy())
    moved = MetaTensor(volume.as_tensor(), affine=affine)
    modality = volume.meta["source"].modality
    moved.meta["source"] = Source(
        "made", "dicom", modality, (1, 1, 1), (1, 1, 1), frame_of_reference_uid=frame
    )
    return moved


def shift(x: float, y: float, z: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


@pytest.fixture(scope="module")
def ct(sample_data: Path) -> MetaTensor:
    return placed(load(sample_data / "ct", role="ct"), np.eye(4))


@pytest.fixture(scope="module")
def spect(sample_data: Path) -> MetaTensor:
    """The sample's SPECT where its truth puts it in the frame of the CT."""
    truth = json.loads((sample_data / "truth.json").read_text())
    to_ct, to_spect = (FLIP_XY @ np.array(truth[f"mri_to_{r}"]) @ FLIP_XY for r in ("ct", "spect"))
    return placed(load(sample_data / "spect.dcm", role="spect"), to_ct @ np.linalg.inv(to_spect))


def test_true_headers_pass_and_are_kept(ct: MetaTensor, spect: MetaTensor) -> None:
    found = check_headers(ct, spect)
    np.testing.assert_array_equal(found.fixed_to_moving_lps, np.eye(4))
    assert found.verdict == "pass", found.reasons
    assert found.alignment == "headers"
    assert found.error_estimate_mm is not None
    assert found.error_estimate_mm < 3.0
    assert found.error_farthest_mm is not None
    assert found.error_farthest_mm >= found.error_estimate_mm


@pytest.mark.parametrize("moved_mm", [(12, 0, 0), (0, -7, 10), (0, 0, 6)])
def test_a_patient_who_moved_is_said_with_both_figures(
    ct: MetaTensor, spect: MetaTensor, moved_mm: tuple[float, float, float]
) -> None:
    found = check_headers(ct, placed(spect, shift(*moved_mm)))
    np.testing.assert_array_equal(found.fixed_to_moving_lps, np.eye(4))
    assert found.verdict == "review"
    checks = {check.name: check.value for check in found.checks}
    assert checks["headers_mm"] == pytest.approx(np.linalg.norm(moved_mm), abs=1.5)
    (reason,) = found.reasons
    assert f"{checks['headers_mm']:.1f} mm away" in reason
    assert "that of the headers" in reason


def test_the_step_checks_one_frame_and_searches_two(
    ct: MetaTensor, spect: MetaTensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    checked = check_headers(ct, spect)
    monkeypatch.setattr(step, "check_headers", lambda *_: asked.append("headers") or checked)
    monkeypatch.setattr(step, "register", lambda *_, **__: asked.append("search") or checked)
    other = placed(spect, np.eye(4), "4.5.6")
    for moving, register in ((spect, None), (other, None), (spect, True)):
        bring = RegisterToReferenced(["ct", "spect"], "ct", register=register)
        record = bring({"ct": ct, "spect": moving})[STUDY_KEY]
        assert record.registrations["spect"] is checked
    assert asked == ["headers", "search", "search"]


def test_slabs_of_one_frame_that_do_not_overlap_are_refused(
    ct: MetaTensor, spect: MetaTensor
) -> None:
    apart = placed(spect, shift(0, 0, 400))
    with pytest.raises(RegistrationError, match="hardly overlap"):
        check_headers(ct, apart)


def chest(uptake: bool, shape: tuple[int, int, int], step_mm: tuple[float, float, float]):
    """A chest with lungs, liver, spine, arms and, of the CT, its table, in the frame `FRAME`."""
    i, j, k = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, step_mm, strict=True))
    x, y, z = np.meshgrid(i, j, k, indexing="ij")
    values = np.full(shape, 0.0 if uptake else -1000.0)
    parts = [((0, 0), (170, 115), 40, 1.0)]
    parts += [((s * 205, 20), (32, 32), 50, 1.0) for s in (-1, 1)]
    parts += [((s * 85, 0), (60, 75), -850, 0.4) for s in (-1, 1)]
    parts += [((0, 75), (24, 22), 600, 1.2), ((25, -30), (45, 40), 45, 30.0)]
    for (a, b), (wide, deep), hu, activity in parts:
        inside = ((x - a) / wide) ** 2 + ((y - b) / deep) ** 2 < 1
        values[inside] = activity if uptake else hu
    liver = ((x - 70) / 75) ** 2 + (y / 70) ** 2 + ((z + 90) / 60) ** 2 < 1
    values[liver] = 3.0 if uptake else 60
    values[(np.abs(y + 150) < 8) & (not uptake)] = -100
    noise = np.random.default_rng(0).normal(0, 0.1 if uptake else 12, shape)
    affine = np.diag([*step_mm, 1.0])
    affine[:3, 3] = [c[0] for c in (i, j, k)]
    made = MetaTensor(torch.from_numpy((values + noise).astype(np.float32))[None], affine=affine)
    made.meta["source"] = Source(
        "made",
        "dicom",
        "PT" if uptake else "CT",
        (1, 1, 1),
        (1, 1, 1),
        frame_of_reference_uid=FRAME,
    )
    return made


def test_a_chest_of_pet_and_ct_passes_and_12_mm_are_found_in_any_direction() -> None:
    """The activity's own outline is the heart and the liver alone: the rest was not looked at."""
    ct = chest(False, (128, 90, 60), (4.0, 4.0, 5.0))
    pet = chest(True, (120, 90, 70), (4.0, 4.0, 4.0))
    assert prepare(pet, "PET", whole=True).body_ml < 0.7 * prepare(ct, "CT", whole=True).body_ml
    assert check_headers(ct, pet).verdict == "pass"
    for way in (shift(12, 0, 0), shift(0, -12, 0), shift(0, 0, 12)):
        found = check_headers(ct, placed(pet, way))
        assert found.verdict == "review"
        assert found.checks[0].value == pytest.approx(12, abs=2)
    turned = check_headers(placed(pet, shift(12, 0, 0)), ct)  # the activity as the reference
    assert turned.checks[0].value == pytest.approx(12, abs=2)


def hounsfield(cormack: np.ndarray) -> np.ndarray:
    """HU of the clinical toolbox's units: -100 to 100 HU take 900 to 3100 of them."""
    soft = (cormack - 900) / 11 - 100
    return np.where(cormack < 900, cormack - 1000, np.where(cormack < 3100, soft, cormack - 3000))


@pytest.fixture(scope="module")
def given_ct(shared_data: Path) -> MetaTensor:
    """The CT of MNI space."""
    template = load(shared_data / "volumes" / "clinical_ct_template" / "scct.nii", role="ct")
    units = torch.from_numpy(hounsfield(template.numpy()).astype(np.float32))
    return made_of(units, template, "CT")


@pytest.fixture(scope="module")
def given_pet(shared_data: Path) -> MetaTensor:
    """The PET of MNI space, of other people than the CT: their mean heads lie 3 mm apart."""
    template = load(shared_data / "volumes" / "spm12_templates" / "PET.nii", role="pet")
    return made_of(template.as_tensor(), template, "PT")


def made_of(values: torch.Tensor, like: MetaTensor, modality: str) -> MetaTensor:
    """``values`` where ``like`` lies, in the frame `FRAME`."""
    volume = MetaTensor(values, affine=like.affine)
    volume.meta["source"] = Source(
        "made", "dicom", modality, (1, 1, 1), (1, 1, 1), frame_of_reference_uid=FRAME
    )
    return volume


def test_the_given_pet_and_ct_pass(given_ct: MetaTensor, given_pet: MetaTensor) -> None:
    found = check_headers(given_ct, given_pet)
    assert found.verdict == "pass", found.reasons


@pytest.mark.parametrize("moved_mm", [(12, 0, 0), (0, -12, 0), (0, 0, 12), (-7, 7, -7)])
def test_the_given_pet_12_mm_off_is_to_be_reviewed(
    given_ct: MetaTensor, given_pet: MetaTensor, moved_mm: tuple[float, float, float]
) -> None:
    found = check_headers(given_ct, placed(given_pet, shift(*moved_mm)))
    assert found.verdict == "review"
    assert found.checks[0].value == pytest.approx(12, abs=4)


def test_pixels_that_lie_elsewhere_are_seen_as_a_header_that_does(
    given_ct: MetaTensor, given_pet: MetaTensor
) -> None:
    """6 voxels of 2 mm; and a turn of 10 degrees about the middle."""
    rolled = made_of(given_pet.as_tensor().roll(6, dims=2), given_pet, "PT")
    middle = apply(given_pet.affine.numpy(), (np.array(given_pet.shape[1:]) - 1) / 2)
    turn = rigid(Rotation.from_euler("y", 10, degrees=True).as_matrix(), np.zeros(3), middle)
    for moved in (rolled, placed(given_pet, turn)):
        found = check_headers(given_ct, moved)
        assert found.verdict == "review"
        assert found.checks[0].value == pytest.approx(11, abs=4)


def test_a_ct_without_its_intercept_is_still_checked(
    given_ct: MetaTensor, given_pet: MetaTensor
) -> None:
    """Air at 0 and no value below: all of the field of view would be body."""
    raw = made_of(given_ct.as_tensor() + 1000, given_ct, "CT")
    assert prepare(raw, "CT").body.mean() < 0.6
    assert check_headers(raw, given_pet).verdict == "pass"
    assert check_headers(raw, placed(given_pet, shift(12, 0, 0))).verdict == "review"


def test_left_and_right_exchanged_are_said(ct: MetaTensor, spect: MetaTensor) -> None:
    middle = apply(spect.affine.numpy(), (np.array(spect.shape[1:]) - 1) / 2)
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * middle[0]
    assert check_headers(ct, placed(spect, mirror)).verdict == "review"


def test_a_whole_body_is_checked_coarser_than_a_head(ct: MetaTensor) -> None:
    body = MetaTensor(torch.zeros(1, 1, 1, 1).expand(1, 512, 512, 1000), affine=np.eye(4))
    assert checked_mm(ct) == CHECKED_MM
    assert checked_mm(body) == pytest.approx(4.03, abs=0.01)
