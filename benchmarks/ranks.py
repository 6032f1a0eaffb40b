"""The shipped weights on their held-out cases: the eight metrics, and our rank among all rows.

    python benchmarks/ranks.py --task ct-mri --data DATA/harvard [--weights NAME|FILE] [--pairs 24]

Ranks are given three times: among the three baselines on the same pairs; among the published rows
(`published_rows.py`), which were measured on other pairs; and among them after our figures were
moved by what the maximum and the average differ between both sets of pairs. The last line is the
highest EN that an image can have that stays black where both sources are 0.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from published_rows import NAMES, ROWS, ranks, shifted

from mmif.config import load_pipeline
from mmif.roles import TASKS
from mmif.training.pairs import Pair, find_pairs, split_by_case
from mmif.training.validation import Means, Validator
from mmif.weights import load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights")
    parser.add_argument("--pairs", type=int, default=1000, help="at most, evenly spaced")
    arguments = parser.parse_args()
    task = arguments.task
    recipe = load_pipeline(task).training
    pairs = split_by_case(
        find_pairs(task, arguments.data), recipe.validation_cases, recipe.seed
    ).validation
    validator = Validator(pairs, arguments.pairs)
    found = validator(load_weights(arguments.weights or task).network, torch.device("cpu"))
    cases = ", ".join(recipe.validation_cases)
    print(f"{task}: {len(validator.pairs)} of {len(pairs)} held-out pairs (cases {cases})")
    print(f"{'':18}" + "".join(f"{name:>9}" for name in NAMES))
    for name, means in {**found.baselines, "mmif": found.means}.items():
        row(name, means)
    print(
        f"mean rank among the baselines: {found.mean_rank:.3f} of {len(found.baselines) + 1} rows"
    )
    if task in ROWS:
        moved = shifted(task, found.means, dict(found.baselines))
        for name, means in {"published, as is": found.means, "published, moved": moved}.items():
            places = ranks(task, means)
            row(name, means)
            print(f"{'  rank':18}" + "".join(f"{places[n]:9d}" for n in NAMES), end="")
            print(f"   mean {np.mean(list(places.values())):.3f} of {len(ROWS[task]) + 1} rows")
    print(
        f"highest EN with black air: {np.mean([highest_entropy(p) for p in validator.pairs]):.3f}"
    )


def row(name: str, means: Means) -> None:
    print(f"{name:18}" + "".join(f"{means[n]:9.3f}" for n in NAMES))


def highest_entropy(pair: Pair) -> float:
    """EN of an image with level 0 in the air and all other levels equally often elsewhere."""
    air = float(((pair.anatomical == 0) & (pair.other == 0)).mean())
    shares = np.array([air, *[(1 - air) / 255] * 255])
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


if __name__ == "__main__":
    main()
