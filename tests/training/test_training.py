import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from mmif.cli import main
from mmif.training.state import CHECKPOINT
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
    assert weights.card["command"].startswith("mmif")
    assert len(losses(output)) == 1 + 6
    assert losses(output)[0][:3] == ["step", "learning_rate", "total"]
    assert (output / "validation.csv").read_text().count("average") == 3
    assert sorted(p.name for p in (output / "samples").iterdir()) == [
        "000002.png",
        "000004.png",
        "000006.png",
    ]


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


@pytest.mark.parametrize("ranks", [2])
def test_torchrun_trains_on_two_processes(data: Path, ranks: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        f"--nproc-per-node={ranks}",
        "-m",
        "mmif",
        *arguments(data, "out", "--max-steps", "2"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(losses(data.parent / "out")) == 1 + 2
    assert load_weights(data.parent / "out" / "weights").task == "ct-mri"


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
    assert "of network" in refusal(run(data, "out", "--resume"))


def test_a_checkpoint_of_another_task_is_refused(data: Path) -> None:
    run(data, "out", "--max-steps", "2")
    path = data.parent / "out" / CHECKPOINT
    torch.save({**torch.load(path), "task": "ir-vis"}, path)
    assert "of task ir-vis, expected ct-mri" in refusal(run(data, "out", "--resume"))


def test_a_file_that_is_no_checkpoint_is_refused(data: Path) -> None:
    (data.parent / "out").mkdir()
    (data.parent / "out" / CHECKPOINT).write_text("nothing")
    assert "not a readable checkpoint" in refusal(run(data, "out", "--resume"))


def test_a_recipe_of_another_task_is_refused(data: Path) -> None:
    command = arguments(data, "out")
    command[command.index("ct-mri")] = "pet-mri"
    assert "of task ct-mri, expected pet-mri" in refusal(CliRunner().invoke(main, command))


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
    assert torch.load(data.parent / "out" / CHECKPOINT)["step"] == 2
