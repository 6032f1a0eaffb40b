"""``mmif fuse`` as a user runs it: seconds by step, peak memory, and millimetres.

    python benchmarks/end_to_end.py [--data ../shared/data] [--device auto] [--runs 1] [--json FILE]
                                    [--cases WORDS,...] [--against CHECKOUT] [--no-elastix]
                                    [--keep FOLDER]

The sample head (CT and SPECT) against ``truth.json``; a pair as large as today's scanners make, the
sample head on finer grids with a scanner's noise (CT 512 x 512 x 300, MRI 256 x 256 x 180, both
DICOM); and RIRE training_001 against its gold standard, in each of the four combinations of input
and output format. Each run is a process of its own; memory and CPU seconds are the operating
system's figures for it. The error is the mean over the brain points of ``truth.json``, and over
points on a 10 mm grid inside the head on RIRE.

Beside each run of the large pair and of RIRE one run of elastix (Debian's; one start, 4 resolutions
of 500 iterations, two threads) does the registration alone, from NIfTI files that are not packed:
what a machine's load does to one it does to the other, and the ratio says what is left. With
``--against`` another checkout fuses the same in turn. Of several runs the one of median wall time
is printed. ``--cases`` takes words of which a case's name must hold one; ``--keep`` leaves the
volumes that were made in FOLDER. MB are 1e6 bytes.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from elastix import RECIPE
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample_data"
STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One run: its name, its inputs, its output's name and the true transform.

    Attributes:
        elastix: the reference and the moving volume for one run of elastix beside it, if any.
    """

    name: str
    inputs: dict[str, Path]
    output: str
    options: tuple[str, ...]
    points_lps: Matrix
    fixed_to_moving_lps: Matrix
    elastix: tuple[Path, Path] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", default="")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--no-elastix", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    checkouts = [ROOT, *([args.against.resolve()] if args.against else [])]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = args.keep.resolve() if args.keep else Path(name)
        folder.mkdir(exist_ok=True)
        for case in chosen_cases(args.data, folder, args.cases.split(",")):
            runs: dict[Path, list[dict[str, object]]] = {checkout: [] for checkout in checkouts}
            for number in range(args.runs):
                beside = {}
                if case.elastix and not args.no_elastix and shutil.which("elastix"):
                    beside = run_elastix(*case.elastix)
                for checkout in checkouts:
                    row = run(case, folder / f"{number}", args.device, checkout)
                    runs[checkout].append(row | beside)
            for checkout, found in runs.items():
                rows.append(sorted(found, key=lambda r: r["wall"])[len(found) // 2])
                rows[-1] |= {"checkout": checkout.name, "load": round(os.getloadavg()[0], 1)}
                say(rows[-1], header=len(rows) == 1)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def chosen_cases(data: Path, folder: Path, words: list[str]) -> Iterator[Case]:
    """The cases whose names hold one of ``words``."""
    makers = {"sample": sample_cases, "large": large_cases, "RIRE": rire_cases}
    for name, maker in makers.items():
        if any(name in word or word in name or word == "" for word in words):
            yield from (c for c in maker(data, folder) if any(word in c.name for word in words))


def sample_cases(data: Path, folder: Path) -> Iterator[Case]:
    """The simulated head; its MRI is the reference."""
    truth = json.loads((SAMPLE / "truth.json").read_text())
    mri, points = SAMPLE / "mri.nii.gz", np.array(truth["brain_points_mri_lps"])
    for role, path in (("ct", SAMPLE / "ct"), ("spect", SAMPLE / "spect.dcm")):
        matrix = np.array(truth[f"mri_to_{role}"], dtype=float)
        yield Case(f"sample {role}-mri", {role: path, "mri": mri}, "fused", (), points, matrix)


def large_cases(data: Path, folder: Path) -> Iterator[Case]:
    """The simulated head as a scanner of today would deliver it."""
    truth = json.loads((SAMPLE / "truth.json").read_text())
    points, matrix = np.array(truth["brain_points_mri_lps"]), np.array(truth["mri_to_ct"])
    # in a process of its own: a child's peak memory counts that of the process that started it
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        inputs = {
            role: apart.submit(make_large, role, size, noise, folder).result()
            for role, size, noise in (
                ("mri", (256, 256, 180), 12.0),
                ("ct", (512, 512, 300), 8.0),
            )
        }
    plain = {role: folder / f"large_{role}.nii" for role in inputs}
    pair = (plain["mri"], plain["ct"])
    yield Case("large ct-mri", inputs, "fused", ("--format", "dicom"), points, matrix, pair)


def make_large(role: str, size: tuple[int, ...], noise: float, folder: Path) -> Path:
    """A volume of the sample head on ``size`` voxels: ``large_ROLE``, DICOM, and a NIfTI file."""
    if role == "ct":
        series = sitk.ImageSeriesReader()
        series.SetFileNames(series.GetGDCMSeriesFileNames(str(SAMPLE / "ct")))
        image = finer(series.Execute(), size, noise)
    else:
        image = finer(sitk.ReadImage(str(SAMPLE / "mri.nii.gz")), size, noise)
    sitk.WriteImage(image, str(folder / f"large_{role}.nii"))
    return as_dicom(image, role, folder / f"large_{role}")


def finer(image: sitk.Image, size: tuple[int, ...], noise: float) -> sitk.Image:
    """``image`` on ``size`` voxels over the same field of view, int16, with seeded noise."""
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    first = [(b / a - 1) / 2 for a, b in zip(image.GetSpacing(), spacing, strict=True)]
    origin = image.TransformContinuousIndexToPhysicalPoint(first)
    fine = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat32),
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        origin,
        spacing,
        image.GetDirection(),
        float(sitk.GetArrayViewFromImage(image).min()),
    )
    voxels = sitk.GetArrayFromImage(fine)
    voxels += np.random.default_rng(19).normal(0, noise, voxels.shape)
    result = sitk.GetImageFromArray(np.rint(voxels).astype(np.int16))
    result.CopyInformation(fine)
    return result


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
    dicom, plain = {}, {}
    for role, path in nifti.items():
        image = sitk.ReadImage(str(path))
        dicom[role] = as_dicom(image, role, folder / f"rire_{role}")
        plain[role] = folder / f"rire_{role}.nii"
        sitk.WriteImage(image, str(plain[role]))
    pair = (plain["mri"], plain["ct"])
    for kind, inputs in (("nifti", nifti), ("dicom", dicom)):
        for output in ("nifti", "dicom"):
            options = ("--format", output)
            yield Case(f"RIRE {kind} to {output}", inputs, "fused", options, points, truth, pair)


