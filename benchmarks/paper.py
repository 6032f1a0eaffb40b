"""The paper's ablation: L_total against L_ab (local SSIM in place of the stochastic one).

    python benchmarks/ablation.py --data DIR -o OUT [--task ct-mri] [--steps 300]

Two trainings that differ in the loss alone, with the seed, the split and the recipe of
``pipelines/paper-TASK.yaml``, cut down to ``--steps`` steps of 4 crops of 128 x 128.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from mmif.config import LossConfig, load_pipeline
from mmif.metrics import METRICS
from mmif.training import Job, Ranks, find_training_pairs, split_by_case, train
from mmif.training.batches import steps_per_epoch
from mmif.training.card import Origin

LOSSES = {
    "L_total": LossConfig(),
    "L_ab": LossConfig(similarity=0.0, local_similarity=10.0),
}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="ct-mri")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline(f"paper-{arguments.task}")
    held = load_pipeline(arguments.task).training.validation_cases
    pairs = split_by_case(
        find_training_pairs(pipeline, arguments.data, arguments.output / "slices"), held, 0
    )
    epochs = -(-arguments.steps // steps_per_epoch(pairs.training, 4))
    recipe = replace(
        pipeline.training,
        batch=4,
        crop=128,
        epochs=epochs,
        validate_every=epochs,
        schedule="one-cycle",
    )
    ranks = Ranks(0, 1, torch.device("cpu"))
    print("loss      mean rank  " + "  ".join(f"{name:>7}" for name in METRICS))
    for name, loss in LOSSES.items():
        job = Job(
            replace(pipeline, training=recipe, loss=loss),
            arguments.output / name,
            Origin("benchmarks/ablation.py"),
            arguments.steps,
        )
        best = train(job, pairs, ranks)
        assert best is not None
        figures = "  ".join(f"{best.means[metric]:7.3f}" for metric in METRICS)
        print(f"{name:9} {best.mean_rank:9.3f}  {figures}", flush=True)


if __name__ == "__main__":
    main()
