"""One change to a good series: the same volume, a warning, or a refusal; never another volume."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_corpus import CT, MR, PT, part, scan, write_series
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from mmif.errors import MmifError
from mmif.io import load

SMALL = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 18))

CHANGES: dict[str, object] = {
    "AcquisitionNumber": 7,
    "AcquisitionTime": "101500",
    "BitsAllocated": 8,
    "BitsStored": 12,
    "Columns": 20,
    "ContrastBolusAgent": "IOMERON",
    "ConvolutionKernel": "B70f",
    "DiffusionBValue": 1000.0,
    "EchoTime": 90.0,
    "FlipAngle": 70,
    "FrameOfReferenceUID": "1.2.3.4",
    "HighBit": 11,
    "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    "ImagePositionPatient": [0, 0, 0],
    "ImageType": ["ORIGINAL", "PRIMARY", "P"],
    "InstanceNumber": 99,
    "InversionTime": 900,
    "KVP": 80,
    "Modality": "OT",
    "NumberOfFrames": 2,
    "PatientID": "other",
    "PatientPosition": "FFS",
    "PhotometricInterpretation": "MONOCHROME1",
    "PixelPaddingValue": 100,
    "PixelRepresentation": 1,
    "PixelSpacing": [8, 9],
    "RepetitionTime": 4000,
    "RescaleIntercept": -24,
    "RescaleSlope": 2,
    "RescaleType": "US",
    "Rows": 18,
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
    "SOPInstanceUID": "1.2.3.5",
    "SamplesPerPixel": 3,
    "SeriesInstanceUID": "1.2.3.6",
    "SliceThickness": 1.0,
    "StudyDate": "20200101",
    "StudyInstanceUID": "1.2.3.7",
    "Units": "CNTS",
    "WindowCenter": 40,
}

Outcome = tuple[np.ndarray, np.ndarray, tuple[str, ...]]


def outcome(folder: Path) -> Outcome | None:
    """Voxels, affine and warnings; None for a refusal."""
    try:
        volume = load(folder)
    except MmifError:
        return None
    return volume.numpy(), np.asarray(volume.affine), volume.meta["source"].warnings


def is_told(found: Outcome | None, good: Outcome) -> bool:
    """Whether a changed series is refused, warned of, or the same as before."""
    if found is None or set(found[2]) - set(good[2]):
        return True
    return np.array_equal(found[0], good[0]) and np.allclose(found[1], good[1])


@pytest.fixture(params=[CT, MR, PT], ids=["ct", "mr", "pt"])
def series(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[], Dataset]]:
    """A folder with a good series, and what reads its middle slice anew."""
    acquired = {"EchoTime": 12, "RepetitionTime": 600} if request.param == MR else {"KVP": 120}
    write_series(tmp_path, SMALL, request.param, ConvolutionKernel="B30f", **acquired)
    path = sorted(tmp_path.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])[6]
    data = path.read_bytes()

    def fresh() -> Dataset:
        path.write_bytes(data)
        return pydicom.dcmread(path)

    return path, fresh


def test_one_attribute_of_one_slice(series: tuple[Path, Callable[[], Dataset]]) -> None:
    path, fresh = series
    good = outcome(path.parent)
    assert good is not None
    untold = []
    for keyword, value in CHANGES.items():
        for gone in (False, True):
            ds = fresh()
            if gone and keyword not in ds:
                continue
            if gone:
                del ds[keyword]
            elif keyword == "PixelPaddingValue":
                ds.add_new(0x00280120, "US", value)
            else:
                setattr(ds, keyword, value)
            ds.save_as(path)
            if not is_told(outcome(path.parent), good):
                untold.append(f"{keyword}{' gone' * gone}")
    allowed = {"RescaleSlope", "RescaleIntercept"} if ds.Modality == "PT" else set()
    assert set(untold) <= allowed  # each slice of a PET has a scale of its own


def test_one_slice(series: tuple[Path, Callable[[], Dataset]]) -> None:
    """Gone, empty, cut short, or there twice."""
    path, fresh = series
    good = outcome(path.parent)
    assert good is not None
    whole = path.read_bytes()
    for content in (b"", whole[:200], whole[:700], whole[:-30]):
        path.write_bytes(content)
        assert is_told(outcome(path.parent), good)
    path.unlink()
    assert outcome(path.parent) is None
    ds = fresh()
    ds.SOPInstanceUID, ds.InstanceNumber = "1.2.3.8", 50
    ds.save_as(path.with_name("twice"))
    assert is_told(outcome(path.parent), good)
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(path.with_name("twice"))
    assert outcome(path.parent) is None


def test_one_byte_of_a_header(series: tuple[Path, Callable[[], Dataset]]) -> None:
    path, fresh = series
    good = outcome(path.parent)
    assert good is not None
    fresh()
    whole = path.read_bytes()
    header = whole.rindex(b"\xe0\x7f\x10\x00")
    chance = random.Random(2025)
    for _ in range(60):
        changed = bytearray(whole)
        changed[chance.randrange(132, header)] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        found = outcome(path.parent)
        scaled = any(b"\x28\x00" + tag in changed for tag in (b"\x52\x10", b"\x53\x10"))
        assert is_told(found, good) or (scaled and pydicom.dcmread(path).Modality == "PT")


def test_a_run_of_zeros_in_a_codestream(tmp_path: Path) -> None:
    made = part(scan(size=(120, 132), pixel_mm=(1.5, 1.5)), range(6, 10))
    write_series(tmp_path, made, MR)
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        pixels = np.random.default_rng(0).integers(0, 4096, ds.pixel_array.shape, dtype=np.uint16)
        ds.PixelData = pixels.tobytes()
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.save_as(path)
    assert outcome(tmp_path) is not None
    data = bytearray(path.read_bytes())
    data[-6000:-3000] = bytes(3000)
    path.write_bytes(data)
    with pytest.raises(MmifError, match="run of zeros"):
        load(tmp_path)
