"""Kill batches at random moments, again and again; nothing may be done twice, lost or left.

    python benchmarks/stress.py [--rounds 200] [--studies 4] [--seed 1]

Each round runs a batch by mmif's own machinery (plan, ledger, locks, workers, outputs; the work
writes files instead of fusing, so that 200 rounds take minutes) and ends it at a random moment:

    kill     SIGKILL to the batch          worker   SIGKILL to a worker
    term     SIGTERM                       full     files of more than 64 KiB are refused (EFBIG)
    int      SIGINT                        two      a second batch on the same OUT, then SIGKILL
    power    SIGKILL to all, then whatever was not flushed (fsync) is lost: bytes of files, and
             names in folders. Privileges for a real one (dm-flakey) are not asked for.

After each round: what the ledger calls done is there, whole and right. When all are done, or after
20 rounds, an undisturbed batch finishes the OUT; then each study was done once, and nothing lies
beside the results or in the folder for temporary files. Printed: rounds by event, and each fault;
the exit code is 1 if there was one.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmif.batch.executors import LocalExecutor
from mmif.batch.jobs import Job
from mmif.batch.plan import Plan
from mmif.batch.run import run_batch
from mmif.batch.run_job import Step
from mmif.batch.worker import Limits
from mmif.errors import MmifError
from mmif.io.atomic import commit, private_folder, staging_folder
from mmif.studies.study import input_of

EVENTS = {"kill": 6, "worker": 4, "term": 3, "int": 2, "full": 2, "two": 2, "power": 4}
FULL_BYTES = 64 << 10
LARGE_BYTES = 200 << 10
LOG = "STRESS_LOG"
OURS = {".claims", "ledger.jsonl", "summary.csv", "index.html", "studies"}


# The batch that is ended


@dataclass
class Work:
    """Writes a few files that follow from the job, in a tenth of a second."""

    log: str

    def prepare(self) -> None:
        """Note from now on what is flushed."""
        note_flushes(self.log)

    def __call__(self, job: Job, output: Path, step: Step) -> Mapping[str, Any]:
        step("read", 0.0)
        with private_folder() as place, staging_folder(output) as folder:
            (place / "patient.dcm").write_bytes(b"name" * 1000)
            made = folder / "out"
            for name, content in contents(job.id).items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)
                time.sleep(0.03)
            commit(made, output)
        return {"verdict": "pass", "seconds": 0.1}


def contents(job_id: str) -> dict[str, bytes]:
    """The files of a job by name."""
    seed = hashlib.sha256(job_id.encode()).digest()
    return {
        "summary.json": seed,
        "fused/1.dcm": seed * (LARGE_BYTES // 32),
        "report.html": seed * 9,
    }


def plan_of(studies: Path) -> Plan:
    """A job a study."""
    jobs = []
    for case in sorted(studies.iterdir()):
        inputs = {role: input_of(case / role) for role in ("ct", "mri")}
        jobs.append(Job(f"{case.name}/ct-mri", "ct-mri", inputs))
    return Plan(tuple(jobs))


def run_one(studies: Path, out: Path) -> int:
    """The batch, as ``mmif batch`` runs it: an interrupt and SIGTERM end it cleanly."""
    import stress

    from mmif.cli import _end_cleanly

    _end_cleanly()
    log = os.environ[LOG]
    note_flushes(log)
    executor = LocalExecutor(stress.Work(log), Limits(timeout_s=60, memory_mib=500, threads=1), 2)
    try:
        return run_batch(plan_of(studies), out, {"what": "stress"}, executor).exit_code
    except MmifError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def note_flushes(log: str) -> None:
    """Have every fsync of this process note what is safe: a file's size, a folder's names."""
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        status = os.fstat(file)
        names = sorted(os.listdir(file)) if os.path.isdir(f"/proc/self/fd/{file}") else None  # noqa: PTH112
        line = json.dumps([status.st_ino, status.st_size, names]) + "\n"
        with open(log, "a") as safe:  # noqa: PTH123
            safe.write(line)

    os.fsync = fsync


# What ends it


class Round:
    """One batch and its end."""

    def __init__(self, root: Path, out: Path, event: str, log: Path) -> None:
        self.root, self.out, self.event, self.log = root, out, event, log

    def start(self) -> subprocess.Popen[bytes]:
        """The batch as a process; the files that it may write are small where the disk is full."""
        command = [sys.executable, __file__, "--batch", str(self.root / "studies"), str(self.out)]
        environment = {**os.environ, "TMPDIR": str(self.root / "tmp"), LOG: str(self.log)}
        limit = (
            (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES)))
            if (self.event == "full")
            else None
        )
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=limit,
        )  # fmt: skip

    def end(self, after_s: float) -> None:
        """Start it, and end it after a while."""
        running = [self.start()]
        if self.event == "two":
            running.append(self.start())
        time.sleep(after_s)
        how = {"term": signal.SIGTERM, "int": signal.SIGINT}.get(self.event, signal.SIGKILL)
        if self.event == "worker":
            for pid in list(children_of(running[0].pid))[:1]:
                os.kill(pid, signal.SIGKILL)
        elif self.event not in ("full", "none"):
            running[0].send_signal(how)
        for one in running:
            one.wait(timeout=120)
        wait_for_the_end_of(self.out)
        if self.event == "power":
            lose_what_is_not_safe(self.out, self.log)


def children_of(pid: int) -> Iterator[int]:
    """The processes that ``pid`` has started."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, task.read_text().split())
        except OSError:
            continue


