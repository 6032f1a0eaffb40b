"""An archive of dcmtk's to send to; ``network`` becomes importable here."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from network import BUSY_S, STORESCP, STORESCU, free_port, listens, wait_until

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """dcmtk's storescp as the archive ARCHIVE: its port, and the folder of what it took."""
    if STORESCP is None or STORESCU is None:
        pytest.skip("storescu and storescp of dcmtk are not installed")
    port, folder = free_port(), tmp_path / "archive"
    folder.mkdir()
    process = subprocess.Popen(
        [STORESCP, "--fork", "-aet", "ARCHIVE", "-od", str(folder), "+uf", "+xa", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: listens(port), "the start of storescp")
    yield port, folder
    process.terminate()
    process.wait(timeout=BUSY_S)


@pytest.fixture
def dicomweb(tmp_path: Path) -> Iterator[str]:
    """Orthanc with its DICOMweb plug-in, on loopback alone: the address of its services."""
    if ORTHANC is None or not DICOMWEB_PLUGIN.exists():
        pytest.skip("Orthanc or its DICOMweb plug-in is not installed (orthanc-dicomweb)")
    folder, port = tmp_path / "orthanc", free_port()
    folder.mkdir()
    settings = {
        "Name": "mmif test",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "HttpPort": port,
        "DicomPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        call = [ORTHANC, str(folder / "orthanc.json")]
        process = subprocess.Popen(call, stdout=log, stderr=subprocess.STDOUT)
    wait_until(lambda: listens(port), "the start of Orthanc")
    yield f"http://127.0.0.1:{port}/dicom-web"
    process.terminate()
    process.wait(timeout=BUSY_S)
