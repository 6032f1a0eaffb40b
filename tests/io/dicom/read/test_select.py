"""The image that is meant, among what lies beside it."""

import gzip
from pathlib import Path

import pytest
from dicom_corpus import CT, MR, PT, axis_directions, part, scan, write_series

from mmif.errors import MmifError
from mmif.io import load

SMALL = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 22))
SAGITTAL = part(scan(axis_directions()[8], size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 22))


@pytest.mark.parametrize(
    "description",
    ["ADC", "FA map", "B0 map", "rCBV", "T2 map", "MIP thin", "SUB", "3Plane Loc", "gre_phase"],
)
def test_a_series_that_its_description_calls_a_map_is_never_chosen(
    tmp_path: Path, description: str
) -> None:
    write_series(tmp_path, SMALL, MR, name="map", SeriesDescription=description)
    uid = write_series(tmp_path, SAGITTAL, MR, name="t1", SeriesDescription="t1_mprage_sag")
    assert load(tmp_path, role="mri").meta["source"].series_uid == uid


def test_a_derived_map_alone_is_refused_by_its_description(tmp_path: Path) -> None:
    derived = {"ImageType": ["DERIVED", "PRIMARY", "OTHER"], "SeriesDescription": "ep2d_ADC"}
    write_series(tmp_path, SMALL, MR, **derived)
    with pytest.raises(MmifError, match="a diffusion map by its description"):
        load(tmp_path, role="mri")


@pytest.mark.parametrize(
    "uncorrected",
    [
        {"CorrectedImage": ["DECY"], "ImageType": ["ORIGINAL", "PRIMARY"]},
        {"AttenuationCorrectionMethod": "NONE"},
        {"SeriesDescription": "PET NAC"},
    ],
)
def test_uncorrected_activity_is_not_chosen(tmp_path: Path, uncorrected: dict[str, object]) -> None:
    corrected = {"CorrectedImage": ["ATTN"], "ImageType": ["DERIVED", "PRIMARY"]}
    write_series(tmp_path, SMALL, PT, name="nac", **uncorrected)
    uid = write_series(tmp_path, SMALL, PT, name="ac", **corrected)
    assert load(tmp_path, role="pet").meta["source"].series_uid == uid


def test_a_thick_axial_series_is_not_taken_before_a_fine_volume(tmp_path: Path) -> None:
    write_series(tmp_path, scan(depths_mm=[k * 10.0 - 65 for k in range(14)]), MR, name="thick")
    fine = scan(axis_directions()[8], depths_mm=[k * 4.0 - 66 for k in range(34)])
    uid = write_series(tmp_path, fine, MR, name="fine")
    source = load(tmp_path, role="mri").meta["source"]
    assert source.series_uid == uid
    assert "resolution left 1" in source.selection


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"PatientName": "Other"}, "2 patients; expected one"),
        ({"StudyInstanceUID": "1.2.3"}, "2 studies of several days"),
    ],
)
def test_what_has_no_patient_id_or_date_is_not_taken_for_one(
    tmp_path: Path, other: dict[str, object], said: str
) -> None:
    unknown = {"PatientID": "", "StudyDate": "", "PatientName": "One"}
    write_series(tmp_path, SMALL, MR, name="a", **unknown)
    write_series(tmp_path, SAGITTAL, MR, name="b", **{**unknown, **other})
    with pytest.raises(MmifError, match=f"{said}.*--series-uid mri=") as refused:
        load(tmp_path, role="mri")
    assert "Other" not in str(refused.value)


def test_slices_packed_with_gzip_are_read_as_the_series_they_are(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT)
    plain = load(tmp_path)
    for path in list(tmp_path.iterdir())[::2]:
        (tmp_path / f"{path.name}.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    volume = load(tmp_path)
    assert (volume.numpy() == plain.numpy()).all()
    assert "8 of 16 files were packed with gzip" in volume.meta["source"].warnings
    assert load(next(tmp_path.glob("*.gz"))).shape == plain.shape
    packed = next(tmp_path.glob("*.gz"))
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(MmifError):
        load(tmp_path)
