"""A whole body of PET/CT from one scanner, drawn, fused: seconds and the most memory at once.

    python benchmarks/body.py --slices 1000
    python benchmarks/body.py --slices 100 --off-mm 12

The CT has 512 x 512 pixels of 0.977 mm, the PET 200 x 200 of 4 mm; both have one
FrameOfReferenceUID. ``--off-mm`` puts the PET that far to one side: the verdict must be review.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

CT_MM, PET_MM, SLICE_MM = 0.977, 4.0, 1.5


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
        fill(80, -15, 78, 80 - 300 * abs(z - 0.42), 60, 3)
    if 0.52 < z < 0.58:
        fill(0, -30, 45, 40, 10, 15)
    fill(0, 75, 24, 22, 600, 1.2)
    return hu, active


def plane(size: int, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """(size, size) x and y in mm of a plane's pixels, rows along y."""
    line = (np.arange(size) - (size - 1) / 2) * pixel_mm
    x, y = np.meshgrid(line, line)
    return x, y


def draw(folder: Path, slices: int, off_mm: float) -> None:
    """Both series into ``folder``."""
    frame, study = generate_uid(), generate_uid()
    rng = np.random.default_rng(0)
    whole_mm = 1000 * SLICE_MM
    start_mm = 0.2 * whole_mm if slices < 1000 else 0.0  # a part begins at the chest
    x, y = plane(512, CT_MM)
    ct = (
        section((start_mm + k * SLICE_MM) / whole_mm, x, y)[0] + rng.normal(0, 12, x.shape)
        for k in range(slices)
    )
    write(folder / "ct", ct, "CT", (CT_MM, SLICE_MM, 0.0), (frame, study))
    x, y = plane(200, PET_MM)
    count = max(4, round(slices * SLICE_MM / PET_MM))
    pet = (
        rng.poisson(40 * section((start_mm + k * PET_MM) / whole_mm, x, y)[1] + 1) * 25.0
        for k in range(count)
    )
    write(folder / "pet", pet, "PT", (PET_MM, PET_MM, off_mm), (frame, study))


def write(
    folder: Path,
    planes: Iterator[np.ndarray],
    modality: str,
    geometry_mm: tuple[float, float, float],
    uids: tuple[str, str],
) -> None:
    """One series; ``geometry_mm`` are pixel, slice, and how far it lies off to the left."""
    folder.mkdir()
    series = generate_uid()
    pixel, step, off = geometry_mm
    for k, values in enumerate(planes):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = (
            CTImageStorage if modality == "CT" else PositronEmissionTomographyImageStorage
        )
        ds.SOPInstanceUID = generate_uid()
        ds.PatientID, ds.PatientName = "body", "Drawn"
        ds.FrameOfReferenceUID, ds.StudyInstanceUID = uids
        ds.SeriesInstanceUID, ds.Modality, ds.StudyDate = series, modality, "20260101"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = k + 1
        ds.Rows, ds.Columns = values.shape
        first = -(values.shape[0] - 1) / 2 * pixel
        ds.ImagePositionPatient = [round(first + off, 4), round(first, 4), round(-k * step, 4)]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [pixel, pixel], step
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        if modality == "PT":
            ds.Units, ds.CorrectedImage = "BQML", ["ATTN", "DECY"]
            ds.DecayCorrection, ds.SeriesType = "ADMIN", ["WHOLE BODY", "IMAGE"]
            ds.PatientWeight = 70
            tracer = Dataset()
            tracer.RadionuclideTotalDose = 3.5e8
            ds.RadiopharmaceuticalInformationSequence = [tracer]
        ds.PixelData = np.round(values).astype("<i2").tobytes()
        ds.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def main() -> None:
    """Draw, fuse by the command, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=1000, help="of the CT, 1.5 mm each")
    parser.add_argument("--off-mm", type=float, default=0.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder, arguments.slices, arguments.off_mm)
        words = ["fuse", "--ct", folder / "ct", "--pet", folder / "pet", "-o", folder / "out"]
        began = time.perf_counter()
        command = [sys.executable, "-m", "mmif", *map(str, words), "--no-report"]
        subprocess.run(command, check=True, env=os.environ)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = json.loads((folder / "out" / "summary.json").read_text())
    found = summary["registration"]
    print(f"grid {summary['grid']['shape']}, {summary['seconds']}")
    print(f"verdict {found['verdict']} {found['reasons']}, checked in {found['seconds']:.1f} s")
    print(f"window of the PET: {summary['windows']['pet']}")
    cpu_s, most = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    print(f"{seconds:.0f} s ({cpu_s:.0f} CPU), {most:.2f} GiB")


if __name__ == "__main__":
    main()
