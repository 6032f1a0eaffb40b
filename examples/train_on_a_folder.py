"""Training on a folder of registered pairs (CT/*.png and MRI/*.png of equal names), or of studies.

    python examples/train_on_a_folder.py --data DATA/harvard/CT-MRI -o trained --steps 200

The same as ``mmif train --task ct-mri --data DATA -o trained --max-steps 200``, step by step, with
a smaller network than the shipped one.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import mmif
from mmif.config import NetworkConfig
from mmif.training import Job, find_training_pairs, join_ranks, split_by_case, train
from mmif.training.card import Origin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--crop", type=int, default=128, help="Pixels a side of what is seen.")
    options = parser.parse_args()

    pipeline = mmif.load_pipeline("ct-mri")
    pipeline = replace(
        pipeline,
        network=NetworkConfig(channels=8, coarse_channels=8, width=16, output="residual"),
        training=replace(pipeline.training, batch=4, crop=options.crop, validation_cases=()),
    )
    found = find_training_pairs(pipeline, options.data, options.output.with_suffix(".slices"))
    pairs = split_by_case(found, pipeline.training.validation_cases, pipeline.training.seed)
    print(f"{len(pairs.training)} pairs to learn from, {len(pairs.validation)} held out")

    origin = Origin("examples/train_on_a_folder.py", "unknown", None)
    job = Job(pipeline, options.output, origin, max_steps=options.steps)
    with join_ranks("auto") as ranks:
        train(job, pairs, ranks)

    weights = mmif.load_weights(options.output / "weights", "ct-mri")
    print(f"{weights.path}: {weights.card['parameters']} parameters, sha256 {weights.sha256[:16]}")


if __name__ == "__main__":
    main()
