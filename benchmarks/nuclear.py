"""NM objects by mmif, SimpleITK and dcm2niix: values and places side by side.

    python benchmarks/nuclear.py [FILE ...]         # FILE: real objects to read as well

The objects are drawn after PS3.3 C.8.4 with four landmarks, whose places are known; printed is how
far from there mmif finds them, and what the others read differently (`differential.py`).
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from differential import by_dcm2niix, by_simpleitk, compare

from mmif.io import load

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "io"))
from dicom_corpus import Scan, ds_number, landmark_error_mm, oblique, scan, write_nuclear

HEAD = scan()
COUNT = len(HEAD.first_pixels)
VARIANTS: dict[str, tuple[Scan, dict[str, Any]]] = {
    "stacked upwards": (HEAD, {}),
    "stacked downwards: negative SpacingBetweenSlices": (HEAD, {"negative": True}),
    "position and orientation at top level": (HEAD, {"at_top": True}),
    "oblique": (scan(axes=oblique()), {}),
    "rows to the right: stacked downwards": (scan(axes=np.array([[-1.0, 0, 0], [0, 1, 0]])), {}),
    "patient on the side": (scan(axes=np.array([[0.0, 1, 0], [-1, 0, 0]])), {}),
    "RescaleSlope": (HEAD, {"RescaleSlope": 0.5, "RescaleIntercept": 0}),
    "SliceVector counts downwards": (
        HEAD,
        {
            "at_top": True,
            "SliceVector": list(range(COUNT, 0, -1)),
            "PixelData": np.round(HEAD.slices()).astype("<u2")[::-1].tobytes(),
            "ImagePositionPatient": [ds_number(v) for v in HEAD.first_pixels[-1]],
        },
    ),
}


def others(path: Path) -> tuple[Any, str]:
    """What mmif reads of an object, and how the others read it."""
    volume = load(path, role="spect")
    mine, affine = volume[0].numpy(), np.asarray(volume.affine)
    itk, nii = by_simpleitk(str(path)), by_dcm2niix([str(path.resolve())])
    words = nii if isinstance(nii, str) else compare(mine, affine, *nii)
    return volume, f"{compare(mine, affine, *itk)} | {words}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files
    print("| object | mmif, of the landmarks | SimpleITK | dcm2niix |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (made, attributes)) in enumerate(VARIANTS.items()):
            path = Path(folder, f"{number}.dcm")
            write_nuclear(path, made, **attributes)
            volume, words = others(path)
            print(f"| {name} | {landmark_error_mm(volume):.3f} mm | {words} |")
    for path in files:
        print(f"| {path.name} | | {others(path)[1]} |")


if __name__ == "__main__":
    main()
