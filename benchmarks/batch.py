"""What `mmif batch` does to a generated set of studies, how fast, and what it survives.

    python benchmarks/batch.py                     everything (about 30 minutes on two cores)
    python benchmarks/batch.py set speed           only these parts

Parts:
    set      40 studies in mixed formats, six of them bad in six ways: 34 done, 6 with their reasons
    kills    SIGKILL of the main process and of workers at 20 random moments; then resumed
    dask     the same 40 on Dask with two workers, one killed in the middle
    speed    studies per minute with --jobs 1 and 2 and in a shell loop of mmif fuse; memory
    ledger   the cost per job of 10, 100 and 1000 jobs without imaging: the batch alone
    growth   the cost per study of 10, 100 and 1000 tiny studies; a resumed run that finds all done
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "batch")]

from batch_fuse import CrashingFuse  # noqa: E402
from batch_studies import MAKERS, make_studies, phantom  # noqa: E402
from batch_works import Copy  # noqa: E402
from batch_works import make_plan as copied_files  # noqa: E402

from mmif.batch.answer import Row, read_rows  # noqa: E402
from mmif.batch.executors import Executor, LocalExecutor  # noqa: E402
from mmif.batch.jobs import Job  # noqa: E402
from mmif.batch.plan import Plan, make_plan, write_list  # noqa: E402
from mmif.batch.run import Tally, run_batch  # noqa: E402
from mmif.batch.supervisor import Limits  # noqa: E402
from mmif.batch.work import FuseOptions, FuseWork, parameters  # noqa: E402
from mmif.config import GridConfig, load_pipeline  # noqa: E402

TASKS = ("ct-mri", "spect-mri")
PIPELINES = {task: load_pipeline(task) for task in TASKS}
OPTIONS = FuseOptions(register=False, report=False)
SPEED_STUDIES = int(os.environ.get("MMIF_BENCHMARK_STUDIES", "16"))
REASONS = {
    "bad-truncated": "truncated or broken",
    "bad-no-pair": "no pair: found CT, no MRI",
    "bad-two-patients": "two patients in one folder",
    "bad-no-overlap": "do not overlap",
    "bad-four-d": "4-D with 3 volumes",
    "bad-crash": "killed by SIGSEGV",
}


def limits(jobs: int) -> Limits:
    return Limits(timeout_s=600, memory_mib=4096, threads=max(1, (os.cpu_count() or 1) // jobs))


def fuse_all(plan: Plan, out: Path, jobs: int, *, small: bool = False) -> Tally:
    """One run on this machine; ``small``: on 64 pixels."""
    grid = GridConfig(size=64) if small else GridConfig()
    pipelines = {task: replace(one, grid=grid) for task, one in PIPELINES.items()}
    work = CrashingFuse(pipelines, OPTIONS, "cpu")
    executor = LocalExecutor(work, limits(jobs), jobs)
    return run_batch(plan, out, parameters(pipelines, OPTIONS), executor)


def good_only(plan: Plan) -> Plan:
    return Plan(tuple(job for job in plan.jobs if not job.id.startswith("bad-")))


# Parts


def part_set(folder: Path, studies: Path) -> None:
    with timed("40 studies, --jobs 2"):
        fuse_all(make_plan(studies), folder / "set", jobs=2, small=True)
    check_forty(folder / "set")


def check_forty(out: Path) -> None:
    """34 done, 6 with their right reasons."""
    rows = read_rows(out)
    failed = {row.study: row.reason for row in rows if row.state == "failed"}
    right = [name for name, words in REASONS.items() if words in failed.get(name, "")]
    say("done", f"{sum(row.state == 'done' for row in rows)} of {len(rows)}")
    say("failed with the right reason", f"{len(right)} of {len(failed)}")
    for name, reason in sorted(failed.items()):
        say(f"    {name}", reason.replace(str(out.parent), "..."))


def part_kills(folder: Path, studies: Path) -> None:
    plan = good_only(make_plan(studies))
    reference, out = folder / "set", folder / "kills"
    if not reference.exists():
        fuse_all(make_plan(studies), reference, jobs=2, small=True)
    plan = Plan(plan.jobs[:12])
    kills = killed_runs(plan, out, number=20)
    with timed(f"{len(kills)} kills ({kills.count('worker')} of workers), then resumed"):
        fuse_all(plan, out, jobs=2, small=True)
    done = [row for row in read_rows(out) if row.state == "done"]
    say("done in the end", f"{len(done)} of {len(plan.jobs)}")
    say("outputs equal to the uninterrupted run", f"{count_equal(done, out, reference)}")
    starts = (out / "ledger.jsonl").read_text().count('"started"')
    again = (out / "ledger.jsonl").read_text().count('"done"') - len(done)
    say("starts; ends recorded twice", f"{starts}; {again}")
    say("files left over", str(len(list((out / "studies").rglob(".*")))))


def killed_runs(plan: Plan, out: Path, number: int) -> list[str]:
    """Runs that are killed at random moments; what was killed."""
    draw = random.Random(6)
    killed: list[str] = []
    while len(killed) < number:
        process = os.fork()
        if process == 0:
            os.setsid()
            try:
                fuse_all(plan, out, jobs=2, small=True)
            finally:
                os._exit(0)
        await_lines(out, draw.randint(0, 8))
        time.sleep(draw.uniform(0, 1.5))
        if draw.random() < 0.4 and (workers := children_of(process)):
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed.append("worker")
            time.sleep(draw.uniform(0.5, 4))
        os.kill(process, signal.SIGKILL)
        killed.append("main")
        os.waitpid(process, 0)
    return killed[:number]


def await_lines(out: Path, number: int) -> None:
    """Wait until the ledger has that many lines more than now."""
    ledger = out / "ledger.jsonl"
    before = ledger.read_bytes().count(b"\n") if ledger.exists() else 0
    deadline = time.monotonic() + 90
    while number and time.monotonic() < deadline:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= before + number:
            return
        time.sleep(0.02)


def count_equal(rows: list[Row], out: Path, reference: Path) -> str:
    """How many outputs are the same: NIfTI by bytes, DICOM by UIDs and pixels."""
    import pydicom

    equal = total = 0
    for row in rows:
        for path in sorted((reference / row.output).rglob("*")):
            there = out / path.relative_to(reference)
            if path.suffix in (".gz", ".tfm"):
                same = there.read_bytes() == path.read_bytes()
            elif path.suffix == ".dcm":
                one, two = pydicom.dcmread(path), pydicom.dcmread(there)
                same = one.SOPInstanceUID == two.SOPInstanceUID
                same = same and one.get("PixelData") == two.get("PixelData")
            else:
                continue
            total += 1
            equal += same
    return f"{equal} of {total} files"


def part_dask(folder: Path, studies: Path) -> None:
    from mmif.batch.cluster import DaskExecutor

    pipelines = {task: replace(one, grid=GridConfig(size=64)) for task, one in PIPELINES.items()}
    out = folder / "dask"
    executor = DaskExecutor("local", CrashingFuse(pipelines, OPTIONS, "cpu"), limits(2), jobs=2)

    def kill_one() -> None:
        ledger = out / "ledger.jsonl"
        while not ledger.exists() or ledger.read_text().count('"done"') < 12:
            time.sleep(0.05)
        pid = next(iter(executor.client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        say("killed Dask worker", f"after {ledger.read_text().count(chr(34) + 'done' + chr(34))}")

    threading.Thread(target=kill_one, daemon=True).start()
    with timed("40 studies on Dask, two workers, one killed"):
        run_batch(make_plan(studies), out, parameters(pipelines, OPTIONS), executor)
    check_forty(out)


def part_speed(folder: Path, studies: Path) -> None:
    """Small studies at the full 256 pixels, with the shipped weights."""
    whole = good_only(make_plan(studies))
    plan = Plan(whole.jobs[:SPEED_STUDIES])
    rates = {}
    for jobs in (1, 2):
        out = folder / f"speed{jobs}"
        with timed(f"{len(plan.jobs)} studies, --jobs {jobs}") as took:
            fuse_all(plan, out, jobs)
        rates[jobs] = 60 * len(plan.jobs) / took()
        say("    studies per minute, start-up and all", f"{rates[jobs]:.1f}")
        peaks = [row.figures["peak_mib"] for row in read_rows(out)]
        say("    memory of a worker, largest", f"{max(peaks)} MiB")
    say("--jobs 2 over --jobs 1", f"{rates[2] / rates[1]:.2f}")
    loop = shell_loop(plan.jobs[: SPEED_STUDIES // 2], folder / "loop")
    say("mmif fuse in a shell loop, studies per minute", f"{loop:.1f}")
    say("--jobs 1 over the shell loop", f"{rates[1] / loop:.2f}")


def shell_loop(jobs: tuple[Job, ...], out: Path) -> float:
    """Studies per minute of ``mmif fuse``, one process a study."""
    out.mkdir()
    with timed(f"{len(jobs)} studies, mmif fuse in a loop") as took:
        for number, job in enumerate(jobs):
            words = [sys.executable, "-m", "mmif", "-q", "fuse", "-o", str(out / str(number))]
            for role, source in job.inputs.items():
                words += [f"--{role}", str(source.path)]
                if source.series_uid:
                    words += ["--series-uid", f"{role}={source.series_uid}"]
            words += ["--no-register", "--no-report", "--device", "cpu"]
            subprocess.run(words, check=True, cwd=ROOT)
    return 60 * len(jobs) / took()


def part_ledger(folder: Path, studies: Path) -> None:
    """The batch alone: jobs that copy a file, so that ledger, claims and pipes are all there is."""
    whole = copied_files(folder / "in", *["fine"] * 1000)
    for number in (10, 100, 1000):
        first: list[float] = []

        def watch(tally: Tally, outcome: object, first: list[float] = first) -> None:
            if tally.done == 1:
                first.append(time.perf_counter())

        out, cpu = folder / f"ledger{number}", cpu_seconds()
        executor: Executor = LocalExecutor(Copy(), limits(2), 2)
        run_batch(Plan(whole.jobs[:number]), out, {}, executor, watch=watch)
        wall = time.perf_counter() - first[0]
        say(
            f"{number:5} copied files, after start-up",
            f"{1000 * wall / (number - 1):.1f} ms a job; the main process "
            f"{1000 * (cpu_seconds() - cpu) / number:.1f} ms of CPU a job",
        )


def part_growth(folder: Path, studies: Path) -> None:
    """Tiny volumes: what is left is the batch itself."""
    root = folder / "tiny"
    head = phantom(0, (12, 12, 4))
    for number in range(1000):
        MAKERS["case"](root / f"{number // 100}", f"case{number:04}", head)
    whole = make_plan(root)
    for number in (10, 100, 1000):
        plan = Plan(whole.jobs[:number])
        write_list(plan, folder / f"{number}.csv")
        out = folder / f"growth{number}"
        pipelines = {"ct-mri": replace(PIPELINES["ct-mri"], grid=GridConfig(size=16))}
        first: list[float] = []

        def watch(tally: Tally, outcome: object, first: list[float] = first) -> None:
            if tally.done == 1:
                first.append(time.perf_counter())

        executor: Executor = LocalExecutor(FuseWork(pipelines, OPTIONS, "cpu"), limits(2), 2)
        cpu = cpu_seconds()
        run_batch(plan, out, parameters(pipelines, OPTIONS), executor, watch=watch)
        wall = time.perf_counter() - first[0]
        main = (cpu_seconds() - cpu) / number
        say(
            f"{number:5} tiny studies, after start-up",
            f"{1000 * wall / (number - 1):.0f} ms a "
            f"study; the main process {1000 * main:.1f} ms of CPU a study",
        )
        again(root, number, out, pipelines)


def again(root: Path, number: int, out: Path, pipelines: dict) -> None:  # type: ignore[type-arg]
    """A run that finds everything done: the scan and the ledger alone."""
    start = time.perf_counter()
    plan = Plan(make_plan(root).jobs[:number])
    scanned = time.perf_counter()
    executor: Executor = LocalExecutor(FuseWork(pipelines, OPTIONS, "cpu"), limits(2), 2)
    tally = run_batch(plan, out, parameters(pipelines, OPTIONS), executor)
    end = time.perf_counter()
    say(
        "      found done again",
        f"{tally.earlier} in {end - scanned:.2f} s "
        f"({1000 * (end - scanned) / number:.2f} ms a study); scan of 1000 {scanned - start:.2f} s",
    )


# Measuring


def say(what: str, figure: str) -> None:
    print(f"{what:46} {figure}", flush=True)


def cpu_seconds() -> float:
    """CPU time of this process alone."""
    return time.process_time()


@contextmanager
def timed(what: str) -> Iterator[Callable[[], float]]:
    """Say the wall and CPU seconds of what runs inside, workers included."""
    took = [0.0]
    before, start = os.times(), time.perf_counter()
    yield lambda: took[0]
    took[0] = time.perf_counter() - start
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    load = os.getloadavg()[0]
    say(what, f"{took[0]:.1f} s wall, {cpu:.1f} s CPU (load of the machine {load:.1f})")


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
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
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


if __name__ == "__main__":
    main()