def wait_for_the_end_of(out: Path) -> None:
    """Wait until no process holds a file below ``out``: the kernel ends orphans a moment later."""
    for _ in range(200):
        held = False
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                held = held or str(link.readlink()).startswith(str(out))
            except OSError:
                continue
        if not held:
            return
        time.sleep(0.05)


def lose_what_is_not_safe(out: Path, log: Path) -> None:
    """As a power failure: names and bytes that were never flushed are gone."""
    sizes: dict[int, int] = {}
    names: dict[int, set[str]] = {}
    for line in log.read_text().splitlines():
        inode, size, inside = json.loads(line)
        if inside is None:
            sizes[inode] = size
        else:
            names[inode] = set(inside)
    for top, folders, files in os.walk(out):
        known = names.get(Path(top).stat().st_ino, set())
        for name in [*folders, *files]:
            path = Path(top, name)
            if name not in known:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.is_file() and path.stat().st_size > sizes.get(path.stat().st_ino, 0):
                os.truncate(path, sizes.get(path.stat().st_ino, 0))
        folders[:] = [name for name in folders if name in known]


# What must hold


def faults_within(out: Path) -> Iterator[str]:
    """What the ledger calls done and is not whole, or was done twice."""
    lines = []
    ledger = out / "ledger.jsonl"
    for text in ledger.read_text(errors="replace").splitlines() if ledger.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue  # torn
    done = Counter(line["job"] for line in lines if line.get("state") == "done")
    for job_id, times in done.items():
        if times > 1:
            yield f"{job_id} done {times} times"
        for name, content in contents(job_id).items():
            path = out / "studies" / job_id / name
            if not path.is_file() or path.read_bytes() != content:
                yield f"{job_id} is called done, and {name} is not whole"


def faults_at_the_end(root: Path, out: Path, studies: int) -> Iterator[str]:
    """What is missing or left when nothing is to do any more."""
    yield from faults_within(out)
    results = list(out.glob("studies/*/ct-mri"))
    if len(results) != studies:
        yield f"{len(results)} of {studies} studies have results"
    strange = {path.name for path in out.iterdir()} - OURS
    strange |= {path.name for path in out.glob("studies/*/*") if path.name != "ct-mri"}
    strange |= {path.name for path in (root / "tmp").iterdir()}
    if strange:
        yield f"left: {', '.join(sorted(strange))}"
    for path in out.glob("studies/*/ct-mri"):
        found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        if found != set(contents("")):
            yield f"{path.parent.name} holds {', '.join(sorted(found))}"


def stress(rounds: int, studies: int, seed: int) -> list[str]:
    """The faults of ``rounds`` batches."""
    draw = random.Random(seed)
    faults: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "tmp").mkdir()
        for number in range(studies):
            case = root / "studies" / f"case{number:02}"
            case.mkdir(parents=True)
            (case / "ct").write_text(f"ct {number}")
            (case / "mri").write_text("mri")
        start = time.monotonic()
        Round(root, root / "whole", "none", root / "log").end(0)
        whole_s = time.monotonic() - start
        print(f"one batch of {studies} studies takes {whole_s:.1f} s undisturbed", flush=True)
        for number in range(1, rounds + 1):
            out = root / f"out{(number - 1) // 20}"
            log = out.with_suffix(".log")
            if not log.exists():
                out.mkdir()
                log.touch()
            event = draw.choices(list(EVENTS), list(EVENTS.values()))[0]
            counts[event] += 1
            Round(root, out, event, log).end(draw.uniform(0, whole_s))
            found = [f"round {number} ({event}): {fault}" for fault in faults_within(out)]
            print(*found, sep="\n", end="\n" * bool(found), flush=True)
            faults += found
            if number % 20 == 0 or number == rounds:
                Round(root, out, "none", log).end(0)
                found = [
                    f"after round {number}: {f}" for f in faults_at_the_end(root, out, studies)
                ]
                faults += found
                print(*found, f"{number} rounds, {len(faults)} faults", sep="\n", flush=True)
    print(", ".join(f"{count} {event}" for event, count in counts.most_common()))
    return faults


def main() -> None:
    """As the docstring above says."""
    if sys.argv[1:2] == ["--batch"]:
        sys.exit(run_one(*map(Path, sys.argv[2:4])))
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--studies", type=int, default=4)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    faults = stress(chosen.rounds, chosen.studies, chosen.seed)
    print("\n".join(faults) or "nothing was done twice, lost or left")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
