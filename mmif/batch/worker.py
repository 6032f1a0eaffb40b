"""One worker process and the one who watches it: time limit, memory limit, cause of death."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from mmif.batch import resources
from mmif.batch.ledger import Ledger
from mmif.batch.locks import Claims
from mmif.batch.run_job import MAX_TRIES, Outcome, Task, Work, abandonment, unwritable
from mmif.errors import MmifError
from mmif.io.atomic import private_folder
from mmif.startup import environment, isolated_command

# Imports and weights take seconds at rest, far longer on a busy shared disk; chosen, not measured
START_TIMEOUT_S = 300.0
# Ten looks a second at a worker that may have ended; chosen, not measured
POLL_S = 0.1
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
"""Signals of a defect in native code: the same input would end the next worker too."""


class WorkerError(MmifError):
    """A worker process cannot start."""


@dataclass(frozen=True)
class Limits:
    """What one job and one worker may take.

    Attributes:
        timeout_s: wall time of one job.
        memory_mib: resident memory of a worker; 0: its share of the machine's.
        threads: threads of the native libraries in a worker; 0: its share of the cores.
    """

    timeout_s: float = 900.0  # a study takes 10 to 20 s; a machine that swaps, a hundred times more
    memory_mib: int = 0
    threads: int = 0

    def here(self, workers: int) -> "Limits":
        """The limits of each of ``workers`` workers on this machine."""
        return replace(
            self,
            memory_mib=self.memory_mib or resources.worker_memory_mib(workers),
            threads=self.threads or max(1, resources.cores() // workers),
        )


@dataclass(frozen=True)
class _Child:
    """A running worker process.

    Attributes:
        process: it.
        pipe: to it and from it.
        errors: the file that its stdout and stderr go to.
        folder: keeps its place for temporary files (an unpacked zip), which goes with it.
    """

    process: subprocess.Popen[bytes]
    pipe: Connection
    errors: IO[bytes]
    folder: ExitStack

    def end(self) -> None:
        """Kill it and tidy up; its outputs are atomic, so nothing half-done is left."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self.errors.close()
        self.folder.close()

    def cause_of_death(self, step: str) -> tuple[str, bool]:
        """How it ended by itself, in words, and whether it would again; tidies up behind it."""
        code = self.process.wait()
        self.errors.seek(0)
        text = self.errors.read().decode("utf-8", "replace")
        self.end()
        return f"{exit_reason(code, text)}, in step {step!r}", -code in CRASHES


