"""The options of ``mmif batch``, and what it refuses in one line with exit code 1."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmif.batch.fuse_job import parameters
from mmif.cli import main
from mmif.cli.batch import _shard
from mmif.config import load_pipeline
from mmif.errors import ConfigError
from mmif.options import FuseOptions
from mmif.roles import VOLUME_TASKS


def run(*words: object, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["batch", *map(str, words)], env=dict(env or {}))


def refused(result: Result, message: str) -> None:
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.fixture
def case_list(tmp_path: Path) -> Path:
    """A list of two studies whose files are there, but empty."""
    for name in ("ct.nii", "mri.nii"):
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    path.write_text("study,ct,mri\nfirst,ct.nii,mri.nii\nsecond,ct.nii,mri.nii\n")
    return path


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "10"}, (7, 10)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "10",
                "SLURM_ARRAY_TASK_COUNT": "10",
                "SLURM_ARRAY_TASK_MIN": "1",
            },
            (9, 10),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "9",
                "SLURM_ARRAY_TASK_COUNT": "5",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (4, 5),
        ),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"}, (0, 4)),
    ],
)
def test_the_shard_comes_from_a_slurm_array_or_a_kubernetes_job(
    environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert _shard("auto", environment) == expected
    assert _shard(None, environment) is None  # an array made for something else


def test_auto_outside_of_an_array_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"):
        _shard("auto", {})


def test_an_out_that_holds_the_studies_is_refused(case_list: Path, tmp_path: Path) -> None:
    refused(run(tmp_path, "-o", tmp_path), "holds the studies")
    refused(run(case_list, "-o", tmp_path), "holds the studies")
    assert not (tmp_path / ".claims").exists()


def test_a_list_that_exists_is_not_replaced(case_list: Path) -> None:
    before = case_list.read_bytes()
    refused(run(case_list, "--dry-run", "--save-list", case_list), "exists")
    assert case_list.read_bytes() == before


def test_a_shard_that_is_named_comes_before_the_environment() -> None:
    assert _shard("1/2", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"}) == (1, 2)


@pytest.mark.parametrize("text", ["4/4", "0/0", "-1/4", "1", "a/b", "1/2/3", ""])
def test_a_shard_out_of_range_is_refused(case_list: Path, tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    result = run(case_list, "-o", out, f"--shard={text}")
    refused(result, "expected I/N with I from 0 to N-1")
    assert not out.exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETION_INDEX without JOB_COMPLETIONS"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_ID without SLURM_ARRAY_TASK_COUNT"),
        ({"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "2"}, "SLURM_ARRAY_TASK_ID=x"),
        (
            {  # --array=3,7
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_ARRAY_TASK_MIN": "3",
            },
            "shard 4/2",
        ),
    ],
)
def test_an_environment_that_says_no_shard_is_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _shard("auto", environment)


def test_a_dry_run_of_a_shard_shows_its_part(case_list: Path) -> None:
    environment = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    result = run(case_list, "--dry-run", "--shard", "auto", env=environment)
    assert "second" in result.stdout
    assert "first" not in result.stdout


def test_a_saved_list_is_the_plan(case_list: Path, tmp_path: Path) -> None:
    assert run(case_list, "--dry-run", "--save-list", tmp_path / "saved.csv").exit_code == 0
    assert "first" in run(tmp_path / "saved.csv", "--dry-run").stdout


def test_an_empty_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(run(tmp_path / "empty", "-o", tmp_path / "out"), "no studies found")
    assert not (tmp_path / "out").exists()


def test_a_restart_of_one_shard_is_refused(case_list: Path, tmp_path: Path) -> None:
    result = run(case_list, "-o", tmp_path / "out", "--shard", "0/2", "--restart")
    refused(result, "--restart with a shard")


def test_an_out_that_is_a_file_is_refused(case_list: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    refused(run(case_list, "-o", tmp_path / "out"), "cannot be made (File exists)")


def test_a_pipeline_of_a_task_that_is_not_wanted_is_refused(
    case_list: Path, tmp_path: Path
) -> None:
    result = run(case_list, "-o", tmp_path / "out", "--task", "ct-mri", "--pipeline", "ir-vis")
    refused(result, "--pipeline of task ir-vis; expected ct-mri")


def test_tasks_are_chosen_by_names_with_commas_or_all(tmp_path: Path) -> None:
    for name in ("p_ct.nii", "p_mri.nii", "p_spect.nii"):
        (tmp_path / name).touch()

    def planned(*words: object) -> list[str]:
        result = run(tmp_path, "--dry-run", *words)
        assert result.exit_code == 0, result.output
        return re.findall(r"^ p +(\S+)", result.output, re.MULTILINE)

    pairs_with_ct_or_both = ["ct-mri-spect", "spect-ct"]
    assert planned() == ["ct-mri", "spect-mri"]
    assert planned("--tasks", "spect-ct,ct-mri-spect") == pairs_with_ct_or_both
    assert planned("--task", "spect-ct", "--task", "ct-mri-spect") == pairs_with_ct_or_both
    assert planned("--tasks", "all") == ["ct-mri", "ct-mri-spect", "spect-ct", "spect-mri"]
    wrong = run(tmp_path, "--dry-run", "--tasks", "spect-ct,ct")
    assert wrong.exit_code == 2
    assert "'ct' is none; expected some of ct-mri, " in wrong.output


def test_an_unreachable_scheduler_is_refused(
    case_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = pytest.importorskip("mmif.batch.cluster")
    monkeypatch.setattr(cluster, "SCHEDULER_TIMEOUT_S", 1)
    result = run(case_list, "-o", tmp_path / "out", "--dask", "tcp://127.0.0.1:1")
    refused(result, "no Dask scheduler answers at tcp://127.0.0.1:1")


@pytest.mark.parametrize("words", [(), ("x",), ("x", "-o", "y", "--jobs", "0")])
def test_wrong_usage_is_exit_code_2(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_what_decides_the_results_is_in_the_parameters() -> None:
    pipelines = {task: load_pipeline(task) for task in VOLUME_TASKS}
    plain = parameters(pipelines, FuseOptions())
    assert {f"pipeline {task}" for task in VOLUME_TASKS} < set(plain)
    assert parameters(pipelines, FuseOptions(format="dicom")) != plain
    ct = pipelines["ct-mri"]
    head = replace(ct, grid=replace(ct.grid, fov="head"))
    assert parameters({**pipelines, "ct-mri": head}, FuseOptions()) != plain
    slower = replace(ct, registration=replace(ct.registration, timeout_s=999))
    assert parameters({**pipelines, "ct-mri": slower}, FuseOptions()) == plain


def test_the_options_are_those_of_mmif_fuse() -> None:
    from mmif.cli.fuse import fuse

    known = {o for p in fuse.params for o in (*p.opts, *p.secondary_opts)}
    options = FuseOptions(
        reference="ct",
        fov="head",
        format="both",
        dicom_encoding="multiframe",
        register=False,
        accept_registration=True,
        accept_different_patients=True,
        save_registered=True,
        report=False,
        deidentify=True,
    )
    words = list(options.arguments())
    assert {word for word in words if word.startswith("--")} <= known
    assert list(FuseOptions().arguments()) == []
    assert "--no-register" in words
    assert "--no-report" in words
