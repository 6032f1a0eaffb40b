"""Whatever a command is given, it answers in one line, and one bad file stops nothing else."""

import errno
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mmif import cli
from mmif.cli import main

LONG = "x" * 300
ROOT = Path(__file__).parents[2]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def one_line(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("Warning")]
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    "words",
    [
        ("info", LONG),
        ("fuse", "--ct", LONG, "--mri", LONG),
        ("fuse", "--ct", "/dev", "--mri", "/dev", "-o", LONG),
        ("fuse", "--ir", f"{LONG}.png", "--visible", f"{LONG}.png"),
        ("batch", LONG, "-o", "out"),
        ("batch", ".", "-o", LONG),
        ("register", "--fixed", LONG, "--moving", LONG, "-o", "t.tfm"),
        ("evaluate", "--task", "ct-mri", "--data", LONG),
        ("weights", "verify", LONG),
    ],
)
def test_a_name_that_is_too_long_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(run(*words))
    assert list(tmp_path.iterdir()) == []


def volume(path: Path) -> Path:
    image = nibabel.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4))
    image.header.set_sform(np.eye(4), 1)
    nibabel.save(image, path)
    return path


def test_names_that_are_no_text_are_shown_all_the_same(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    odd.mkdir()
    volume(tmp_path / "a.nii").rename(odd / os.fsdecode(b"\xfe.nii"))
    (odd / "b.mha").write_text("ObjectType = Image\n")
    for words in (("info", odd), ("info", odd, "--json")):
        result = run(*words)
        assert result.exit_code == 0, result.output
    one_line(run("info", odd / "none"))
    one_line(run("register", "--fixed", odd / "b.mha", "--moving", odd / "b.mha", "-o", "t.tfm"))


def test_a_folder_that_cannot_be_looked_into_is_named_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    volume(tmp_path / "a.nii")
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = run("info", tmp_path)
    assert result.exit_code == 0, result.output
    assert "nifti volume" in result.output
    assert "closed" in result.output


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
            "out of memory",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/d/x"), "/d/x: No space left"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "/d"), "/d: Permission denied"),
    ],
    ids=["memory", "torch", "disk", "hardware", "permission"],
)
def test_what_the_machine_lacks_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(path: object) -> None:
        raise error

    monkeypatch.setattr("mmif.io.inventory.inventory", fail)
    assert said in one_line(run("info", "x"))


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("mmif.io.inventory.inventory", fail)
    assert isinstance(run("info", "x").exception, RuntimeError)


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmif.io.inventory.inventory", fail)
    assert run("info", "x").exit_code == 130


def test_memory_may_run_out_below_another_error() -> None:
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = MemoryError()
    assert cli._is_memory(wrapped)
    assert not cli._is_memory(RuntimeError("applying transform"))


def test_names_that_others_gave_steer_no_terminal(sample_data: Path, tmp_path: Path) -> None:
    """An escape code in a folder's name, in a card and in a member of a folder."""
    odd = tmp_path / "\x1b[31mred\n"
    shutil.copytree(ROOT / "weights" / "ct-mri", odd)
    (odd / "x\x1b[2J.txt").touch()
    for words in (("weights", "verify", odd), ("info", tmp_path), ("info", odd / "card.json")):
        said = CliRunner().invoke(main, list(map(str, words)), color=True).output
        assert "red" in said
        assert "\x1b" not in said
