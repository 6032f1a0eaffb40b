"""Geometry: the landmarks of a synthetic head are found where they were put, or it is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_corpus import (
    CT,
    MR,
    NM,
    Scan,
    axis_directions,
    ds_number,
    landmark_error_mm,
    oblique,
    part,
    scan,
    write_enhanced,
    write_nuclear,
    write_series,
)
from pydicom import Dataset, dcmread

from mmif.errors import MmifError
from mmif.io import load

LEGACY_CONVERTED = {
    "CT": "1.2.840.10008.5.1.4.1.1.2.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128.1",
}
DEPTHS = np.arange(28) * 5.0 - 67.5


def tilted(degrees: float = 15.0) -> Scan:
    """Slices that the table moves past a tilted gantry, 5 mm apart along the table."""
    tilt = np.radians(degrees)
    axes = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)]])
    made = scan(axes)
    firsts = made.first_pixels.mean(axis=0) + DEPTHS[:, None] * np.array([0, 0, 1.0])
    return Scan(firsts, axes, made.pixel_mm, made.size)


def as_series(path: Path, made: Scan, backwards: bool = False) -> None:
    write_series(path, made, CT, backwards=backwards)


def as_enhanced(modality: str) -> Callable[..., object]:
    def write(path: Path, made: Scan, backwards: bool = False) -> None:
        write_enhanced(path, made, modality, backwards=backwards)

    return write


WAYS = {
    "series": as_series,
    **{f"enhanced {modality}": as_enhanced(modality) for modality in ("CT", "MR", "PT")},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_rows_of_the_pitfalls_table_in_every_way_they_can_be_written(
    tmp_path: Path, way: str
) -> None:
    """Those of NM, whose slices are evenly spaced by definition, follow below."""
    variable = np.cumsum([0, *[2.5] * 20, *[5.0] * 18])
    made = {
        "tilt": tilted(),
        "missing": part(scan(), [k for k in range(28) if k != 10]),
        "variable": scan(depths_mm=variable - variable[-1] / 2),
        "reversed": scan(),
    }
    for row, slices in made.items():
        WAYS[way](tmp_path / row, slices, backwards=row == "reversed")
    for row in ("tilt", "variable", "reversed"):
        assert landmark_error_mm(load(tmp_path / row)) < 0.1, row
    with pytest.raises(MmifError, match=r"slice missing between -22\.5 and -12\.5 mm"):
        load(tmp_path / "missing")


def test_a_missing_slice_of_a_nuclear_object_is_refused(tmp_path: Path) -> None:
    kept = [k for k in range(28) if k != 10]
    write_nuclear(tmp_path / "nm", part(scan(), kept), SliceVector=[k + 1 for k in kept])
    with pytest.raises(MmifError, match=r"slice missing between -22\.5 and -12\.5 mm"):
        load(tmp_path / "nm")


def test_gantry_tilt_is_resampled_and_said(tmp_path: Path) -> None:
    write_series(tmp_path, tilted())
    volume = load(tmp_path, role="ct")
    assert any("gantry tilt of 15.0" in w for w in volume.meta["source"].warnings)
    assert volume.shape[3] == 28
    along = volume.affine.numpy()[:3, 2]
    assert np.linalg.norm(along) == pytest.approx(5 * np.cos(np.radians(15)), abs=1e-6)


def test_a_missing_slice_is_refused_with_its_place(tmp_path: Path) -> None:
    made = scan(depths_mm=np.arange(28) * 3.5 - 42.0)
    write_series(tmp_path, part(made, [k for k in range(28) if k != 25]))
    with pytest.raises(MmifError, match=r"slice missing between 42\.0 and 49\.0 mm"):
        load(tmp_path, role="ct")


@pytest.mark.parametrize("missing", [[1], [26], [10, 20], [12, 13]])
def test_missing_slices_anywhere_are_refused(tmp_path: Path, missing: list[int]) -> None:
    write_series(tmp_path, part(scan(), [k for k in range(28) if k not in missing]))
    with pytest.raises(MmifError, match=r"slices? missing between"):
        load(tmp_path)


@pytest.mark.parametrize(
    "gaps",
    [
        [2.5] * 20 + [5.0] * 18,
        [3.0] * 18 + [6.0] * 14,
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 5.0, 4.0, 3.0] * 3 + [2.5] * 10,
    ],
)
def test_variable_spacing_is_resampled_in_place(tmp_path: Path, gaps: list[float]) -> None:
    depths = np.cumsum([0, *gaps])
    write_series(tmp_path, scan(depths_mm=depths - depths[-1] / 2))
    volume = load(tmp_path, role="ct")
    assert landmark_error_mm(volume) < 0.1
    assert any("variable slice spacing" in w for w in volume.meta["source"].warnings)


def test_tilt_and_variable_spacing_at_once(tmp_path: Path) -> None:
    depths = np.cumsum([0, *[2.5] * 20, *[5.0] * 18])
    made = scan(depths_mm=depths - depths[-1] / 2, slide=(0, np.tan(np.radians(10)), 0))
    write_series(tmp_path, made)
    volume = load(tmp_path, role="ct")
    assert landmark_error_mm(volume) < 0.1
    said = " ".join(volume.meta["source"].warnings)
    assert "gantry tilt of 10.0 degrees" in said
    assert "variable slice spacing 2.50 to 5.00 mm" in said


def test_instance_numbers_mean_nothing(tmp_path: Path) -> None:
    write_series(tmp_path, scan(), backwards=True)
    assert landmark_error_mm(load(tmp_path, role="ct")) < 0.1


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("at_top", [False, True])
def test_nuclear_spacing_of_either_sign(tmp_path: Path, negative: bool, at_top: bool) -> None:
    path = tmp_path / "spect.dcm"
    write_nuclear(path, scan(), negative=negative, at_top=at_top)
    assert landmark_error_mm(load(path, role="spect")) < 0.1


@pytest.mark.parametrize("negative", [False, True])
def test_simpleitk_places_nuclear_slices_alike(tmp_path: Path, negative: bool) -> None:
    path = tmp_path / "spect.dcm"
    write_nuclear(path, scan(oblique()), negative=negative)
    image = sitk.ReadImage(str(path))
    ours = load(path)
    for index in [(3, 4, 5), (30, 20, 25)]:
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        mine = np.linalg.inv(ours.affine.numpy()) @ [*point, 1]
        assert np.allclose(mine[:3], np.round(mine[:3]), atol=1e-3)
        assert float(ours[(0, *np.round(mine[:3]).astype(int))]) == image[index]


@pytest.mark.parametrize("number", range(24))
@pytest.mark.parametrize("backwards", [False, True])
def test_48_axis_orientations(tmp_path: Path, number: int, backwards: bool) -> None:
    """Each as a series, as an enhanced object and as an NM object."""
    made = scan(axis_directions()[number], np.arange(20) * 7 - 66.5, (0, 0, 0), (5, 5), (34, 36))
    write_series(tmp_path / "series", made, MR, backwards=backwards)
    write_enhanced(tmp_path / "enhanced.dcm", made, backwards=backwards)
    write_nuclear(tmp_path / "nm.dcm", made, negative=backwards)
    for name in ("series", "enhanced.dcm", "nm.dcm"):
        assert landmark_error_mm(load(tmp_path / name)) < 0.1, name


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_enhanced_and_legacy_converted_objects(
    tmp_path: Path, modality: str, converted: bool
) -> None:
    path = tmp_path / "enhanced"
    sop_class = LEGACY_CONVERTED[modality] if converted else None
    write_enhanced(path, scan(oblique()), modality, sop_class=sop_class)
    volume = load(path, role={"CT": "ct", "MR": "mri", "PT": "pet"}[modality])
    assert landmark_error_mm(volume) < 0.1


@pytest.mark.parametrize(
    ("axes", "pixel_mm", "size"),
    [(oblique(30), (4.0, 4.0), (40, 44)), (oblique(20), (5.0, 3.0), (34, 58))],
)
def test_oblique_and_non_square_pixels(
    tmp_path: Path, axes: np.ndarray, pixel_mm: tuple[float, float], size: tuple[int, int]
) -> None:
    made = scan(axes, pixel_mm=pixel_mm, size=size)
    write_series(tmp_path / "series", made, CT)
    write_enhanced(tmp_path / "enhanced.dcm", made)
    write_nuclear(tmp_path / "nm.dcm", made, negative=True)
    for name in ("series", "enhanced.dcm", "nm.dcm"):
        volume = load(tmp_path / name)
        assert landmark_error_mm(volume) < 0.1, name
        assert volume.shape[1:] == (size[1], size[0], 28)
        assert np.allclose(volume.meta["source"].spacing_mm, (*pixel_mm[::-1], 5.0), atol=1e-3)


def test_jitter_of_rounded_positions_is_accepted(tmp_path: Path) -> None:
    made = scan(oblique(8))

    def rounded(ds: object, k: int) -> None:
        position = np.round(made.first_pixels[k], 1)
        ds.ImagePositionPatient = [ds_number(v) for v in position]  # type: ignore[attr-defined]

    write_series(tmp_path, made, change=rounded)
    volume = load(tmp_path)
    assert landmark_error_mm(volume) < 0.1
    assert volume.shape[1:] == (44, 40, 28)


def test_two_clear_orientations_leave_the_main_volume(tmp_path: Path) -> None:
    """Three sagittal localizer slices in an axial series of 28."""
    made = scan()
    write_series(tmp_path, made)
    side = scan(axis_directions()[7], depths_mm=[-10.0, 0.0, 10.0])
    uid = load(tmp_path).meta["source"].series_uid
    write_series(tmp_path, side, name="b", SeriesInstanceUID=uid)
    volume = load(tmp_path)
    assert landmark_error_mm(volume) < 0.1
    assert any("3 images" in w for w in volume.meta["source"].warnings)


def test_two_equal_orientations_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, scan())
    uid = load(tmp_path).meta["source"].series_uid
    write_series(tmp_path, scan(axis_directions()[9]), name="b", SeriesInstanceUID=uid)
    with pytest.raises(MmifError, match=r"2 volumes.*axial.*28 slices"):
        load(tmp_path)
    assert landmark_error_mm(load(tmp_path, frame=0)) < 0.1
    assert landmark_error_mm(load(tmp_path, frame=1)) < 0.1


def test_the_first_of_several_echoes_is_read_and_said(tmp_path: Path) -> None:
    write_series(tmp_path, scan(), MR, EchoTime=12.0)
    uid = load(tmp_path).meta["source"].series_uid
    write_series(tmp_path, scan(), MR, name="b", SeriesInstanceUID=uid, EchoTime=80.0)
    first, second = load(tmp_path).meta["source"], load(tmp_path, frame=1).meta["source"]
    assert {float(ds.EchoTime) for ds in first.headers} == {12.0}
    assert any("the first echo before later ones" in w for w in first.warnings)
    assert {float(ds.EchoTime) for ds in second.headers} == {80.0}
    with pytest.raises(
        MmifError, match=r"--frame ROLE=0 \(EchoTime 12, 28 slices\); --frame ROLE=1"
    ):
        load(tmp_path, frame=2)


def test_time_points_in_one_enhanced_object(tmp_path: Path) -> None:
    made = scan()
    twice = Scan(np.repeat(made.first_pixels, 2, axis=0), made.axes)

    def timed(group: object, k: int) -> None:
        group.FrameContentSequence[0].TemporalPositionIndex = k % 2 + 1  # type: ignore[attr-defined]

    path = tmp_path / "e.dcm"
    write_enhanced(path, twice, change=timed)
    with pytest.raises(MmifError, match="TemporalPositionIndex"):
        load(path)
    assert landmark_error_mm(load(path, frame=0)) < 0.1


def test_two_stacks_in_one_enhanced_object(tmp_path: Path) -> None:
    made = scan()
    twice = Scan(np.concatenate([made.first_pixels] * 2), made.axes)

    def stacked(group: object, k: int) -> None:
        group.FrameContentSequence[0].StackID = "A" if k < 28 else "B"  # type: ignore[attr-defined]

    write_enhanced(tmp_path / "e", twice, change=stacked)
    with pytest.raises(MmifError, match=r"2 volumes.*StackID ‘A’, 28 slices.*StackID ‘B’"):
        load(tmp_path / "e")
    assert landmark_error_mm(load(tmp_path / "e", frame=1)) < 0.1


def test_a_concatenation_is_read_whole_or_refused(tmp_path: Path) -> None:
    """One enhanced object that its sender split over three files."""
    write_enhanced(tmp_path / "whole", scan(oblique()))
    whole = dcmread(tmp_path / "whole")
    groups, pixels = whole.PerFrameFunctionalGroupsSequence, whole.pixel_array
    (tmp_path / "parts").mkdir()
    for number, frames in enumerate((range(10), range(10, 20), range(20, 28)), start=1):
        whole.PerFrameFunctionalGroupsSequence = [groups[k] for k in frames]
        whole.PixelData = pixels[list(frames)].tobytes()
        whole.NumberOfFrames, whole.ConcatenationUID = len(frames), "1.2.3"
        whole.InConcatenationNumber, whole.InConcatenationTotalNumber = number, 3
        whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        whole.save_as(tmp_path / "parts" / f"part{number}")
    for path in (tmp_path / "parts", tmp_path / "parts" / "part2"):
        assert landmark_error_mm(load(path)) < 0.1
    (tmp_path / "parts" / "part3").unlink()
    with pytest.raises(MmifError, match="2 of 3 parts of a concatenation"):
        load(tmp_path / "parts")


def test_planes_that_each_frame_states_itself(tmp_path: Path) -> None:
    """Orientation and pixel spacing may stand with each frame instead of with all."""
    made = scan(oblique())
    write_enhanced(tmp_path / "e", made)
    ds = dcmread(tmp_path / "e")
    (shared,) = ds.SharedFunctionalGroupsSequence
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PlaneOrientationSequence = shared.PlaneOrientationSequence
        group.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    ds.save_as(tmp_path / "e")
    assert landmark_error_mm(load(tmp_path / "e")) < 0.1


def test_repeated_slices_that_nothing_separates_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, scan())
    uid = load(tmp_path).meta["source"].series_uid
    write_series(tmp_path, scan(), name="b", SeriesInstanceUID=uid, change=_brighten)
    with pytest.raises(MmifError, match="56 images at 28 places and no attribute"):
        load(tmp_path)


def _brighten(ds: Dataset, k: int) -> None:
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") + 1).tobytes()


def test_identical_slices_under_new_uids_are_read_once_with_a_warning(tmp_path: Path) -> None:
    uid = write_series(tmp_path, scan())
    write_series(tmp_path, scan(), name="b", SeriesInstanceUID=uid)
    volume = load(tmp_path)
    assert volume.shape[3] == 28
    assert landmark_error_mm(volume) < 0.1
    assert "28 identical copies of images were left out" in volume.meta["source"].warnings


def test_thin_slices_far_apart_are_refused_by_their_gap(tmp_path: Path) -> None:
    write_series(tmp_path, scan(depths_mm=tuple(np.arange(5) * 30.0 - 60)), SliceThickness=3.0)
    with pytest.raises(MmifError, match=r"slices of 3 mm with a gap of up to 30\.0 mm"):
        load(tmp_path)


def test_two_thicknesses_that_share_a_slice_are_one_volume(tmp_path: Path) -> None:
    low, high = np.arange(12) * 5.0 - 60, -5 + np.arange(8) * 10.0
    uid = write_series(tmp_path, scan(depths_mm=tuple(low)), SliceThickness=5.0)
    write_series(
        tmp_path, scan(depths_mm=tuple(high)), name="b", SeriesInstanceUID=uid, SliceThickness=10.0
    )
    volume = load(tmp_path)
    assert landmark_error_mm(volume) < 1
    assert any("share 1 slices" in warning for warning in volume.meta["source"].warnings)


def test_second_copies_of_the_same_files_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "one", scan())
    write_series(tmp_path / "two", scan())
    volume = load(tmp_path)
    assert landmark_error_mm(volume) < 0.1
    assert any("28 second copies" in w for w in volume.meta["source"].warnings)


def test_slices_that_share_one_instance_uid_are_no_copies(tmp_path: Path) -> None:
    """Some anonymisers give every file the same SOPInstanceUID."""
    write_series(tmp_path, scan(), SOPInstanceUID="1.2.3.4")
    volume = load(tmp_path)
    assert landmark_error_mm(volume) < 0.1
    assert not any("copies" in warning for warning in volume.meta["source"].warnings)


def test_frame_types_tell_volumes_of_one_object_apart(tmp_path: Path) -> None:
    """Magnitude and phase, as Philips writes them."""
    made = scan()

    def typed(group: Dataset, k: int) -> None:
        kind = Dataset()
        kind.FrameType = ["ORIGINAL", "PRIMARY", "PHASE MAP" if k % 2 else "T1", "NONE"]
        group.MRImageFrameTypeSequence = [kind]

    twice = Scan(np.repeat(made.first_pixels, 2, axis=0), made.axes)
    write_enhanced(tmp_path / "e", twice, change=typed)
    with pytest.raises(MmifError, match=r"2 volumes.*FrameType .*PHASE MAP"):
        load(tmp_path / "e")
    assert landmark_error_mm(load(tmp_path / "e", frame=0)) < 0.1


def test_two_tube_voltages_are_told_apart(tmp_path: Path) -> None:
    write_series(tmp_path, scan(), KVP=80)
    uid = load(tmp_path).meta["source"].series_uid
    write_series(tmp_path, scan(), name="b", SeriesInstanceUID=uid, KVP=140)
    with pytest.raises(MmifError, match=r"2 volumes.*KVP 80.*KVP 140"):
        load(tmp_path)
    assert landmark_error_mm(load(tmp_path, frame=1)) < 0.1


def test_two_interleaved_acquisitions_are_told_apart(tmp_path: Path) -> None:
    write_series(tmp_path, scan(), AcquisitionNumber=1)
    uid = load(tmp_path).meta["source"].series_uid
    write_series(
        tmp_path, scan(depths_mm=DEPTHS + 1.7), name="b", SeriesInstanceUID=uid, AcquisitionNumber=2
    )
    with pytest.raises(MmifError, match="AcquisitionNumber 1"):
        load(tmp_path)
    assert landmark_error_mm(load(tmp_path, frame=1)) < 0.1


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("ImagePositionPatient", None, "ImagePositionPatient is missing"),
        ("ImageOrientationPatient", None, "ImageOrientationPatient is missing"),
        ("PixelSpacing", None, "PixelSpacing is missing"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "perpendicular"),
        ("PixelSpacing", [0, 0], "PixelSpacing"),
    ],
)
def test_impossible_geometry_is_named(
    tmp_path: Path, keyword: str, value: object, message: str
) -> None:
    write_series(tmp_path, scan(), **{keyword: value})
    with pytest.raises(MmifError, match=message):
        load(tmp_path)


def test_nuclear_slices_in_files_of_their_own(tmp_path: Path) -> None:
    """Each has its own position then, and needs no spacing."""
    write_series(tmp_path, scan(), NM, ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"])
    assert landmark_error_mm(load(tmp_path, role="spect")) < 0.1


def test_nuclear_frames_without_a_spacing_are_refused(tmp_path: Path) -> None:
    write_nuclear(tmp_path / "nm", scan(), SpacingBetweenSlices=None)
    with pytest.raises(MmifError, match="SpacingBetweenSlices is missing"):
        load(tmp_path / "nm")


def test_nuclear_without_a_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nm.dcm"
    write_nuclear(path, scan(), DetectorInformationSequence=None)
    with pytest.raises(MmifError, match="ImagePositionPatient is missing"):
        load(path)


def test_planar_and_projection_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nm.dcm"
    write_nuclear(path, scan(), ImageType=["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"])
    with pytest.raises(MmifError, match="TOMO"):
        load(path)


def test_a_lost_slice_is_filled_on_demand_and_what_it_hid_is_known(tmp_path: Path) -> None:
    """The others stay as they are, to the bit; the patient between them is told in RAS mm."""
    made = scan(oblique())
    write_series(tmp_path / "whole", made)
    kept = [k for k in range(28) if k != 11]
    write_series(tmp_path / "lost", Scan(made.first_pixels[kept], made.axes), name="b")
    with pytest.raises(MmifError, match=r"slice missing.*--fill-gaps"):
        load(tmp_path / "lost")
    whole, filled = load(tmp_path / "whole"), load(tmp_path / "lost", fill_gaps=True)
    assert filled.shape == whole.shape
    assert np.allclose(filled.affine, whole.affine, atol=1e-3)
    assert np.array_equal(filled.numpy()[..., kept], whole.numpy()[..., kept])
    around = whole.numpy()[..., [10, 12]]
    between = filled.numpy()[..., 11]
    assert (between >= around.min(axis=-1) - 1e-3).all()
    assert (between <= around.max(axis=-1) + 1e-3).all()
    (slab,) = filled.meta["source"].unseen
    middle = np.array(whole.affine) @ [0, 0, 11, 1]
    depth = float(np.array(slab.normal) @ middle[:3])
    assert (slab.low_mm, slab.high_mm) == pytest.approx((depth - 5, depth + 5), abs=0.01)
    assert any("--fill-gaps" in warning for warning in filled.meta["source"].warnings)


def test_two_lost_slices_in_a_row_are_never_filled(tmp_path: Path) -> None:
    made = scan()
    kept = [k for k in range(28) if k not in {11, 12}]
    write_series(tmp_path, Scan(made.first_pixels[kept], made.axes))
    with pytest.raises(MmifError, match="2 slices missing"):
        load(tmp_path, fill_gaps=True)
