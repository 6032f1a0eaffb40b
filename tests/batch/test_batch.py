"""The whole command on small generated studies: what is done, what is not, and what resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import pytest
import torch
import yaml
from batch_fuse import CrashingFuse
from batch_results import differences, half_outputs
from batch_studies import make_studies, phantom, write_nifti
from click.testing import CliRunner

from mmif.batch.executors import LocalExecutor
from mmif.batch.fuse_job import parameters
from mmif.batch.plan import Plan, make_plan
from mmif.batch.results import read_rows
from mmif.batch.run import run_batch
from mmif.batch.worker import Limits
from mmif.cli import main
from mmif.config import GridConfig, NetworkConfig, Pipeline, load_pipeline
from mmif.networks.s3imfusion import S3IMFusion
from mmif.options import FuseOptions
from mmif.weights import save_weights

OPTIONS = FuseOptions(register=False, report=False)
GOOD, BAD = 8, 6


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pipeline]:
    """The shipped pipelines on a small grid, with an untrained network."""
    made = {}
    for task in ("ct-mri", "spect-mri"):
        folder = tmp_path_factory.mktemp(task)
        torch.manual_seed(0)
        save_weights(S3IMFusion(NetworkConfig()), folder, {"task": task})
        pipeline = replace(load_pipeline(task), weights=str(folder), grid=GridConfig(size=64))
        made[task] = pipeline
    return made


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    make_studies(root, GOOD, (24, 24, 6))
    return root


@pytest.fixture(scope="module")
def uninterrupted(
    studies: Path, pipelines: dict[str, Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """OUT of a run over all studies that nothing has disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    work = CrashingFuse(pipelines, OPTIONS, "cpu")
    executor = LocalExecutor(work, Limits(120, 4096, 1), jobs=1)
    plan = make_plan(studies)  # the crash last: no worker has to be started after it
    plan = replace(plan, jobs=tuple(sorted(plan.jobs, key=lambda job: "crash" in job.id)))
    tally = run_batch(plan, out, parameters(pipelines, OPTIONS), executor)
    assert (tally.done, tally.failed, tally.exit_code) == (GOOD, BAD, 3)
    return out


def test_good_studies_are_done_and_bad_ones_have_their_reasons(uninterrupted: Path) -> None:
    rows = {row.study: row for row in read_rows(uninterrupted)}
    assert sum(row.state == "done" for row in rows.values()) == GOOD
    reasons = {name: row.reason for name, row in rows.items() if row.state == "failed"}
    expected = {
        "bad-truncated": "truncated or broken",
        "bad-no-pair": "no pair: found CT, no MRI or SPECT or PET",
        "bad-two-patients": "two patients in one folder",
        "bad-no-overlap": "do not overlap",
        "bad-four-d": "4-D with 3 volumes",
        "bad-crash": "killed by SIGSEGV",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name]


def test_the_answer_has_a_row_a_study_with_its_figures(uninterrupted: Path) -> None:
    import csv

    with (uninterrupted / "summary.csv").open() as file:
        rows = {row["study"]: row for row in csv.DictReader(file)}
    assert len(rows) == GOOD + BAD
    done = rows["case00"]
    assert done["verdict"] == "skipped"
    assert float(done["EN"]) > 0
    assert float(done["seconds"]) > 0
    summary = json.loads((uninterrupted / done["output"] / "summary.json").read_text())
    assert summary["metrics"]["EN"] == float(done["EN"])


def test_no_identity_stands_in_ledger_and_answer(uninterrupted: Path) -> None:
    for name in ("ledger.jsonl", "summary.csv", "index.html"):
        assert "Simulated^Head" not in (uninterrupted / name).read_text()


def test_resumed_after_kills_every_output_equals_the_uninterrupted_one(
    studies: Path, pipelines: dict[str, Pipeline], uninterrupted: Path, tmp_path: Path
) -> None:
    command = _command(studies, pipelines, tmp_path)
    out = tmp_path / "out"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _await_done(out, 1)
    os.kill(_workers_of(process.pid)[0], signal.SIGKILL)
    _await_done(out, 3)
    process.kill()
    process.wait()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "8 studies: 8 done" in finished.stdout
    assert differences(out, uninterrupted)[:2] == (0, 0)
    assert half_outputs(out, uninterrupted) == 0
    assert not list((out / "studies").rglob(".*"))


