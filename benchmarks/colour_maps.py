"""How well the activity is read from each colour map, and the legend of the default.

    python benchmarks/colour_maps.py [--spect FILE --mri FILE] [--legend docs/images/legend.png]
    python benchmarks/colour_maps.py --room 0.75 0.85 1 [--share 0 0.45] [--task ct-mri-spect]

The second prints the map ``activity`` with other values of ``fusion.colour_room`` and
``fusion.anatomy_share``, of a task with the sample head.

Fuses SPECT (by default the sample head's) with its MRI in every colour map and prints the figures
of `mmif.transforms.readability`: rho and error of the activity that an eye reads back, the
luminance by anatomy and by activity, and the warning that `mmif fuse` gives where it is hardly to
be read.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from PIL import Image

import mmif
from mmif.config import Pipeline, load_pipeline
from mmif.report.readability import WANTED, colour_bar
from mmif.transforms.colour import ACTIVITY, PALETTES
from mmif.transforms.readability import readability_warnings

SAMPLES = Path(__file__).parents[1] / "sample_data"
FIGURES = ("activity_rho", "activity_error", "anatomy_slope", "activity_slope")
OF_THREE = (*FIGURES[:2], "mri_gain", "bone")
SOURCES = {"ct": SAMPLES / "ct", "mri": SAMPLES / "mri.nii.gz", "spect": SAMPLES / "spect.dcm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spect", type=Path, default=SAMPLES / "spect.dcm")
    parser.add_argument("--mri", type=Path, default=SAMPLES / "mri.nii.gz")
    parser.add_argument("--legend", type=Path)
    parser.add_argument("--room", type=float, nargs="+")
    parser.add_argument("--share", type=float, nargs="+", default=[0.0])
    parser.add_argument("--task", default="spect-mri")
    arguments = parser.parse_args()
    if arguments.room:
        rooms(load_pipeline(arguments.task), arguments.room, arguments.share)
        return
    print("| colour map | " + " | ".join(WANTED[name][0] for name in FIGURES) + " | warning |")
    print("|---" * (len(FIGURES) + 2) + "|")
    for name in (ACTIVITY, *PALETTES):
        result = mmif.fuse(spect=arguments.spect, mri=arguments.mri, colour_map=name)
        figures = result.readability
        cells = [f"{figures[key]:.3f}" for key in FIGURES]
        warned = "yes" if readability_warnings(figures) else "no"
        print(f"| {name} | " + " | ".join(cells) + f" | {warned} |", flush=True)
        if name == ACTIVITY and arguments.legend:
            bar = colour_bar(result.sources["spect"], result.colour_room)
            Image.fromarray(bar).save(arguments.legend, optimize=True)


def rooms(pipeline: Pipeline, rooms: Sequence[float], shares: Sequence[float]) -> None:
    """Print the figures of each room for colour and each share of the anatomy."""
    names = FIGURES if len(pipeline.roles) == 2 else OF_THREE
    print("| share | room | " + " | ".join(WANTED[name][0] for name in names) + " |")
    print("|---" * (len(names) + 2) + "|")
    sources = {role: SOURCES[role] for role in pipeline.roles}
    for share, room in product(shares, rooms):
        fusion = replace(pipeline.fusion, anatomy_share=share, colour_room=room)
        seen = mmif.fuse(**sources, pipeline=replace(pipeline, fusion=fusion)).readability
        cells = " | ".join(f"{seen[name]:.3f}" for name in names)
        print(f"| {share:g} | {room:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
