"""The walk-through ``docs/hospital.md``, command by command."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from network import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hospital.md"
# dcmtk's programs before those of the same names that pynetdicom installs beside Python
PATH = f"/usr/bin:/usr/sbin:/usr/local/bin:/bin:{Path(sys.executable).parent}"
PROGRAMS = ("Orthanc", "storescu", "echoscu", "curl", "mmif", "bash")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def test_every_command_of_the_walk_through_runs(tmp_path: Path) -> None:
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing or not DICOMWEB.exists():
        pytest.skip(f"not installed: {', '.join([*missing, 'orthanc-dicomweb'])}")
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S))
    for port in ("4242", "8042", "11112"):  # others may listen at those
        commands = re.sub(rf"\b{port}\b", str(free_port()), commands)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    script = tmp_path / "walk.sh"
    # whatever fails, nothing goes on running
    script.write_text(f"trap 'kill $(jobs -p) 2>/dev/null' EXIT\nset -eu\n{commands}")
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    logs = "".join(path.read_text() for path in sorted((tmp_path / "walk").glob("*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    fused = json.loads((tmp_path / "walk" / "fused.json").read_text())
    assert len(fused) == 44
    log = (tmp_path / "walk" / "node.log").read_text()
    assert "took" in log
    assert "SIMULATED" not in log
