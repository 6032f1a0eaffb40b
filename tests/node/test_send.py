"""`mmif send`: what an archive has afterwards, and what is said of what it refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dicomweb_client.api import DICOMwebClient
from monai.data import MetaTensor
from pydicom import dcmread

import mmif
from mmif.cli import main
from mmif.errors import ConfigError, InputError
from mmif.node.peers import Peer
from mmif.node.send import dicom_instances

# pynetdicom leaves the socket of a refused connection to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A folder with a DICOM series in it and a file that is none."""
    values = np.random.default_rng(1).random((1, 40, 40, 3), dtype=np.float32)
    mmif.save(MetaTensor(values, affine=np.diag([1.0, 1, 3, 1])), tmp_path / "fused" / "series")
    (tmp_path / "fused" / "summary.json").write_text("{}")
    return tmp_path / "fused"


def test_an_archive_has_every_instance_with_the_same_pixels(
    result: Path, archive: tuple[int, Path]
) -> None:
    port, folder = archive
    done = CliRunner().invoke(main, ["send", str(result), "--to", f"ARCHIVE@127.0.0.1:{port}"])
    assert done.exit_code == 0, done.output
    assert "took 3 of 3" in done.output
    sent = {ds.SOPInstanceUID: ds for ds in map(dcmread, (result / "series").iterdir())}
    kept = {ds.SOPInstanceUID: ds for ds in map(dcmread, folder.iterdir())}
    assert sent.keys() == kept.keys()
    for uid, ds in sent.items():
        assert kept[uid].PixelData == ds.PixelData
        assert f"{uid} taken" in done.output


def test_a_dicomweb_service_takes_all_by_stow_rs_and_gives_the_same_bytes_by_wado_rs(
    result: Path, dicomweb: str
) -> None:
    done = CliRunner().invoke(main, ["send", str(result), "--stow", dicomweb])
    assert done.exit_code == 0, done.output
    assert "took 3 of 3" in done.output
    sent = {ds.SOPInstanceUID: ds for ds in map(dcmread, (result / "series").iterdir())}
    study, series = {(ds.StudyInstanceUID, ds.SeriesInstanceUID) for ds in sent.values()}.pop()
    found = DICOMwebClient(url=dicomweb).retrieve_series(study, series)
    assert {ds.SOPInstanceUID for ds in found} == sent.keys()
    for ds in found:
        assert bytes(ds.PixelData) == sent[ds.SOPInstanceUID].PixelData
        assert ds.ImagePositionPatient == sent[ds.SOPInstanceUID].ImagePositionPatient


def test_nobody_there_is_one_line_and_exit_code_1(result: Path) -> None:
    call = ["send", str(result), "--to", "ARCHIVE@127.0.0.1:1", "--retries", "0"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 1
    assert "took 0 of 3" in done.output.splitlines()[-1]
    assert done.output.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    "text", ["PACS", "PACS@host", "@host:104", "PACS@host:0", "PACS@host:99999", "A" * 17 + "@h:1"]
)
def test_a_peer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="AET@HOST:PORT"):
        Peer.parse(text)


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no DICOM")
    done = CliRunner().invoke(main, ["send", str(tmp_path), "--to", "A@127.0.0.1:1"])
    assert (done.exit_code, "no DICOM files" in done.output) == (1, True)


@pytest.mark.parametrize("more", [[], ["--to", "A@h:1", "--stow", "http://h"]])
def test_just_one_way_to_send_is_expected(more: list[str], tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["send", str(tmp_path), *more]).exit_code == 2


def test_what_would_never_end_or_may_not_be_read_is_not_waited_for(result: Path) -> None:
    os.mkfifo(result / "pipe.dcm")
    (result / "zero.dcm").symlink_to("/dev/zero")
    assert len(dicom_instances(result)) == 3
    os.mkfifo(result.parent / "pipe")
    for path in (result.parent / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            dicom_instances(path)
    if os.geteuid():
        next((result / "series").iterdir()).chmod(0)
        with pytest.raises(InputError, match="Permission denied"):
            dicom_instances(result)


def test_a_password_in_a_url_is_never_said(result: Path) -> None:
    for url in (
        "http://me:secret@127.0.0.1:9/dicom",
        "ftp://me:secret@archive",
        "http://me:secret@",
    ):
        done = CliRunner().invoke(main, ["send", str(result), "--stow", url, "--retries", "0"])
        assert done.exit_code == 1, done.output
        assert "Error: " in done.output
        assert "secret" not in done.output
