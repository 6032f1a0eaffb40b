import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from mmif.cli import main
from mmif.config import load_pipeline
from mmif.errors import TrainingError
from mmif.metrics import REPORTED
from mmif.roles import TASKS
from mmif.training import Job, Ranks, find_pairs, split_by_case, train
from mmif.training.card import Origin
from mmif.training.state import CHECKPOINT
from mmif.training.validation import Validation, Validator
from mmif.weights import load_weights

ROOT = Path(__file__).parents[2]
RECIPE = {
    "task": "ct-mri",
    "roles": ["mri", "ct"],
    "reference": "mri",
    "weights": "ct-mri",
    "network": {"channels": 4, "coarse_channels": 4, "width": 8, "blocks": 1, "margin": 0},
    "loss": {"structure": 1, "information": 0.5},
    "training": {
        "epochs": 3,
        "batch": 2,
        "crop": 16,
        "schedule": "one-cycle",
        "average": 0.9,
        "augmentation": 0.5,
        "validation_cases": ["2"],
        "validate_every": 1,
    },
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).integers(0, 256, (6, 2, 24, 24), dtype=np.uint8)
    folder = tmp_path / "data"
    for side in ("MRI", "CT"):
        (folder / side).mkdir(parents=True)
    for number, (mri, ct) in enumerate(drawn):
        name = f"{1 + number // 4}{number:03}.png"
        Image.fromarray(mri).save(folder / "MRI" / name)
        Image.fromarray(ct).save(folder / "CT" / name)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


def arguments(data: Path, output: str, *more: str) -> list[str]:
    recipe = str(data.parent / "recipe.yaml")
    where = ["--data", str(data), "-o", str(data.parent / output), "--pipeline", recipe]
    return ["train", "--task", "ct-mri", *where, "--device", "cpu", *more]


def run(data: Path, output: str, *more: str) -> Result:
    return CliRunner().invoke(main, arguments(data, output, *more))


def losses(folder: Path) -> list[list[str]]:
    with (folder / "losses.csv").open() as file:
        return list(csv.reader(file))


def test_a_training_writes_weights_card_record_and_samples(data: Path) -> None:
    result = run(data, "out")
    assert result.exit_code == 0, result.output
    output = data.parent / "out"
    weights = load_weights(output / "weights", "ct-mri")
    assert weights.card["data"]["cases"] == {"training": {"1": 4}, "validation": {"2": 2}}
    assert set(weights.card["validation"]["baselines"]) == {
        "maximum",
        "average",
        "laplacian pyramid",
    }
    assert weights.card["recipe"]["training"]["epochs"] == 3
    assert weights.card["validation"]["pairs"] == 2
    assert weights.card["command"].startswith("mmif")
    assert len(losses(output)) == 1 + 6
    assert losses(output)[0][:3] == ["step", "learning_rate", "total"]
    assert (output / "validation.csv").read_text().count("average") == 3
    assert sorted(p.name for p in (output / "samples").iterdir()) == [
        "000002.png",
        "000004.png",
        "000006.png",
    ]


