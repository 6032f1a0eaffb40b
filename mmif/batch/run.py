"""The whole batch: what is not done yet is handed out until nothing is left."""

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmif.batch.executors import Executor
from mmif.batch.ledger import Entry, Ledger, ledgers_of
from mmif.batch.locks import Claims
from mmif.batch.plan import Plan
from mmif.batch.results import STATES, write_results
from mmif.batch.run_job import ANOTHER, Outcome, Task, is_finished, is_of_another
from mmif.errors import ConfigError, OutputError
from mmif.io.atomic import tidy, tidy_private_folders

# How soon an interrupt is seen while nothing ends; chosen, not measured
POLL_S = 1.0
RESULTS = ("studies", "summary.csv", "index.html")
Watch = Callable[["Tally", Outcome | None], None]


@dataclass
class Tally:
    """How far a batch has come.

    Attributes:
        total: jobs and what could not become one.
        earlier: jobs that were done before this run.
        done: jobs that this run has done.
        failed: jobs that failed, and what could not become a job.
        rejected: what could not become a job.
        began: `time.monotonic` of the first job.
    """

    total: int
    earlier: int = 0
    done: int = 0
    failed: int = 0
    rejected: int = 0
    began: float = 0.0

    @property
    def jobs_left(self) -> int:
        """Jobs that have not come to an end."""
        return self.total - self.earlier - self.done - self.failed

    @property
    def rate(self) -> float:
        """Jobs a second in this run; 0 before the first end."""
        ended = self.done + self.failed - self.rejected
        seconds = time.monotonic() - self.began
        return ended / seconds if self.began and seconds > 0 else 0.0

    @property
    def exit_code(self) -> int:
        """0: all done; 3: some failed; 1: none could be done."""
        if not self.failed:
            return 0
        return 3 if self.done or self.earlier else 1


def ignore(tally: Tally, outcome: Outcome | None) -> None:
    """Watch nothing."""


def run_batch(
    plan: Plan,
    out: Path,
    parameters: Mapping[str, Any],
    executor: Executor,
    *,
    ledger_name: str = "ledger.jsonl",
    restart: bool = False,
    watch: Watch = ignore,
) -> Tally:
    """Do every job of ``plan`` that is not done; how it went.

    Args:
        plan: the jobs, and what could not become one.
        out: the OUT folder; made if missing.
        parameters: what decides the results; equal for all runs on one OUT.
        executor: where the work is done.
        ledger_name: the ledger of this run (one a shard).
        restart: move older ledgers and their results aside first.
        watch: told the tally and the outcome at the start and whenever a job ends.

    Raises:
        MmifError: other parameters, an OUT that takes nothing more, a worker that cannot start.
    """
    _make(out)
    _refuse_strangers(out)
    with Claims(out) as claims:
        ledger = _open_ledger(plan, out, claims, ledger_name, parameters, restart)
        failed = len(plan.rejected)
        tally = Tally(len(plan.jobs) + failed, failed=failed, rejected=failed)
        _refuse_others(plan, ledger, out)
        todo = [job for job in plan.jobs if not is_finished(job, ledger, out)]
        tally.earlier = len(plan.jobs) - len(todo)
        _tidy(plan, out)  # a run that was killed may have left something,
        tidy_private_folders()  # patients' files among it
        watch(tally, None)
        run = uuid.uuid4().hex[:12]
        tasks = {job.id: Task(job, out, ledger_name, run, ledger.now()) for job in todo}
        try:
            with executor:
                _work_through(tasks, executor, tally, watch)
        finally:
            _tidy(plan, out)  # workers that were given up are killed in the middle of their work
        ledger.refresh()
    write_results(out)
    return tally


def _tidy(plan: Plan, out: Path) -> None:
    """Remove what no running process holds beside the results."""
    for job in plan.jobs:
        tidy(job.output(out))


def _work_through(
    tasks: Mapping[str, Task], executor: Executor, tally: Tally, watch: Watch
) -> None:
    """Hand out all ``tasks`` and count their ends.

    Raises:
        OutputError: OUT takes nothing more.
    """
    tally.began = time.monotonic()
    left, elsewhere = dict(tasks), list[Task]()
    for task in tasks.values():
        executor.submit(task)
    while left:
        outcome = executor.next(POLL_S)
        if outcome is None:
            # another run had these: it may have died with them, or its result is there now
            for task in elsewhere:
                executor.submit(task)
            elsewhere.clear()
        elif outcome.state == "unwritable":
            raise OutputError(
                f"{outcome.reason}; the batch stopped, {tally.jobs_left} of {tally.total} studies "
                "are left; make room and give the same command again"
            )
        elif outcome.state == "busy":
            elsewhere.append(tasks[outcome.job_id])
        elif outcome.state == "died":
            executor.submit(tasks[outcome.job_id])
        elif outcome.state in ("done", "failed"):
            del left[outcome.job_id]
            tally.done += outcome.state == "done"
            tally.failed += outcome.state == "failed"
            watch(tally, outcome)


