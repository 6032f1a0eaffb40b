"""An archive of dcmtk's to send to; ``network`` becomes importable here."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from network import STORESCP, STORESCU, free_port, listens, wait_until


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
