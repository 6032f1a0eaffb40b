"""The spool: what has come is kept, complete after a quiet time, and never lost."""

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from mmif.errors import InputError
from mmif.node.service import plan_patient
from mmif.node.spool import Spool, read_identifiers


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def keep(spool: Spool, path: Path, **changed: str) -> None:
    """``path`` as if it had just been received, with some of its elements ``changed``."""
    ds = dcmread(path)
    for keyword, value in changed.items():
        setattr(ds, keyword, value)
    received = spool.receiving / "transfer"
    ds.save_as(received)
    spool.keep(received, read_identifiers(received))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", Clock())


def test_a_patient_is_complete_once_after_the_quiet_time(spool: Spool, sample_data: Path) -> None:
    clock = spool._clock
    keep(spool, sample_data / "ct/ct_001.dcm")
    clock.now += 50
    keep(spool, sample_data / "spect.dcm")
    clock.now += 59
    assert spool.complete(60) == []
    clock.now += 1
    (folder,) = spool.complete(60)
    assert spool.complete(60) == []
    assert len(list(folder.rglob("*.dcm"))) == 2  # two studies of one PatientID
    keep(spool, sample_data / "ct/ct_002.dcm")
    clock.now += 60
    assert spool.complete(60) == [folder]


def test_no_name_in_the_spool_tells_the_patient(spool: Spool, sample_data: Path) -> None:
    keep(spool, sample_data / "spect.dcm", PatientID="4711", PatientName="Doe^Jane")
    names = " ".join(str(path) for path in spool.root.rglob("*"))
    assert "4711" not in names
    assert "Doe" not in names
    other = Spool(spool.root.parent / "other")
    keep(other, sample_data / "spect.dcm", PatientID="4711")
    assert {p.name for p in other.root.iterdir()} != {p.name for p in spool.root.iterdir()}


def test_the_spool_is_its_owners_alone(spool: Spool) -> None:
    assert spool.root.stat().st_mode & 0o077 == 0


def test_a_new_spool_takes_up_what_an_earlier_one_has_kept(spool: Spool, sample_data: Path) -> None:
    keep(spool, sample_data / "spect.dcm")
    (spool.receiving / "torn").write_bytes(b"half an ima")
    clock = Clock()
    again = Spool(spool.root, clock)
    assert list(again.receiving.iterdir()) == []
    assert again.complete(60) == []  # the sender may go on
    clock.now += 60
    (folder,) = again.complete(60)
    keep(again, sample_data / "ct/ct_001.dcm")
    assert len(list(folder.rglob("*.dcm"))) == 2  # the same patient, the same folder


def test_an_instance_that_comes_again_replaces_itself(spool: Spool, sample_data: Path) -> None:
    keep(spool, sample_data / "spect.dcm")
    keep(spool, sample_data / "spect.dcm")
    assert len(list(spool.root.rglob("*.dcm"))) == 1


def test_a_patient_that_is_postponed_is_told_again(spool: Spool, sample_data: Path) -> None:
    keep(spool, sample_data / "spect.dcm")
    spool._clock.now += 60
    (folder,) = spool.complete(60)
    spool.postpone(folder)
    assert spool.complete(60) == []
    spool._clock.now += 60
    assert spool.complete(60) == [folder]


def test_old_patients_are_removed_unless_they_are_coming(spool: Spool, sample_data: Path) -> None:
    keep(spool, sample_data / "spect.dcm")
    assert spool.remove_old(before=1e12) == 0
    spool._clock.now += 60
    (folder,) = spool.complete(60)
    (spool.root / "notes.txt").write_text("mine")
    (spool.root / "patient of mine").mkdir()
    (spool.root / f"patient-{'0' * 16}").symlink_to(spool.root / "patient of mine")
    assert spool.remove_old(before=0) == 0
    assert spool.remove_old(before=1e12) == 1
    assert not folder.exists()
    assert (spool.root / "notes.txt").exists()  # somebody's own
    assert (spool.root / "patient of mine").exists()


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2.", "1" * 65])
def test_an_image_without_valid_uids_is_refused(
    uid: str, sample_data: Path, tmp_path: Path
) -> None:
    ds = dcmread(sample_data / "spect.dcm")
    ds["SeriesInstanceUID"]._value = uid
    ds.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="SeriesInstanceUID"):
        read_identifiers(tmp_path / "a.dcm")


def test_a_study_is_called_by_its_uid_whatever_else_comes(
    tmp_path: Path, sample_data: Path
) -> None:
    shutil.copytree(sample_data / "ct", tmp_path / "1.2.3")
    uid = dcmread(sample_data / "ct/ct_001.dcm").StudyInstanceUID
    lonely = plan_patient(tmp_path, ())
    assert lonely.jobs == ()
    assert "found CT, no MRI or SPECT or PET" in lonely.rejected[0].reason
    (tmp_path / "1.2.4").mkdir()
    shutil.copy(sample_data / "spect.dcm", tmp_path / "1.2.4" / "1.2.5.dcm")
    assert [job.id for job in plan_patient(tmp_path, ()).jobs] == [f"{uid}/spect-ct"]
