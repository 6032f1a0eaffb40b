"""What a reader still sees of a CT and of the activity over it, with some weights or others.

    python benchmarks/activity_over_ct.py
    python benchmarks/activity_over_ct.py trained/spect-ct/weights trained/pet-ct/weights

Through all of the fusion, on the sample head (SPECT, found by registration) and on the drawn chest
of ``benchmarks/body.py`` (PET, one frame): for the shipped weights, those over an MRI and those
given, what is still seen of the CT and of the activity (`mmif.transforms.readability`).
Registration and windows are the same for all, and made once.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from body import Scan, draw, places

from mmif.config import load_pipeline
from mmif.fusion import fusion_transforms, run_steps
from mmif.io import load
from mmif.result import STUDY_KEY
from mmif.roles import TASKS
from mmif.transforms.fuse import FuseSlicesd, MeasureFusiond
from mmif.weights import find_weights, read_card

SAMPLE = Path(__file__).parents[1] / "sample_data"
CHEST_MM, CHEST_SLICES, PET_SLICES = 300.0, 60, 22
"""From the vertex of the drawn body to its chest; 9 cm of it, in slices of 1.5 and 4 mm."""

FIGURES = ("activity_rho", "activity_error", "anatomy_slope", "activity_slope", "ct_gain", "bone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="*", help="shipped names, folders or files")
    arguments = parser.parse_args()
    print(f"| weights | on | {' | '.join(FIGURES)} |\n|---|---|{'---|' * len(FIGURES)}")
    with tempfile.TemporaryDirectory() as place:
        for task, where, data in prepared(Path(place)):
            pipeline = load_pipeline(task)
            over_mri = f"{pipeline.activity}-mri"
            for weights in dict.fromkeys([pipeline.weights, over_mri, *arguments.weights]):
                if task_of(weights) not in TASKS[task].passes[-1]:
                    continue
                found = figures(data, task, weights)
                values = " | ".join(f"{found.get(name, float('nan')):.3f}" for name in FIGURES)
                print(f"| {weights} | {where} | {values} |", flush=True)


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
