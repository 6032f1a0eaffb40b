"""Finding the studies in folder trees of every shape."""

import hashlib
from pathlib import Path

import pytest
from batch_studies import (
    BAD,
    GOOD,
    MAKERS,
    _multi_frame,
    _series,
    make_studies,
    phantom,
    write_nifti,
)
from pydicom.uid import generate_uid

from mmif.batch.plan import make_plan
from mmif.errors import InputError
from mmif.studies.lists import write_list

HEAD = phantom(0, (12, 12, 6))


def found(root: Path) -> tuple[list[str], dict[str, str]]:
    plan = make_plan(root)
    return [job.id for job in plan.jobs], {one.id: one.reason for one in plan.rejected}


@pytest.mark.parametrize("kind", GOOD)
def test_every_format_gives_one_job(tmp_path: Path, kind: str) -> None:
    MAKERS[kind](tmp_path, "x1", HEAD)
    jobs, rejected = found(tmp_path)
    name = {"bids": "sub-x1", "prefix": "flat-x1"}.get(kind, "x1")
    assert jobs == [f"{name}/{'spect' if kind == 'spect' else 'ct'}-mri"]
    assert rejected == {}


def test_the_generated_set_gives_its_jobs_and_its_reasons(tmp_path: Path) -> None:
    make_studies(tmp_path, 8, (12, 12, 6))
    jobs, rejected = found(tmp_path)
    assert len(jobs) == 8 + len(BAD) - 2
    assert rejected == {
        "bad-no-pair": "no pair: found CT, no MRI or SPECT or PET",
        "bad-two-patients": f"{tmp_path}/bad-two-patients: two patients in one folder "
        "(different PatientIDs); expected one",
    }


def test_many_patients_in_one_flat_folder_are_told_apart_without_their_ids(tmp_path: Path) -> None:
    for patient in ("SMITH-1", "JONES-2"):
        study = generate_uid()
        _series(tmp_path / "dump" / patient[-1], "CT", HEAD["ct"], patient, study)
        _series(tmp_path / "dump" / patient[-1], "MR", HEAD["mri"], patient, study)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(
        sorted((tmp_path / "dump").rglob("?R*")) + sorted((tmp_path / "dump").rglob("?T*"))
    ):
        path.rename(flat / f"IM{number}")
    for folder in (tmp_path / "dump").iterdir():
        folder.rmdir()
    (tmp_path / "dump").rmdir()
    jobs, rejected = found(flat)
    assert len(jobs) == 2
    assert all(job.startswith("patient-") for job in jobs)
    assert not any(name in job for name in ("SMITH", "JONES") for job in jobs)
    for patient in ("SMITH-1", "JONES-2"):  # nor by a hash, from which an ID is soon guessed
        key = patient
        for _ in range(2):
            key = hashlib.sha256(key.encode()).hexdigest()
            assert not any(key[:8] in job for job in jobs)
    assert rejected == {}


def test_a_patient_with_three_modalities_in_two_studies_gives_both_fusions(tmp_path: Path) -> None:
    study = generate_uid()
    _series(tmp_path / "a" / "s1", "CT", HEAD["ct"], "p", study)
    _series(tmp_path / "a" / "s1", "MR", HEAD["mri"], "p", study)
    _multi_frame(tmp_path / "a" / "s2" / "nm", HEAD["spect"], "p", generate_uid())
    assert found(tmp_path) == (["a/ct-mri", "a/spect-mri"], {})


