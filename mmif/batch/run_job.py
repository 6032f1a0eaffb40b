"""One job, in a worker process: claim it, do it, record it.

All state is on the disk under OUT, so it does not matter who starts the worker: a process of
this machine, a node of a Slurm array or a Dask worker.
"""

import errno
import os
import shutil
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmif.batch.jobs import Job
from mmif.batch.ledger import Ledger
from mmif.errors import MmifError, on_one_line
from mmif.io.atomic import flush_to_disk, sync, tidy
from mmif.io.ownership import file_sizes

# A worker that dies may have been a neighbour's fault, once or twice; chosen, not measured
MAX_TRIES = 3
ANOTHER = "the result of another study of that name is there; expected another OUT, or --restart"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Step = Callable[[str, float], None]


class Work(Protocol):
    """What is done with a job; picklable, made once per worker."""

    def prepare(self) -> None:
        """Pay once for what every job needs: imports, weights."""

    def __call__(self, job: Job, output: Path, step: Step) -> Mapping[str, Any]:
        """Do the job, leave its results at ``output`` whole or not at all; its figures."""


@dataclass(frozen=True)
class Task:
    """A job and where its record is kept.

    Attributes:
        job: what to do.
        out: the OUT folder.
        ledger: the name of the ledger to write.
        run: identity of the run that asks.
        since: when that run began (seconds of the epoch): what another run has recorded since
            then is not done again.
    """

    job: Job
    out: Path
    ledger: str
    run: str
    since: float


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        job_id: the job.
        state: ``done``, ``failed``, ``died`` (try again), ``busy`` (another run holds it),
            ``stopped`` (given up on request) or ``unwritable`` (OUT takes nothing more, as a full
            disk does: the batch must stop).
        cause: ``refused``, ``error``, ``timeout``, ``memory`` or ``died``; "" if none.
        reason: one line; "" if done.
        seconds: wall time.
    """

    job_id: str
    state: str
    cause: str = ""
    reason: str = ""
    seconds: float = 0.0


def run_job(task: Task, work: Work, step: Step, ledger: Ledger) -> Outcome:
    """Do the job of ``task`` unless it is done or another process does it.

    Args:
        task: what to do.
        work: how.
        step: told each step's name and the share of it that is done.
        ledger: that of the task, kept open from job to job: only new lines are read.
    """
    job = task.job
    with ledger.claims.job(job.id) as mine:
        if not mine:
            return Outcome(job.id, "busy")
        ledger.refresh()
        stamp = job.stamp()
        if is_finished(job, ledger, task.out, stamp):
            return Outcome(job.id, "done")
        if is_of_another(job, ledger, task.out):
            return Outcome(job.id, "failed", "refused", ANOTHER)
        entry = ledger.entries.get(job.id)
        if entry and entry.state == "failed" and entry.line.get("time", 0) >= task.since:
            return Outcome(job.id, "failed", str(entry.line.get("cause", "")), entry.reason)
        try:
            return _do(task, work, step, ledger, stamp)
        except OSError as error:
            return unwritable(task, error)


def is_finished(job: Job, ledger: Ledger, out: Path, stamp: str | None = None) -> bool:
    """Whether the ledger says done on the same input, and the results are there."""

    def content() -> str:
        try:
            return job.content()
        except OSError:
            return ""

    entry = ledger.entries.get(job.id)
    if entry is None or entry.state != "done" or not _is_whole(job.output(out), entry.line):
        return False
    return ledger.is_done(job.id, stamp or job.stamp(), content)


def is_of_another(job: Job, ledger: Ledger, out: Path) -> bool:
    """Whether the result of another study stands where that of ``job`` would go.

    It is the same study where its files are the same, or lie where they lay.
    """
    entry = ledger.entries.get(job.id)
    if entry is None or entry.state != "done" or not _is_whole(job.output(out), entry.line):
        return False
    elsewhere = entry.line.get("place") not in (None, "", job.place())
    return elsewhere and not is_finished(job, ledger, out)


def _is_whole(output: Path, line: Mapping[str, Any]) -> bool:
    """Whether every file that the ledger names is there in its size."""
    files: Mapping[str, int] = line.get("files") or {}
    try:
        return bool(files) and all((output / n).stat().st_size == s for n, s in files.items())
    except OSError:
        return False


def _do(task: Task, work: Work, step: Step, ledger: Ledger, stamp: str) -> Outcome:
    """The job, now ours; every way it can end is a line in the ledger."""
    job = task.job
    if ledger.tries(job.id, task.run) >= MAX_TRIES:
        reason = abandonment(ledger.entries[job.id].reason)
        ledger.append(job.id, "failed", cause="died", reason=reason, task=job.task, run=task.run)
        return Outcome(job.id, "failed", "died", reason)
    ledger.append(job.id, "started", run=task.run, worker=f"{socket.gethostname()}:{os.getpid()}")
    output = job.output(task.out)
    output.parent.mkdir(parents=True, exist_ok=True)
    tidy(output)
    try:
        content = job.content()
        figures = work(job, output, step)
        flush_to_disk(output)  # before the ledger says done
        for folder in output.relative_to(task.out).parents:
            sync(task.out / folder)
    except Exception as error:
        return _failure(task, error, ledger)
    said: dict[str, Any] = {"stamp": stamp, "content": content, "place": job.place()}
    said |= {"row": dict(figures), "files": file_sizes(output)}
    ledger.append(job.id, "done", task=job.task, run=task.run, **said)
    return Outcome(job.id, "done")


def _failure(task: Task, error: Exception, ledger: Ledger) -> Outcome:
    """What an exception of the job means for the batch."""
    job = task.job
    if is_full(error, task.out):
        return unwritable(task, OSError(errno.ENOSPC, ""))
    cause, reason = error_line(error)
    where = [] if cause == "refused" else places(error)
    ledger.append(
        job.id, "failed", cause=cause, reason=reason, task=job.task, run=task.run, places=where
    )
    return Outcome(job.id, "failed", cause, reason)


def unwritable(task: Task, error: OSError) -> Outcome:
    """The outcome when OUT takes nothing more."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return Outcome(task.job.id, "unwritable", reason=f"{task.out}: {reason}")


