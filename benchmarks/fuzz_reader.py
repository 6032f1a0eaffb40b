"""Feed the readers damaged files: only refusals may come out, in bounded time and memory.

    python benchmarks/fuzz_reader.py [--first 0] [--cases 100000] [--workers 2] [--seed 2025]

Small valid files of every kind (CT, MR, NM, enhanced, RLE, JPEG-LS, JPEG 2000, deflated, NIfTI,
MetaImage, zip) are mutated and cut at random. Batches run in worker processes, so that a crash of
a decoder is seen too. Printed: cases by outcome, the slowest case, the peak memory; the exit code
is 1 if anything but a refusal or a volume came out. Damaging files are kept in --keep. Each case
follows from its number and the seed, so that 100,000 can be run in slices: --first says where one
begins.
"""

import argparse
import hashlib
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "io"))
BATCH = 500
SECONDS_A_CASE = 10.0
TELLING = (0, 1, 0x30, 0x39, 0x5C, 0x7F, 0x80, 0xFE, 0xFF)


def valid_files(folder: Path) -> list[Path]:
    """A small valid file of every kind."""
    from dicom_corpus import CT, MR, part, scan, write_enhanced, write_nuclear, write_series

    made = part(scan(size=(40, 44)), range(10, 14))
    write_series(folder / "ct", made, CT)
    write_series(folder / "mr", made, MR, EchoTime=12.0, PixelPaddingValue=0)
    write_nuclear(folder / "nm", made)
    write_enhanced(folder / "enhanced", made)
    files = [*(folder / name for name in ("nm", "enhanced"))]
    files += [min((folder / name).iterdir()) for name in ("ct", "mr")]
    for name, syntax in [
        ("rle", RLELossless),
        ("jls", JPEGLSLossless),
        ("j2k", JPEG2000Lossless),
        ("enhanced_rle", RLELossless),
    ]:
        ds = pydicom.dcmread(folder / "enhanced" if "enh" in name else folder / "nm")
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(folder / name, enforce_file_format=True)
        files.append(folder / name)
    ds = pydicom.dcmread(folder / "nm")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(folder / "deflated", enforce_file_format=True)
    grey = np.random.default_rng(1).integers(0, 99, (6, 7, 8), dtype=np.int16)
    nib.Nifti1Image(grey, np.eye(4)).to_filename(folder / "v.nii")
    nib.Nifti2Image(grey, np.eye(4)).to_filename(folder / "v2.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(grey), str(folder / "v.mha"), True)
    sitk.WriteImage(sitk.GetImageFromArray(grey), str(folder / "v.nrrd"))
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (folder / "ct").iterdir():
            archive.write(path, path.name)
    names = ("deflated", "v.nii", "v2.nii.gz", "v.mha", "v.nrrd", "study.zip")
    return files + [folder / name for name in names]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """``data`` with some bytes changed, moved or cut off; mostly in the header."""
    broken = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 2, 4, 16])):
        reach = len(broken) if chance.random() < 0.4 else min(len(broken), 1500)
        at = chance.randrange(reach)
        broken[at] = chance.choice(TELLING) if chance.random() < 0.6 else chance.randrange(256)
    if chance.random() < 0.2:
        at, size = chance.randrange(len(broken)), chance.randrange(1, 64)
        broken[at:at] = broken[max(at - size, 0) : at]
    if chance.random() < 0.3:
        del broken[chance.randrange(len(broken)) :]
    return bytes(broken)


def child(folder: Path, first: int, count: int, seed: int, keep: Path) -> None:
    """Read ``count`` damaged files; print one outcome a line."""
    from mmif.errors import MmifError
    from mmif.io import load

    import_readers()
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = sorted(path for path in folder.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        for number in range(first, first + count):
            chance = random.Random(seed * 1_000_003 + number)
            source = chance.choice(files)
            path = Path(name) / source.name
            data = damaged(source.read_bytes(), chance)
            path.write_bytes(data)
            print(f"start {number} {source.name}", flush=True)
            start = time.perf_counter()
            try:
                load(path)
                outcome = "read"
            except MmifError as error:
                outcome = "two lines" if "\n" in str(error) else "refused"
            except BaseException:
                outcome = "BUG " + traceback.format_exc().strip().splitlines()[-1]
            seconds = time.perf_counter() - start
            if outcome.startswith(("BUG", "two")):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{hashlib.sha256(data).hexdigest()[:12]}_{source.name}").write_bytes(data)
            print(f"done {seconds:.3f} {outcome}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory {peak / 1024:.0f} {(peak - limit) / 1024:.0f}", flush=True)


def import_readers() -> None:
    """What reading imports, before memory is looked at."""
    import mmif.io.dicom.read.reader
    import mmif.io.itk.reader
    import mmif.io.nifti.reader  # noqa: F401


def batch(folder: Path, first: int, count: int, seed: int, keep: Path) -> list[str]:
    """The lines of one worker process; its death is an outcome as well."""
    command = [sys.executable, __file__, "--child", str(folder), str(first), str(count)]
    command += ["--seed", str(seed), "--keep", str(keep)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_A_CASE * count, check=False
        )
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return [*output.splitlines(), "done 9999 BUG hang"]
    lines = done.stdout.splitlines()
    if done.returncode:
        lines.append(f"done 0 BUG process died ({done.returncode}) after {lines[-1:]}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "FIRST", "COUNT"))
    options = parser.parse_args()
    if options.child:
        folder, first, count = options.child
        child(Path(folder), int(first), int(count), options.seed, options.keep)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valid_files(folder)
        end = options.first + options.cases
        starts = range(options.first, end, BATCH)
        with ThreadPoolExecutor(options.workers) as pool:
            results = pool.map(
                lambda first: batch(
                    folder, first, min(BATCH, end - first), options.seed, options.keep
                ),
                starts,
            )
            lines = [line for result in results for line in result]
    return report(lines)


def report(lines: list[str]) -> int:
    """Print what came out; 1 if it was anything but a volume or a refusal."""
    outcomes = [line.split(" ", 2)[1:] for line in lines if line.startswith("done")]
    counted = Counter(outcome for _, outcome in outcomes)
    for outcome, count in counted.most_common(20):
        print(f"{count:8d}  {outcome}")
    print(f"slowest case {max(float(seconds) for seconds, _ in outcomes):.2f} s")
    memory = [list(map(float, line.split()[1:])) for line in lines if line.startswith("memory")]
    peaks = [peak for peak, _ in memory] or [0.0]
    above = [more for _, more in memory] or [0.0]
    print(f"peak memory {max(peaks):.0f} MiB, {max(above):.0f} MiB above the imports")
    return int(any(outcome not in {"read", "refused"} for outcome in counted))


if __name__ == "__main__":
    raise SystemExit(main())
