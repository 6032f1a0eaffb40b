"""The paper's tables again: its network and recipe, its ablation loss, and what ships.

    python benchmarks/paper.py --data DATA -o OUT                       # as printed: a GPU, hours on a CPU
    python benchmarks/paper.py --data DATA -o OUT --steps 400           # cut short, for a CPU

DATA has ``harvard/`` and ``roadscene/``. For each task the recipe of ``pipelines/paper-TASK.yaml``
(full resolution, the network's own tanh, batch 16, 100 epochs, learning rate 0.001) is trained
twice, with the paper's loss (Eq. 4) and with its ablation (Eq. 9), and measured on the held-out
pairs beside the shipped weights. ``--steps`` cuts each training down to so many steps of 4 crops
of 128 x 128; the table says so. The printed rows were measured on other pairs of the same data.
"""  # fmt: skip  # noqa: E501

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mmif.config import LossConfig, Pipeline, TrainingConfig, load_pipeline
from mmif.metrics import METRICS
from mmif.training import Job, Ranks, find_training_pairs, split_by_case, train
from mmif.training.batches import steps_per_epoch
from mmif.training.card import Origin
from mmif.training.pairs import PairSet
from mmif.training.validation import Means, Validator
from mmif.weights import load_weights

TASKS = {
    "ct-mri": "harvard",
    "spect-mri": "harvard",
    "pet-mri": "harvard",
    "ir-vis": "roadscene",
}
LOSSES = {
    "L_total, Eq. 4": LossConfig(),
    "L_ab, Eq. 9": LossConfig(similarity=0.0, local_similarity=10.0),
}
PRINTED = {
    "ct-mri": {
        "L_total": (5.414, 8.045, 3.196, 0.885, 63.664, 0.415, 1.569, 38.077),
        "L_ab": (5.238, 6.653, 2.955, 0.829, 63.179, 0.224, 0.901, 40.243),
    },
    "spect-mri": {
        "L_total": (5.984, 12.648, 3.791, 0.925, 62.927, 0.614, 1.245, 43.484),
        "L_ab": (5.541, 7.247, 3.940, 0.868, 61.531, 0.229, 0.896, 38.653),
    },
}
"""Tables 1 to 3 of the paper (21 pairs of CT-MRI): EN, AG, MI, SSIM, PSNR, Qabf, SCD, SF."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of 4 crops of 128 x 128, in place of 100 epochs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cut = f"{arguments.steps} steps of 4 crops" if arguments.steps else "100 epochs"
    for task in arguments.tasks:
        print(f"\n{task}, {cut}\n| row | " + " | ".join(METRICS) + " |\n|---" + "|---" * 8 + "|")
        for name, figures in PRINTED.get(task, {}).items():
            row(f"the paper, {name}", dict(zip(METRICS, figures, strict=True)))
        measure(task, arguments.data / TASKS[task], arguments.output / task, arguments.steps)


def measure(task: str, data: Path, output: Path, steps: int | None) -> None:
    """Train and print the rows of one task."""
    pipeline = load_pipeline(f"paper-{task}")
    held = load_pipeline(task).training.validation_cases
    pairs = split_by_case(find_training_pairs(pipeline, data, output / "slices"), held, 0)
    recipe = shortened(pipeline.training, pairs, steps) if steps else pipeline.training
    recipe = replace(recipe, validate_every=recipe.epochs)
    ranks = Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for name, loss in LOSSES.items():
        changed: Pipeline = replace(pipeline, training=recipe, loss=loss)
        origin = Origin("benchmarks/paper.py")
        best = train(Job(changed, output / name.split(",")[0], origin, steps or 0), pairs, ranks)
        assert best is not None
        row(f"this code, {name}", best.means)
    shipped = Validator(pairs.validation, len(pairs.validation))
    found = shipped(load_weights(task).network, ranks.device)
    row("this code, as shipped", found.means)
    for rule, means in found.baselines.items():
        row(f"pixel {rule}" if " " not in rule else rule, means)


def shortened(recipe: TrainingConfig, pairs: PairSet, steps: int) -> TrainingConfig:
    """``recipe`` in ``steps`` steps of 4 crops of 128 x 128."""
    epochs = -(-steps // steps_per_epoch(pairs.training, 4))
    return replace(recipe, batch=4, crop=128, epochs=epochs, schedule="one-cycle")


def row(name: str, means: Mapping[str, float] | Means) -> None:
    print(
        f"| {name} | " + " | ".join(f"{means[metric]:.3f}" for metric in METRICS) + " |", flush=True
    )


if __name__ == "__main__":
    main()
