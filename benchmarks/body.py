"""A whole body of PET/CT from one scanner, drawn, fused: seconds and the most memory at once.

    python benchmarks/body.py --slices 1000
    python benchmarks/body.py --slices 100 --off-mm 12
    python benchmarks/body.py --slices 1000 --pet-fov-mm 460

The CT has 512 x 512 pixels of 0.977 mm, the PET 200 x 200 of 4 mm; both have one
FrameOfReferenceUID. A PET that ends within the CT's field of view takes more memory: its weight is
a volume then. ``--off-mm`` puts the PET that far to one side: the verdict must be review.
Tests draw small bodies with it (``tests/test_mmif_body.py``).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

BODY_MM = 1500.0
"""From the vertex to the feet."""

SUPINE, PRONE = (1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)
"""ImageOrientationPatient of axial slices, by how the patient lies: seen from the feet, face up."""


@dataclass(frozen=True)
class Scan:
    """One series of the drawn body.

    Attributes:
        size: rows and columns.
        pixel_mm: their distance.
        places_mm: of the slices below the vertex, in the order of their InstanceNumber.
        off_mm: how far the patient had moved to the left.
        orientation: ImageOrientationPatient.
        position: PatientPosition.
    """

    size: int
    pixel_mm: float
    places_mm: Sequence[float]
    off_mm: float = 0.0
    orientation: Sequence[int] = SUPINE
    position: str = "HFS"

    @property
    def first_mm(self) -> tuple[float, float]:
        """Where the first pixel lies, to the left and to the back."""
        half = (self.size - 1) / 2 * self.pixel_mm
        x, y = np.add(self.orientation[:2], self.orientation[3:5]) * -half
        return float(x), float(y)

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of the patient's x and y in mm."""
        row, column = np.mgrid[: self.size, : self.size] * self.pixel_mm
        (a, b), (c, d), (x, y) = self.orientation[:2], self.orientation[3:5], self.first_mm
        return x + a * column + c * row, y + b * column + d * row


