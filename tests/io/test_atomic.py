"""Outputs appear together or not at all, whatever interrupts."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmif.errors import OutputError
from mmif.io import atomic
from mmif.io.atomic import commit, commit_together, staging_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["renameat2", "without"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system that lets two names change places at once, and one that does not."""
    if request.param == "without":

        def rename(source: Path, target: Path, flag: int) -> None:
            if flag == atomic.RENAME_EXCHANGE:
                raise OSError(errno.EINVAL, "not here")
            source.rename(target)

        monkeypatch.setattr(atomic, "_rename", rename)
    return str(request.param)


def test_files_and_folders_replace_what_stood_there(tmp_path: Path, system: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    (tmp_path / "f.txt").write_text("old")
    with staging_folder(tmp_path / "out") as folder:
        (folder / "new").mkdir()
        (folder / "new" / "1").touch()
        (folder / "text").write_text("new")
        places = [(folder / "new", tmp_path / "out"), (folder / "text", tmp_path / "f.txt")]
        commit_together(places)
    assert names(tmp_path) == ["f.txt", "out"]
    assert names(tmp_path / "out") == ["1"]
    assert (tmp_path / "f.txt").read_text() == "new"


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_if_a_rename_fails_all_the_old_results_are_there(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A folder, a file and a new file: whichever rename is refused, by an error or Ctrl-C."""
    out, record, new = tmp_path / "out", tmp_path / "f.json", tmp_path / "new.txt"
    out.mkdir()
    (out / "old").touch()
    record.write_text("old")
    rename, calls = atomic._rename, []

    def refuse(source: Path, target: Path, flag: int) -> None:
        calls.append(target)
        if len(calls) == at + 1 and at < 3:
            raise OSError(errno.EIO, "refused") if at % 2 else KeyboardInterrupt
        rename(source, target, flag)
        if at == 3 and len(calls) == 3:
            raise KeyboardInterrupt  # behind the last rename

    monkeypatch.setattr(atomic, "_rename", refuse)
    with pytest.raises((OutputError, KeyboardInterrupt)), staging_folder(out) as folder:  # noqa: PT012
        (folder / "a").mkdir()
        (folder / "b").write_text("new")
        (folder / "c").write_text("new")
        commit_together([(folder / "a", out), (folder / "b", record), (folder / "c", new)])
    assert (names(out), record.read_text()) == (["old"], "old")
    assert names(tmp_path) == ["f.json", "out"]


def test_what_came_first_is_not_replaced(tmp_path: Path) -> None:
    """Two runs on one new output: the second finds it there although it checked before."""
    out = tmp_path / "out"
    with staging_folder(out) as folder:
        (folder / "a").write_text("mine")
        real = atomic.os.path.lexists
        out.write_text("theirs")
        atomic.os.path.lexists = lambda path: False if path == out else real(path)
        try:
            with pytest.raises(OSError, match="exists"):
                commit(folder / "a", out)
        finally:
            atomic.os.path.lexists = real
    assert out.read_text() == "theirs"


def test_a_name_of_255_bytes_has_room_for_its_temporary_folder(tmp_path: Path) -> None:
    out = tmp_path / ("ä" * 127)
    with staging_folder(out) as folder:
        (folder / "a").touch()
        commit(folder / "a", out)
    assert names(tmp_path) == [out.name]


def test_a_running_process_keeps_its_temporary_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staging_folder(out) as first, staging_folder(out) as second:
        assert first.exists()
        assert second.exists()
    assert names(tmp_path) == []


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    """And an old result that was just about to be replaced comes back."""
    code = (
        "import sys, time; from pathlib import Path; from mmif.io.atomic import staging_folder\n"
        "with staging_folder(Path(sys.argv[1])) as f:\n"
        "    (f / '.replaced').mkdir(); (f / '.replaced' / 'out').write_text('old')\n"
        "    print(f, flush=True); time.sleep(60)"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        killed.kill()
    assert left.exists()
    (tmp_path / ".out.notes").mkdir()  # of somebody else
    with staging_folder(out):
        assert not left.exists()
        assert out.read_text() == "old"
    assert names(tmp_path) == [".out.notes", "out"]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("touched", [False, True])
def test_a_kill_between_renames_that_belong_together_is_put_right(
    tmp_path: Path, at: int, touched: bool
) -> None:
    """A volume and its record: the next run finds both old or both new, and no user's file gone."""
    volume, record = tmp_path / "x.nii.gz", tmp_path / "x.json"
    volume.write_text("old voxels")
    record.write_text("old record")
    code = (
        "import os, sys; from pathlib import Path; from mmif.io import atomic\n"
        "rename, calls, out = atomic._rename, [], Path(sys.argv[1])\n"
        "def killed(*args):\n"
        "    os.kill(os.getpid(), 9) if len(calls) == int(sys.argv[2]) else calls.append(1)\n"
        "    rename(*args)\n"
        "atomic._rename = killed\n"
        "with atomic.staging_folder(out) as f:\n"
        "    (f / 'a').write_text('new voxels'); (f / 'b').write_text('new record')\n"
        "    places = [(f / 'a', out), (f / 'b', out.with_name('x.json'))]\n"
        "    atomic.commit_together(places); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(volume), str(at)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if touched:  # by the user, since
        record.unlink()
        record.write_text("mine")
    atomic.tidy(volume)
    assert names(tmp_path) == ["x.json", "x.nii.gz"]
    word = "old" if at == 0 else "new"
    assert volume.read_text() == f"{word} voxels"
    assert record.read_text() == ("mine" if touched else f"{word} record")


def test_a_note_of_renames_that_are_not_of_staged_files_is_left_alone(tmp_path: Path) -> None:
    """As an archive that somebody else packed could hold one."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.write_text("mine")
    other.write_text("other")
    known = {path: f"{path.stat().st_ino} {path.stat().st_mtime_ns}" for path in (mine, other)}
    left = tmp_path / ".x.nii.gz.abcdefgh"
    left.mkdir()
    lines = [[str(left / "a"), known[mine], str(mine), ""], [str(other), known[other], str(mine)]]
    lines[1].append(known[mine])
    (left / ".pending").write_text(json.dumps(lines))
    atomic.tidy(tmp_path / "x.nii.gz")
    assert (mine.read_text(), other.read_text()) == ("mine", "other")
    assert not left.exists()


def test_an_interrupt_while_it_tidies_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, calls = atomic.shutil.rmtree, []

    def interrupted(path: Path, **options: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(atomic.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with staging_folder(tmp_path / "out") as folder, staging_folder(tmp_path / "out"):
        assert folder.exists()  # nobody takes it for abandoned
    assert names(tmp_path) == []


def test_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    real_sync, real_rename = os.fsync, atomic._rename
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), real_sync(file)))
    monkeypatch.setattr(atomic, "_rename", lambda *a: (order.append("rename"), real_rename(*a)))
    with staging_folder(tmp_path / "out") as folder:
        (folder / "a").mkdir()
        (folder / "a" / "1").touch()
        commit(folder / "a", tmp_path / "out")
    assert order == ["sync", "sync", "rename", "sync"]


def test_a_terminated_command_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mmif.io.atomic import staging_folder\n"
        "from mmif.cli import _end_cleanly; _end_cleanly()\n"
        "with staging_folder(Path(sys.argv[1])) as f:\n"
        "    (f / 'part').touch(); print(f, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new" / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        started = time.monotonic()
    assert time.monotonic() - started < 30
    assert names(tmp_path) == []


def test_many_at_once_take_no_folder_from_each_other(tmp_path: Path) -> None:
    """Each tidies up before it begins, and finds the folders of the others in every state."""
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from mmif.io.atomic import private_folder\n"
        "for _ in range(100):\n"
        "    with private_folder() as f:\n"
        "        (f / 'a').touch()\n"
        "        assert (f / 'a').exists()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [one.wait() for one in running] == [0] * 4
    assert names(tmp_path) == []
