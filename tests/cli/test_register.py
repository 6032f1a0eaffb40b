"""``mmif register`` asks what ``mmif fuse`` asks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread

from mmif.cli import main
from mmif.registration import Registration, trust_headers


def run(fixed: Path, moving: Path, out: Path, *more: str) -> Result:
    words = ["--fixed", str(fixed), "--moving", str(moving), "-o", str(out), *more]
    return CliRunner().invoke(main, ["register", *words])


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Decides what every search comes to, in no time."""

    def decide(said: str) -> None:
        def found(fixed, moving, config, **_) -> Registration:  # type: ignore[no-untyped-def]
            result = trust_headers(fixed, moving, config)
            return replace(result, verdict=said, reasons=("the reason",))

        monkeypatch.setattr("mmif.transforms.register.register", found)

    return decide


@pytest.fixture
def other_patient(sample_data: Path, tmp_path: Path) -> Path:
    """The sample's SPECT, of somebody else."""
    ds = dcmread(sample_data / "spect.dcm")
    ds.PatientID = "somebody else"
    ds.save_as(tmp_path / "spect.dcm")
    return tmp_path / "spect.dcm"


def test_two_patients_are_refused_unless_accepted(
    sample_data: Path, other_patient: Path, tmp_path: Path, verdict: Callable[[str], None]
) -> None:
    verdict("pass")
    out = tmp_path / "t.tfm"
    done = run(sample_data / "ct", other_patient, out)
    assert done.exit_code == 1
    assert "two different PatientIDs; expected one patient" in done.output
    assert not out.exists()
    done = run(sample_data / "ct", other_patient, out, "--accept-different-patients")
    assert done.exit_code == 0
    assert "Warning: the inputs carry different PatientIDs" in done.output
    assert out.is_file()


def test_a_registration_to_review_is_said(
    sample_data: Path, tmp_path: Path, verdict: Callable[[str], None]
) -> None:
    verdict("review")
    done = run(sample_data / "ct", sample_data / "mri.nii.gz", tmp_path / "t.tfm")
    assert done.exit_code == 0
    assert "Warning: registration to be reviewed: the reason" in done.output


def test_a_registration_that_failed_names_both_and_is_written_only_when_accepted(
    sample_data: Path, tmp_path: Path, verdict: Callable[[str], None]
) -> None:
    verdict("fail")
    out = tmp_path / "t.tfm"
    done = run(sample_data / "ct", sample_data / "mri.nii.gz", out)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {sample_data / 'ct'} and ")
    assert "mri.nii.gz: the registration failed (the reason)" in done.output
    assert not out.exists()
    done = run(sample_data / "ct", sample_data / "mri.nii.gz", out, "--accept-registration")
    assert done.exit_code == 0
    assert out.is_file()


def test_what_the_readers_notice_is_shown(
    sample_data: Path, tmp_path: Path, verdict: Callable[[str], None]
) -> None:
    verdict("pass")
    volume = nibabel.load(sample_data / "mri.nii.gz")
    values = np.asarray(volume.dataobj, dtype=np.float32)
    values[:2] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, volume.affine), tmp_path / "nan.nii.gz")
    done = run(sample_data / "ct", tmp_path / "nan.nii.gz", tmp_path / "t.tfm")
    assert done.exit_code == 0
    assert "Warning: moving: " in done.output
    assert "NaN" in done.output
