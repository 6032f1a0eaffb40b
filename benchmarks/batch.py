"""What `mmif batch` does to a generated set of studies, how fast, and what it survives.

    python benchmarks/batch.py                     everything (about 8 minutes on two free cores)
    python benchmarks/batch.py set speed           only these parts

Parts:
    set      40 studies in mixed formats, six of them bad in six ways: 34 done, 6 with their reasons
    kills    SIGKILL of the main process at 20 random moments, and of workers; then resumed
    dask     the same 40 on Dask with two workers, one killed in the middle
    speed    studies an hour with --jobs 1 and 2, on Dask and in a loop of mmif fuse; memory
    ledger   the cost per job of 10, 100 and 1000 jobs without imaging: the batch alone
    growth   the cost per study of 10, 100 and 1000 tiny studies; a run that finds all done

A line is: what was measured, the figure, and where there is one the bar and whether it is met.
On a machine that others use the wall times are theirs too; CPU seconds stand beside them.
The exit code is 1 where a bar is missed.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "batch")]

from batch_fuse import CrashingFuse  # noqa: E402
from batch_results import differences, half_outputs  # noqa: E402
from batch_studies import MAKERS, make_studies, phantom  # noqa: E402
from batch_works import Copy  # noqa: E402
from batch_works import make_plan as copied_files  # noqa: E402

from mmif.batch.executors import LocalExecutor  # noqa: E402
from mmif.batch.fuse_job import FuseWork, parameters  # noqa: E402
from mmif.batch.jobs import Job  # noqa: E402
from mmif.batch.plan import Plan, make_plan  # noqa: E402
from mmif.batch.resources import cores  # noqa: E402
from mmif.batch.results import read_rows  # noqa: E402
from mmif.batch.run import Tally, run_batch  # noqa: E402
from mmif.batch.run_job import Work  # noqa: E402
from mmif.batch.worker import Limits  # noqa: E402
from mmif.config import GridConfig, load_pipeline  # noqa: E402
from mmif.options import FuseOptions  # noqa: E402

TASKS = ("ct-mri", "spect-mri")
PIPELINES = {task: load_pipeline(task) for task in TASKS}
OPTIONS = FuseOptions(register=False, report=False)
SPEED_STUDIES = 32
KILLS = 20
REASONS = {
    "bad-truncated": "truncated or broken",
    "bad-no-pair": "no pair: found CT, no MRI",
    "bad-two-patients": "two patients in one folder",
    "bad-no-overlap": "do not overlap",
    "bad-four-d": "4-D with 3 volumes",
    "bad-crash": "killed by SIGSEGV",
}
missed: list[str] = []


LIMITS = Limits(timeout_s=600, memory_mib=4096)


def fuse_work(pixels: int = 256) -> CrashingFuse:
    """The real work, with the shipped weights, on so many pixels a side."""
    grid = GridConfig(size=pixels)
    pipelines = {task: replace(one, grid=grid) for task, one in PIPELINES.items()}
    return CrashingFuse(pipelines, OPTIONS, "cpu")


def fuse_all(plan: Plan, out: Path, jobs: int, pixels: int = 256) -> Tally:
    """One run on this machine."""
    work = fuse_work(pixels)
    executor = LocalExecutor(work, LIMITS, jobs)
    return run_batch(plan, out, parameters(work.pipelines, OPTIONS), executor)


def good_only(plan: Plan) -> Plan:
    return Plan(tuple(job for job in plan.jobs if not job.id.startswith("bad-")))


# Parts


def part_set(folder: Path, studies: Path) -> None:
    with timed("40 studies, --jobs 2"):
        fuse_all(make_plan(studies), folder / "set", jobs=2, pixels=64)
    check_forty(folder / "set")


def check_forty(out: Path) -> None:
    """34 done, 6 with their right reasons."""
    rows = read_rows(out)
    failed = {row.study: row.reason for row in rows if row.state == "failed"}
    right = [name for name, words in REASONS.items() if words in failed.get(name, "")]
    done = sum(row.state == "done" for row in rows)
    say("done", f"{done} of {len(rows)}", "34 of 40", (done, len(rows)) == (34, 40))
    say("failed, with the right reason", f"{len(right)}", "6", len(right) == len(failed) == 6)
    for name, reason in sorted(failed.items()):
        say(f"    {name}", reason.replace(str(out.parent), "..."))


def part_kills(folder: Path, studies: Path) -> None:
    plan, reference, out = good_only(make_plan(studies)), folder / "set", folder / "kills"
    if not reference.exists():
        part_set(folder, studies)
    killed: list[str] = []
    half = 0
    with timed(f"{KILLS} runs killed, then one to the end"):
        draw = random.Random(6)
        for _ in range(KILLS):
            killed += kill_a_run(plan, out, draw)
            half += half_outputs(out, reference)
        fuse_all(plan, out, jobs=2, pixels=64)
    say("killed", ", ".join(f"{what} {n}" for what, n in sorted(Counter(killed).items())))
    states = Counter(
        (line["job"], line["state"]) for line in ledger_lines(out) if line.get("state")
    )
    twice = sum(n - 1 for (_, state), n in states.items() if state == "done")
    again = sum(n - 1 for (_, state), n in states.items() if state == "started")
    missing, unequal, total = differences(out, reference)
    left = len(list((out / "studies").rglob(".*")))
    say("half outputs seen after a kill", f"{half}", "0", half == 0)
    say("files missing in the end", f"{missing} of {total}", "0", missing == 0)
    say("files unlike the uninterrupted run's", f"{unequal} of {total}", "0", unequal == 0)
    say("studies done twice; begun again after a kill", f"{twice}; {again}", "0", twice == 0)
    say("files left over", f"{left}", "0", left == 0)


def kill_a_run(plan: Plan, out: Path, draw: random.Random) -> list[str]:
    """A run that is killed, with or without one of its workers before it; what was killed.

    A third of the kills come at any moment, a third soon after a study has begun or ended, and a
    third while an output is being written.
    """
    process = os.fork()
    if process == 0:
        try:
            fuse_all(plan, out, jobs=2, pixels=64)
        finally:
            os._exit(0)
    moment = draw.choice(("any", "ledger", "writing"))
    if moment == "any":
        time.sleep(draw.uniform(0, 8))
    elif moment == "ledger":
        await_change(process, lambda: len(ledger_lines(out)), draw.randint(1, 3))
        time.sleep(draw.uniform(0, 0.5))
    else:
        await_change(process, lambda: len(list(out.glob("studies/*/.*"))), 1)
    killed = []
    if draw.random() < 0.4 and (workers := children_of(process)):
        os.kill(draw.choice(workers), signal.SIGKILL)
        killed.append("worker")
        time.sleep(draw.uniform(0, 3))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return [*killed, f"main ({moment})"]


def await_change(process: int, count: Callable[[], int], more: int) -> None:
    """Wait until what is counted has grown by ``more``, or the process has ended."""
    before = count()
    while count() < before + more and Path(f"/proc/{process}/exe").exists():
        time.sleep(0.002)


def ledger_lines(out: Path) -> list[dict]:  # type: ignore[type-arg]
    """The whole lines of the ledger."""
    path = out / "ledger.jsonl"
    texts = path.read_text().splitlines() if path.exists() else []
    found = []
    for text in texts:
        try:
            found.append(json.loads(text))
        except ValueError:  # torn by a kill
            continue
    return found


def part_dask(folder: Path, studies: Path) -> None:
    from mmif.batch.cluster import DaskExecutor

    out, work = folder / "dask", fuse_work(64)
    executor = DaskExecutor("local", work, LIMITS, jobs=2)

    def kill_one() -> None:
        while sum(line.get("state") == "done" for line in ledger_lines(out)) < 12:
            time.sleep(0.05)
        os.kill(next(iter(executor.client.run(os.getpid).values())), signal.SIGKILL)
        done = sum(line.get("state") == "done" for line in ledger_lines(out))
        say("killed one of two Dask workers", f"after {done} were done")

    threading.Thread(target=kill_one, daemon=True).start()
    with timed("40 studies on Dask"):
        run_batch(make_plan(studies), out, parameters(work.pipelines, OPTIONS), executor)
    check_forty(out)


def part_speed(folder: Path, studies: Path) -> None:
    """Small studies at the full 256 pixels, with the shipped weights."""
    from mmif.batch.cluster import DaskExecutor

    plan = Plan(good_only(make_plan(studies)).jobs[:SPEED_STUDIES])
    number = len(plan.jobs)
    with timed(f"{number} studies, --jobs 1") as one:
        fuse_all(plan, folder / "speed1", 1)
    with timed(f"{number} studies, --jobs 2") as two:
        fuse_all(plan, folder / "speed2", 2)
    work = fuse_work()
    cluster = DaskExecutor("local", work, LIMITS, jobs=2)
    with timed(f"{number} studies, --dask local --jobs 2") as dask:
        run_batch(plan, folder / "speed3", parameters(work.pipelines, OPTIONS), cluster)
    alone = plan.jobs[: number // 4]
    with timed(f"{len(alone)} studies, mmif fuse in a loop") as loop:
        shell_loop(alone, folder / "loop")
    ways = {"--jobs 1": one, "--jobs 2": two, "--dask local": dask, "mmif fuse in a loop": loop}
    for what, took in ways.items():
        count = len(alone) if took is loop else number
        said = f"{3600 * count / took.wall:.0f} wall; {3600 * count / took.cpu:.0f} of one core"
        say(f"studies an hour, start included, {what}", said)
    say("--jobs 2 over --jobs 1, start included", f"{one.wall / two.wall:.2f}")
    outs = ("speed1", "speed2", "speed3")
    rates = [3600 * number / seconds_of_work(folder / name) for name in outs]
    say("studies an hour, workers warm (1, 2, Dask)", ", ".join(f"{rate:.0f}" for rate in rates))
    # one worker has all cores, one of two its share: a second can double no more than one leaves
    busy = [took.cpu / took.wall for took in (one, two)]
    say("cores kept busy by --jobs 1 and 2, start included", f"{busy[0]:.2f}, {busy[1]:.2f}")
    ratio, most = rates[1] / rates[0], min(2.0, cores() / busy[0])
    bar = f"0.9 of the {most:.2f} that one leaves"
    say("--jobs 2 over --jobs 1, workers warm", f"{ratio:.2f}", bar, ratio >= 0.9 * most)
    ratio = two.cpu / one.cpu
    say("CPU of --jobs 2 over --jobs 1, start included", f"{ratio:.2f}", "1.1", ratio <= 1.1)
    share = number / len(alone)
    ratio = share * loop.wall / one.wall
    by_cpu = f"{ratio:.1f} wall, {share * loop.cpu / one.cpu:.1f} CPU"
    say("--jobs 1 over the shell loop", by_cpu, "2", ratio >= 2)
    for what, took in (("--jobs 2", two), ("--dask local --jobs 2", dask)):
        ratio = share * loop.wall / took.wall
        say(f"{what} over the shell loop, start included", f"{ratio:.1f}", "1.7", ratio >= 1.7)
    peaks = [max(row.figures["peak_mib"] for row in read_rows(folder / out)) for out in outs]
    say("memory of a worker, largest (1, 2, Dask)", f"{', '.join(map(str, peaks))} MiB")


def seconds_of_work(out: Path) -> float:
    """From the first study begun to the last one done, as the ledger says."""
    times = [line["time"] for line in ledger_lines(out) if line.get("state") in ("started", "done")]
    return max(times) - min(times)


def shell_loop(jobs: tuple[Job, ...], out: Path) -> None:
    """``mmif fuse``, one process a study, with the threads that a worker has."""
    out.mkdir()
    threads = {"OMP_NUM_THREADS": str(cores())}
    for number, job in enumerate(jobs):
        words = [sys.executable, "-m", "mmif", "-q", "fuse", "-o", str(out / str(number))]
        for role, source in job.inputs.items():
            words += [f"--{role}", str(source.path)]
            if source.series_uid:
                words += ["--series-uid", f"{role}={source.series_uid}"]
        words += ["--no-register", "--no-report", "--device", "cpu"]
        subprocess.run(words, check=True, cwd=ROOT, env={**os.environ, **threads})


def part_ledger(folder: Path, studies: Path) -> None:
    """Jobs that copy a file, so that ledger, claims and pipes are all there is."""
    whole = copied_files(folder / "in", *["fine"] * 1000)
    growth = costs(whole, folder / "ledger", Copy(), {}, rounds=5)
    say("growth of that, main process", f"{growth:.2f}", "at most 1.2", growth <= 1.2)


def part_growth(folder: Path, studies: Path) -> None:
    """Tiny volumes, really fused."""
    root, head = folder / "tiny", phantom(0, (12, 12, 4))
    for number in range(1000):
        MAKERS["case"](root / f"{number // 100}", f"case{number:04}", head)
    work = FuseWork(
        {"ct-mri": replace(PIPELINES["ct-mri"], grid=GridConfig(size=16))}, OPTIONS, "cpu"
    )
    start = time.perf_counter()
    whole = make_plan(root)
    say("scan of 2000 files", f"{time.perf_counter() - start:.2f} s")
    said = parameters(work.pipelines, OPTIONS)
    costs(whole, folder / "growth", work, said)
    for number in (10, 100, 1000):
        with timed(f"{number} found done again, without the scan"):
            executor = LocalExecutor(work, LIMITS, 2)
            run_batch(Plan(whole.jobs[:number]), folder / f"growth{number}", said, executor)


def costs(whole: Plan, out: Path, work: Work, said: dict[str, object], rounds: int = 1) -> float:
    """What one more job costs from 10 to 100 and from 100 to 1000: start-up cancels out.

    A run of one job goes before: what this process imports but once is no part of a difference.
    Of several rounds the one that took least is the least disturbed.

    Returns:
        How much that grows in the main process.
    """
    took: dict[int, Took] = {}
    for number in (1, *(10, 100, 1000) * rounds):
        plan, executor = Plan(whole.jobs[:number]), LocalExecutor(work, LIMITS, 2)
        place = out.with_name(f"{out.name}{number}")
        shutil.rmtree(place, ignore_errors=True)
        with timed(f"{number} jobs") as one:
            run_batch(plan, place, said, executor)
        took[number] = min(took.get(number, one), one, key=lambda each: each.cpu)
    few, many = (
        Took(*((b - a) / (n - m) for a, b in zip(took[m].all(), took[n].all(), strict=True)))
        for m, n in ((10, 100), (100, 1000))
    )
    for what, cost in (("from 10 to 100", few), ("from 100 to 1000", many)):
        say(
            f"one more job, {what}",
            f"{1000 * cost.wall:.0f} ms wall, {1000 * cost.cpu:.1f} ms CPU, "
            f"{1000 * cost.main:.2f} ms CPU of the main process",
        )
    growth = many.cpu / few.cpu
    say("growth of that by CPU", f"{growth:.2f}", "at most 1.2", growth <= 1.2)
    return many.main / few.main


# Measuring


def say(what: str, figure: str, bar: str = "", met: bool = True) -> None:
    verdict = f"   (bar: {bar}; {'met' if met else 'MISSED'})" if bar else ""
    print(f"{what:46} {figure}{verdict}", flush=True)
    if not met:
        missed.append(what)


@dataclass
class Took:
    """Seconds: by the clock, of all processors' work, and of this process's work alone."""

    wall: float = 0.0
    cpu: float = 0.0
    main: float = 0.0

    def all(self) -> tuple[float, float, float]:
        return self.wall, self.cpu, self.main


@contextmanager
def timed(what: str) -> Iterator[Took]:
    """Say the wall and CPU seconds of what runs inside, workers included."""
    took = Took()
    before, start, main = cpu_seconds(), time.perf_counter(), time.process_time()
    yield took
    took.wall, took.main = time.perf_counter() - start, time.process_time() - main
    took.cpu = cpu_seconds() - before
    load = os.getloadavg()[0]
    say(what, f"{took.wall:.1f} s wall, {took.cpu:.1f} s CPU (load of the machine {load:.1f})")


def cpu_seconds() -> float:
    """Of this process and of all that it has waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def children_of(pid: int) -> list[int]:
    try:
        listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(word) for text in listed for word in text.split()]


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "set": part_set,
    "kills": part_kills,
    "dask": part_dask,
    "speed": part_speed,
    "ledger": part_ledger,
    "growth": part_growth,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parts = parser.parse_args().parts
    folder = Path(tempfile.mkdtemp(prefix="mmif-batch-"))
    try:
        studies = folder / "studies"
        make_studies(studies, 34, (40, 40, 10))
        for name in parts:
            print(f"\n{name}")
            PARTS[name](folder, studies)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if missed:
        sys.exit(f"\nmissed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