def abandonment(last: str) -> str:
    """The reason for a job that ended its worker every time."""
    return f"its worker ended {MAX_TRIES} times; the last time: {last or 'cause not known'}"


def error_line(error: BaseException) -> tuple[str, str]:
    """Cause and reason, one line; an error that is no refusal gives its type and place only.

    The text of foreign errors can quote a header, and a header can hold a name.
    """
    for one in chain(error):
        if isinstance(one, MmifError):
            return "refused", on_one_line(str(one))
        if isinstance(one, MemoryError):
            return "memory", "out of memory (MemoryError)"
    last = (places(error) or ["an unknown place"])[-1]
    kind = type(chain(error)[-1]).__name__
    return "error", f"{kind} at {last}; `mmif fuse` on these inputs shows all of it"


def chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    found = [error]
    while found[-1].__cause__ is not None and len(found) < 20:
        found.append(found[-1].__cause__)
    return found


def places(error: BaseException) -> list[str]:
    """``file:line function`` for each frame of the innermost error, outermost first."""
    frames = traceback.extract_tb(chain(error)[-1].__traceback__)
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]


def is_full(error: BaseException, out: Path) -> bool:
    """Whether the error comes from a disk without space.

    Native writers say nothing useful then, so that the free space itself is asked too.
    """
    codes = [one.errno for one in chain(error) if isinstance(one, OSError)]
    if any(code in FULL for code in codes):
        return True
    plain_refusal = isinstance(error, MmifError) and not codes
    return not plain_refusal and shutil.disk_usage(out).free < 1 << 16