def test_tensorboard_has_the_losses_and_the_metrics(data: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(data, "out")
    board = EventAccumulator(str(data.parent / "out" / "tensorboard")).Reload()
    written = [float(row[2]) for row in losses(data.parent / "out")[1:]]
    assert [point.value for point in board.Scalars("loss/total")] == pytest.approx(written)
    assert [point.step for point in board.Scalars("validation/Qabf")] == [2, 4, 6]
    assert "validation/mean_rank" in board.Tags()["scalars"]


def test_the_weights_of_the_best_mean_rank_are_kept(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([(3.0, 0.5), (2.0, 0.1), (2.0, 0.2), (2.5, 0.9)])

    def validate(self, network, device):
        rank, margin = next(found)
        return Validation(dict.fromkeys(REPORTED, rank), {}, rank, margin, 2)

    monkeypatch.setattr(Validator, "__call__", validate)
    monkeypatch.setattr(Validator, "picture", lambda *_: None)
    result = run(data, "out", "--epochs", "4")
    assert "best mean rank among the baselines: 2.000" in result.output
    card = load_weights(data.parent / "out" / "weights").card
    assert card["validation"]["mean_rank_among_baselines"] == 2.0
    third = (data.parent / "out" / "validation.csv").read_text().splitlines()[3]
    assert third.startswith("6,mmif,2.0,0.2")
    weights = (data.parent / "out" / "weights" / "model.safetensors").stat().st_mtime_ns
    assert weights < (data.parent / "out" / CHECKPOINT).stat().st_mtime_ns


def test_a_stopped_training_resumes_to_the_same_losses_and_weights(data: Path) -> None:
    run(data, "whole")
    run(data, "parts", "--max-steps", "2")
    assert len(losses(data.parent / "parts")) == 1 + 2
    result = run(data, "parts", "--resume")
    assert result.exit_code == 0, result.output
    assert losses(data.parent / "parts") == losses(data.parent / "whole")
    ends = [torch.load(data.parent / name / CHECKPOINT) for name in ("parts", "whole")]
    for part, whole in zip(*(end["network"].values() for end in ends), strict=True):
        assert torch.equal(part, whole)


def test_a_training_killed_in_the_middle_resumes_to_the_same_losses(data: Path) -> None:
    """SIGKILL between two checkpoints, wherever the process happens to be.

    One thread in all three runs: sums of floats depend on how many threads share them.
    """
    long = {**RECIPE, "training": {**RECIPE["training"], "epochs": 30, "validate_every": 5}}
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(long))
    run(data, "whole", "--threads", "1")
    output = data.parent / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mmif", *arguments(data, "killed", "--threads", "1")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as training:
        while training.poll() is None and rows(output / "losses.csv") < 14:
            time.sleep(0.005)
        training.kill()
    assert training.returncode == -signal.SIGKILL
    assert rows(output / "losses.csv") < rows(data.parent / "whole" / "losses.csv")
    assert run(data, "killed", "--resume", "--threads", "1").exit_code == 0
    assert losses(output) == losses(data.parent / "whole")
    same = [load_weights(data.parent / name / "weights").sha256 for name in ("killed", "whole")]
    assert same[0] == same[1]


def rows(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def test_losses_after_the_checkpoint_are_dropped_on_resume(data: Path) -> None:
    run(data, "out", "--max-steps", "2")
    with (data.parent / "out" / "losses.csv").open("a") as file:
        file.write("3,0,0,0,0,0,0,0\n")
    run(data, "out", "--resume")
    assert [row[0] for row in losses(data.parent / "out")[1:]] == list("123456")


def test_a_seed_decides(data: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(data, name, "--max-steps", "2", "--seed", seed)
    first, same, other = (losses(data.parent / name) for name in "abc")
    assert first == same
    assert first != other


def test_training_starts_from_given_weights(data: Path) -> None:
    run(data, "first", "--max-steps", "2")
    result = run(
        data, "second", "--max-steps", "2", "--init", str(data.parent / "first" / "weights")
    )
    assert result.exit_code == 0, result.output
    card = json.loads((data.parent / "second" / "weights" / "card.json").read_text())
    assert card["started_from"].startswith("weights ")
    assert losses(data.parent / "first")[1] != losses(data.parent / "second")[1]


def torchrun(data: Path, output: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "mmif", *arguments(data, output, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_two_processes_of_torchrun_have_the_losses_of_one_but_for_batch_norm(data: Path) -> None:
    exact = {**RECIPE, "training": {**RECIPE["training"], "precision": "fp32"}}
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(exact))
    done = torchrun(data, "two", "--max-steps", "3")
    assert done.returncode == 0, done.stderr[-2000:]
    run(data, "one", "--max-steps", "3")
    two, one = (np.array(losses(data.parent / name)[1:], dtype=float) for name in ("two", "one"))
    np.testing.assert_allclose(two[0], one[0], rtol=0.01)  # each normalises over its own share
    np.testing.assert_allclose(two[:, 2], one[:, 2], rtol=0.02)
    assert load_weights(data.parent / "two" / "weights").task == "ct-mri"


def test_two_processes_give_one_reason_for_a_refusal(data: Path) -> None:
    for image in data.rglob("1*.png"):
        image.unlink()
    done = torchrun(data, "two")
    assert done.returncode != 0
    assert done.stderr.count("Error: found one case (2)") == 1
    assert "[rank1]" not in done.stderr
    assert not (data.parent / "two").exists()


def test_a_batch_that_the_processes_cannot_share_is_refused(data: Path) -> None:
    recipe = load_pipeline(data.parent / "recipe.yaml")
    pairs = split_by_case(find_pairs("ct-mri", data), ["2"], 0)
    job = Job(recipe, data.parent / "out", Origin("mmif train"))
    with pytest.raises(TrainingError, match="batch is 2, expected a multiple of the 3 processes"):
        train(job, pairs, Ranks(0, 3, torch.device("cpu")))


def refusal(result: Result) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1
    return lines[0]


def test_an_output_that_exists_is_refused(data: Path) -> None:
    (data.parent / "out").mkdir()
    assert "out exists" in refusal(run(data, "out"))


def test_nothing_to_resume_is_refused(data: Path) -> None:
    assert "no checkpoint to resume from" in refusal(run(data, "out", "--resume"))


def test_a_checkpoint_of_another_network_is_refused(data: Path) -> None:
    run(data, "out", "--max-steps", "2")
    recipe = {**RECIPE, "network": {**RECIPE["network"], "channels": 8}}
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    line = refusal(run(data, "out", "--resume"))
    assert "of network.channels 4, expected 8" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--epochs", "5"], "of training.epochs 3, expected 5"),
        (["--seed", "7"], "of training.seed 2025, expected 7"),
        (["--init", "ct-mri"], "started from None, expected ct-mri"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(
    data: Path, options: list[str], reason: str
) -> None:
    run(data, "out", "--max-steps", "2")
    recipe = {**RECIPE, "network": load_weights("ct-mri").card["network"]}
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run(data, "out", "--max-steps", "2", "--overwrite")
    assert reason in refusal(run(data, "out", "--resume", *options))


def test_a_checkpoint_of_other_data_is_refused(data: Path) -> None:
    run(data, "out", "--max-steps", "2")
    for side in ("MRI", "CT"):
        (data / side / "1003.png").unlink()
    assert "of training cases 1 (4), expected 1 (3)" in refusal(run(data, "out", "--resume"))


def test_weights_of_another_network_are_no_start(data: Path) -> None:
    line = refusal(run(data, "out", "--init", "ct-mri"))
    assert line.startswith("Error: --init ct-mri: a network with channels 16, coarse_channels 16")
    assert not (data.parent / "out").exists()


def test_weights_whose_output_means_something_else_are_no_start(data: Path) -> None:
    """Their tensors fit all the same: the training began with a picture of something else."""
    run(data, "first", "--max-steps", "2")
    recipe = {**RECIPE, "network": {**RECIPE["network"], "output": "residual"}}
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    line = refusal(run(data, "out", "--init", str(data.parent / "first" / "weights")))
    assert line.endswith("a network with output between; expected output residual")


def test_three_sources_are_trained_over_what_the_grey_ones_became(data: Path) -> None:
    (data / "SPECT").mkdir()
    for path in (data / "CT").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(data / "SPECT" / path.name)
    recipe = {
        **RECIPE,
        "task": "ct-mri-spect",
        "roles": ["mri", "ct", "spect"],
        "grey_weights": "ct-mri",
    }
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = arguments(data, "out", "--max-steps", "1")
    words[words.index("--task") + 1] = "ct-mri-spect"
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    weights = load_weights(data.parent / "out" / "weights")
    assert weights.task == "ct-mri-spect"
    assert weights.task in TASKS["ct-mri-spect"].passes[-1]
    assert weights.card["grey_weights"] == load_weights("ct-mri").sha256


class Runs:
    """What would run, were a checkpoint more than data."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)


def test_a_tampered_checkpoint_costs_one_line_and_runs_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    run(data, "out", "--max-steps", "1")
    path = data.parent / "out" / CHECKPOINT
    good = torch.load(path)
    bad = [{**good, part: 3} for part in ("terms", "origin", "network", "optimizer", "best")]
    for content in (3, [], {}, torch.zeros(2), Runs(), {**good, "average": {"a": 1}}, *bad):
        torch.save(content, path)
        assert CHECKPOINT in refusal(run(data, "out", "--resume"))
    path.write_bytes(b"PK\x03\x04")
    assert "not a readable checkpoint" in refusal(run(data, "out", "--resume"))
    assert not Path("ran").exists()


def test_a_deidentified_training_names_no_case_and_no_path(data: Path) -> None:
    """Cases are called after persons, in the recipe too; it can be resumed."""
    folder = data.rename(data.with_name("Doe"))
    for path in list(folder.glob("*/*.png")):
        path.rename(path.with_name(f"Secret {path.name}"))
    recipe = yaml.safe_load((data.parent / "recipe.yaml").read_text())
    recipe["training"]["validation_cases"] = ["Secret 2"]
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    said = run(folder, "out", "--max-steps", "1", "--deidentify")
    assert said.exit_code == 0, said.output
    more = run(folder, "out", "--deidentify", "--resume")
    assert more.exit_code == 0, more.output
    card = load_weights(data.parent / "out" / "weights", "ct-mri").card
    assert card["data"]["cases"] == {"training": {"case-1": 4}, "validation": {"case-2": 2}}
    assert card["command"] == "withheld (de-identified)"
    texts = [said.output.encode(), more.output.encode()]
    texts += [path.read_bytes() for path in (data.parent / "out").rglob("*") if path.is_file()]
    assert not [text for text in texts if b"Secret" in text or b"Doe" in text]
    (folder / "CT" / "Secret 3001.png").touch()
    line = refusal(run(folder, "again", "--deidentify"))
    assert "without --deidentify says it" in line
    assert "Secret" not in line


def test_a_training_is_not_resumed_through_a_link(data: Path, tmp_path: Path) -> None:
    run(data, "out", "--max-steps", "1")
    losses, mine = data.parent / "out" / "losses.csv", tmp_path / "mine.csv"
    losses.unlink()
    mine.write_text("step,mine\n900,1\n")
    losses.symlink_to(mine)
    assert "losses.csv is a link" in refusal(run(data, "out", "--resume"))
    assert mine.read_text() == "step,mine\n900,1\n"


def test_a_full_disk_costs_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refusal(run(data, "out", "--max-steps", "1"))


def test_overwrite_keeps_a_folder_with_anything_else_in_it(data: Path) -> None:
    run(data, "out", "--max-steps", "1")
    (data.parent / "out" / "notes.txt").touch()
    line = refusal(run(data, "out", "--max-steps", "1", "--overwrite"))
    assert "notes.txt is none of the files that mmif writes there" in line
    assert (data.parent / "out" / CHECKPOINT).exists()


def test_a_checkpoint_of_another_task_is_refused(data: Path) -> None:
    run(data, "out", "--max-steps", "2")
    path = data.parent / "out" / CHECKPOINT
    content = torch.load(path)
    content["terms"]["task"] = "ir-vis"
    torch.save(content, path)
    assert "of task ir-vis, expected ct-mri" in refusal(run(data, "out", "--resume"))


def test_a_file_that_is_no_checkpoint_is_refused(data: Path) -> None:
    (data.parent / "out").mkdir()
    (data.parent / "out" / CHECKPOINT).write_text("nothing")
    assert "not a readable checkpoint" in refusal(run(data, "out", "--resume"))


def test_a_recipe_of_another_task_is_refused(data: Path) -> None:
    command = arguments(data, "out")
    command[command.index("ct-mri")] = "pet-mri"
    assert "of task ct-mri, expected pet-mri" in refusal(CliRunner().invoke(main, command))


def test_the_second_source_counts_as_bright_as_the_recipe_says(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmif.training import loop

    sound, brightest = loop.fusion_loss, []

    def watched(fused, a, b, *given, **named):
        brightest.append((float(a.max()), float(b.max())))
        return sound(fused, a, b, *given, **named)

    monkeypatch.setattr(loop, "fusion_loss", watched)
    plan = {**RECIPE["training"], "other": 0.5, "augmentation": 0}
    (data.parent / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "training": plan}))
    result = run(data, "out", "--max-steps", "2")
    assert result.exit_code == 0, result.output
    assert all(a > 0.9 and 0.45 < b <= 0.5 for a, b in brightest)


def test_a_loss_that_is_not_finite_stops_with_step_and_names(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmif.training import loop

    sound, calls = loop.fusion_loss, []

    def unsound(*given, **named):
        calls.append(1)
        total, parts = sound(*given, **named)
        return (total * float("nan") if len(calls) == 3 else total), parts

    monkeypatch.setattr(loop, "fusion_loss", unsound)
    line = refusal(run(data, "out"))
    assert "step 3: loss is nan on 1" in line
    assert "the last good checkpoint is kept in" in line
    assert torch.load(data.parent / "out" / CHECKPOINT)["step"] == 2


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmif.training import loop

    sound = loop.fusion_loss

    def unsound(fused, *given, **named):
        total, parts = sound(fused, *given, **named)
        return total + torch.sqrt(fused.mean() * 0), parts  # 0, with an infinite slope

    monkeypatch.setattr(loop, "fusion_loss", unsound)
    line = refusal(run(data, "out"))
    assert "step 1: gradient is nan on 1" in line
    assert line.endswith("no checkpoint yet")


def test_a_complete_training_has_nothing_left_to_resume(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(data, "out")
    result = run(data, "out", "--resume")
    assert result.exit_code == 0
    assert "nothing is left to do: 6 of 6 steps are done" in caplog.text
    assert "best mean rank" in result.output


def test_the_card_keeps_the_command_that_began_the_training(data: Path) -> None:
    run(data, "out", "--max-steps", "2")
    run(data, "out", "--resume")
    content = torch.load(data.parent / "out" / CHECKPOINT)
    card = json.loads((data.parent / "out" / "weights" / "card.json").read_text())
    assert card["command"] == content["origin"]["command"]
