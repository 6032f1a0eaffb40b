"""What a control group leaves a batch of the machine."""

from pathlib import Path

import pytest

from mmif.batch import resources
from mmif.batch.worker import Limits


@pytest.mark.parametrize(("text", "expected"), [("250000 100000", 2), ("50000 100000", 1)])
def test_cores_are_those_that_the_control_group_pays_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setattr(resources, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: range(64))
    assert resources.cores() == 64
    (tmp_path / "cpu.max").write_text("max 100000")
    assert resources.cores() == 64
    (tmp_path / "cpu.max").write_text(text)
    assert resources.cores() == expected


def test_memory_is_what_the_control_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text(str(5 << 30))
    (tmp_path / "memory.current").write_text(str(1 << 30))
    assert resources.free_memory_mib() == 4096
    assert resources.default_jobs() == 1
    assert resources.worker_memory_mib(2) == 1638


def test_what_limits_leave_open_is_the_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 8)
    monkeypatch.setattr(resources, "free_memory_mib", lambda: 10_000)
    assert Limits(60).here(workers=4) == Limits(60, memory_mib=2000, threads=2)
    assert Limits(60, 3000, 1).here(workers=4) == Limits(60, 3000, 1)