def _make(out: Path) -> None:
    """The OUT folder.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror})") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: not a folder that can be written to")


def _refuse_strangers(out: Path) -> None:
    """Refuse an OUT whose files of the names of a batch's are of somebody else.

    Raises:
        OutputError: there is no ledger beside them.
    """
    found = [name for name in RESULTS if os.path.lexists(out / name)]
    if found and not ledgers_of(out):
        raise OutputError(
            f"{out} holds {found[0]} and no ledger of mmif; expected a new folder, or the OUT of a "
            "batch"
        )


def _refuse_others(plan: Plan, ledger: Ledger, out: Path) -> None:
    """Refuse studies that another batch has done under the names of these.

    Raises:
        OutputError: the first of them.
    """
    for job in plan.jobs:
        if is_of_another(job, ledger, out):
            raise OutputError(f"{job.output(out)}: {ANOTHER}")


def done_earlier(plan: Plan, out: Path, parameters: Mapping[str, Any]) -> set[str]:
    """The ids of the jobs that a run on ``out`` would find done.

    Raises:
        ConfigError: a ledger of other parameters.
    """
    if not ledgers_of(out):
        return set()
    with Claims(out) as claims:
        ledger = Ledger(out, claims)
        ledger.check(parameters)
        return {job.id for job in plan.jobs if is_finished(job, ledger, out)}


def _open_ledger(
    plan: Plan,
    out: Path,
    claims: Claims,
    name: str,
    parameters: Mapping[str, Any],
    restart: bool,
) -> Ledger:
    """The ledger to write, begun or taken up, with the plan in it.

    Raises:
        MmifError: other parameters; another run at work while a restart was wanted.
    """
    try:
        if restart:
            move_aside(out, claims)
        if not claims.run():
            raise OutputError(f"{out}: another run is just moving its ledger aside; try again")
        ledger = Ledger(out, claims, name)
        ledger.begin(parameters)
        _record_plan(plan, ledger)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{out}: the ledger cannot be written ({reason})") from error
    return ledger


def move_aside(out: Path, claims: Claims) -> Path | None:
    """Move all ledgers of ``out`` and their results into ``out/before-N``; nothing is deleted.

    The ledgers go last, so that a restart which is cut short is simply repeated.

    Returns:
        The new folder, or None if there was nothing to move.

    Raises:
        OutputError: another run works on ``out``.
    """
    if not claims.run(alone=True):
        raise OutputError(f"{out}: another run is at work here; expected none for --restart")
    ledgers = ledgers_of(out)
    if not ledgers:
        return None
    target = next(p for n in range(1, 10_000) if not (p := out / f"before-{n}").exists())
    target.mkdir()
    for name in (*RESULTS, *(path.name for path in ledgers)):
        if (out / name).exists():
            (out / name).rename(target / name)
    return target


def _record_plan(plan: Plan, ledger: Ledger) -> None:
    """Say in the ledger, once, what is to be done and why something is no job.

    What was said of the plan and is no longer so is taken back.
    """
    jobs = {job.id: job for job in plan.jobs}
    reasons = {rejected.id: rejected.reason for rejected in plan.rejected}

    def is_over(job_id: str, entry: Entry) -> bool:
        if entry.ledger != ledger.path.name:
            return False
        if entry.state == "planned":
            return job_id not in jobs
        return entry.line.get("cause") == "plan" and job_id not in reasons

    known = {job_id: entry for job_id, entry in ledger.entries.items() if entry.state in STATES}
    over = {job_id for job_id, entry in known.items() if is_over(job_id, entry)}
    ledger.extend(
        [{"job": job_id, "state": "withdrawn"} for job_id in sorted(over)]
        + [
            {"job": one.id, "state": "failed", "cause": "plan"}
            | {"reason": one.reason, "task": one.task}
            for one in plan.rejected
            if one.id not in known
            or (known[one.id].state, known[one.id].reason) != ("failed", one.reason)
        ]
        + [
            {"job": job.id, "state": "planned", "task": job.task}
            for job in plan.jobs
            if job.id in over or job.id not in known
        ]
    )
    ledger.refresh()


def shard(plan: Plan, index: int, count: int) -> Plan:
    """Every ``count``-th study of ``plan`` from ``index`` on, all tasks of a study together.

    Raises:
        ConfigError: an index that is not in 0..count-1.
    """
    if count < 1 or not 0 <= index < count:
        raise ConfigError(f"shard {index}/{count}: expected I/N with I from 0 to N-1")
    ids = [job.id for job in plan.jobs] + [rejected.id for rejected in plan.rejected]
    studies = sorted(set(map(_study, ids)))
    ours = set(studies[index::count])
    return Plan(
        tuple(job for job in plan.jobs if _study(job.id) in ours),
        tuple(one for one in plan.rejected if _study(one.id) in ours),
    )


def _study(job_id: str) -> str:
    return job_id.partition("/")[0]
