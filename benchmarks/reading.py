"""Seconds and peak memory to load a 512x512x400 CT series: mmif, SimpleITK and MONAI side by side.

    python benchmarks/reading.py [--slices 400] [--size 512] [--repeats 3]
    python benchmarks/reading.py --against 7d18d58 [--data DIR]

The series is made in a temporary folder. Each reader runs in a process of its own, so that peak
memory is its own; imports are not timed and their memory is reported apart. The order alternates
and the first (cold) round is not counted. The three volumes must be equal.

With --against the given real series are read by an earlier commit as well, in turn, and it says for
each the CPU seconds of both (the best of three rounds of three) and whether voxels and affine are
bit for bit the same; the exit code is 1 where they are not, or where all series together take more
than 10 % longer.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).parent.parent
READERS = ("mmif", "simpleitk", "monai")
CT = "1.2.840.10008.5.1.4.1.1.2"


def make_series(folder: Path, slices: int, size: int) -> None:
    """A CT series of random tissue in air, with a header as long as a scanner's."""
    random = np.random.default_rng(2025)
    texture = random.integers(-40, 80, (size, size), dtype=np.int16)
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(slices):
        inside = rows**2 + columns**2 < 0.8 - 0.6 * (k / slices - 0.5) ** 2
        stored = np.where(inside, np.roll(texture, k, axis=0), np.int16(-1000)) + 1024
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CT
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.PatientID, ds.InstanceNumber = "CT", "benchmark", k + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = [-120.0, -120.0, 0.5 * k]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.47, 0.47], 0.5
        ds.Rows = ds.Columns = size
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        for keyword in ["StationName", "InstitutionName", "ProtocolName", "ConvolutionKernel"]:
            setattr(ds, keyword, "BENCHMARK")
        for element in range(0x10, 0x50):
            ds.add_new((0x0019, 0x1000 + element), "LO", f"private value {element}")
        ds.PixelData = stored.astype("<u2").tobytes()
        ds.save_as(folder / f"slice{(k * 7919) % 100003:06d}", enforce_file_format=True)


def load_with(reader: str, folder: Path) -> tuple[float, np.ndarray, object]:
    """Seconds to load the series with one reader, its voxels (x, y, z), and what owns them."""
    if reader == "mmif":
        from mmif.io import load
        from mmif.io.dicom.read.reader import read_scan  # noqa: F401 - imports are not timed
        from mmif.io.monai_reader import to_volume  # noqa: F401

        start = time.perf_counter()
        volume = load(folder, role="ct")
        return time.perf_counter() - start, volume.numpy()[0], volume
    if reader == "simpleitk":
        import SimpleITK as sitk

        start = time.perf_counter()
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        image = sitk.ReadImage(files, sitk.sitkFloat32)
        seconds = time.perf_counter() - start
        return seconds, sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), image
    from monai.data import PydicomReader
    from monai.transforms import LoadImage

    loader = LoadImage(reader=PydicomReader(), image_only=True)
    start = time.perf_counter()
    voxels = loader(folder)
    return time.perf_counter() - start, voxels.numpy(), voxels


def child(reader: str, folder: Path) -> None:
    """Load once in this process; print seconds, memory and a checksum as JSON."""
    import_only(reader)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = time.process_time()
    seconds, voxels, _owner = load_with(reader, folder)
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    z_first = voxels[:, :, ::40].sum(axis=(0, 1), dtype=np.float64)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": cpu,
                "peak_mb": peak / 1024,
                "imports_mb": before / 1024,
                "shape": voxels.shape,
                "sums": sorted(z_first.round(1).tolist()),
            }
        )
    )


def child_of_series(data: Path) -> None:
    """Load each folder below ``data`` three times; print CPU seconds and a digest of each."""
    from mmif.io import load

    found = {}
    for folder in sorted({path.parent for path in data.rglob("*") if path.is_file()}):
        seconds, digest = [], "refused"
        for _ in range(3):
            start = time.process_time()
            try:
                volume = load(folder)
            except Exception:  # of either version: which is told by the digests
                break
            seconds.append(time.process_time() - start)
            parts = (volume.numpy().tobytes(), np.asarray(volume.affine).tobytes())
            digest = hashlib.sha256(b"".join(parts)).hexdigest()[:12]
        found[str(folder.relative_to(data))] = (min(seconds, default=0.0), digest)
    print(json.dumps(found))


