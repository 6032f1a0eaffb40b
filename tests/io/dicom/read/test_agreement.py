"""One series is one image: what does not agree is refused by its reason, what may be is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_corpus import CT, MR, PT, part, scan, write_series
from pydicom.dataset import Dataset

from mmif.errors import MmifError
from mmif.io import load

SMALL = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 22))
Change = Callable[[Dataset, int], None]


def slice_8(keyword: str, value: object) -> Change:
    """Gives slice 8 alone ``value``; None takes the attribute away."""

    def change(ds: Dataset, k: int) -> None:
        if k == 8 and value is None:
            del ds[keyword]
        elif k == 8:
            setattr(ds, keyword, value)

    return change


def upper_half(keyword: str, low: object, high: object) -> Change:
    return lambda ds, k: setattr(ds, keyword, high if k >= 8 else low)


def in_turn(keyword: str, *values: object) -> Change:
    return lambda ds, k: setattr(ds, keyword, values[k % len(values)])


@pytest.mark.parametrize(
    ("sop_class", "change", "said"),
    [
        (CT, slice_8("RescaleSlope", None), "RescaleSlope in 15 of 16 slices"),
        (MR, slice_8("RescaleIntercept", 5), "RescaleIntercept in 1 of 16 slices"),
        (PT, upper_half("Units", "BQML", "CNTS"), "Units BQML and CNTS in one volume"),
        (CT, upper_half("RescaleType", "HU", "MGML"), "RescaleType HU and MGML"),
        (PT, slice_8("RescaleSlope", 0), "RescaleSlope is 0"),
        (MR, upper_half("StudyInstanceUID", "1.2.3", "1.2.4"), "2 studies in one series"),
    ],
)
def test_slices_on_another_scale_or_of_another_study_are_refused(
    tmp_path: Path, sop_class: str, change: Change, said: str
) -> None:
    write_series(tmp_path, SMALL, sop_class, change=change)
    with pytest.raises(MmifError, match=said):
        load(tmp_path)


@pytest.mark.parametrize(
    ("sop_class", "change", "said"),
    [
        (CT, slice_8("RescaleIntercept", 0), "RescaleIntercept changes between the slices"),
        (MR, slice_8("BitsStored", 15), "BitsStored changes between the slices"),
        (PT, in_turn("NumberOfSlices", 47), "NumberOfSlices says 47, 16 lie there"),
        (MR, in_turn("ImagesInAcquisition", 32), "ImagesInAcquisition says 32, 16 lie there"),
        (MR, in_turn("NumberOfTemporalPositions", 40), "NumberOfTemporalPositions says 40, 1 lie"),
        (MR, in_turn("SpacingBetweenSlices", 2.5), "SpacingBetweenSlices says 2.5 mm"),
        (CT, in_turn("SliceThickness", 2.5), "slices of 2.5 mm lie 5 mm apart"),
    ],
)
def test_what_is_odd_is_read_and_said(
    tmp_path: Path, sop_class: str, change: Change, said: str
) -> None:
    def both(ds: Dataset, k: int) -> None:
        if said.startswith("Spacing"):
            ds.SliceThickness = 2.5
        if said.startswith("Bits"):
            ds.HighBit = 14 if k == 8 else 15
        change(ds, k)

    write_series(tmp_path, SMALL, sop_class, change=both)
    source = load(tmp_path).meta["source"]
    assert source.shape[2] == 16
    assert any(warning.startswith(said) for warning in source.warnings), source.warnings


@pytest.mark.parametrize(
    ("sop_class", "keyword", "values"),
    [
        (MR, "ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        (MR, "ComplexImageComponent", ("MAGNITUDE", "PHASE")),
        (MR, "ScanningSequence", ("SE", "GR")),
        (MR, "FlipAngle", (3, 20)),
        (MR, "TriggerTime", (100, 500)),
        (MR, "TemporalPositionIdentifier", (1, 2)),
        (CT, "ContrastBolusAgent", ("", "IOMERON")),
        (CT, "NominalPercentageOfCardiacPhase", (30, 70)),
        (CT, "AcquisitionNumber", (1, 2)),
        (PT, "FrameReferenceTime", (0, 600000)),
    ],
)
def test_slices_that_alternate_are_no_volume(
    tmp_path: Path, sop_class: str, keyword: str, values: tuple[object, ...]
) -> None:
    write_series(tmp_path, SMALL, sop_class, change=in_turn(keyword, *values))
    with pytest.raises(MmifError, match=r"holds 2 volumes.*--frame ROLE=0 \(.*--frame ROLE=1"):
        load(tmp_path)


def test_a_pet_without_its_scales_is_said_and_has_no_suv(tmp_path: Path) -> None:
    """Each slice of a PET has a scale of its own (PS3.3 C.8.9.4): an anonymiser took them."""

    def unscaled(ds: Dataset, _: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept

    write_series(tmp_path, SMALL, PT, change=unscaled)
    said = load(tmp_path, role="pet").meta["source"].warnings
    assert any("a PET without RescaleSlope" in warning for warning in said)
    assert "no SUV by body weight: RescaleSlope is missing" in said


def test_a_role_makes_the_choices_options_that_can_be_pasted(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, MR, change=in_turn("FlipAngle", 3, 20))
    with pytest.raises(MmifError, match=r"--frame mri=0 \(FlipAngle 3, 8 slices\); --frame mri=1"):
        load(tmp_path, role="mri")


def test_a_gated_image_that_changes_along_the_slices_is_one_volume(tmp_path: Path) -> None:
    """A trigger time a slice, or acquisitions that follow each other, separate nothing."""
    write_series(tmp_path / "a", SMALL, MR, change=lambda ds, k: setattr(ds, "TriggerTime", k))
    write_series(tmp_path / "b", SMALL, CT, change=upper_half("AcquisitionNumber", 1, 2))
    assert load(tmp_path / "a").shape[3] == load(tmp_path / "b").shape[3] == 16


def test_two_images_under_one_instance_uid_are_refused_and_copies_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, MR)
    first = pydicom.dcmread(min(tmp_path.iterdir()))
    first.save_as(tmp_path / "copy")
    assert any("second copies" in w for w in load(tmp_path).meta["source"].warnings)
    pixels = first.pixel_array.copy()
    pixels[3, 4] += 1
    first.PixelData = pixels.tobytes()
    first.save_as(tmp_path / "copy")
    with pytest.raises(MmifError, match="1 SOPInstanceUIDs with several files of different pixels"):
        load(tmp_path)


@pytest.mark.parametrize("how", ["empty", "link"])
def test_files_that_cannot_be_read_count_as_missing_slices(tmp_path: Path, how: str) -> None:
    """Every second slice is gone, so that what is left lies evenly."""
    write_series(tmp_path, SMALL, CT)
    for path in list(tmp_path.iterdir()):
        if pydicom.dcmread(path).InstanceNumber % 2 == 0:
            path.unlink()
            if how == "empty":
                path.write_bytes(b"")
            else:
                (tmp_path / "links").mkdir(exist_ok=True)
                (tmp_path / "links" / path.name).symlink_to(tmp_path / "gone")
    with pytest.raises(MmifError, match="slices are missing"):
        load(tmp_path)


def test_padding_is_tissue_where_it_lies_inside_of_the_image(tmp_path: Path) -> None:
    def padded(ds: Dataset, k: int) -> None:
        pixels = np.full((20, 22), 300, dtype=np.uint16)
        pixels[:4], pixels[8:12, 8:12], pixels[14, 14] = 200, 200, 100 + k
        ds.PixelData, ds.PixelPaddingValue = pixels.tobytes(), 200

    write_series(tmp_path, SMALL, MR, change=padded)
    volume = load(tmp_path)
    assert float(volume[0, 9, 9, 5]) == 200
    assert float(volume[0, 9, 1, 5]) == 100
    assert any("the padding value is tissue too" in w for w in volume.meta["source"].warnings)


def test_an_mri_with_a_background_of_minus_2000_begins_at_zero(tmp_path: Path) -> None:
    def signed(ds: Dataset, k: int) -> None:
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(20, 22).astype("<i2")
        pixels[:, :5] = -2000
        ds.PixelData, ds.PixelRepresentation = pixels.tobytes(), 1

    write_series(tmp_path, SMALL, MR, change=signed)
    volume = load(tmp_path)
    assert float(volume.min()) >= 0
    assert any(w.startswith("a background of -2000") for w in volume.meta["source"].warnings)
