"""dcmtk's programs and a place to receive."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# by path: pynetdicom installs programs of the same names
STORESCU, STORESCP, ECHOSCU = (
    shutil.which(name, path="/usr/bin:/usr/local/bin")
    for name in ("storescu", "storescp", "echoscu")
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} took longer than {seconds} s"
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    wait_until(lambda: listens(port), 20, "the start of storescp")
    yield port, folder
    process.terminate()
    process.wait(timeout=20)
