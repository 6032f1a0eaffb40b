"""One change to a good series: the same volume, a warning, or a refusal; never another volume."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_corpus import CT, MR, PT, part, scan, write_nuclear, write_series
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

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


def test_a_slice_that_lost_its_series_is_told(tmp_path: Path) -> None:
    """At an end of the volume nothing else tells."""
    write_series(tmp_path, SMALL, CT)
    paths = sorted(tmp_path.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    whole = paths[0].read_bytes()
    ds = pydicom.dcmread(paths[0])
    for uid in ("1.2.3.6", "1.2.3.x", ""):
        ds.SeriesInstanceUID = uid.replace("x", "7")
        ds.save_as(paths[0])
        if "x" in uid:
            paths[0].write_bytes(paths[0].read_bytes().replace(b"1.2.3.7", b"1.2.3.x"))
        found = outcome(tmp_path)
        assert found is not None
        assert "images of another SeriesInstanceUID would continue" in " ".join(found[2])
    paths[0].write_bytes(whole[:128] + b"XXXX" + whole[132:])
    found = outcome(tmp_path)
    assert found is not None
    assert "could not be read" in " ".join(found[2])


def test_another_image_beside_a_series_is_not_told(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT)
    far = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), [27])
    write_series(tmp_path, far, CT, name="far")
    write_series(tmp_path, far, CT, name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    found = outcome(tmp_path)
    assert found is not None
    assert "missing" not in " ".join(found[2])


def test_bits_above_those_stored_and_columns_too_few(tmp_path: Path) -> None:
    """Both of one multi-frame object, of which no other header speaks."""
    path = tmp_path / "image"
    for syntax in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        write_nuclear(path, SMALL)
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.BitsStored, ds.HighBit = 5, 4
        ds.save_as(path, enforce_file_format=True)
        found = outcome(path)
        assert found is not None
        assert "bits above the 5 of BitsStored are set" in " ".join(found[2])
        ds.BitsStored, ds.HighBit, ds.Columns = 16, 15, ds.Columns - 1
        ds.save_as(path, enforce_file_format=True)
        with pytest.raises(MmifError, match="another size, or more frames"):
            load(path)


def test_a_description_that_swallows_the_next_elements_is_cut(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT)
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        ds.SeriesDescription = "head\x10\x00\x10\x00PN\x0e\x00Phantom^Secret"
        del ds.ImagePositionPatient
        ds.save_as(path)
    with pytest.raises(MmifError) as caught:
        load(tmp_path)
    assert "‘head’" in str(caught.value)
    assert "Secret" not in str(caught.value)


def test_jpeg_of_fewer_bits_stored_ends_no_process(tmp_path: Path) -> None:
    """GDCM calls abort() where not all of 8 bits are stored, and where 32 are allocated."""
    picture = io.BytesIO()
    Image.fromarray(np.arange(440, dtype=np.uint8).reshape(20, 22)).save(picture, "JPEG")

    def packed(ds: Dataset, k: int) -> None:
        ds.PixelData = encapsulate([picture.getvalue()])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

    few = {"BitsAllocated": 8, "BitsStored": 3, "HighBit": 2}
    write_series(tmp_path / "few", SMALL, MR, change=packed, **few)
    found = outcome(tmp_path / "few")
    assert found is not None
    assert "BitsStored" in " ".join(found[2])
    many = {"BitsAllocated": 32, "BitsStored": 8, "HighBit": 7}
    write_series(tmp_path / "many", SMALL, MR, change=packed, **many)
    with pytest.raises(MmifError, match="32 bits; expected 8 or 16"):
        load(tmp_path / "many")
