"""The whole node as a process: from dcmtk's storescu to its storescp, killed on the way."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from network import BUSY_S, STORESCU, draw_study, free_port, listens, wait_until
from pydicom import dcmread

from mmif.batch.ledger import Ledger
from mmif.batch.locks import Claims
from mmif.io.ownership import record_files
from mmif.node import service
from mmif.node.config import NodeConfig
from mmif.node.spool import Spool


class Node:
    """A node that can be killed and started again."""

    def __init__(self, folder: Path, archive_port: int) -> None:
        self.port, self.out = free_port(), folder / "node"
        self.log, self.config = folder / "node.log", folder / "node.yaml"
        settings = {
            "output": str(self.out),
            "accept": ["SCANNER"],
            "send_to": [f"ARCHIVE@127.0.0.1:{archive_port}"],
            "port": self.port,
            "quiet_s": 1,
            "jobs": 1,
            "options": {"report": False},
            "deliver": {"first_pause_s": 0.5},
        }
        self.config.write_text(yaml.safe_dump(settings))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        call = [sys.executable, "-m", "mmif", "node", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(call, stdout=log, stderr=log)
        wait_until(lambda: listens(self.port), "the start of the node")

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=BUSY_S)

    def states(self, ledger: str) -> Counter[str]:
        path = self.out / ledger
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(json.loads(line).get("state") for line in lines if line.endswith("}"))


@pytest.fixture
def node(archive: tuple[int, Path], tmp_path: Path) -> Iterator[Node]:
    """A node that is not started yet, and ended whatever happens."""
    made = Node(tmp_path, archive[0])
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGKILL)


def storescu(port: int, path: Path, title: str = "SCANNER") -> int:
    call = [str(STORESCU), "-aet", title, "-aec", "MMIF", "+sd", "127.0.0.1", str(port), str(path)]
    return subprocess.run(call, check=False, capture_output=True, timeout=BUSY_S).returncode


class Idle:
    """Workers that never get anything."""

    def submit(self, task: object) -> None:
        raise AssertionError("nothing could be planned")

    def next(self, timeout_s: float) -> None:
        return None


class AllDelivered:
    """Archives that have everything."""

    def is_over(self, job_id: str, made: float) -> bool:
        return True


@pytest.mark.parametrize(("error", "told_again"), [(ValueError, False), (OSError, True)])
def test_one_patients_files_keep_no_other_waiting(
    error: type[Exception], told_again: bool, tmp_path: Path, sample_data: Path, monkeypatch, caplog
) -> None:
    def fail(folder: Path, *options: object) -> None:
        raise error("Secret^Name")

    monkeypatch.setattr(service, "plan_patient", fail)
    config = NodeConfig(output=str(tmp_path), accept=("SCANNER",), quiet_s=0.001)
    spool = Spool(tmp_path / "spool")
    folder = spool.root / "patient-1" / "1.2.3"
    folder.mkdir(parents=True)
    shutil.copy(sample_data / "spect.dcm", folder)
    spool.postpone(folder.parent)
    with Claims(tmp_path) as claims:
        node = service.Node(config, spool, Ledger(tmp_path, claims), Idle(), None)
        time.sleep(0.01)
        node.turn()
    assert "patient-1: not looked through" in caplog.text
    assert "Secret" not in caplog.text
    time.sleep(0.01)
    assert bool(spool.complete(0.001)) is told_again


def test_an_old_result_with_somebodys_file_in_it_stays(tmp_path: Path, caplog) -> None:
    peer = "PACS@127.0.0.1:9"
    config = NodeConfig(output=str(tmp_path), accept=("SCANNER",), send_to=(peer,))
    with Claims(tmp_path) as claims:
        ledger = Ledger(tmp_path, claims, clock=lambda: 1.0)
        ledger.begin({})
        for study in ("1.2", "1.3"):
            output = tmp_path / "studies" / study / "ct-mri"
            output.mkdir(parents=True)
            (output / "fused.dcm").write_text("pixels")
            record_files(output, "0")
            ledger.append(f"{study}/ct-mri", "done")
        (output / "my notes.txt").write_text("mine")
        ledger.refresh()
        node = service.Node(config, Spool(tmp_path / "spool"), ledger, Idle(), AllDelivered())
        node.turn()
    assert (output / "my notes.txt").read_text() == "mine"
    assert (output / "fused.dcm").exists()
    assert not (tmp_path / "studies" / "1.2").exists()
    assert "1.3/ct-mri: stays; my notes.txt is not among" in caplog.text


@pytest.mark.skipif(STORESCU is None, reason="storescu of dcmtk is not installed")
def test_studies_arrive_once_or_alike_whatever_kills_the_node(
    archive: tuple[int, Path], node: Node, tmp_path: Path, sample_data: Path
) -> None:
    kept = archive[1]
    study = draw_study(sample_data, tmp_path / "study", "A")
    node.start()
    assert storescu(node.port, sample_data, "STRANGER") != 0
    assert storescu(node.port, study) == 0
    node.end(signal.SIGKILL)  # what came is told to be taken, and not complete
    node.start()
    wait_until(lambda: node.states("ledger.jsonl")["started"], "the begin of the fusion")
    node.end(signal.SIGKILL)  # in the middle of fusing
    node.start()
    wait_until(lambda: list(kept.iterdir()), "the first instance")
    node.end(signal.SIGKILL)  # in the middle of sending
    node.start()
    wait_until(lambda: node.states("sent/ledger.jsonl")["done"], "the delivery")
    assert node.end(signal.SIGTERM) == 0

    found = [dcmread(path) for path in kept.iterdir()]
    by_uid = {ds.SOPInstanceUID: ds for ds in found}
    assert all(by_uid[ds.SOPInstanceUID] == ds for ds in found)  # a copy is the same instance
    assert Counter(ds.Modality for ds in by_uid.values()) == {"MR": 44, "REG": 1}
    uid = dcmread(study / "ct_001.dcm").StudyInstanceUID
    assert {ds.StudyInstanceUID for ds in by_uid.values()} == {uid}
    assert "SECRET" not in node.log.read_text()
    assert "ID-A" not in node.log.read_text()


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, archive: tuple[int, Path]) -> None:
    call = [sys.executable, "-m", "mmif", "node", "--accept", "A", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*call, "--port", str(archive[0])],
        check=False,
        capture_output=True,
        text=True,
        timeout=BUSY_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: *:")
    assert "expected a free port" in done.stderr
