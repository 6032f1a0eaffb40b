"""What a real server makes of mmif's outputs: Orthanc, on this machine alone."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.registration import write_spatial_registration
from mmif.io.dicom.write.series import write_dicom_series

Recipe = Callable[..., DerivedSeries]
Volume = Callable[..., MetaTensor]
ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    ORTHANC is None, reason="Orthanc is not installed (Debian: apt-get install orthanc)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running Orthanc."""

    dicom_port: int
    http_port: int

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=20) as page:
            return bytes(page.read())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def store(self, paths: list[Path]) -> list[int]:
        """The C-STORE status of each file, over one association."""
        datasets = [dcmread(path) for path in paths]
        entity = AE(ae_title="MMIFTEST")
        for uid in {ds.SOPClassUID for ds in datasets}:
            entity.add_requested_context(uid, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="ORTHANC")
        assert association.is_established
        statuses = [int(association.send_c_store(ds).Status) for ds in datasets]
        association.release()
        return statuses

    def series_id(self, series_uid: str) -> str:
        """Orthanc's name of the series with SeriesInstanceUID ``series_uid``."""
        names = self.json("/series")
        (found,) = [
            name
            for name in names
            if self.json(f"/series/{name}")["MainDicomTags"]["SeriesInstanceUID"] == series_uid
        ]
        return str(found)

    def fetched(self, series_id: str) -> dict[str, Dataset]:
        """The instances of a series as the server holds them, by SOPInstanceUID."""
        found = {}
        for instance in self.json(f"/series/{series_id}")["Instances"]:
            ds = dcmread(DicomBytesIO(self.get(f"/instances/{instance}/file")))
            found[str(ds.SOPInstanceUID)] = ds
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Orthanc with a storage of its own, heard on the loopback interface only."""
    assert ORTHANC is not None
    folder = tmp_path_factory.mktemp("orthanc")
    made = Server(free_port(), free_port())
    configuration = {
        "Name": "mmif test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": made.http_port,
        "HttpBindAddresses": ["127.0.0.1"],
        "DicomPort": made.dicom_port,
        "DicomBindAddress": "127.0.0.1",
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(made, process, folder / "log")
        yield made
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            server.json("/system")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Orthanc did not answer: {log.read_text(errors='replace')[-2000:]}")


# reference and others, channels, changes to the recipe
KINDS = {
    "grey MR": (("MR", "CT"), 1, {}),
    "grey SC": (("CT", "NM"), 1, {}),
    "colour": (("MR", "NM"), 3, {}),
    "CT": (("MR", "CT"), 1, {"kind": "registered"}),
    "MR": (("CT", "MR"), 1, {"kind": "registered"}),
    "PET": (("MR", "PT"), 1, {"kind": "registered"}),
    "SPECT": (("MR", "NM"), 1, {"kind": "registered"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_is_a_volume_and_comes_back_equal(
    kind: str,
    server: Server,
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    tmp_path: Path,
) -> None:
    modalities, channels, changes = KINDS[kind]
    made = recipe(*map(sources.dicom, modalities), parameters={"test": kind}, **changes)
    write_dicom_series(volume(oblique, channels), tmp_path / "s", made)
    paths = sorted((tmp_path / "s").iterdir())
    assert set(server.store(paths)) == {0}
    written = [dcmread(path) for path in paths]
    series = server.series_id(written[0].SeriesInstanceUID)
    ordered = server.json(f"/series/{series}/ordered-slices")
    assert ordered["Type"] == "Volume"
    assert len(ordered["Slices"]) == len(paths)
    fetched = server.fetched(series)
    assert len(fetched) == len(written)
    for ds in written:
        assert fetched[ds.SOPInstanceUID] == ds


def test_the_server_orders_slices_as_they_lie(
    server: Server, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(sources.dicom("MR")))
    paths = sorted((tmp_path / "s").iterdir())
    server.store(paths[::-1])
    series = server.series_id(dcmread(paths[0]).SeriesInstanceUID)
    ordered = server.json(f"/series/{series}/ordered-slices")["SlicesShort"]
    uids = [
        server.json(f"/instances/{instance}")["MainDicomTags"]["SOPInstanceUID"]
        for instance, *_ in ordered
    ]
    assert uids == [dcmread(path).SOPInstanceUID for path in paths]


def test_a_second_run_replaces_and_does_not_duplicate(
    server: Server, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    made = recipe(sources.dicom("MR"), parameters={"test": "twice"})
    for folder in ("first", "second"):
        write_dicom_series(volume(oblique), tmp_path / folder, made)
        assert set(server.store(sorted((tmp_path / folder).iterdir()))) == {0}
    uid = dcmread(tmp_path / "first" / "0001.dcm").SeriesInstanceUID
    assert len(server.json(f"/series/{server.series_id(uid)}")["Instances"]) == 9


@pytest.mark.parametrize("name", ["registration", "multi-frame"])
def test_single_objects_are_stored_and_come_back_equal(
    name: str,
    server: Server,
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    tmp_path: Path,
) -> None:
    made = recipe(sources.dicom("MR"), sources.dicom("NM"), encoding="multiframe")
    path = tmp_path / "0001.dcm"
    if name == "registration":
        write_spatial_registration(path, made)
    else:
        write_dicom_series(volume(oblique, 3), tmp_path, made)
    assert server.store([path]) == [0]
    ds = dcmread(path)
    assert server.fetched(server.series_id(ds.SeriesInstanceUID)) == {ds.SOPInstanceUID: ds}


def test_an_output_joins_the_study_of_its_reference(
    server: Server, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    """Patient and study keep the reference's identity, so that a PACS shows them together."""
    reference = sources.dicom("MR", StudyInstanceUID="1.2.826.77", PatientName="Süß^Änne")
    write_dicom_series(volume(oblique), tmp_path / "own", recipe(reference))
    registered = recipe(reference, sources.dicom("CT"), kind="registered")
    write_dicom_series(volume(oblique), tmp_path / "other", registered)
    for folder in ("own", "other"):
        server.store(sorted((tmp_path / folder).iterdir()))
    studies = [server.json(f"/studies/{name}") for name in server.json("/studies")]
    (study,) = [s for s in studies if s["MainDicomTags"]["StudyInstanceUID"] == "1.2.826.77"]
    assert len(study["Series"]) == 2
    assert study["PatientMainDicomTags"]["PatientName"] == "Süß^Änne"
