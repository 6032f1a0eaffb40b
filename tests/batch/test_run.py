"""The batch without imaging: every way a job can end, resume, kills, two runs, full disks."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from batch_works import (
    LIMITS,
    PARAMETERS,
    Copy,
    KilledOnce,
    Unprepared,
    make_plan,
    pids_of,
    states,
)

from mmif.batch.executors import LocalExecutor
from mmif.batch.locks import Claims
from mmif.batch.plan import Plan, Rejected
from mmif.batch.results import missing_shards, read_rows
from mmif.batch.run import Tally, done_earlier, run_batch, shard
from mmif.batch.run_job import Outcome
from mmif.batch.worker import Limits
from mmif.errors import ConfigError, MmifError, OutputError

BUSY_S = 300.0
"""How long a process may take to start or to end on a busy machine."""


def run(plan: Plan, out: Path, work: object = None, jobs: int = 2, **options: object) -> Tally:
    limits = options.pop("limits", LIMITS)
    parameters = options.pop("parameters", PARAMETERS)
    executor = LocalExecutor(work or Copy(), limits, jobs)
    return run_batch(plan, out, parameters, executor, **options)


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def test_every_way_to_end_is_recorded_with_its_cause_and_the_batch_goes_on(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "in", "fine", "refuse", "bug", "hang", "crash", "exit", "eat", "ok")
    tally = run(plan, tmp_path / "out", limits=Limits(timeout_s=4, memory_mib=150))
    rows = {row.study: row for row in read_rows(tmp_path / "out")}
    assert {name: (row.state, row.cause) for name, row in rows.items()} == {
        "case00": ("done", ""),
        "case01": ("failed", "refused"),
        "case02": ("failed", "error"),
        "case03": ("failed", "timeout"),
        "case04": ("failed", "died"),
        "case05": ("failed", "died"),
        "case06": ("failed", "memory"),
        "case07": ("done", ""),
    }
    assert rows["case01"].reason == "refused: refuse 1"
    assert rows["case02"].reason.startswith("ZeroDivisionError at batch_works.py:")
    assert "DOE" not in (tmp_path / "out" / "ledger.jsonl").read_text()
    assert rows["case03"].reason == "no end after 4 s, in step 'read'"
    assert "SIGSEGV at batch_works.py:" in rows["case04"].reason
    assert rows["case05"].reason.startswith("its worker ended 3 times")
    assert "exited with status 7" in rows["case05"].reason
    assert "the limit is 150 MiB" in rows["case06"].reason
    assert (tally.done, tally.failed, tally.jobs_left, tally.exit_code) == (2, 6, 0, 3)
    assert "case04" in (tmp_path / "out" / "index.html").read_text()
    assert len((tmp_path / "out" / "summary.csv").read_text().splitlines()) == 9


def test_a_worker_prepares_once_for_all_its_jobs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(make_plan(tmp_path / "in", *["fine"] * 6), tmp_path / "out", Copy(log), jobs=1)
    starts = [line.split() for line in log.read_text().splitlines()]
    assert len(starts) == 6
    assert {(prepared, pid) for _, prepared, pid in starts} == {("1", starts[0][2])}


def test_a_second_run_does_only_what_is_not_done_or_has_changed(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    plan = make_plan(tmp_path / "in", "fine", "refuse", "fine", "fine", "fine")
    assert run(plan, out, Copy(log)).exit_code == 3
    log.unlink()
    (tmp_path / "in/case01/ct").write_text("repaired 1")  # failed before: tried again
    (tmp_path / "in/case02/ct").write_text("other 2")  # changed: done again
    os.utime(tmp_path / "in/case03/ct", (1, 1))  # touched, same bytes: still done
    (out / "studies/case04/ct-mri/fused.txt").unlink()
    (out / "studies/case04/ct-mri").rmdir()  # the result is gone: done again
    tally = run(plan, out, Copy(log))
    assert sorted(line.split()[0][:6] for line in log.read_text().splitlines()) == [
        "case01",
        "case02",
        "case04",
    ]
    assert (tally.earlier, tally.done, tally.failed, tally.exit_code) == (2, 3, 0, 0)
    assert (out / "studies/case02/ct-mri/fused.txt").read_text() == "other 2"
    assert run(plan, out, Copy(log)).earlier == 5


def test_nothing_is_started_when_everything_is_done(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "in", "fine")
    run(plan, tmp_path / "out")
    tally = run(plan, tmp_path / "out", Unprepared())
    assert (tally.earlier, tally.exit_code) == (1, 0)


def test_other_parameters_are_refused_and_restart_moves_everything_aside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = make_plan(tmp_path / "in", "fine", "fine")
    run(plan, out)
    with pytest.raises(ConfigError, match=r"other parameters \(format nifti now dicom\)"):
        run(plan, out, parameters={"format": "dicom"})
    tally = run(plan, out, parameters={"format": "dicom"}, restart=True)
    assert (tally.earlier, tally.done) == (0, 2)
    assert (out / "before-1/studies/case00/ct-mri/fused.txt").is_file()
    assert (out / "before-1/ledger.jsonl").is_file()
    assert (out / "before-1/summary.csv").is_file()
    run(plan, out, restart=True)
    assert (out / "before-2/ledger.jsonl").is_file()


def test_a_restart_is_refused_while_another_run_is_at_work(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "in", "fine")
    run(plan, tmp_path / "out")
    with Claims(tmp_path / "out") as other:
        assert other.run()
        with pytest.raises(OutputError, match="another run is at work"):
            run(plan, tmp_path / "out", restart=True)


def test_a_worker_that_cannot_start_ends_the_batch_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmifError, match=r"worker: cannot start \(no weights here\)"):
        run(make_plan(tmp_path / "in", "fine"), tmp_path / "out", Unprepared())


def test_a_worker_killed_before_it_is_ready_is_started_again(tmp_path: Path) -> None:
    work = KilledOnce(mark=tmp_path / "mark")
    assert run(make_plan(tmp_path / "in", "fine"), tmp_path / "out", work).exit_code == 0


def test_what_is_no_job_is_a_failure_with_its_reason_until_it_is_repaired(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "in", "fine")
    lame = Plan(plan.jobs, (Rejected("case09", "no pair: found CT, no MRI"),))
    assert run(lame, tmp_path / "out").exit_code == 3
    assert states(tmp_path / "out")["case09"] == ("failed", "plan")
    before = len(lines(tmp_path / "out"))
    run(lame, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == before
    assert run(plan, tmp_path / "out").exit_code == 0
    assert "case09" not in states(tmp_path / "out")


def test_what_a_killed_run_has_not_begun_is_in_the_answer(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = make_plan(tmp_path / "in", *["fine"] * 5)

    def interrupt(tally: Tally, outcome: Outcome | None) -> None:
        if outcome:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, out, Copy(seconds=0.2), jobs=1, watch=interrupt)
    rows = {row.study: row for row in read_rows(out)}
    assert sorted(rows) == [f"case{number:02}" for number in range(5)]
    assert (rows["case04"].state, rows["case04"].reason) == ("unfinished", "not begun")
    smaller = Plan(plan.jobs[:4])  # the fifth is no longer in the tree
    assert run(smaller, out).exit_code == 0
    assert [row.state for row in read_rows(out)] == ["done"] * 4
    assert sum(line.get("state") == "planned" for line in lines(out)) == 5


def test_a_ledger_that_cannot_take_the_plan_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = make_plan(tmp_path / "in", "fine")
    run(plan, out)
    more = Plan(plan.jobs, (Rejected("case09", "no pair: found CT, no MRI"),))
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OutputError, match=r"the ledger cannot be written \(No space left"):
        run(more, out)


def _full(_: int) -> None:
    raise OSError(errno.ENOSPC, "")


def test_what_is_done_earlier_is_known_without_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = make_plan(tmp_path / "in", "fine", "refuse")
    assert done_earlier(plan, out, PARAMETERS) == set()
    assert not out.exists()
    run(plan, out)
    assert done_earlier(plan, out, PARAMETERS) == {"case00/ct-mri"}
    with pytest.raises(ConfigError, match="other parameters"):
        done_earlier(plan, out, {"format": "dicom"})


def test_nothing_done_is_exit_code_1(tmp_path: Path) -> None:
    assert run(make_plan(tmp_path / "in", "refuse"), tmp_path / "out").exit_code == 1


def test_a_torn_line_is_skipped_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    plan, out = make_plan(tmp_path / "in", "fine", "fine"), tmp_path / "out"
    run(plan, out)
    text = (out / "ledger.jsonl").read_bytes()
    cut = text.rindex(b'"done"')  # the second "done" is torn in its middle
    (out / "ledger.jsonl").write_bytes(text[: cut + 3])
    tally = run(plan, out)
    assert (tally.earlier, tally.done) == (1, 1)
    assert [row.state for row in read_rows(out)] == ["done", "done"]


def test_another_study_of_the_same_name_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(make_plan(tmp_path / "one", "fine"), out)
    (tmp_path / "two" / "nested").mkdir(parents=True)
    other = make_plan(tmp_path / "two" / "nested", "fine again")
    with pytest.raises(OutputError, match="the result of another study of that name is there"):
        run(other, out)
    assert (out / "studies/case00/ct-mri/fused.txt").read_text() == "fine 0"
    assert states(out) == {"case00": ("done", "")}


def test_an_out_with_somebodys_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"holds summary\.csv and no ledger"):
        run(make_plan(tmp_path / "in", "fine"), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["summary.csv"]


def test_a_result_that_lacks_a_file_is_made_again(tmp_path: Path) -> None:
    plan, out = make_plan(tmp_path / "in", "fine", "fine"), tmp_path / "out"
    run(plan, out)
    (out / "studies/case01/ct-mri/fused.txt").unlink()
    tally = run(plan, out)
    assert (tally.earlier, tally.done) == (1, 1)


def test_two_runs_at_once_share_the_work_and_do_nothing_twice(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    make_plan(tmp_path / "in", *["fine"] * 12)
    runs = [_start_run(tmp_path / "in", out, log, jobs=1, processes=2) for _ in range(2)]
    assert [process.wait(BUSY_S) for process in runs] == [0, 0]
    starts = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert starts == {f"case{n:02}/ct-mri": 1 for n in range(12)}
    assert len(pids_of(log)) == 2


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_kills_of_the_main_process_lose_nothing_and_leave_no_half_output(
    tmp_path: Path, kills: int
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    plan = make_plan(tmp_path / "in", *["fine"] * 24)
    draw = random.Random(6)
    for _ in range(kills):
        process = _start_run(tmp_path / "in", out, log, seconds=0.05, jobs=2)
        _await_growth(out / "ledger.jsonl", draw.randint(0, 3))
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.wait()
        assert all((p / "fused.txt").is_file() for p in (out / "studies").glob("*/ct-mri"))
    _await_death_of_workers(log)
    assert run(plan, out, Copy(log)).exit_code == 0
    for number in range(24):
        folder = out / f"studies/case{number:02}"
        assert [p.name for p in folder.iterdir()] == ["ct-mri"]
        assert (folder / "ct-mri/fused.txt").read_text() == f"fine {number}"
    done = Counter(line["job"] for line in lines_of_state(out, "done"))
    assert done == {f"case{n:02}/ct-mri": 1 for n in range(24)}


def test_workers_killed_from_outside_are_replaced_and_their_jobs_done(tmp_path: Path) -> None:
    log, killed = tmp_path / "log", []

    def kill_one(tally: Tally, outcome: Outcome | None) -> None:
        if outcome and len(killed) < 3:
            job, _, pid = log.read_text().splitlines()[-1].split()
            if job not in killed:  # a third time would be its own fault
                with suppress(ProcessLookupError):  # killed before, and not yet replaced
                    os.kill(int(pid), signal.SIGKILL)
                    killed.append(job)

    plan = make_plan(tmp_path / "in", *["fine"] * 8)
    tally = run(plan, tmp_path / "out", Copy(log, 0.2), watch=kill_one)
    assert len(killed) == 3
    assert (tally.done, tally.failed) == (8, 0)


def test_the_workers_end_with_the_main_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make_plan(tmp_path / "in", "hang", "hang")
    process = _start_run(tmp_path / "in", tmp_path / "out", log, jobs=2)
    deadline = time.monotonic() + BUSY_S
    while len(pids_of(log)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    _await_death_of_workers(log)


def test_a_full_disk_stops_cleanly_and_resumes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small tmpfs cannot be mounted here; the quota is simulated below")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(180 << 10))
        plan = make_plan(tmp_path / "in", *["fine " + "x" * 20_000] * 8)
        with pytest.raises(OutputError, match="No space left on device; the batch stopped, "):
            run(plan, disk / "out")
        assert not list((disk / "out").glob("studies/*/.*"))
        ballast.unlink()
        tally = run(plan, disk / "out")
        assert tally.earlier > 0
        assert (tally.earlier + tally.done, tally.failed) == (8, 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_quota_stops_cleanly_and_resumes(tmp_path: Path) -> None:
    """The same with the limit on the size of a file, which the kernel enforces everywhere."""
    plan, out = make_plan(tmp_path / "in", *["fine"] * 30), tmp_path / "out"
    script = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " + (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); "
    )
    process = _start_run(tmp_path / "in", out, tmp_path / "log", jobs=1, before=script)
    assert process.wait(BUSY_S) == 1
    assert "File too large; the batch stopped" in (tmp_path / "log.err").read_text()
    assert (out / "ledger.jsonl").stat().st_size <= 6000
    tally = run(plan, out)
    assert tally.earlier > 0
    assert (tally.earlier + tally.done, tally.failed) == (30, 0)


def test_shards_are_disjoint_complete_and_merged(tmp_path: Path) -> None:
    plan, out = make_plan(tmp_path / "in", *["fine"] * 7), tmp_path / "out"
    parts = [shard(plan, index, 3) for index in range(3)]
    assert sorted(job.id for part in parts for job in part.jobs) == [job.id for job in plan.jobs]
    for index, part in enumerate(parts):
        run(part, out, ledger_name=f"ledger-{index}-of-3.jsonl")
        assert missing_shards(out) == [f"{later}/3" for later in range(index + 1, 3)]
    assert [row.state for row in read_rows(out)] == ["done"] * 7
    assert run(plan, out, Unprepared()).earlier == 7  # an unsharded run finds nothing left


@pytest.mark.parametrize(("index", "count"), [(3, 3), (-1, 3), (0, 0)])
def test_a_shard_out_of_range_is_refused(index: int, count: int) -> None:
    with pytest.raises(ConfigError, match="expected I/N with I from 0 to N-1"):
        shard(Plan(()), index, count)


def lines_of_state(out: Path, state: str) -> list[dict[str, object]]:
    found = []
    for text in (out / "ledger.jsonl").read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line.get("state") == state:
            found.append(line)
    return found


def _start_run(
    inputs: Path,
    out: Path,
    log: Path,
    *,
    jobs: int,
    seconds: float = 0.0,
    processes: int = 1,
    before: str = "",
) -> subprocess.Popen[bytes]:
    """A run of all cases below ``inputs`` in a process of its own; stderr goes to ``log.err``."""
    script = f"""{before}
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from batch_works import Copy
from mmif.batch.executors import LocalExecutor
from mmif.batch.jobs import Job
from mmif.studies.study import input_of
from mmif.batch.plan import Plan
from mmif.batch.run import run_batch
from mmif.batch.worker import Limits
from mmif.errors import MmifError
jobs = tuple(
    Job(f"{{case.name}}/ct-mri", "ct-mri", {{r: input_of(case / r) for r in ("ct", "mri")}})
    for case in sorted(Path({str(inputs)!r}).iterdir())
)
executor = LocalExecutor(Copy(Path({str(log)!r}), {seconds}, {processes}), Limits(30, 300), {jobs})
try:
    sys.exit(run_batch(Plan(jobs), Path({str(out)!r}), {PARAMETERS!r}, executor).exit_code)
except MmifError as error:
    sys.exit(f"Error: {{error}}")
"""
    with log.with_suffix(".err").open("w") as errors:
        return subprocess.Popen([sys.executable, "-c", script], stderr=errors)


def _await_growth(ledger: Path, lines: int) -> None:
    """Wait until the ledger has that many lines more, if that still happens."""

    def count() -> int:
        return ledger.read_bytes().count(b"\n") if ledger.exists() else 0

    wanted, deadline = count() + lines, time.monotonic() + 3
    while count() < wanted and time.monotonic() < deadline:
        time.sleep(0.005)


def _await_death_of_workers(log: Path) -> None:
    pids, deadline = pids_of(log), time.monotonic() + BUSY_S
    while any(map(_lives, pids)):
        assert time.monotonic() < deadline, "a worker outlived its main process"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    """Whether a process runs; one that ended may wait for whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
