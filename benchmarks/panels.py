"""A picture a task for the documentation: sources, baselines and ours on held-out pairs.

python benchmarks/panels.py --data DATA --output docs/panels [--weights DIR]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mmif.config import load_pipeline
from mmif.evaluation.baselines import BASELINES
from mmif.images import fuse_pixels
from mmif.io.images import read_image
from mmif.studies.slice_files import find_slice_files
from mmif.weights import load_weights

ROWS = 3
WIDTH = 160
LABEL = 14
GAP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds harvard/ and roadscene/")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", default="ct-mri,spect-mri,pet-mri,ir-vis")
    parser.add_argument("--weights", type=Path, help="a folder of weights by task")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks.split(","):
        folder = arguments.data / ("roadscene" if task == "ir-vis" else "harvard")
        path = arguments.output / f"{task}.png"
        picture = panel(task, folder, arguments.weights / task if arguments.weights else task)
        picture.quantize(128).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def panel(task: str, folder: Path, weights: Path | str) -> Image.Image:
    held = load_pipeline(task).training.validation_cases
    files = [f for f in find_slice_files(task, folder) if f.case in held]
    chosen = [files[int((i + 0.5) * len(files) / ROWS)] for i in range(ROWS)]
    pairs = [tuple(map(read_image, f.paths)) for f in chosen]
    rules = [Rule(rule) for rule in BASELINES.values()]
    methods = [*rules, load_weights(weights, task).network]
    columns = [[pair[0].pixels for pair in pairs], [pair[1].pixels for pair in pairs]]
    columns += [fuse_pixels(method, task, pairs, device="cpu")[0] for method in methods]
    names = [role.upper() for role in load_pipeline(task).roles] + [*BASELINES, "mmif"]
    return drawn(columns, names)


class Rule(torch.nn.Module):
    """A baseline in the place of the network."""

    def __init__(self, rule: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, sources: torch.Tensor) -> torch.Tensor:
        a, b = (sources * 255).round().byte().numpy().swapaxes(0, 1)
        return torch.from_numpy(self.rule(a, b)).float()[:, None] / 255


def drawn(columns: list[list[np.ndarray]], names: list[str]) -> Image.Image:
    """The columns side by side under their names."""
    shown = [[scaled(pixels) for pixels in column] for column in columns]
    height = max(image.height for column in shown for image in column)
    sheet = Image.new("RGB", (len(shown) * (WIDTH + GAP), LABEL + ROWS * (height + GAP)), "white")
    for x, (name, column) in enumerate(zip(names, shown, strict=True)):
        ImageDraw.Draw(sheet).text((x * (WIDTH + GAP) + 4, 1), name, "black")
        for y, image in enumerate(column):
            sheet.paste(image, (x * (WIDTH + GAP), LABEL + y * (height + GAP)))
    return sheet


def scaled(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).convert("RGB")
    return image.resize(
        (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
    )


if __name__ == "__main__":
    main()
