"""Real DICOM series, read by mmif, SimpleITK and dcm2niix: values and places side by side.

    python benchmarks/differential.py [--data DIR] [--only NAME ...]

For each folder that mmif reads as one grey volume, dcm2niix (from the test extra) converts the same
files, and SimpleITK stacks them in mmif's order. Printed: the largest difference of a value, and of
the place of a corner in mm. A volume that the other tool does not make is said; the exit code is 1
where both make one and they differ by more than rounding, unless mmif gave a warning.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from mmif.errors import MmifError
from mmif.geometry import FLIP_XY, apply
from mmif.io import load

ROOT = Path(__file__).parent.parent
SAME_VALUE, SAME_MM = 1e-3, 0.05
"""Shares of the value range, and mm of a corner, that rounding explains."""


def corners(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """(8, 3) RAS mm of the corner voxels, sorted: readers differ in where they begin."""
    bits = np.array([[(n >> b) & 1 for b in range(3)] for n in range(8)])
    points = apply(affine, bits * (np.array(shape) - 1))
    return points[np.lexsort(points.round(1).T)]


def compare(mine: np.ndarray, affine: np.ndarray, other: np.ndarray, its: np.ndarray) -> str:
    """What differs, in words; values are compared as sorted by size, places by their corners."""
    if sorted(mine.shape) != sorted(other.shape):
        return f"another shape, {other.shape}"
    spread = max(float(np.ptp(mine)), 1e-9)
    value = float(np.abs(np.sort(mine, axis=None) - np.sort(other, axis=None)).max()) / spread
    place = float(np.abs(corners(mine.shape, affine) - corners(other.shape, its)).max())
    same = value <= SAME_VALUE and place <= SAME_MM
    return f"{'same' if same else 'DIFFERENT'} (values {value:.1e}, corners {place:.3f} mm)"


def by_simpleitk(files: list[str] | str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine (RAS) of files in order, or of one file of many frames."""
    image = sitk.ReadImage(files)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T.astype(np.float32), FLIP_XY @ affine


def by_dcm2niix(files: list[str]) -> tuple[np.ndarray, np.ndarray] | str:
    """The same by dcm2niix; what it made instead, where it is not one volume."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in"), Path(name, "out")
        source.mkdir()
        target.mkdir()
        for number, file in enumerate(files):
            (source / f"{number:05d}.dcm").symlink_to(file)
        command = ["dcm2niix", "-b", "n", "-z", "n", "-o", str(target), str(source)]
        subprocess.run(command, capture_output=True, check=False, timeout=300)
        made = sorted(target.glob("*.nii"))
        if len(made) != 1:
            return f"{len(made)} volumes"
        image = nib.load(made[0])
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("MMIF_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the folders' names")
    options = parser.parse_args()
    dicom = options.data / "dicom"
    bad = 0
    folders = sorted({path.parent for path in dicom.rglob("*") if path.is_file()})
    for folder in [f for f in folders if any(part in str(f) for part in options.only)]:
        try:
            volume = load(folder)
        except MmifError:
            continue
        source = volume.meta["source"]
        by_uid = {}
        for path in folder.rglob("*"):
            if path.is_file() and sitk.ImageFileReader.GetImageIOFromFileName(str(path)):
                reader = sitk.ImageFileReader()
                reader.SetFileName(str(path))
                reader.ReadImageInformation()
                if reader.HasMetaDataKey("0008|0018"):
                    by_uid[reader.GetMetaData("0008|0018").strip("\0 ")] = str(path.resolve())
        files = [by_uid.get(str(header.SOPInstanceUID), "") for header in source.headers]
        if len(volume) != 1 or "" in files or len(files) < 3:
            continue
        mine, affine = volume[0].numpy(), np.asarray(volume.affine)
        try:
            itk = compare(mine, affine, *by_simpleitk(files))
        except RuntimeError:
            itk = "not read"
        made = by_dcm2niix(files)
        nii = made if isinstance(made, str) else compare(mine, affine, *made)
        bad += "DIFFERENT" in itk + nii and not source.warnings
        said = f"; mmif says: {'; '.join(source.warnings)}" if source.warnings else ""
        print(f"{folder.relative_to(dicom)}: SimpleITK {itk}; dcm2niix {nii}{said}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
