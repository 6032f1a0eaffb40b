"""``mmif fuse`` as a user runs it: seconds by step, peak memory, and millimetres.

    python benchmarks/end_to_end.py [--data ../shared/data] [--device auto] [--runs 1] [--json FILE]

The sample head (CT and SPECT) against ``truth.json``, and RIRE training_001 against its gold
standard, RIRE in each of the four combinations of input and output format. Each run is a process
of its own; peak memory is the operating system's figure for that process. The error is the mean
over the brain points of ``truth.json`` on the sample head, and over points on a 10 mm grid inside
the head on RIRE.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).parent.parent
STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One run: its name, its inputs, its output's name and the true transform."""

    name: str
    inputs: dict[str, Path]
    output: str
    options: tuple[str, ...]
    points_lps: Matrix
    fixed_to_moving_lps: Matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = [*sample_cases(), *rire_cases(args.data, Path(folder))]
        for case in cases:
            runs = [run(case, Path(folder), args.device, n) for n in range(args.runs)]
            rows.append(sorted(runs, key=lambda r: r["wall"])[len(runs) // 2])
            say(rows[-1], header=len(rows) == 1)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def sample_cases() -> Iterator[Case]:
    """The simulated head; its MRI is the reference."""
    folder = ROOT / "sample_data"
    truth = json.loads((folder / "truth.json").read_text())
    mri, points = folder / "mri.nii.gz", np.array(truth["brain_points_mri_lps"])
    for role, path in (("ct", folder / "ct"), ("spect", folder / "spect.dcm")):
        matrix = np.array(truth[f"mri_to_{role}"], dtype=float)
        yield Case(f"sample {role}-mri", {role: path, "mri": mri}, "fused", (), points, matrix)


def rire_cases(data: Path, folder: Path) -> Iterator[Case]:
    """RIRE training_001 in both input and both output formats."""
    rire = data / "volumes" / "rire_training_001"
    if not rire.is_dir():
        print(f"RIRE is not at {rire}: left out", file=sys.stderr)
        return
    nifti = {
        "ct": rire / "training_001_ct_on_mr_grid.nii.gz",
        "mri": rire / "training_001_mr_T1.nii.gz",
    }
    gold = sitk.ReadTransform(str(rire / "training_001_ct_to_mr_T1_ground_truth.tfm"))
    truth = np.linalg.inv(matrix_of(gold))
    points = head_points_lps(nifti["mri"])
    dicom = {role: as_dicom(path, role, folder / f"rire_{role}") for role, path in nifti.items()}
    for kind, inputs in (("nifti", nifti), ("dicom", dicom)):
        for output in ("nifti", "dicom"):
            options = ("--format", output)
            yield Case(f"RIRE {kind} to {output}", inputs, "fused", options, points, truth)


def matrix_of(transform: sitk.Transform) -> Matrix:
    """The 4x4 matrix of a linear transform."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis in range(3):
        point = np.eye(3)[axis].tolist()
        matrix[:3, axis] = np.array(transform.TransformPoint(point)) - origin
    matrix[:3, 3] = origin
    return matrix


def as_dicom(nifti: Path, role: str, folder: Path) -> Path:
    """The NIfTI volume as a plain DICOM series, one file a slice, in a frame of its own."""
    folder.mkdir()
    image = sitk.ReadImage(str(nifti))
    voxels = np.rint(sitk.GetArrayFromImage(image)).astype(np.int16)
    x, y, _ = np.array(image.GetDirection()).reshape(3, 3).T
    study, series, frame = "1.2.826.0.1.3680043.8.498.1", generate_uid(), generate_uid()
    for index, plane in enumerate(voxels):
        ds = pydicom.Dataset()
        ds.SOPClassUID = STORAGE["CT" if role == "ct" else "MR"]
        ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality = "CT" if role == "ct" else "MR"
        ds.PatientID, ds.PatientName = "RIRE001", "RIRE^Training"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if role == "ct" else "M"]
        ds.InstanceNumber = index + 1
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        ds.ImagePositionPatient = [f"{p:.10g}" for p in position]
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in (*x, *y)]
        ds.PixelSpacing = [f"{image.GetSpacing()[1]:.10g}", f"{image.GetSpacing()[0]:.10g}"]
        ds.SliceThickness = f"{image.GetSpacing()[2]:.10g}"
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        if role == "ct":
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = plane.tobytes()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{index:03}.dcm", enforce_file_format=True)
    return folder


def run(case: Case, folder: Path, device: str, number: int) -> dict[str, object]:
    """One ``mmif fuse`` in its own process: its figures."""
    output = folder / f"{case.name.replace(' ', '_')}_{number}"
    command = [sys.executable, "-m", "mmif", "fuse", "-o", str(output), "--device", device]
    for role, path in case.inputs.items():
        command += [f"--{role}", str(path)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *case.options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{case.name}: mmif fuse failed")
    summary = json.loads((output / "summary.json").read_text())
    found = np.array(summary["registration"]["fixed_to_moving_lps"])
    return {
        "case": case.name,
        "wall": wall,
        "peak_mb": usage.ru_maxrss / 1024,
        "error_mm": error_mm(case, found),
        "verdict": summary["registration"]["verdict"],
        "device": summary["fusion"]["device"],
        "precision": summary["fusion"]["precision"],
        "per_slice": summary["fusion"]["seconds_per_slice"],
        "seconds": summary["seconds"],
    }


def error_mm(case: Case, fixed_to_moving_lps: Matrix) -> float:
    """Mean distance in mm between the true and the found places of the case's points."""
    true, found = (
        case.points_lps @ m[:3, :3].T + m[:3, 3]
        for m in (case.fixed_to_moving_lps, fixed_to_moving_lps)
    )
    return float(np.linalg.norm(true - found, axis=1).mean())


def head_points_lps(reference: Path) -> Matrix:
    """Points on a 10 mm grid inside the head, by Otsu's threshold, in LPS mm."""
    image = sitk.ReadImage(str(reference), sitk.sitkFloat32)
    mask = sitk.OtsuThreshold(sitk.SmoothingRecursiveGaussian(image, 2.0), 0, 1)
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    steps = [
        np.arange(0, n, 10 / s).round().astype(int) for n, s in zip(size, spacing, strict=True)
    ]
    kept = [
        image.TransformIndexToPhysicalPoint((int(i), int(j), int(k)))
        for i in steps[0][steps[0] < size[0]]
        for j in steps[1][steps[1] < size[1]]
        for k in steps[2][steps[2] < size[2]]
        if mask[int(i), int(j), int(k)]
    ]
    return np.array(kept)


def say(row: dict[str, object], *, header: bool) -> None:
    """One row of the table."""
    seconds = dict(row["seconds"])  # type: ignore[call-overload]
    if header:
        steps = " ".join(f"{step:>9}" for step in seconds)
        named = f"{'wall s':>7} {'peak MB':>8} {'mm':>6} {'verdict':8} {'s/slice':>8}"
        print(f"{'case':22} {named} {steps}")
    steps = " ".join(f"{value:9.2f}" for value in seconds.values())
    print(
        f"{row['case']:22} {row['wall']:7.1f} {row['peak_mb']:8.0f} {row['error_mm']:6.2f} "
        f"{row['verdict']:8} {row['per_slice']:8.4f} {steps}",
        flush=True,
    )


if __name__ == "__main__":
    main()