def test_a_dry_run_shows_the_plan_and_writes_nothing(studies: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["batch", str(studies), "-o", str(tmp_path / "out"), "--dry-run"]
    )
    assert result.exit_code == 0
    assert "case00" in result.stdout
    assert "no pair: found CT, no MRI" in result.stdout
    assert f"{GOOD + BAD - 2} to do, 2 not" in result.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_on_a_begun_out_shows_what_is_done_already(
    studies: Path, pipelines: dict[str, Pipeline], uninterrupted: Path, tmp_path: Path
) -> None:
    words = _command(studies, pipelines, tmp_path)[3:]
    words[1], words[words.index("-o") + 1] = str(studies), str(uninterrupted)
    result = CliRunner().invoke(main, [*words, "--dry-run"])
    assert result.exit_code == 0, result.stderr
    assert f"{BAD - 2} to do, {GOOD} done already, 2 not" in result.stdout
    other = CliRunner().invoke(main, [*words, "--dry-run", "--format", "dicom"])
    assert (other.exit_code, "other parameters" in other.stderr) == (1, True)
    anew = CliRunner().invoke(main, [*words, "--dry-run", "--restart", "--format", "dicom"])
    assert f"{GOOD + BAD - 2} to do, 2 not" in anew.stdout


def test_a_summary_merges_the_ledgers_and_says_the_exit_code(
    uninterrupted: Path, tmp_path: Path
) -> None:
    (uninterrupted / "index.html").unlink()
    result = CliRunner().invoke(main, ["batch", "--summary", str(uninterrupted)])
    assert result.exit_code == 3
    assert f"{GOOD + BAD} studies: {GOOD} done, {BAD} failed" in result.stdout
    assert "bad-crash" in (uninterrupted / "index.html").read_text()
    refused = CliRunner().invoke(main, ["batch", "--summary", str(tmp_path)])
    assert refused.exit_code == 1
    assert "no ledger*.jsonl" in refused.stderr


def test_the_fused_volumes_lie_where_the_reference_lay(uninterrupted: Path, studies: Path) -> None:
    fused = nib.load(uninterrupted / "studies/case00/ct-mri/fused.nii.gz")
    mri = nib.load(studies / "case00/mri.nii.gz")
    centres = [
        image.affine[:3, :3] @ ((torch.tensor(image.shape[:3]).numpy() - 1) / 2)
        + image.affine[:3, 3]
        for image in (fused, mri)
    ]
    assert abs(centres[0] - centres[1]).max() < 0.01


def test_every_pair_and_all_three_are_made_where_asked_for(tmp_path: Path) -> None:
    for study, activity in (("one", "spect"), ("two", "pet")):
        volumes = phantom(1, (24, 24, 6))
        for role, name in (("ct", "ct"), ("mri", "mri"), ("spect", activity)):
            write_nifti(tmp_path / "studies" / study / f"{name}.nii.gz", volumes[role])
    words = [sys.executable, "-m", "mmif", "batch", str(tmp_path / "studies")]
    words += ["-o", str(tmp_path / "out"), "--jobs", "1", "--no-register", "--no-report"]
    words += ["--device", "cpu", "--tasks", "spect-ct,pet-ct,ct-mri-spect,ct-mri-pet"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = [f"{row.study}/{row.task}" for row in read_rows(tmp_path / "out")]
    assert sorted(made) == ["one/ct-mri-spect", "one/spect-ct", "two/ct-mri-pet", "two/pet-ct"]
    for name in made:
        fused = nib.load(tmp_path / "out" / "studies" / name / "fused.nii.gz")
        assert fused.get_data_dtype().names == ("R", "G", "B")
        summary = json.loads((tmp_path / "out" / "studies" / name / "summary.json").read_text())
        assert summary["task"] == name.partition("/")[2]
        assert len(summary["registrations"]) == summary["task"].count("-")


def _command(studies: Path, pipelines: dict[str, Pipeline], folder: Path) -> list[str]:
    """The command line for the good studies, as a list, on the small pipelines."""
    plan = make_plan(studies)
    good = tuple(job for job in plan.jobs if not job.id.startswith("bad-"))
    from mmif.studies.lists import write_list

    write_list(Plan(good).studies, folder / "list.csv")
    words = [sys.executable, "-m", "mmif", "batch", str(folder / "list.csv")]
    words += ["-o", str(folder / "out"), "--jobs", "1", "--no-register", "--no-report"]
    words += ["--device", "cpu", "--task", "ct-mri", "--task", "spect-mri"]
    for task, pipeline in pipelines.items():
        path = folder / f"{task}.yaml"
        path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(pipeline))), sort_keys=False))
        words += ["--pipeline", str(path)]
    return words


def _workers_of(pid: int) -> list[int]:
    """The processes that a batch has started."""
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(word) for text in listed for word in text.split()]


def _await_done(out: Path, number: int) -> None:
    """Wait until that many jobs are done."""
    deadline = time.monotonic() + 120
    ledger = out / "ledger.jsonl"
    while not ledger.exists() or ledger.read_text().count('"done"') < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)
