"""Training pairs for `spect-ct` and `pet-ct`: activity of one head laid over the CT of another.

    python benchmarks/activity_over_ct.py --data DATA/harvard -o DATA/made
    mmif train --task spect-ct --data DATA/made -o trained/spect-ct     # and pet-ct

The given slices have SPECT and PET with MRI, and CT with MRI, but no activity with CT. Each CT
slice gets a SPECT and a PET slice of the same relative height, of a case that the seed chooses;
the head that its MRI shows is stretched to the head that the CT shows. What the two have in common
is the outline alone, as in life: nothing of the activity can be guessed from the CT.
Names and cases are those of the CT, so that a split by case holds.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from mmif.io.images import grey_of, read_image
from mmif.studies.slice_files import SliceFiles, find_slice_files

HEAD = 20
"""Grey levels of 255: what is brighter belongs to the head (the air of the slices is 0 to 8)."""

SEED = 2025


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    anatomies = by_case(find_slice_files("ct-mri", arguments.data))
    for role in ("SPECT", "PET"):
        folder = arguments.output / f"{role}-CT"
        for name in (role, "CT"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        donors = by_case(find_slice_files(f"{role.lower()}-mri", arguments.data))
        random, count = np.random.default_rng(SEED), 0
        for files in anatomies.values():
            for place, pair in enumerate(files):
                donor = donors[str(random.choice(sorted(donors)))]
                of_height = donor[round(place / max(len(files) - 1, 1) * (len(donor) - 1))]
                ct = grey_of(read_image(pair.other).pixels)
                Image.fromarray(ct).save(folder / "CT" / pair.name)
                activity(of_height, ct).save(folder / role / pair.name)
                count += 1
        print(f"{folder}: {count} pairs")


def by_case(files: list[SliceFiles]) -> dict[str, list[SliceFiles]]:
    """The pairs of each case, feet first."""
    cases: dict[str, list[SliceFiles]] = defaultdict(list)
    for pair in files:
        cases[pair.case].append(pair)
    return cases


def activity(donor: SliceFiles, ct: np.ndarray) -> Image.Image:
    """The activity of ``donor`` with its head stretched to that of ``ct`` (rows, columns)."""
    own = box(grey_of(read_image(donor.anatomical).pixels))
    wanted = box(ct)
    scale = [(o[1] - o[0]) / max(w[1] - w[0], 1) for o, w in zip(own, wanted, strict=True)]
    (top, _), (left, _) = own
    (to_top, _), (to_left, _) = wanted
    matrix = (scale[1], 0, left - scale[1] * to_left, 0, scale[0], top - scale[0] * to_top)
    picture = Image.fromarray(read_image(donor.other).pixels)
    size = (ct.shape[1], ct.shape[0])
    return picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def box(grey: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row and column of the head; the whole picture where there is none."""
    parts, count = ndimage.label(grey > HEAD)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    head = parts == 1 + int(np.argmax(sizes)) if count else parts > 0  # no holder, no table
    spans = []
    for axis in (1, 0):
        used = np.flatnonzero(head.any(axis=axis))
        last = grey.shape[1 - axis] - 1
        spans.append((int(used[0]), int(used[-1])) if len(used) else (0, last))
    return spans[0], spans[1]


if __name__ == "__main__":
    main()
