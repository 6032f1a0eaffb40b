"""The node itself: what comes is spooled, complete studies are fused, results are sent on."""

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmif.batch import resources
from mmif.batch.executors import Executor, LocalExecutor
from mmif.batch.fuse_job import FuseWork, parameters, pipelines_of
from mmif.batch.gpu import own_gpu
from mmif.batch.ledger import Ledger
from mmif.batch.locks import Claims
from mmif.batch.plan import Plan, plan_of
from mmif.batch.run_job import Outcome, Task, error_line, is_finished
from mmif.errors import OutputError, without_quotes
from mmif.io.atomic import remove
from mmif.io.ownership import foreign_in_folder
from mmif.node.commitment import Commitments
from mmif.node.config import NodeConfig
from mmif.node.deliver import DAY_S, Deliveries
from mmif.node.receive import Receiver
from mmif.node.spool import Spool
from mmif.roles import VOLUME_TASKS
from mmif.studies.discover import studies_below

log = logging.getLogger(__name__)

# How soon a stop and a study that is complete are seen, against idle turns; chosen, not measured
POLL_S = 0.5
# Before a job is tried anew that another process has, or that found a disk full: soon for a study,
# seldom for the log; chosen, not measured
BUSY_PAUSE_S = 30.0
# Old is what is so by days, so it need not be looked for often; chosen, not measured
TIDY_EVERY_S = 600.0


def serve(config: NodeConfig, stop: threading.Event) -> None:
    """Run a node until ``stop`` is set.

    Raises:
        MmifError: a folder that cannot be used or that another node uses, a port that is taken,
            workers that cannot start.
    """
    out = Path(config.output)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror})") from error
    with ExitStack() as stack:
        claims = stack.enter_context(Claims(out))
        if not claims.run(alone=True):
            raise OutputError(f"{out}: another node or batch is at work here; expected none")
        commitments = Commitments()
        spool = Spool(out / "spool")
        sent = Deliveries(out / "sent", config.peers, config.ae_title, config.deliver, commitments)
        deliveries = stack.enter_context(sent)
        pipelines = pipelines_of(config.tasks or VOLUME_TASKS, config.pipelines)
        work = FuseWork(pipelines, config.options, config.options.device)
        # before the workers: they ask its owner, and none of them loads the networks
        own_gpu(work, stack)
        jobs = config.jobs or resources.default_jobs()
        executor = stack.enter_context(LocalExecutor(work, config.work, jobs))
        ledger = _open_ledger(out, claims, parameters(pipelines, config.options))
        node = Node(config, spool, ledger, executor, deliveries)
        # before anything comes: what an earlier life left is at work first
        node.take_up()
        stack.enter_context(Receiver(config, spool, commitments))
        log.info("%s: listening at port %d, results below %s", config.ae_title, config.port, out)
        while not stop.is_set():
            node.turn()
        log.info("%s: stopping", config.ae_title)


def _open_ledger(out: Path, claims: Claims, said: Mapping[str, Any]) -> Ledger:
    """The ledger of ``out``; other parameters (a newer mmif, say) begin a ledger of their own.

    What earlier ledgers say is done stays done: a study is not fused again by a newer version.
    """
    ledger = Ledger(out, claims)
    ledger.refresh()
    same = [name for name, head in ledger.headers.items() if head.get("parameters") == said]
    number = len(ledger.headers)
    name = same[-1] if same else f"ledger-{number}.jsonl" if number else "ledger.jsonl"
    ledger.path = out / name
    try:
        if not same:
            ledger.extend([{"ledger": 1, "parameters": dict(said)}])
    except OSError as error:
        raise OutputError(f"{ledger.path}: cannot be written ({error.strerror})") from error
    ledger.refresh()
    return ledger