class Worker:
    """A process that does one job after the other; started anew when a job has ended it."""

    def __init__(self, work: Work, limits: Limits, stop: threading.Event | None = None) -> None:
        """Nothing is started before the first job.

        Args:
            work: what is done with a job.
            limits: time, memory and threads.
            stop: when set, the running job is given up.
        """
        self._work = work
        self._limits = limits
        self._stop = stop or threading.Event()
        self._child: _Child | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process at once."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def run(self, task: Task) -> Outcome:
        """Have the job done; record its end if the worker cannot.

        Raises:
            WorkerError: the worker process cannot start.
        """
        child = self._child = self._child or self._start()
        start, step = time.monotonic(), "start"
        try:
            child.pipe.send(task)
            while not self._stop.is_set():
                if child.pipe.poll(POLL_S):
                    kind, value = child.pipe.recv()
                    if kind == "outcome":
                        return value  # type: ignore[no-any-return]
                    step = value
                broken = self._broken_limit(child, time.monotonic() - start, step)
                if broken:
                    self.close()
                    return record(task, "failed", *broken)
        except (EOFError, ConnectionError):
            self._child = None
            return _record_death(task, *child.cause_of_death(step))
        self.close()
        return Outcome(task.job.id, "stopped")

    def _start(self) -> _Child:
        """A new process that is ready; one that is killed on the way there is started again.

        Raises:
            WorkerError: it refuses, is not ready in time, or dies time and again.
        """
        reason = ""
        for _ in range(MAX_TRIES):
            child = self._launch()
            reason, died = self._greeting(child)
            if not reason:
                return child
            child.end()
            if not died:
                break
        raise WorkerError(f"worker: cannot start ({reason})")

    def _launch(self) -> _Child:
        """A new process."""
        ours, theirs = Pipe()
        errors = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        folder = ExitStack()
        place = folder.enter_context(private_folder())
        call = f"from mmif.batch.worker_main import main; main({theirs.fileno()}, {os.getpid()})"
        process = subprocess.Popen(
            isolated_command(call),
            pass_fds=[theirs.fileno()],
            env={**environment(self._limits.threads), "TMPDIR": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
        theirs.close()
        return _Child(process, ours, errors, folder)

    def _greeting(self, child: _Child) -> tuple[str, bool]:
        """What keeps the new process from being ready ("" if it is), and whether it died."""
        try:
            child.pipe.send(self._work)
            deadline = time.monotonic() + START_TIMEOUT_S
            while time.monotonic() < deadline and not self._stop.is_set():
                if child.pipe.poll(POLL_S):
                    return child.pipe.recv(), False
        except (EOFError, ConnectionError):
            return child.cause_of_death("start")[0], True
        return f"not ready after {START_TIMEOUT_S:.0f} s", False

    def _broken_limit(self, child: _Child, seconds: float, step: str) -> tuple[str, str] | None:
        """Cause and reason, if the job has gone beyond its limits."""
        if seconds > self._limits.timeout_s:
            return "timeout", f"no end after {self._limits.timeout_s:g} s, in step {step!r}"
        used = resident_mib(child.process.pid)
        if used > self._limits.memory_mib:
            return "memory", (
                f"the worker took {used} MiB in step {step!r}; the limit is "
                f"{self._limits.memory_mib} MiB (fewer --jobs, or more --memory)"
            )
        return None


def exit_reason(code: int, errors: str) -> str:
    """How a process ended, in words.

    Args:
        code: exit status; negative is a signal.
        errors: what it wrote to stderr, faulthandler's traceback among it.

    >>> exit_reason(-9, "")
    'its worker was killed by SIGKILL (the kernel does so when memory runs out)'
    """
    if code >= 0:
        return f"its worker exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if "bad_alloc" in errors or code == -signal.SIGKILL:
        return f"its worker was killed by {name} (the kernel does so when memory runs out)"
    frame = re.search(r'\n\s*File "([^"]+)", line (\d+) in (\S+)', errors)
    where = f" at {Path(frame[1]).name}:{frame[2]} {frame[3]}" if frame else ""
    return f"its worker was killed by {name}{where} (a crash in native code)"


def resident_mib(pid: int) -> int:
    """Resident memory of a process, in MiB; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // resources.MIB


def _record_death(task: Task, reason: str, would_again: bool) -> Outcome:
    """A worker's end in the ledger; a crash, or the last try, is the end of the job."""

    def tell(ledger: Ledger) -> Outcome:
        if would_again:
            return _end(ledger, task, "failed", "died", reason)
        if ledger.tries(task.job.id, task.run) >= MAX_TRIES:
            return _end(ledger, task, "failed", "died", abandonment(reason))
        return _end(ledger, task, "died", "died", reason)

    return _with_ledger(task, tell)


def record(task: Task, state: str, cause: str, reason: str) -> Outcome:
    """The outcome of a job that could not record it itself, now in the ledger."""
    return _with_ledger(task, lambda ledger: _end(ledger, task, state, cause, reason))


def _with_ledger(task: Task, tell: Callable[[Ledger], Outcome]) -> Outcome:
    """``tell`` with the ledger of the task, up to date; a full disk is an outcome too."""
    with Claims(task.out) as claims:
        ledger = Ledger(task.out, claims, task.ledger)
        ledger.refresh()
        try:
            return tell(ledger)
        except OSError as error:
            return unwritable(task, error)


def _end(ledger: Ledger, task: Task, state: str, cause: str, reason: str) -> Outcome:
    fields: dict[str, Any] = {"cause": cause, "reason": reason, "task": task.job.task}
    ledger.append(task.job.id, state, run=task.run, **fields)
    return Outcome(task.job.id, state, cause, reason)
