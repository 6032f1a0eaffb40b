from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mmif import registration
from mmif.batch.plan import make_plan
from mmif.config import GridConfig, load_pipeline
from mmif.errors import InputError, RegistrationError
from mmif.images import join_grey
from mmif.io import load
from mmif.studies.lists import write_list
from mmif.training.slicing import StudySlicer
from mmif.training.studies import find_training_pairs, training_studies
from mmif.weights import load_weights

PIPELINE = replace(load_pipeline("ct-mri"), grid=GridConfig(size=32))
ROLES = ("mri", "ct")
NAMES = {"mri": "head_T1.nii.gz", "ct": "head_ct.nii.gz"}


def write_head(path: Path, air: float, tissue: float, bone: float) -> None:
    """A ball of 24 voxels of 4 mm: a shell of bone around tissue, in air."""
    distance = np.linalg.norm(np.mgrid[-12:12, -12:12, -6:6] + 0.5, axis=0)
    head = np.where(distance < 10, bone, air)
    inside = distance < 8
    head[inside] = tissue + np.arange(inside.sum()) % 50
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(head.astype(np.float32), np.diag([4.0, 4, 4, 1])), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        write_head(tmp_path / "data" / name / "head_ct.nii.gz", -1000, 40, 1000)
        write_head(tmp_path / "data" / name / "head_T1.nii.gz", 0, 500, 100)
    return tmp_path / "data"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Registration by the headers, counted."""
    calls: list[int] = []

    def register(fixed, moving, config, **_):
        calls.append(1)
        return registration.trust_headers(fixed, moving)

    monkeypatch.setattr("mmif.transforms.register.register", register)
    return calls


def test_studies_are_found_by_the_names_of_their_files(folder: Path) -> None:
    one, two = training_studies(ROLES, folder)
    assert (one.name, two.name) == ("one-head", "two-head")
    assert one.inputs["ct"].path.name == "head_ct.nii.gz"
    assert one.inputs["mri"].path.name == "head_T1.nii.gz"


def test_training_and_batch_find_the_same_studies(folder: Path) -> None:
    found = {study.name for study in training_studies(ROLES, folder)}
    assert found == {job.id.partition("/")[0] for job in make_plan(folder, ["ct-mri"]).jobs}


def test_a_list_of_studies_is_trained_on(folder: Path) -> None:
    write_list(training_studies(ROLES, folder), folder.parent / "list.csv")
    found = training_studies(ROLES, folder.parent / "list.csv")
    assert [study.name for study in found] == ["one-head", "two-head"]


def test_the_t1_is_taken_before_a_t2(folder: Path) -> None:
    (folder / "one" / "head_T2.nii.gz").touch()
    assert training_studies(ROLES, folder)[0].inputs["mri"].path.name == "head_T1.nii.gz"


def test_a_study_with_two_candidates_is_left_out_with_its_reason(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "one" / "head_mr.nii.gz").touch()
    assert [study.name for study in training_studies(ROLES, folder)] == ["two-head"]
    assert "study one-head is left out: several MRI: head_T1.nii.gz, head_mr" in caplog.text


def test_a_study_that_lacks_a_role_is_left_out_with_its_reason(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "one" / "head_T1.nii.gz").unlink()
    assert [study.name for study in training_studies(ROLES, folder)] == ["two-head"]
    assert "study one-head is left out: no MRI" in caplog.text


def test_what_must_be_said_of_a_study_is_said_from_the_cache_too(
    folder: Path, registered: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()
        find_training_pairs(PIPELINE, folder, folder.parent / "cache")
        assert "study one-head: not registered: the headers were trusted" in caplog.text
    assert len(registered) == 2


def test_slices_of_a_study_are_pairs_of_its_case_and_are_kept(
    folder: Path, registered: list[int]
) -> None:
    pairs = find_training_pairs(PIPELINE, folder, folder.parent / "cache")
    assert {pair.case for pair in pairs} == {"one-head", "two-head"}
    middle = pairs[len(pairs) // 4]
    assert middle.anatomical.shape == middle.other.shape == (32, 32)
    assert middle.other.max() == 255
    assert middle.anatomical[0, 0] == middle.other[0, 0] == 0
    again = find_training_pairs(PIPELINE, folder, folder.parent / "cache")
    assert len(again) == len(pairs)
    assert len(registered) == 2


def test_slices_of_three_sources_are_the_pairs_of_their_second_pass(
    folder: Path, registered: list[int]
) -> None:
    for name in ("one", "two"):
        write_head(folder / name / "head_spect.nii.gz", 0, 300, 0)
    three = replace(load_pipeline("ct-mri-spect"), grid=GridConfig(size=32))
    pairs = find_training_pairs(three, folder, folder.parent / "three")
    grey = find_training_pairs(PIPELINE, folder, folder.parent / "cache")
    stacks = (np.stack([getattr(pair, side) for pair in grey]) for side in ("anatomical", "other"))
    joined = join_grey(load_weights("ct-mri").network, *stacks)
    np.testing.assert_array_equal(np.stack([pair.anatomical for pair in pairs]), joined)
    assert pairs[len(pairs) // 4].other[16, 16] > 100
    assert {pair.case for pair in pairs} == {"one-head", "two-head"}


def test_a_study_that_cannot_be_registered_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RegistrationError("no overlap")

    monkeypatch.setattr("mmif.transforms.register.register", refuse)
    with pytest.raises(InputError, match="none of 2 studies"):
        find_training_pairs(PIPELINE, folder, folder.parent / "cache")
    assert "study one-head is left out" in caplog.text
    assert "no overlap" in caplog.text


def test_a_folder_of_neither_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folders CT and MRI"):
        find_training_pairs(PIPELINE, tmp_path, tmp_path / "cache")


def test_two_patients_are_refused_as_fuse_refuses_them(folder: Path) -> None:
    inputs = {role: load(folder / "one" / name, role=role) for role, name in NAMES.items()}
    for role, volume in inputs.items():
        volume.meta["source"] = replace(volume.meta["source"], patient_key=role)
    with pytest.raises(InputError, match="two different PatientIDs"):
        StudySlicer(PIPELINE)({"inputs": inputs})