def test_dicom_named_for_a_role_is_found_by_its_patient_where_it_lies_alone(tmp_path: Path) -> None:
    _series(tmp_path / "a" / "monday" / "ct", "CT", HEAD["ct"], "p", generate_uid())
    _series(tmp_path / "a" / "tuesday" / "mr", "MR", HEAD["mri"], "p", generate_uid())
    _multi_frame(tmp_path / "a" / "friday" / "nm.dcm", HEAD["spect"], "p", generate_uid())
    _series(tmp_path / "b" / "ct", "CT", HEAD["ct"], "q", generate_uid())
    write_nifti(tmp_path / "c" / "ct.nii.gz", HEAD["ct"])
    assert found(tmp_path) == (
        ["a/ct-mri", "a/spect-mri"],
        dict.fromkeys(("b-ct", "c"), "no pair: found CT, no MRI or SPECT or PET"),
    )


def test_a_pair_named_for_its_roles_gets_the_activity_in_a_folder_of_another_name(
    tmp_path: Path,
) -> None:
    study = generate_uid()
    for name, modality, role in (("CT", "CT", "ct"), ("MR", "MR", "mri"), ("bone", "CT", "ct")):
        _series(tmp_path / "a" / name, modality, HEAD[role], "p", study)
    _multi_frame(tmp_path / "a" / "nuclear" / "IM0", HEAD["spect"], "p", generate_uid())
    jobs, rejected = found(tmp_path)
    assert jobs == ["a/ct-mri", "a/spect-mri"]
    assert list(rejected) == ["a-bone"]  # a second CT is said, not dropped


def test_two_time_points_of_a_patient_are_two_studies(tmp_path: Path) -> None:
    for time_point in ("before", "after"):
        study = generate_uid()
        _series(tmp_path / "a" / time_point, "CT", HEAD["ct"], "p", study)
        _series(tmp_path / "a" / time_point, "MR", HEAD["mri"], "p", study)
    jobs, rejected = found(tmp_path)
    assert [job.rsplit("-", 2)[0] for job in jobs] == ["a-after", "a-before"]
    assert rejected == {}


def test_a_source_that_could_belong_to_two_studies_is_reported(tmp_path: Path) -> None:
    for time_point in ("before", "after"):
        study = generate_uid()
        _series(tmp_path / "a" / time_point, "CT", HEAD["ct"], "p", study)
        _series(tmp_path / "a" / time_point, "MR", HEAD["mri"], "p", study)
    _multi_frame(tmp_path / "a" / "nm", HEAD["spect"], "p", generate_uid())
    jobs, rejected = found(tmp_path)
    assert len(jobs) == 2
    assert len(rejected) == 2
    assert all(
        "2 studies of this patient have what it goes with" in why for why in rejected.values()
    )


def test_two_equal_series_are_reported_and_not_guessed(tmp_path: Path) -> None:
    study = generate_uid()
    for number in (1, 2):
        _series(tmp_path / "a" / f"ct-{number}", "CT", HEAD["ct"], "p", study)
    _series(tmp_path / "a" / "mr", "MR", HEAD["mri"], "p", study)
    jobs, rejected = found(tmp_path)
    assert jobs == []
    assert "2 series fit equally" in rejected["a"]
    assert "choose one with a list that names it: ct=" in rejected["a"]


def test_two_files_of_one_role_are_reported(tmp_path: Path) -> None:
    MAKERS["case"](tmp_path, "a", HEAD)
    write_nifti(tmp_path / "a" / "T1.nii.gz", HEAD["mri"])
    assert found(tmp_path) == (
        [],
        {"a": "several MRI: T1.nii.gz, mri.nii.gz; expected one, or a list that names it"},
    )


