"""What a reader still sees of a CT and of the activity over it, with some weights or others.

    python benchmarks/activity_over_ct.py
    python benchmarks/activity_over_ct.py trained/pet-ct/weights --data DATA/harvard

Through all of the fusion, on the sample head (SPECT, found by registration) and on the drawn chest
of ``benchmarks/body.py`` (PET, one frame): for the shipped weights, those over an MRI and those
given, what is still seen of the CT and of the activity (`mmif.transforms.readability`).
Registration and windows are the same for all, and made once. With ``--data`` also the mean rank of
the eight metrics among the three simple rules, on 40 held-out slices of CT with the activity of
other heads (`mmif.training.laid_over`), and of three sources on all 36, over what the grey weights
make of CT and MRI.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from body import Scan, draw, places

from mmif.config import Pipeline, load_pipeline
from mmif.fusion import fusion_transforms, run_steps
from mmif.images import load_grey
from mmif.io import load
from mmif.result import STUDY_KEY
from mmif.roles import TASKS
from mmif.training.laid_over import lay_activity
from mmif.training.pairs import split_by_case
from mmif.training.validation import Validator
from mmif.transforms.fuse import FuseSlicesd, MeasureFusiond
from mmif.weights import find_weights, load_weights, read_card

SAMPLE = Path(__file__).parents[1] / "sample_data"
CHEST_MM, CHEST_SLICES, PET_SLICES = 300.0, 60, 22
"""From the vertex of the drawn body to its chest; 9 cm of it, in slices of 1.5 and 4 mm."""

HELD_OUT = 40
"""Of the 72 validation slices, evenly spaced: half of the time."""

THREE = ("ct-mri-spect", "ct-mri-pet")
FIGURES = ("activity_rho", "activity_error", "anatomy_slope", "activity_slope", "ct_gain", "bone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="*", help="shipped names, folders or files")
    parser.add_argument("--data", type=Path, help="the Harvard slices")
    arguments = parser.parse_args()
    print(f"| weights | on | {' | '.join(FIGURES)} | rank |\n|---|---|{'---|' * len(FIGURES)}---|")
    with tempfile.TemporaryDirectory() as place:
        for task, where, data in prepared(Path(place)):
            pipeline = load_pipeline(task)
            rank = held_out_ranks(pipeline, arguments.data)
            over_mri = f"{pipeline.activity}-mri"
            for weights in dict.fromkeys([pipeline.weights, over_mri, *arguments.weights]):
                if task_of(weights) not in TASKS[task].passes[-1]:
                    continue
                found = figures(data, task, weights)
                values = " | ".join(f"{found.get(name, float('nan')):.3f}" for name in FIGURES)
                print(f"| {weights} | {where} | {values} | {rank(weights)} |", flush=True)
    for task in THREE if arguments.data else ():
        pipeline = load_pipeline(task)
        rank = held_out_ranks(pipeline, arguments.data)
        for weights in (pipeline.weights, f"{pipeline.activity}-mri"):
            nothing = " | ".join("" for _ in FIGURES)
            print(f"| {weights} | {task}, slices | {nothing} | {rank(weights)} |", flush=True)


def prepared(place: Path) -> Iterator[tuple[str, str, dict]]:
    """Task, words and what lies before the network, of the sample head and of the drawn chest."""
    ct = Scan(512, 0.977, places(CHEST_SLICES, 1.5, CHEST_MM))
    draw(place / "chest", ct, Scan(200, 4.0, places(PET_SLICES, 4.0, CHEST_MM)))
    head = {"ct": SAMPLE / "ct", "spect": SAMPLE / "spect.dcm"}
    chest = {"ct": place / "chest" / "ct", "pet": place / "chest" / "pt"}
    for task, where, paths in (("spect-ct", "sample head", head), ("pet-ct", "drawn chest", chest)):
        volumes = {role: load(path, role=role) for role, path in paths.items()}
        data, _ = run_steps(fusion_transforms(load_pipeline(task)).up_to(FuseSlicesd), volumes)
        yield task, where, data


def held_out_ranks(pipeline: Pipeline, data: Path | None) -> Callable[[str], str]:
    """Weights to their mean rank on the validation slices of ``data``; "" without any."""
    if data is None:
        return lambda weights: ""
    held = pipeline.training.validation_cases
    grey = pipeline.grey_weights and load_grey(pipeline.grey_weights, pipeline.task)
    pairs = split_by_case(lay_activity(pipeline, data, grey or None), held, 0).validation
    validator = Validator(pairs, HELD_OUT)
    cpu = torch.device("cpu")
    return lambda weights: f"{validator(load_weights(weights).network, cpu).mean_rank:.3f}"


def task_of(weights: str) -> str:
    """The task that ``weights`` were trained for."""
    return str(read_card(find_weights(weights))["task"])


def figures(data: dict, task: str, weights: str) -> dict[str, float]:
    """The readability of what ``weights`` make of ``data``."""
    pipeline = load_pipeline(task)
    steps = fusion_transforms(pipeline, weights=weights).transforms
    fuse = next(step for step in steps if isinstance(step, FuseSlicesd))
    return dict(MeasureFusiond(pipeline.roles)(fuse(data))[STUDY_KEY].readability)


if __name__ == "__main__":
    main()
