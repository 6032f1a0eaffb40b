"""What a worker process runs: prepare once, then one job after the other.

It is started as ``python -c "from mmif.batch.worker_main import main; main(FD, PARENT)"`` with one
end of a pipe. In: a `Work`, then `Task` after `Task`. Out: what keeps it from being ready, or "",
once; then for each task ``("step", name)`` and at last ``("outcome", Outcome)``.
"""

import ctypes
import faulthandler
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from mmif.batch.ledger import Ledger
from mmif.batch.locks import Claims
from mmif.batch.run_job import Task, Work, error_line, run_job
from mmif.memory import give_memory_back
from mmif.startup import start_quickly

# Linux/prctl.h
PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int) -> None:
    """Serve the pipe ``descriptor`` until it closes; end with the process ``parent``."""
    die_with(parent)
    start_quickly()
    faulthandler.enable(all_threads=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    with Connection(descriptor) as pipe, suppress(EOFError, BrokenPipeError):
        work: Work = pipe.recv()
        try:
            work.prepare()
        except Exception as error:
            pipe.send(error_line(error)[1])
            return
        pipe.send("")
        ledgers: dict[tuple[Path, str], Ledger] = {}
        while True:
            task: Task = pipe.recv()
            key = task.out, task.ledger
            if key not in ledgers:
                ledgers[key] = Ledger(task.out, Claims(task.out), task.ledger)
            _one(pipe, task, work, ledgers[key])


def _one(pipe: Connection, task: Task, work: Work, ledger: Ledger) -> None:
    """One task; its steps and its outcome go out through the pipe."""
    last = ""

    def step(name: str, _: float) -> None:
        nonlocal last
        if name != last:
            last = name
            pipe.send(("step", name))

    start = time.perf_counter()
    outcome = run_job(task, work, step, ledger)
    give_memory_back()  # so that a worker stays as small as its largest job
    pipe.send(("outcome", replace(outcome, seconds=time.perf_counter() - start)))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
