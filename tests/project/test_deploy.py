"""What lies in ``deploy/`` fits what it deploys."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "mmif-node.service"
CONTAINER = ROOT / "deploy" / "Containerfile"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text()
    assert "ExecStart=/opt/mmif/bin/mmif node /etc/mmif/node.yaml" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/mmif/bin/mmif", "/bin/true"))  # systemd asks for the file
    done = subprocess.run(
        [program, "verify", str(unit)], check=False, capture_output=True, text=True, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert said == []


def test_the_image_copies_all_that_a_wheel_is_built_of() -> None:
    text = CONTAINER.read_text()
    copied = {
        name for line in re.findall(r"^COPY (.+)$", text, flags=re.M) for name in line.split()[:-1]
    }
    assert all((ROOT / name).exists() for name in copied)
    project = (ROOT / "pyproject.toml").read_text()
    included = set(re.findall(r'^"(\w+)" = "mmif/_shipped', project, flags=re.M))
    assert included | {"mmif", "pyproject.toml", "constraints.txt", "README.md"} <= copied
    assert '"mmif", "node"' in text
