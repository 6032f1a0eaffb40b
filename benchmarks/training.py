"""What a step of the training costs, beside other checkouts of mmif in turn.

    python benchmarks/training.py [--data ../shared/data/harvard] [--task ct-mri] [--steps 40]
                                  [--runs 1] [--threads 2] [--pipeline FILE] [--against ...]

CPU seconds a step of the training's own process and of the processes that draw its crops, the wall
seconds between two steps (medians of the steps behind the first five), the loss of the last step,
and how far any step's loss lies from the first checkout's, at most: of one recipe and seed next to
nothing, unless what is trained changed. Checkouts run in turn, each in a process of its own, on an
eighth of the pairs; of several runs the median is printed. 0.1.0 reads the same recipe:

    python benchmarks/training.py --pipeline 0.1.0/pipelines/ct-mri.yaml --against 0.1.0
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = 5
"""Steps: memory is taken and kernels are chosen in the first."""

CHILD = """
import json, resource, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from mmif import training
from mmif.config import load_pipeline
from mmif.training import Job, find_pairs, split_by_case, train
from mmif.training.card import Origin
task, data, output, steps, pipeline, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
recipe = load_pipeline(pipeline or task)
chosen = recipe.training.validation_cases
pairs = split_by_case(find_pairs(task, Path(data)), chosen, recipe.training.seed)
pairs = replace(pairs, training=pairs.training[::8], validation=pairs.validation[:1])
try:
    from mmif.startup import keep_memory  # as the command does
    keep_memory()
except ImportError:
    pass  # 0.1.0 has none
join_ranks = getattr(training, "join_ranks", None) or training.joined_ranks
marks = []
def watch(progress):
    marks.append((time.process_time(), time.perf_counter(), progress.losses))
def cpu(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime
with join_ranks("cpu") as ranks:
    train(Job(recipe, Path(output), Origin("benchmark", ""), int(steps)), pairs, ranks, watch)
print(json.dumps([marks, cpu(resource.RUSAGE_CHILDREN) / int(steps)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "harvard")
    parser.add_argument("--task", default="ct-mri")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pipeline", default="", help="read by every checkout; else its own")
    parser.add_argument("--against", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    checkouts = [ROOT, *(path.resolve() for path in args.against)]
    found: dict[Path, list[tuple[float, ...]]] = {checkout: [] for checkout in checkouts}
    for _ in range(args.runs):
        first: list[float] = []
        for checkout in checkouts:
            *seconds, losses = seconds_of(checkout, args)
            first = first or losses
            apart = max(abs(a - b) / abs(b) for a, b in zip(losses, first, strict=True))
            found[checkout].append((*seconds, losses[-1], apart))
    head = ("checkout", "CPU s a step", "drawing, CPU s a step", "wall s a step", "last loss")
    head = (*head, "losses apart")
    print("| " + " | ".join(head) + " |", "|---" * len(head) + "|", sep="\n")
    for checkout, rows in found.items():
        middle = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(f"| {checkout.name} | " + " | ".join(f"{value:.4g}" for value in middle) + " |")


def seconds_of(checkout: Path, args: argparse.Namespace) -> tuple[float, float, float, list[float]]:
    """CPU seconds a step, those of the drawing, wall seconds a step, and the losses."""
    waiting = {"GOMP_SPINCOUNT": "1000"}  # as the command has it: mmif.startup
    threads = str(args.threads)
    environment = {**os.environ, **waiting, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(checkout)}
    pipeline = str(Path(args.pipeline).resolve()) if args.pipeline else ""
    with tempfile.TemporaryDirectory() as folder:
        words = [args.task, str(args.data.resolve()), f"{folder}/out", str(args.steps)]
        command = [sys.executable, "-c", CHILD, *words, pipeline, threads]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, cwd=checkout, env=environment
        )
    marks, drawing = json.loads(done.stdout.splitlines()[-1])
    counted = marks[LEFT_OUT - 1 : -1]  # the last step is validated
    cpu, wall = (
        statistics.median(b[part] - a[part] for a, b in pairwise(counted)) for part in (0, 1)
    )
    return cpu, drawing, wall, [mark[2]["total"] for mark in marks]


if __name__ == "__main__":
    main()
