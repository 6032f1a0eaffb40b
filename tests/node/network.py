"""Places in the network of this machine, and studies to send there."""

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

# by path: pynetdicom installs programs of the same names
STORESCU, STORESCP, ECHOSCU = (
    shutil.which(name, path="/usr/bin:/usr/local/bin")
    for name in ("storescu", "storescp", "echoscu")
)


BUSY_S = 300.0
"""How long a step may take on a busy machine; at a load of 8 on two cores a node's took 46 s."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + BUSY_S
    while not true():
        assert time.monotonic() < end, f"{what} took longer than {BUSY_S} s"
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def draw_study(sample_data: Path, folder: Path, name: str) -> Path:
    """The sample's CT and SPECT as a patient of their own, in ``folder``."""
    folder.mkdir(parents=True)
    for path in [*sorted((sample_data / "ct").iterdir()), sample_data / "spect.dcm"]:
        ds = dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            ds[keyword].value = generate_uid(entropy_srcs=[name, str(ds[keyword].value)])
        ds.SOPInstanceUID = generate_uid(entropy_srcs=[name, str(ds.SOPInstanceUID)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.PatientID, ds.PatientName = f"ID-{name}", f"SECRET^{name}"
        ds.save_as(folder / path.name)
    return folder
