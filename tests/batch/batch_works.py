"""Work for the tests of a batch's machinery: no imaging, every way to end."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmif.batch.jobs import Job
from mmif.batch.plan import Plan
from mmif.batch.results import read_rows
from mmif.batch.run_job import Step
from mmif.batch.worker import Limits
from mmif.errors import InputError
from mmif.io.atomic import commit, staging_folder
from mmif.studies.study import input_of

LIMITS = Limits(timeout_s=30, memory_mib=300)
PARAMETERS = {"format": "nifti"}


def make_plan(folder: Path, *words: str) -> Plan:
    """A job for each word: ``case00/ct-mri`` ..., whose CT holds that word."""
    jobs = []
    for number, word in enumerate(words):
        case = folder / f"case{number:02}"
        case.mkdir(parents=True)
        (case / "ct").write_text(f"{word} {number}")
        (case / "mri").write_text("mri")
        inputs = {role: input_of(case / role) for role in ("ct", "mri")}
        jobs.append(Job(f"case{number:02}/ct-mri", "ct-mri", inputs))
    return Plan(tuple(jobs))


def states(out: Path) -> dict[str, tuple[str, str]]:
    return {row.study: (row.state, row.cause) for row in read_rows(out)}


@dataclass
class Copy:
    """Copies the CT into the output; what the first word of the CT says happens instead.

    Attributes:
        log: a file to which each start of a job adds a line.
        seconds: how long it takes.
        processes: how many must have started a job before one of them ends its first.
    """

    log: Path | None = None
    seconds: float = 0.0
    processes: int = 1
    prepared: int = 0

    def prepare(self) -> None:
        self.prepared += 1

    def __call__(self, job: Job, output: Path, step: Step) -> Mapping[str, Any]:
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{job.id} {self.prepared} {os.getpid()}\n")
        text = next(iter(job.inputs["ct"].paths())).read_text()
        step("read", 0.0)
        _end_badly(text)
        with staging_folder(output) as folder:
            made = folder / "out"
            made.mkdir()
            (made / "fused.txt").write_text(text)
            time.sleep(self.seconds)
            while self.log and len(pids_of(self.log)) < self.processes:
                time.sleep(0.01)
            commit(made, output)
        return {
            "verdict": "pass",
            "registration_error_mm": 0.5,
            "metrics": {"EN": 1.0},
            "seconds": self.seconds,
        }


def pids_of(log: Path) -> set[int]:
    """The processes that started the jobs in a log of `Copy`; none where there is no log yet."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {int(line.split()[2]) for line in lines if line.count(" ") == 2}


def _end_badly(text: str) -> None:
    word = text.split()[0]
    if word == "refuse":
        raise InputError(f"refused: {text}")
    if word == "bug":
        raise ZeroDivisionError("DOE^JANE")
    if word == "hang":
        time.sleep(600)
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "exit":
        os._exit(7)
    if word == "eat":
        eaten = bytearray(160 << 20)
        time.sleep(60 + len(eaten) * 0)


@dataclass
class KilledOnce(Copy):
    """A worker that is killed before it is ready, the first time."""

    mark: Path = Path()

    def prepare(self) -> None:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Unprepared:
    """Work that cannot begin."""

    def prepare(self) -> None:
        raise InputError("no weights here")

    def __call__(self, job: Job, output: Path, step: Step) -> Mapping[str, Any]:
        raise AssertionError(job.id)
