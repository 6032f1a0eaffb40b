"""The same work on Dask distributed (the optional extra ``mmif[cluster]``).

A Dask worker hands a job to a process of its own, which stays warm from job to job and is watched
as on one machine: time, memory and cause of death are the same everywhere. Dask gives the jobs of
a lost Dask worker to others. All that is recorded lies under OUT, on a file system that every
worker sees.
"""

import logging
import os
import queue
import uuid
from typing import Any

from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, get_worker

from mmif.batch.run_job import Outcome, Task, Work
from mmif.batch.worker import Limits, WorkerError, record
from mmif.batch.worker import Worker as Watched

# Chosen, not measured: a scheduler that runs answers within a second
SCHEDULER_TIMEOUT_S = 15


class WarmProcesses(WorkerPlugin):  # type: ignore[misc]
    """The processes of one Dask worker: as many as it runs jobs at once."""

    def __init__(self, name: str, work: Work, limits: Limits) -> None:
        """What the processes do, and what they may take."""
        self.name = name
        self._work = work
        self._limits = limits

    def setup(self, worker: Worker) -> None:
        """Begin without any process."""
        self._idle: queue.SimpleQueue[Watched] = queue.SimpleQueue()
        self._limits = self._limits.here(worker.state.nthreads)

    def teardown(self, worker: Worker) -> None:
        """End all processes."""
        while not self._idle.empty():
            self._idle.get().close()

    def run(self, task: Task) -> Outcome:
        """Have a job done by a process that is warm, if there is one."""
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = Watched(self._work, self._limits)
        try:
            return process.run(task)
        finally:
            self._idle.put(process)


def run_here(task: Task, plugin: str) -> Outcome:
    """Have a job done on the Dask worker that this runs on."""
    found: WarmProcesses = get_worker().plugins[plugin]
    return found.run(task)


class DaskExecutor:
    """The workers of a Dask cluster."""

    def __init__(
        self,
        address: str,
        work: Work,
        limits: Limits,
        jobs: int,
        scheduler_timeout_s: float | None = None,
    ) -> None:
        """Nothing is started before `__enter__`.

        Args:
            address: ``tcp://host:port`` of a scheduler, or ``local`` for workers of this machine.
            work: what is done with a job.
            limits: what each job and process may take; of workers elsewhere it is their machine
                that says what it leaves open.
            jobs: how many workers, if they are local.
            scheduler_timeout_s: how long to wait for the scheduler to answer.
        """
        self._address = address
        self._jobs = jobs
        self._scheduler_timeout_s = scheduler_timeout_s or SCHEDULER_TIMEOUT_S
        here = limits.here(jobs) if address == "local" else limits
        self._plugin = WarmProcesses(f"mmif-{uuid.uuid4().hex[:8]}", work, here)
        self._outcomes: queue.SimpleQueue[tuple[Task, Future]] = queue.SimpleQueue()
        self._futures: dict[str, Future] = {}
        self._resources: dict[str, int] | None = None
        self._cluster: LocalCluster | None = None
        self._submitted = 0
        self._environment: dict[str, str] | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connection to the scheduler, inside the ``with`` block."""
        if self._client is None:
            raise WorkerError("the Dask executor is used outside its with block")
        return self._client

    def __enter__(self) -> "DaskExecutor":
        if self._address == "local":
            logging.getLogger("distributed").setLevel(logging.ERROR)
            # its processes are Python's own: no module of the working folder comes first in them
            self._environment = dict(os.environ)
            os.environ["PYTHONSAFEPATH"] = "1"
            self._cluster = LocalCluster(
                host="127.0.0.1",  # nobody else reaches the workers of this machine
                n_workers=self._jobs,
                threads_per_worker=1,
                memory_limit=0,  # the processes that work are watched by us
                dashboard_address=None,
                silence_logs=logging.ERROR,
            )
        try:
            wanted = self._cluster or self._address
            self._client = Client(wanted, timeout=self._scheduler_timeout_s)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise WorkerError(
                f"no Dask scheduler answers at {self._address}; expected tcp://HOST:PORT of a "
                "running one, or local"
            ) from error
        self.client.register_plugin(self._plugin)
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if any("GPU" in worker.get("resources", {}) for worker in workers):
            self._resources = {"GPU": 1}
        return self

    def __exit__(self, *exception: object) -> None:
        if self._client is not None:
            self._client.cancel(list(self._futures.values()), force=True)
            self._client.unregister_worker_plugin(self._plugin.name)
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        if self._environment is not None:  # Dask adds variables of its own before it spawns
            os.environ.clear()
            os.environ.update(self._environment)

    def submit(self, task: Task) -> None:
        """Have a task done by any worker; one with a GPU, where workers offer them."""
        self._submitted += 1
        future = self.client.submit(
            run_here,
            task,
            self._plugin.name,
            key=f"{self._plugin.name}-{task.job.id}-{self._submitted}",
            pure=False,
            retries=0,
            resources=self._resources,
        )
        self._futures[task.job.id] = future
        future.add_done_callback(lambda done: self._outcomes.put((task, done)))

    def next(self, timeout_s: float) -> Outcome | None:
        """The next outcome, or None if there is none in time.

        Raises:
            WorkerError: the scheduler is gone, or a worker cannot begin.
        """
        try:
            task, future = self._outcomes.get(timeout=timeout_s)
        except queue.Empty:
            if self.client.status not in ("running", "connecting"):
                raise WorkerError(f"the Dask scheduler at {self._address} is gone") from None
            return None
        return self._outcome(task, future)

    def _outcome(self, task: Task, future: Future) -> Outcome:
        """What a future that has come to its end means."""
        if future.status == "finished":
            outcome: Outcome = future.result()
            return outcome
        if future.cancelled():
            raise WorkerError(f"the Dask scheduler at {self._address} has dropped the work")
        error: Any = future.exception()
        if isinstance(error, KilledWorker):
            return record(task, "failed", "died", "its Dask workers ended, one after the other")
        if isinstance(error, WorkerError):
            raise error
        place = f"{type(error).__name__} in the Dask worker"
        return record(task, "failed", "error", place)
