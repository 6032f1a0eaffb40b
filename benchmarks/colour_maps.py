"""How well the activity is read from each colour map, and the legend of the default.

    python benchmarks/colour_maps.py [--spect FILE --mri FILE] [--legend docs/images/legend.png]

Fuses SPECT (by default the sample head's) with its MRI in every colour map and prints the figures
of `mmif.transforms.readability`: rho and error of the activity that an eye reads back, the
luminance by anatomy and by activity, and the warning that `mmif fuse` gives where it is hardly to
be read.
"""

import argparse
from pathlib import Path

from PIL import Image

import mmif
from mmif.report.readability import WANTED, colour_bar
from mmif.transforms.colour import ACTIVITY, PALETTES
from mmif.transforms.readability import readability_warnings

SAMPLES = Path(__file__).parents[1] / "sample_data"
FIGURES = ("activity_rho", "activity_error", "anatomy_slope", "activity_slope")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spect", type=Path, default=SAMPLES / "spect.dcm")
    parser.add_argument("--mri", type=Path, default=SAMPLES / "mri.nii.gz")
    parser.add_argument("--legend", type=Path)
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    main()