def matrix_of(transform: sitk.Transform) -> Matrix:
    """The 4x4 matrix of a linear transform."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis in range(3):
        point = np.eye(3)[axis].tolist()
        matrix[:3, axis] = np.array(transform.TransformPoint(point)) - origin
    matrix[:3, 3] = origin
    return matrix


def as_dicom(image: sitk.Image, role: str, folder: Path) -> Path:
    """The volume as a plain DICOM series, one file a slice, in a frame of its own."""
    folder.mkdir()
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


def run(case: Case, folder: Path, device: str, checkout: Path) -> dict[str, object]:
    """One ``mmif fuse`` in its own process: its figures."""
    output = folder / f"{case.name.replace(' ', '_')}_{checkout.name}"
    output.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mmif", "fuse", "-o", str(output), "--device", device]
    for role, path in case.inputs.items():
        command += [f"--{role}", str(path)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *case.options], stdout=subprocess.DEVNULL, cwd=checkout)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{case.name}: mmif fuse failed")
    summary = json.loads((output / "summary.json").read_text())
    found = np.array(summary["registration"]["fixed_to_moving_lps"])
    report = output / "report.html"
    size = report.stat().st_size / 1e6
    shutil.rmtree(output)
    return {
        "case": case.name,
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "report_mb": size,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "error_mm": error_mm(case, found),
        "verdict": summary["registration"]["verdict"],
        "device": summary["fusion"]["device"],
        "precision": summary["fusion"]["precision"],
        "per_slice": summary["fusion"]["seconds_per_slice"],
        "seconds": summary["seconds"],
    }


def run_elastix(fixed: Path, moving: Path) -> dict[str, object]:
    """One run of elastix: its seconds by the clock and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = Path(folder) / "parameters.txt"
        parameters.write_text(RECIPE.replace(") (", ")\n("))
        command = ["elastix", "-f", fixed, "-m", moving, "-p", parameters, "-out", folder]
        command += ["-threads", "2"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"elastix": wall, "elastix_cpu": cpu}


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
        named = f"{'wall s':>7} {'CPU s':>6} {'peak MB':>8} {'page MB':>8} {'mm':>6} {'verdict':8}"
        print(
            f"{'case':22} {'checkout':10} {named} {'elastix':>8} {'ratio':>6} {'load':>5} {steps}"
        )
    steps = " ".join(f"{value:9.2f}" for value in seconds.values())
    beside = float(str(row.get("elastix", "nan")))
    print(
        f"{row['case']:22} {row['checkout']:10} {row['wall']:7.1f} {row['cpu']:6.1f} "
        f"{row['peak_mb']:8.0f} {row['report_mb']:8.1f} {row['error_mm']:6.2f} {row['verdict']:8} "
        f"{beside:8.1f} {float(str(row['wall'])) / beside:6.2f} {row['load']:5.1f} {steps}",
        flush=True,
    )


if __name__ == "__main__":
    main()