def compare(commit: str, data: Path) -> int:
    """Print the CPU seconds of an earlier commit and today's for each real series."""
    with tempfile.TemporaryDirectory() as name:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", name], input=archive, check=True)
        rounds: list[dict[Path, dict[str, tuple[float, str]]]] = []
        for _ in range(3):
            rounds.append({place: read_series(place, data) for place in (Path(name), ROOT)})
        before, after = (
            {
                key: (min(one[place][key][0] for one in rounds), rounds[0][place][key][1])
                for key in rounds[0][place]
            }
            for place in rounds[0]
        )
    both = [key for key in before if "refused" not in {before[key][1], after[key][1]}]
    print(f"| series | {commit}, CPU s | today | ratio | voxels and affine |")
    print("|---|---|---|---|---|")
    for key in both:
        (old, was), (new, now) = before[key], after[key]
        same = "the same" if was == now else "OTHERS"
        print(f"| {key} | {old:.3f} | {new:.3f} | {new / old:.2f} | {same} |")
    ratio = sum(after[key][0] for key in both) / sum(before[key][0] for key in both)
    print(
        f"all {len(both)}: {ratio:.2f}; read by one alone: "
        f"{sum((before[k][1] == 'refused') != (after[k][1] == 'refused') for k in before)}"
    )
    return int(ratio > 1.1 or any(before[key][1] != after[key][1] for key in both))


def read_series(place: Path, data: Path) -> dict[str, tuple[float, str]]:
    """What the mmif of ``place`` makes of the series below ``data``, in a process of its own."""
    command = [sys.executable, __file__, "--child-of-series", "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, tuple[float, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def import_only(reader: str) -> None:
    """The imports of a reader, before the clock and the memory are looked at."""
    if reader == "simpleitk":
        import SimpleITK  # noqa: F401
    elif reader == "mmif":
        import mmif.io.dicom.read.reader
        import mmif.io.monai_reader  # noqa: F401
    else:
        import monai.transforms  # noqa: F401


def run(reader: str, folder: Path) -> dict[str, float]:
    """One reader in a process of its own."""
    command = [sys.executable, __file__, "--child", reader, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=READERS)
    parser.add_argument("--folder", type=Path)
    default = os.environ.get("MMIF_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--data", type=Path, default=Path(default, "dicom"))
    parser.add_argument("--child-of-series", action="store_true")
    options = parser.parse_args()
    if options.child_of_series:
        child_of_series(options.data)
        return
    if options.against:
        raise SystemExit(compare(options.against, options.data))
    if options.child:
        child(options.child, options.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_series(folder, options.slices, options.size)
        rounds = []
        for number in range(options.repeats + 1):
            order = READERS if number % 2 else READERS[::-1]
            rounds.append({reader: run(reader, folder) for reader in order})
    report(rounds, options.slices * options.size**2 * 4 / 2**20)


def report(rounds: list[dict[str, dict[str, float]]], volume_mb: float) -> None:
    """The table: best and median of the warm rounds, and memory against the float32 volume."""
    sums = {json.dumps(rounds[-1][reader]["sums"]) for reader in READERS}
    print(f"voxels equal in all readers: {len(sums) == 1}; volume as float32: {volume_mb:.0f} MiB")
    print("| reader | seconds, median | best | CPU seconds | peak MiB | of it imports | without |")
    print("|---|---|---|---|---|---|---|")
    for reader in READERS:
        warm = [one[reader] for one in rounds[1:]]
        seconds = sorted(one["seconds"] for one in warm)
        peak = max(one["peak_mb"] for one in warm)
        imports = max(one["imports_mb"] for one in warm)
        cpu = min(one["cpu"] for one in warm)
        print(
            f"| {reader} | {np.median(seconds):.2f} | {seconds[0]:.2f} | {cpu:.2f} | {peak:.0f} "
            f"({peak / volume_mb:.2f} x) | {imports:.0f} | {(peak - imports) / volume_mb:.2f} x |"
        )


if __name__ == "__main__":
    main()