def section(z: float, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HU and activity of a drawn body at ``z`` (0 vertex, 1 feet), ``x`` and ``y`` in mm."""
    hu, active = np.full(x.shape, -1000.0), np.zeros(x.shape)

    def fill(cx: float, cy: float, rx: float, ry: float, tissue: float, uptake: float) -> None:
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        hu[inside], active[inside] = tissue, uptake

    hu[(np.abs(y - 175) < 6) & (np.abs(x) < 210)] = -300  # the table
    if z < 0.14:
        size = np.sqrt(max(0.05, 1 - ((z - 0.07) / 0.075) ** 2))
        fill(0, 0, 80 * size, 100 * size, 1000, 1)
        fill(0, 0, 72 * size, 92 * size, 35, 6)
        return hu, active
    if z > 0.6:
        for side in (-95, 95):
            thick = 85 - 45 * (z - 0.6) / 0.4
            fill(side, 10, thick, thick, 50, 1)
            fill(side, 10, 16, 16, 900, 0.6)
        return hu, active
    wide = 170 if z > 0.2 else 70 + 100 * (z - 0.14) / 0.06
    fill(0, 0, wide, 115 if z > 0.2 else 70, 40, 1)
    for side in (-1, 1):
        fill(side * 205, 20, 32, 32, 50, 1)  # the arms
        fill(side * 205, 20, 12, 12, 800, 0.5)
        if 0.2 < z < 0.38:
            fill(side * 85, 0, 60, 85 - 200 * abs(z - 0.3), -850, 0.4)
        if 0.42 < z < 0.48:
            fill(side * 75, 50, 28, 28, 35, 5)
    if 0.24 < z < 0.34:
        fill(20, -30, 48, 42, 45, 8 - 60 * abs(z - 0.29))
    if 0.37 < z < 0.47:
        fill(-80, -15, 78, 80 - 300 * abs(z - 0.42), 60, 3)
    if 0.52 < z < 0.58:
        fill(0, -30, 45, 40, 10, 15)
    fill(0, 75, 24, 22, 600, 1.2)
    return hu, active


def draw(folder: Path, ct: Scan, pet: Scan, frames: Sequence[str] = ()) -> None:
    """Both series into ``folder``, in one frame of reference if not in ``frames`` of their own."""
    frames = frames or [generate_uid()] * 2
    study = generate_uid()
    for modality, scan, frame in zip(("CT", "PT"), (ct, pet), frames, strict=True):
        write(folder / modality.lower(), scan, modality, (frame, study))


def write(folder: Path, scan: Scan, modality: str, uids: tuple[str, str]) -> None:
    """One series; ``uids`` are its FrameOfReferenceUID and its StudyInstanceUID."""
    folder.mkdir(parents=True)
    series, rng = generate_uid(), np.random.default_rng(0)
    x, y = scan.plane()
    left, back = scan.first_mm
    thick = abs(float(np.diff(scan.places_mm[:2])[0]))
    for k, place in enumerate(scan.places_mm):
        hu, active = section(place / BODY_MM, x, y)
        if modality == "CT":
            values = hu + rng.normal(0, 12, x.shape)
        else:
            values = rng.poisson(40 * active + 1) * 25.0
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = (
            CTImageStorage if modality == "CT" else PositronEmissionTomographyImageStorage
        )
        ds.SOPInstanceUID = generate_uid()
        ds.PatientID, ds.PatientName, ds.PatientPosition = "body", "Drawn", scan.position
        ds.FrameOfReferenceUID, ds.StudyInstanceUID = uids
        ds.SeriesInstanceUID, ds.Modality, ds.StudyDate = series, modality, "20260101"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = k + 1
        ds.Rows = ds.Columns = scan.size
        ds.ImagePositionPatient = [round(left + scan.off_mm, 4), round(back, 4), round(-place, 4)]
        ds.ImageOrientationPatient = list(scan.orientation)
        ds.PixelSpacing, ds.SliceThickness = [scan.pixel_mm, scan.pixel_mm], thick
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        if modality == "PT":
            _say_activity(ds)
        ds.PixelData = np.round(values).astype("<i2").tobytes()
        ds.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def _say_activity(ds: Dataset) -> None:
    """What SUV by body weight needs: 1 is an uptake of 1 in `section`, about."""
    ds.Units, ds.CorrectedImage = "BQML", ["ATTN", "DECY"]
    ds.DecayCorrection, ds.SeriesType = "ADMIN", ["WHOLE BODY", "IMAGE"]
    ds.PatientWeight = 70
    tracer = Dataset()
    tracer.RadionuclideTotalDose = 7e7
    ds.RadiopharmaceuticalInformationSequence = [tracer]


def places(slices: int, step_mm: float, start_mm: float = 0.0) -> np.ndarray:
    """(slices,) mm below the vertex."""
    return start_mm + step_mm * np.arange(slices)


def main() -> None:
    """Draw, fuse by the command, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=1000, help="of the CT, 1.5 mm each")
    parser.add_argument("--off-mm", type=float, default=0.0)
    parser.add_argument("--pet-fov-mm", type=float, default=800.0, help="the CT's is 500 mm")
    parser.add_argument("--no-report", action="store_true", help="the volumes alone")
    arguments = parser.parse_args()
    start_mm = 0.0 if arguments.slices * 1.5 >= BODY_MM else 300.0  # a part begins at the chest
    ct = Scan(512, 0.977, places(arguments.slices, 1.5, start_mm))
    count = max(4, round(arguments.slices * 1.5 / 4))
    pet = Scan(round(arguments.pet_fov_mm / 4), 4.0, places(count, 4.0, start_mm), arguments.off_mm)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder, ct, pet)
        words = ["fuse", "--ct", folder / "ct", "--pet", folder / "pt", "-o", folder / "out"]
        words += ["--no-report"] * arguments.no_report
        began = time.perf_counter()
        command = [sys.executable, "-m", "mmif", *map(str, words)]
        subprocess.run(command, check=True, env=os.environ)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = json.loads((folder / "out" / "summary.json").read_text())
        pages = [page.stat().st_size / 1e6 for page in (folder / "out").glob("report.html")]
    found = summary["registration"]
    print(f"grid {summary['grid']['shape']}, {summary['seconds']}")
    print(f"verdict {found['verdict']} {found['reasons']}, checked in {found['seconds']:.1f} s")
    print(f"window of the PET: {summary['windows']['pet']}")
    print(f"readability: {summary['readability']}")
    print("".join(f"report {megabytes:.1f} MB\n" for megabytes in pages), end="")
    cpu_s, most = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    print(f"{seconds:.0f} s ({cpu_s:.0f} CPU), {most:.2f} GiB at most ({most * 1.0737:.2f} GB)")


if __name__ == "__main__":
    main()