class Node:
    """What lies between the spool and the archives."""

    def __init__(
        self,
        config: NodeConfig,
        spool: Spool,
        ledger: Ledger,
        executor: Executor,
        deliveries: Deliveries,
    ) -> None:
        """Nothing is done before `take_up` and `turn`."""
        self._config = config
        self._spool = spool
        self._ledger = ledger
        self._executor = executor
        self._deliveries = deliveries
        self._run = uuid.uuid4().hex[:12]
        self._tasks: dict[str, Task] = {}
        self._later: list[tuple[float, Task]] = []
        self._tidied = 0.0

    def take_up(self) -> None:
        """Have results sent on that an earlier run has made and not every archive has had."""
        for job_id in [job_id for job_id, e in self._ledger.entries.items() if e.state == "done"]:
            self._deliver(job_id)

    def turn(self) -> None:
        """Plan what is complete, take one outcome, tidy up now and then."""
        for folder in self._spool.complete(self._config.quiet_s):
            try:
                self._plan(folder)
            except Exception as error:  # one patient's files keep no other patient waiting
                log.error("%s: not looked through; %s", folder.name, error_line(error)[1])
                if isinstance(error, OSError):
                    self._spool.postpone(folder)
        for due, task in list(self._later):
            if due <= time.monotonic():
                self._later.remove((due, task))
                self._executor.submit(task)
        outcome = self._executor.next(POLL_S)
        if outcome is not None:
            self._end_job(outcome)
        if time.monotonic() - self._tidied > TIDY_EVERY_S:
            self._tidied = time.monotonic()
            try:
                self._tidy()
            except OSError as error:  # what cannot be removed today keeps nobody waiting
                log.error("nothing old was removed; %s", error_line(error)[1])

    def _plan(self, folder: Path) -> None:
        """Hand the jobs of a patient to the workers, but those that are done."""
        plan = plan_patient(folder, self._config.tasks, self._config.options.fill_gaps)
        self._ledger.refresh()
        for rejected in plan.rejected:
            log.warning("%s: not fused; %s", rejected.id, without_quotes(rejected.reason))
        for job in plan.jobs:
            if is_finished(job, self._ledger, self._ledger.out):
                self._deliver(job.id)
                continue
            log.info("%s: complete; waits for a worker", job.id)
            task = Task(
                job, self._ledger.out, self._ledger.path.name, self._run, self._ledger.now()
            )
            self._tasks[job.id] = task
            self._executor.submit(task)

    def _end_job(self, outcome: Outcome) -> None:
        """What the end of a job means."""
        job_id = outcome.job_id
        if outcome.state == "done":
            log.info("%s: fused in %.0f s", job_id, outcome.seconds)
            self._ledger.refresh()
            self._deliver(job_id)
        elif outcome.state == "failed":
            reason = without_quotes(outcome.reason)  # a series' description can hold a name
            log.error("%s: not fused (%s); %s", job_id, outcome.cause, reason)
        elif outcome.state == "died":
            log.warning("%s: %s; tried again", job_id, outcome.reason)
            self._executor.submit(self._tasks[job_id])
        elif outcome.state in ("busy", "unwritable"):
            if outcome.state == "unwritable":
                log.error("%s: waits; %s", job_id, outcome.reason)
            self._later.append((time.monotonic() + BUSY_PAUSE_S, self._tasks[job_id]))

    def _deliver(self, job_id: str) -> None:
        output = self._ledger.out / "studies" / job_id
        if output.is_dir():
            made = float(self._ledger.entries[job_id].line["time"])
            self._deliveries.add(job_id, output, made)

    def _tidy(self) -> None:
        """Remove images, and results that every archive has had, when they are old enough."""
        if not self._config.peers:  # then OUT is where the results are wanted
            return
        before = time.time() - self._config.keep_days * DAY_S
        patients = self._spool.remove_old(before)
        results = 0
        for job_id, entry in self._ledger.entries.items():
            made, output = float(entry.line["time"]), self._ledger.out / "studies" / job_id
            old = entry.state == "done" and made < before and output.is_dir()
            if old and self._deliveries.is_over(job_id, made):
                if strange := foreign_in_folder(output):
                    log.warning("%s: stays; %s", job_id, strange)
                    continue
                remove(output)
                results += 1
                if not any(output.parent.iterdir()):
                    output.parent.rmdir()
        if patients or results:
            log.info("removed the images of %d patients and %d results", patients, results)


def plan_patient(folder: Path, tasks: tuple[str, ...], fill_gaps: bool = False) -> Plan:
    """The jobs of one patient's folder of the spool; a study is called by its StudyInstanceUID."""
    found, rejected = studies_below(folder, fill_gaps)
    named = [replace(study, name=study.uid or study.name) for study in found]
    return plan_of(named, rejected, tasks)
