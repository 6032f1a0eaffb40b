"""What `read_header` costs beside pydicom's own reading of headers.

    python benchmarks/headers.py [--files 5000]

CPU seconds for the headers of many CT slices (copies of the sample head's, with a hundred private
elements more each, as scanners write them), whole and the few attributes by which a tree is
indexed. A parser of our own for the ordinary encodings was faster by 1.15 to 1.30 times (5,000
files: 1.88 s for 2.43 s whole, 2.57 s for 3.01 s of 58 attributes), less than the two that its
lines were worth, and went.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pydicom

from mmif.io.dicom.read import headers, series

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data" / "ct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    options = parser.parse_args()
    attributes = tuple(series._LOOKED_AT)
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), options.files)
        print(f"{len(files)} files, {files[0].stat().st_size >> 10} KiB each")
        for what, only in (("whole headers", ()), (f"{len(attributes)} attributes", attributes)):
            ways: dict[str, Callable[[Path], Any]] = {
                "pydicom.dcmread": lambda path, only=only: pydicom.dcmread(
                    path, stop_before_pixels=True, specific_tags=list(only) or None
                ),
                "mmif.read_header": lambda path, only=only: headers.read_header(path, only=only),
            }
            seconds = {way: measure(call, files) for way, call in ways.items()}
            base = seconds["pydicom.dcmread"]
            for way, spent in seconds.items():
                print(f"{what:16} {way:18} {spent:6.2f} s CPU, {spent / base:.2f} of pydicom's")


def write(folder: Path, count: int) -> list[Path]:
    """``count`` slices under ``folder``."""
    datasets = []
    for path in sorted(SAMPLE.iterdir()):
        ds = pydicom.dcmread(path)
        block = ds.private_block(0x0029, "VENDOR", create=True)
        for element in range(100):
            block.add_new(element, "LO", f"value {element} of a vendor's own")
        ds.save_as(folder / "one.dcm")
        datasets.append((folder / "one.dcm").read_bytes())
    (folder / "one.dcm").unlink()
    files = [folder / f"{number:05}" for number in range(count)]
    for path, content in zip(files, islice(cycle(datasets), count), strict=True):
        path.write_bytes(content)
    os.sync()
    return files


def measure(call: Callable[[Path], Any], files: Sequence[Path]) -> float:
    """CPU seconds, the better of two rounds."""
    rounds = []
    for _ in range(2):
        began = time.process_time()
        for path in files:
            call(path)
        rounds.append(time.process_time() - began)
    return min(rounds)


if __name__ == "__main__":
    main()