def test_folders_sorted_by_modality_hold_a_department_not_a_study(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        study = generate_uid()
        _series(tmp_path / "site" / "CT" / patient, "CT", HEAD["ct"], patient, study)
        _series(tmp_path / "site" / "MR" / patient, "MR", HEAD["mri"], patient, study)
    jobs, rejected = found(tmp_path)
    assert len(jobs) == 2
    assert rejected == {}


def test_bids_takes_the_t1_and_the_plainest_of_a_session(tmp_path: Path) -> None:
    session = tmp_path / "sub-1" / "ses-a"
    for name in ("T1w", "acq-fast_T1w", "FLAIR"):
        write_nifti(session / "anat" / f"sub-1_ses-a_{name}.nii.gz", HEAD["mri"])
    write_nifti(session / "func" / "sub-1_ses-a_task-rest_bold.nii.gz", HEAD["mri"])
    write_nifti(session / "pet" / "sub-1_ses-a_pet.nii.gz", HEAD["spect"])
    write_nifti(tmp_path / "derivatives" / "sub-1_ses-a_ct.nii.gz", HEAD["ct"])
    (tmp_path / "dataset_description.json").write_text("{}")
    plan = make_plan(tmp_path)
    assert [job.id for job in plan.jobs] == ["sub-1_ses-a/pet-mri"]
    assert plan.jobs[0].inputs["mri"].path.name == "sub-1_ses-a_T1w.nii.gz"


def test_bids_sessions_without_a_pair_are_taken_together(tmp_path: Path) -> None:
    write_nifti(tmp_path / "sub-1" / "ses-a" / "anat" / "sub-1_ses-a_T1w.nii.gz", HEAD["mri"])
    write_nifti(tmp_path / "sub-1" / "ses-b" / "ct" / "sub-1_ses-b_ct.nii.gz", HEAD["ct"])
    assert found(tmp_path) == (["sub-1/ct-mri"], {})


def test_volumes_whose_names_say_nothing_are_reported(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a" / "brain.nii.gz", HEAD["mri"])
    jobs, rejected = found(tmp_path)
    assert jobs == []
    assert rejected["a"].startswith("1 volumes whose names say no role (brain.nii.gz ...)")


def test_the_results_of_a_batch_inside_the_tree_are_no_studies(tmp_path: Path) -> None:
    MAKERS["case"](tmp_path, "a", HEAD)
    out = tmp_path / "out"
    MAKERS["case"](out / "studies", "a", HEAD)
    (out / ".claims").touch()
    assert found(tmp_path) == (["a/ct-mri"], {})


def test_a_loop_of_links_and_a_pipe_do_not_stop_the_search(tmp_path: Path) -> None:
    import os

    MAKERS["dicom"](tmp_path, "a", HEAD)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe")
    assert found(tmp_path) == (["a/ct-mri"], {})


def test_an_empty_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(InputError, match="no studies found; expected two of CT, MRI"):
        make_plan(tmp_path)


def test_a_broken_series_says_why_it_is_not_used(tmp_path: Path) -> None:
    MAKERS["dicom"](tmp_path, "a", HEAD)
    for path in sorted((tmp_path / "a").glob("CT*"))[2:4]:
        path.unlink()
    jobs, rejected = found(tmp_path)
    assert jobs == []
    assert "no CT series usable as ct" in rejected["a"]


def test_a_folder_that_cannot_be_looked_into_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    MAKERS["case"](tmp_path, "a", HEAD)
    (tmp_path / "locked").mkdir()
    listed = os.scandir

    def scandir(path: os.PathLike[str]) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    jobs, rejected = found(tmp_path)
    assert jobs == ["a/ct-mri"]
    assert rejected == {"locked": f"{tmp_path}/locked: cannot be looked into (Permission denied)"}


def test_a_list_of_a_tree_compares_every_file_of_a_series(tmp_path: Path) -> None:
    head = phantom(0, (12, 12, 4))
    for role, modality in (("ct", "CT"), ("mri", "MR")):
        _series(tmp_path / "in" / "case" / role, modality, head[role], "P", generate_uid())
    plan = make_plan(tmp_path / "in")
    write_list(plan.studies, tmp_path / "list.csv")
    again = make_plan(tmp_path / "list.csv")
    assert [len(source.files) for source in again.jobs[0].inputs.values()] == [4, 4]
    assert [job.stamp() for job in again.jobs] == [job.stamp() for job in plan.jobs]
    assert [job.content() for job in again.jobs] == [job.content() for job in plan.jobs]
