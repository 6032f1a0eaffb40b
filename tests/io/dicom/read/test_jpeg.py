"""JPEG frames: every syntax is decoded by GDCM, and none that ends early passes."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit, JPEGLosslessSV1

from mmif.errors import InputError
from mmif.io.dicom.read.codestreams import check_codestream
from mmif.io.dicom.read.jpeg import decode_jpeg
from mmif.io.dicom.read.pixels import PixelFormat, pixel_format

REAL = Path(__file__).parents[5] / "shared" / "data" / "dicom" / "dcm_qa_frag_jpll"


def baseline() -> tuple[bytes, PixelFormat]:
    rng = np.random.default_rng(3)
    grey = (np.add.outer(np.arange(48), np.arange(64)) + rng.integers(0, 60, (48, 64))) % 256
    packed = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(packed, "JPEG", quality=95)
    stored = PixelFormat(64, 48, 1, 1, 8, 8, False, "MONOCHROME2", JPEGBaseline8Bit)
    return packed.getvalue(), stored


def lossless() -> Iterator[tuple[bytes, PixelFormat]]:
    for path in sorted(REAL.rglob("*")):
        if path.is_file() and pydicom.misc.is_dicom(path):
            ds = pydicom.dcmread(path)
            if ds.file_meta.TransferSyntaxUID == JPEGLosslessSV1:
                stored = pixel_format(ds)
                yield get_frame(ds.PixelData, 0, number_of_frames=stored.frames), stored
                return


def frames() -> list[tuple[bytes, PixelFormat]]:
    return [baseline(), *lossless()]


def test_a_whole_baseline_frame_decodes_as_pillow_does() -> None:
    frame, stored = baseline()
    expected = np.asarray(Image.open(io.BytesIO(frame))).astype(int)
    assert np.abs(decode_jpeg(frame, stored) - expected).max() <= 1


def test_decoding_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    frame, stored = baseline()
    expected = np.asarray(Image.open(io.BytesIO(frame))).astype(int)
    assert np.abs(decode_jpeg(frame, stored) - expected).max() <= 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.95])
def test_a_scan_that_ends_early_is_refused_even_with_its_end_marker(share: float) -> None:
    for frame, stored in frames():
        short = frame[: int(len(frame) * share)].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(InputError, match=r"ends early|GDCM|decode to"):
            decode_jpeg(short, stored)


def test_a_frame_without_end_marker_is_refused() -> None:
    from pydicom.encaps import encapsulate

    frame, stored = baseline()
    half = len(frame) // 2
    for short in (frame[:half], frame[:half] + bytes(half)):
        with pytest.raises(InputError, match="end marker"):
            check_codestream(encapsulate([short]), stored, 0, set())
