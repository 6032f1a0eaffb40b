"""Pictures of the places where a fused head goes wrong first, for a person to look at.

    python benchmarks/places.py --data DATA --output docs/panels

Each row is one place, enlarged: the sources as they are shown, and the fused volume. Three sheets:
RIRE training 001 (DATA/volumes) and the sample head for CT with MRI, the sample head for SPECT
with MRI. Written as ``places-NAME.png`` of 256 colours.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

import mmif
from mmif.io.transform_files import write_itk_transform
from mmif.report.pictures import grey, rgb
from mmif.result import FusionResult
from mmif.roles import label
from mmif.transforms.brain import find_brain
from mmif.transforms.colour import shown
from mmif.transforms.head import head_mask

SAMPLES = Path(__file__).parents[1] / "sample_data"
TILE, ZOOM_MM, GAP, WORDS = 224, 90.0, 4, 18
BONE_HU = 500.0

Point = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """Where to look: a voxel, the plane, and whether the tile is the whole plane or `ZOOM_MM`."""

    words: str
    at: Point
    plane: str = "axial"
    whole: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    rire = arguments.data / "volumes" / "rire_training_001"
    mri = mmif.load(SAMPLES / "mri.nii.gz", role="mri")
    sheets: dict[str, Callable[[], tuple[FusionResult, list[Place]]]] = {
        "rire": lambda: anatomy(
            mmif.load(rire / "training_001_ct_on_mr_grid.nii.gz", role="ct"),
            mmif.load(rire / "training_001_mr_T1.nii.gz", role="mri"),
        ),
        "ct-mri": lambda: anatomy(mmif.load(SAMPLES / "ct", role="ct"), mri),
        "spect-mri": lambda: activity(mmif.load(SAMPLES / "spect.dcm", role="spect"), mri),
    }
    for name, make in sheets.items():
        path = arguments.output / f"places-{name}.png"
        sheet(*make()).quantize(256).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def anatomy(ct: MetaTensor, mri: MetaTensor) -> tuple[FusionResult, list[Place]]:
    """CT with an MRI one slice of which is empty, and the places to look at."""
    found = mmif.register(fixed=mri, moving=ct).fixed_to_moving_lps
    emptied = mri.clone()
    emptied[..., mri.shape[3] // 2] = float(mri.min())
    with tempfile.TemporaryDirectory() as folder:
        path = write_itk_transform(Path(folder, "registration.tfm"), found)
        result = mmif.fuse(ct=ct, mri=emptied, transform={"ct": path}, accept_registration=True)
    hu = np.asarray(result.sources["ct"].values[0])
    covered = np.asarray(result.sources["ct"].coverage[0]) > 0.99
    head = np.asarray(head_mask(result.sources["mri"].values)[0], dtype=bool) & covered
    brain = find_brain(hu, head, covered, result.grid.spacing_mm)
    x, y, z = (round(float(axis.mean())) for axis in np.nonzero(brain))
    low, high = (int(k) for k in np.flatnonzero(brain.any(axis=(0, 1)))[[0, -1]])
    bone = np.argwhere(hu[:, y, z] > BONE_HU).ravel()
    lowest = low + round(0.08 * (high - low))
    last = int(np.flatnonzero(covered.any(axis=(0, 1)))[-1])
    signal = np.asarray(result.sources["mri"].values[0]).std(axis=(0, 1))
    flat = int(np.argmin(np.where(brain.any(axis=(0, 1)), signal, np.inf)))
    return result, [
        Place("the skull's inner table", (int(bone[0]) + 12, y, z)),
        Place("lowest slices (fossa)", (x, y + 30, lowest)),
        Place("white matter, ventricles", (x, y, z)),
        Place("across the slices", (x, y, z), "coronal", whole=True),
        Place("an MRI slice without signal", (x, y, flat), whole=True),
        Place("the last slices of the CT", (x, y, last), "sagittal", whole=True),
    ]


def activity(spect: MetaTensor, mri: MetaTensor) -> tuple[FusionResult, list[Place]]:
    """SPECT with MRI, and the places to look at."""
    result = mmif.fuse(spect=spect, mri=mri)
    counts = ndimage.gaussian_filter(np.asarray(result.sources["spect"].values[0]), 3)
    tissue = np.asarray(result.sources["mri"].values[0])
    head = np.asarray(head_mask(result.sources["mri"].values)[0], dtype=bool)
    covered = np.asarray(result.sources["spect"].coverage[0]) > 0.99
    depth = ndimage.distance_transform_edt(head & covered, sampling=result.grid.spacing_mm)
    deep = depth > 18
    x, y, z = (round(float(axis.mean())) for axis in np.nonzero(deep))
    hot = place_of(np.where(deep, counts, -np.inf))
    broad = ndimage.gaussian_filter(np.asarray(result.sources["spect"].values[0]), 12)
    around = np.abs(np.indices(deep.shape)[2] - z) < 8
    bright = tissue > np.percentile(tissue[deep], 60)
    white = place_of(np.where((depth > 35) & around & bright, -counts, -np.inf))
    upper = np.indices(deep.shape)[2] > z
    cold = place_of(np.where(deep & upper, (broad - counts) / np.maximum(broad, 1), -np.inf))
    end = int(np.flatnonzero((head & covered).sum(axis=(0, 1)) > 2000)[-1])
    return result, [
        Place("hottest focus", hot),
        Place("cold focus", cold),
        Place("white matter under low counts", white),
        Place("the whole slice", (x, y, z), whole=True),
        Place("across the slices", (x, y, z), "coronal", whole=True),
        Place("the top of the head", (x, y, end), whole=True),
    ]


def shadows(mask: np.ndarray) -> list[np.ndarray]:
    """For each axis, where anything of ``mask`` is."""
    return [mask.any(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]


def place_of(values: np.ndarray) -> Point:
    i, j, k = np.unravel_index(int(np.argmax(values)), values.shape)
    return int(i), int(j), int(k)


def sheet(result: FusionResult, places: list[Place]) -> Image.Image:
    """A row a place: the sources, the fused volume."""
    volumes = {label(r): shown(s.unit[...], s.colour_map) for r, s in result.sources.items()}
    volumes["fused"] = result.fused
    width = len(volumes) * (TILE + GAP) - GAP
    page = Image.new("RGB", (width, len(places) * (TILE + WORDS + GAP)), (255, 255, 255))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for row, place in enumerate(places):
        top = row * (TILE + WORDS + GAP)
        for column, (name, volume) in enumerate(volumes.items()):
            left = column * (TILE + GAP)
            words = f"{place.words}: {name}" if column == 0 else name
            pen.text((left, top + 2), words, fill=(40, 40, 40), font=font)
            page.paste(tile(volume, result, place), (left, top + WORDS))
    return page


def tile(volume: torch.Tensor, result: FusionResult, place: Place) -> Image.Image:
    """The plane through ``place`` at the patient's aspect, `TILE` pixels a side."""
    values, spacing = np.moveaxis(np.asarray(volume), 0, -1), result.grid.spacing_mm
    used = [np.flatnonzero(u) for u in shadows(np.asarray(result.fused).max(axis=0) > 0.1)]
    normal = {"axial": 2, "coronal": 1, "sagittal": 0}[place.plane]
    plane = np.take(values, place.at[normal], axis=normal).swapaxes(0, 1)
    across, down = (axis for axis in range(3) if axis != normal)
    middle = [(u[0] + u[-1]) / 2 if place.whole else c for u, c in zip(used, place.at, strict=True)]
    column, line = middle[across], middle[down]
    if place.plane != "axial":
        plane, line = plane[::-1], plane.shape[0] - 1 - line
    picture = Image.fromarray(rgb(grey(plane.squeeze())))
    mm = spacing[across], spacing[down]
    spans = [np.ptp(used[axis]) * spacing[axis] for axis in (across, down)]
    side = 1.1 * max(spans) if place.whole else ZOOM_MM
    half = side / mm[0] / 2, side / mm[1] / 2
    box = (column - half[0], line - half[1], column + half[0], line + half[1])
    return picture.transform(
        (TILE, TILE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0)
    )


if __name__ == "__main__":
    main()
