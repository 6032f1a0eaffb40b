"""Several workers of this machine, each watched by a thread of its own."""

import queue
import threading
from typing import Protocol

from mmif.batch.run_job import Outcome, Task, Work
from mmif.batch.worker import Limits, Worker


class Executor(Protocol):
    """Takes tasks, gives outcomes in whatever order they come."""

    def __enter__(self) -> "Executor":
        """Itself, ready for tasks."""

    def __exit__(self, *exception: object) -> None:
        """Give up whatever runs."""

    def submit(self, task: Task) -> None:
        """Have a task done some time."""

    def next(self, timeout_s: float) -> Outcome | None:
        """The next outcome, or None if there is none in time."""


class LocalExecutor:
    """``jobs`` worker processes on this machine."""

    def __init__(self, work: Work, limits: Limits, jobs: int) -> None:
        """Nothing is started before `__enter__`."""
        self._work = work
        self._limits = limits.here(jobs)
        self._stop = threading.Event()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve) for _ in range(jobs)]
        self.workers: list[Worker] = []

    def __enter__(self) -> "LocalExecutor":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, task: Task) -> None:
        """Have a task done by the next worker that is free."""
        self._tasks.put(task)

    def next(self, timeout_s: float) -> Outcome | None:
        """The next outcome, or None if there is none in time.

        Raises:
            MmifError: a worker cannot start.
        """
        try:
            outcome = self._outcomes.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _serve(self) -> None:
        """One thread: its worker does task after task."""
        with Worker(self._work, self._limits, self._stop) as worker:
            self.workers.append(worker)
            try:
                for task in iter(self._take, None):
                    self._outcomes.put(worker.run(task))
            except BaseException as error:
                self._outcomes.put(error)

    def _take(self) -> Task | None:
        task = self._tasks.get()
        return None if self._stop.is_set() else task
