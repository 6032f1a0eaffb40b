"""Seconds and peak memory of ``mmif info`` on 5,700 files of many series under one UID.

    python benchmarks/many_files.py [--files 5700] [--images 38]

An archive that lost its series UIDs hands over everything under one: here 38 images of 150 slices
at the same places, told apart by echo, flip angle and acquisition. The limits are 20 s and 500 MB;
the exit code is 1 beyond them.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

MAX_SECONDS, MAX_MB = 20.0, 500.0


def write_files(folder: Path, files: int, images: int) -> None:
    """``files`` MR slices of ``images`` images, all in one series, in a scrambled order."""
    uids = [generate_uid() for _ in range(3)]
    pixels = np.arange(64 * 64, dtype="<u2").tobytes()
    for number in range(files):
        image, k = number % images, number // images
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{uids[0]}.{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
        ds.Modality, ds.PatientID, ds.InstanceNumber = "MR", "benchmark", number + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        ds.EchoTime, ds.FlipAngle, ds.RepetitionTime = 5 + image % 4, 3 + image // 4 % 4, 600
        ds.AcquisitionNumber, ds.AcquisitionTime = image // 16 + 1, f"10{number % 3600:04d}"
        ds.ImagePositionPatient = [-120.0, -120.0, 1.0 * k]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], 1.0
        ds.Rows = ds.Columns = 64
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        for element in range(0x10, 0x40):
            ds.add_new((0x0019, 0x1000 + element), "LO", f"private value {element}")
        ds.PixelData = pixels
        ds.save_as(folder / f"{number * 7919 % 100003:06d}", enforce_file_format=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5700)
    parser.add_argument("--images", type=int, default=38)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), options.files, options.images)
        command = [sys.executable, "-c", "from mmif.cli import main; main()", "info", name]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    print(done.stdout.strip()[:2000])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    megabytes, cpu = used.ru_maxrss / 1000, used.ru_utime + used.ru_stime
    print(f"{options.files} files: {seconds:.1f} s ({cpu:.1f} s of CPU), peak {megabytes:.0f} MB")
    return int(cpu > MAX_SECONDS or megabytes > MAX_MB)


if __name__ == "__main__":
    raise SystemExit(main())
