"""The same batch on Dask distributed, on workers of this machine."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from batch_works import LIMITS, PARAMETERS, Copy, Unprepared, make_plan, states

pytest.importorskip("distributed", reason="the extra mmif[cluster] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

from mmif.batch.cluster import DaskExecutor  # noqa: E402
from mmif.batch.run import run_batch  # noqa: E402
from mmif.batch.worker import Limits  # noqa: E402
from mmif.errors import MmifError  # noqa: E402


def test_a_dask_worker_lost_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    words = ["fine"] * 8 + ["refuse", "exit"]
    plan = make_plan(tmp_path / "in", *words)
    executor = DaskExecutor("local", Copy(log, 0.3), LIMITS, jobs=2)
    addresses: list[str] = []

    def kill_one() -> None:
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            time.sleep(0.02)
        addresses.append(executor.client.scheduler.address)
        addresses.extend(executor.client.scheduler_info(n_workers=-1)["workers"])
        workers = executor.client.run(os.getpid)
        os.kill(next(iter(workers.values())), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    tally = run_batch(plan, out, PARAMETERS, executor)
    killer.join()
    assert {address.rpartition(":")[0] for address in addresses} == {"tcp://127.0.0.1"}
    assert (tally.done, tally.failed, tally.exit_code) == (8, 2, 3)
    assert states(out)["case08"] == ("failed", "refused")
    assert states(out)["case09"] == ("failed", "died")
    starts = Counter(line.split()[0][:6] for line in log.read_text().splitlines())
    assert starts["case09"] == 3  # a study that kills its process is tried 3 times
    assert starts["case08"] == 1  # an exception is not tried again
    assert sum(starts[f"case{n:02}"] for n in range(8)) <= 9  # only the lost one was repeated


def test_a_worker_process_stays_warm_on_dask(tmp_path: Path) -> None:
    log, environment = tmp_path / "log", dict(os.environ)
    plan = make_plan(tmp_path / "in", *["fine"] * 5)
    run_batch(plan, tmp_path / "out", PARAMETERS, DaskExecutor("local", Copy(log), LIMITS, jobs=1))
    assert dict(os.environ) == environment, "what Dask's processes were told stays with the caller"
    assert {tuple(line.split()[1:]) for line in log.read_text().splitlines()} == {
        ("1", log.read_text().split()[2])
    }


def test_a_study_that_hangs_is_given_up_on_dask(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "in", "hang", "fine")
    executor = DaskExecutor("local", Copy(), Limits(timeout_s=1, memory_mib=300), jobs=1)
    assert run_batch(plan, tmp_path / "out", PARAMETERS, executor).exit_code == 3
    assert states(tmp_path / "out")["case00"] == ("failed", "timeout")


def test_a_worker_that_cannot_begin_ends_the_batch_on_dask(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "in", "fine")
    executor = DaskExecutor("local", Unprepared(), LIMITS, jobs=1)
    with pytest.raises(MmifError, match="no weights here"):
        run_batch(plan, tmp_path / "out", PARAMETERS, executor)


def test_an_unreachable_scheduler_is_refused_in_one_line(tmp_path: Path) -> None:
    executor = DaskExecutor("tcp://127.0.0.1:1", Copy(), LIMITS, jobs=1, scheduler_timeout_s=1)
    with pytest.raises(MmifError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run_batch(make_plan(tmp_path / "in", "fine"), tmp_path / "out", PARAMETERS, executor)
