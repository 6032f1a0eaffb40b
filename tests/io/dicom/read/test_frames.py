"""NM objects after PS3.3 C.8.4, built here: of these kinds no public ones were found."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from dicom_corpus import CT, SC, Scan, landmark_error_mm, part, scan, write_nuclear, write_series
from pydicom import Dataset, dcmread

from mmif.cli import main
from mmif.errors import MmifError
from mmif.io import load


def write_several(path: Path, made: Scan, count: int, vector: str, **attributes: Any) -> None:
    """One object of ``count`` volumes that ``vector`` tells apart, the n-th n times as bright."""
    stored = np.round(made.slices()).astype("<u2")
    slices = len(stored)
    several = {
        "NumberOfFrames": slices * count,
        "NumberOfSlices": slices,
        "SliceVector": list(range(1, slices + 1)) * count,
        "PixelData": np.concatenate([stored * (n + 1) for n in range(count)]).tobytes(),
        vector: [n + 1 for n in range(count) for _ in range(slices)],
    }
    write_nuclear(path, made, **{**several, **attributes})


def write_changed(path: Path, change: Callable[[Dataset], object], **attributes: Any) -> None:
    """An NM object whose data set ``change`` has changed."""
    write_nuclear(path, scan(), **attributes)
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def energy_window(name: str, low: float, high: float) -> Dataset:
    """An item of EnergyWindowInformationSequence."""
    limits, window = Dataset(), Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = low, high
    window.EnergyWindowName, window.EnergyWindowRangeSequence = name, [limits]
    return window


@pytest.mark.parametrize(
    ("vector", "word", "kind"),
    [
        ("TimeSlotVector", "TimeSlot", "RECON GATED TOMO"),
        ("RRIntervalVector", "RRInterval", "RECON GATED TOMO"),
        ("EnergyWindowVector", "EnergyWindow", "RECON TOMO"),
        ("DetectorVector", "Detector", "RECON TOMO"),
        ("TimeSliceVector", "TimeSlice", "RECON TOMO"),
    ],
)
def test_several_volumes_of_one_object_are_a_choice(
    tmp_path: Path, vector: str, word: str, kind: str
) -> None:
    path, made = tmp_path / "nm.dcm", scan()
    write_several(path, made, 3, vector, ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"])
    with pytest.raises(MmifError, match=rf"--frame spect=2 \({word} 3"):
        load(path, role="spect")
    first, last = (load(path, role="spect", frame=n) for n in (0, 2))
    assert float(last.max()) == pytest.approx(3 * float(first.max()))
    assert landmark_error_mm(last) < 0.1


@pytest.mark.parametrize("kind", ["TOMO", "GATED TOMO", "WHOLE BODY", "STATIC", "DYNAMIC"])
def test_projections_and_planar_images_are_refused_as_such(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nm.dcm"
    write_nuclear(path, scan(), ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"])
    with pytest.raises(MmifError, match=f"NM image of type ‘{kind}’; expected RECON TOMO"):
        load(path, role="spect")


def test_slices_stored_from_the_last_to_the_first_lie_where_they_say(tmp_path: Path) -> None:
    """Vendors count the slices from either end: by SliceVector, or by a negative spacing."""
    made = scan()
    count = len(made.slices())
    reversed_order = np.round(made.slices()).astype("<u2")[::-1].tobytes()
    first = [float(v) for v in made.first_pixels[-1]]
    write_nuclear(tmp_path / "negative.dcm", made, negative=True)
    assert landmark_error_mm(load(tmp_path / "negative.dcm", role="spect")) < 0.1
    write_nuclear(
        tmp_path / "vector.dcm",
        made,
        at_top=True,
        SliceVector=list(range(count, 0, -1)),
        PixelData=reversed_order,
        ImagePositionPatient=first,
    )
    assert landmark_error_mm(load(tmp_path / "vector.dcm", role="spect")) < 0.1


def test_energy_windows_are_listed_by_name_and_limits(tmp_path: Path) -> None:
    windows = [energy_window("Tc99m_EM", 126.5, 154.6), energy_window("Tc99m_SC", 108, 125)]
    write_several(
        tmp_path / "nm", scan(), 2, "EnergyWindowVector", EnergyWindowInformationSequence=windows
    )
    with pytest.raises(
        MmifError, match=r"--frame spect=1 \(EnergyWindow ‘2 \(Tc99m_SC, 108 to 125"
    ):
        load(tmp_path, role="spect")


def test_each_detector_has_its_own_place(tmp_path: Path) -> None:
    made = scan()
    places = [Dataset(), Dataset()]
    for place, first in zip(
        places, made.first_pixels[[0, 0]] + [[0, 0, 0], [30, 0, 0]], strict=True
    ):
        place.ImagePositionPatient = list(map(float, first))
        place.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    write_several(tmp_path / "nm", made, 2, "DetectorVector", DetectorInformationSequence=places)
    first, second = (load(tmp_path, role="spect", frame=n) for n in (0, 1))
    assert landmark_error_mm(first) < 0.1
    moved = (second.affine - first.affine)[:3, 3]
    assert moved.tolist() == pytest.approx([-30, 0, 0], abs=1e-6)  # RAS


def test_slices_in_any_order_lie_where_their_vector_says(tmp_path: Path) -> None:
    made = scan()
    order = np.random.default_rng(0).permutation(len(made.slices()))
    write_nuclear(
        tmp_path / "nm",
        made,
        at_top=True,
        SliceVector=[int(k) + 1 for k in order],
        PixelData=np.round(made.slices()).astype("<u2")[order].tobytes(),
        ImagePositionPatient=[float(v) for v in made.first_pixels[order[0]]],
        FrameIncrementPointer=0x00540010,  # another vector than the one that tells them apart
    )
    volume = load(tmp_path, role="spect")
    assert landmark_error_mm(volume) < 0.1
    assert volume.meta["source"].warnings == ()


def write_uncounted(path: Path, count: int, **attributes: Any) -> None:
    """As `write_several`, of time slots, without SliceVector."""
    gated = ["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"]
    write_several(path, scan(), count, "TimeSlotVector", ImageType=gated)
    dataset = dcmread(path)
    del dataset.SliceVector
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_slices_without_a_vector_are_counted_in_each_volume(tmp_path: Path) -> None:
    """They were stacked on each other once: three heads in one tall volume."""
    write_uncounted(tmp_path / "nm", 3)
    with pytest.raises(MmifError, match=r"--frame spect=1 \(TimeSlot 2, 28 slices"):
        load(tmp_path, role="spect")
    volume = load(tmp_path, role="spect", frame=1)
    note = "frame 1 (TimeSlot 2, 28 slices): 1 of 3 volumes of the series is read"
    assert note in volume.meta["source"].warnings
    assert landmark_error_mm(volume) < 0.1
    assert float(volume.max()) == pytest.approx(2 * np.round(scan().slices()).max())


@pytest.mark.parametrize(
    "counts", [{"NumberOfSlices": 28}, {"NumberOfSlices": None, "NumberOfTimeSlots": 3}]
)
def test_volumes_that_no_vector_tells_apart_are_refused(
    tmp_path: Path, counts: dict[str, Any]
) -> None:
    write_uncounted(tmp_path / "nm", 3, TimeSlotVector=None, **counts)
    with pytest.raises(MmifError, match="84 frames of 3 volumes without SliceVector"):
        load(tmp_path, role="spect")


@pytest.mark.parametrize(
    "counts", [{"NumberOfSlices": 1}, {"NumberOfSlices": 13}, {"NumberOfTimeSlots": 28}]
)
def test_a_number_of_volumes_without_slices_is_not_meant(
    tmp_path: Path, counts: dict[str, int]
) -> None:
    write_changed(tmp_path / "nm", drop("SliceVector"), **{"NumberOfSlices": None, **counts})
    assert landmark_error_mm(load(tmp_path, role="spect")) < 0.1


def test_the_place_of_a_detector_is_that_of_its_own_first_frame(tmp_path: Path) -> None:
    made, places = scan(), [Dataset(), Dataset(), Dataset()]  # of the third no frame is there
    for place, first in zip(places, made.first_pixels[[0, 2]], strict=False):
        place.ImagePositionPatient = list(map(float, first))
        place.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    stored = np.round(made.slices()).astype("<u2")
    path = tmp_path / "nm"
    several = {
        "NumberOfFrames": 54,
        "SliceVector": [*range(1, 29), *range(3, 29)],
        "DetectorVector": [1] * 28 + [2] * 26,
        "PixelData": np.concatenate([stored, stored[2:]]).tobytes(),
    }
    write_nuclear(path, made, **several, DetectorInformationSequence=places)
    assert landmark_error_mm(load(path, role="spect", frame=1)) < 0.1
    several["DetectorVector"] = [1] * 28 + [4] * 26
    write_nuclear(path, made, **several, DetectorInformationSequence=places)
    with pytest.raises(MmifError, match="DetectorVector says 4 of 3 detectors"):
        load(path, role="spect")


def drop(keyword: str) -> Callable[[Dataset], object]:
    return lambda ds: delattr(ds, keyword)


def drop_of_detector(keyword: str) -> Callable[[Dataset], object]:
    return lambda ds: delattr(ds.DetectorInformationSequence[0], keyword)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("NumberOfFrames"), "SliceVector holds 28 values; expected 1"),
        (lambda ds: setattr(ds, "NumberOfFrames", 20), "SliceVector holds 28 values; expected 20"),
        (lambda ds: setattr(ds, "SliceVector", [1] * 28), "28 images at 1 place"),
        (
            lambda ds: setattr(ds, "SliceVector", [*range(1, 10), *range(11, 30)]),
            "slice missing between",
        ),
        (drop("SpacingBetweenSlices"), "SpacingBetweenSlices is missing"),
        (drop_of_detector("ImageOrientationPatient"), "ImageOrientationPatient is missing"),
        (drop_of_detector("ImagePositionPatient"), "ImagePositionPatient is missing"),
        (lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY"]), "of type ‘unknown’"),
    ],
)
def test_what_leaves_the_places_open_is_refused_by_name(
    tmp_path: Path, change: Callable[[Dataset], object], said: str
) -> None:
    write_changed(tmp_path / "nm", change)
    with pytest.raises(MmifError, match=said):
        load(tmp_path, role="spect")


def pixel_scale(*factors: float) -> Callable[[Dataset], object]:
    def change(ds: Dataset) -> None:
        block = ds.private_block(0x11, "GEMS_GENIE_1", create=True)
        block.add_new(0x3B, "FD", list(factors))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("SliceVector"), "no SliceVector: the slices are taken to lie in the order"),
        (lambda ds: setattr(ds, "Modality", "OT"), "of Modality ‘OT’: read as NM"),
        (lambda ds: setattr(ds, "SeriesDescription", "Brain Reor OK"), "reoriented by its"),
        (pixel_scale(4.1795), "GE's private pixel scale of 4.1795 is not applied"),
        (pixel_scale(1.0, 2.5), "differs between the slices \\(1 to 2.5\\)"),
    ],
)
def test_what_is_assumed_of_an_nm_object_is_said(
    tmp_path: Path, change: Callable[[Dataset], object], said: str
) -> None:
    write_changed(tmp_path / "nm", change)
    volume = load(tmp_path, role="spect")
    source = volume.meta["source"]
    assert landmark_error_mm(volume) < 0.1
    assert source.modality == "NM"
    assert re.search(said, " ".join(source.warnings))


def test_a_reconstruction_as_xeleris_writes_it_is_read(tmp_path: Path) -> None:
    """The attributes of a header of GE's Xeleris 4 (discourse.slicer.org, topic 5581)."""

    def as_ge(ds: Dataset) -> None:
        pixel_scale(4.179501533508301)(ds)
        ds.Modality, ds.PixelRepresentation, ds.CorrectedImage = "OT", 1, "ATTN"
        ds.SeriesDescription = "011118-QVolMI-TOMO64-OSEM8it6subNonePF-RR-SC-ACM"
        ds.EnergyWindowInformationSequence = [energy_window("I131_EM", 327.6, 400.4)]
        ds.DetectorInformationSequence[0].ZoomFactor = [1, 1]

    write_changed(tmp_path / "nm", as_ge, negative=True)
    volume = load(tmp_path, role="spect")
    assert landmark_error_mm(volume) < 0.1
    assert "nothing says" not in volume.meta["source"].selection
    assert len(volume.meta["source"].warnings) == 2  # Modality and scale


def test_zoom_and_how_the_patient_lay_move_nothing(tmp_path: Path) -> None:
    """PixelSpacing is that behind the zoom, and ImageOrientationPatient that of the patient."""
    on_the_side = scan(axes=np.array([[0.0, 1, 0], [-1, 0, 0]]))
    write_nuclear(tmp_path / "nm", on_the_side, PatientPosition="HFDL")
    dataset = dcmread(tmp_path / "nm")
    dataset.DetectorInformationSequence[0].ZoomFactor = [1.5, 1.5]
    dataset.save_as(tmp_path / "nm")
    assert landmark_error_mm(load(tmp_path, role="spect")) < 0.1


def test_projections_beside_are_no_slices_that_may_be_missing(tmp_path: Path) -> None:
    write_nuclear(tmp_path / "rec", scan(), FrameOfReferenceUID="1.2.9")
    kind = ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]
    write_nuclear(tmp_path / "raw", scan(), ImageType=kind, FrameOfReferenceUID="1.2.9")
    assert load(tmp_path, role="spect").meta["source"].warnings == ()


def test_a_quantitative_spect_is_in_becquerels(tmp_path: Path) -> None:
    code, mapping = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
    mapping.MeasurementUnitsCodeSequence, mapping.RealWorldValueSlope = [code], 2.0
    write_nuclear(
        tmp_path / "a",
        scan(),
        RescaleSlope=2,
        RescaleIntercept=0,
        RealWorldValueMappingSequence=[mapping],
    )
    write_nuclear(tmp_path / "b", scan())
    assert [load(tmp_path / n, role="spect").meta["source"].units for n in "ab"] == [
        "BQML",
        "counts",
    ]


def test_two_objects_of_one_series_are_named_apart(tmp_path: Path) -> None:
    for name, corrected in (("ac", "ATTN"), ("nac", "UNIF")):
        write_nuclear(
            tmp_path / name, scan(), SeriesInstanceUID="1.2.3", CorrectedImage=[corrected]
        )
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2] + name.encode()[:2])
    with pytest.raises(MmifError, match="2 multi-frame objects: name the file of one"):
        load(tmp_path, role="spect")
    assert load(tmp_path / "ac", role="spect").shape[3] == 28


MAPS = [
    {"ImageType": ["DERIVED", "PRIMARY", "RECON TOMO", "TRANSMISSION"]},
    *({"SeriesDescription": d} for d in ("mu-map", "CT_ACMAP", "Att Map", "Attenuation", "CTAC")),
    *({"SeriesDescription": d} for d in ("ATTENMAP", "ACCT", "CT attenuation correction")),
    *({"SeriesDescription": d} for d in ("Lower scatter window", "LowEnergyScatter")),
    {"EnergyWindowInformationSequence": [energy_window("Tc99m_SC", 108, 125)]},
]


@pytest.mark.parametrize("attributes", MAPS)
def test_a_map_or_a_scatter_window_is_never_the_activity(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    """Each says EMISSION, but for the first: so do cameras."""
    made = scan()
    write_nuclear(tmp_path / "mu", made, **attributes)
    with pytest.raises(MmifError, match="not the image itself"):
        load(tmp_path, role="spect")
    uid = write_nuclear(tmp_path / "em", made, SeriesDescription="Brain OSEM")
    assert load(tmp_path, role="spect").meta["source"].series_uid == uid


@pytest.mark.parametrize(
    ("corrected", "uncorrected"),
    [
        ({"CorrectedImage": ["UNIF", "ATTN"]}, {"CorrectedImage": ["UNIF"]}),
        ({"SeriesDescription": "Attenuation Corrected SC"}, {"SeriesDescription": "Brain"}),
        ({"SeriesDescription": "Brain"}, {"SeriesDescription": "Brain non attenuation corrected"}),
        (
            {"SeriesDescription": "Attenuation and scatter corrected"},
            {"SeriesDescription": "Scatter corrected"},
        ),
        (
            {"SeriesDescription": "Brain AC", "CorrectedImage": ["UNIF"]},
            {"SeriesDescription": "Brain NAC", "CorrectedImage": ["UNIF"]},
        ),
        ({"SeriesDescription": "OSEM8it-RR-SC-ACM"}, {"SeriesDescription": "OSEM8it-RR"}),
        ({"SeriesDescription": "TOMO_EM_IRACSCRR"}, {"SeriesDescription": "TOMO_EM_IRNCRR"}),
        ({"SeriesDescription": "[RECON - AC ] 3D"}, {"SeriesDescription": "[RECON - NoAC ] 3D"}),
    ],
)
def test_activity_that_is_not_corrected_is_never_taken_unsaid(
    tmp_path: Path, corrected: dict[str, Any], uncorrected: dict[str, Any]
) -> None:
    derived = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    write_nuclear(tmp_path / "nac", scan(), **uncorrected)
    alone = load(tmp_path, role="spect").meta["source"]
    assert "corrected for attenuation" in alone.selection + " ".join(alone.warnings)
    uid = write_nuclear(tmp_path / "ac", scan(), ImageType=derived, **corrected)
    assert load(tmp_path, role="spect").meta["source"].series_uid == uid


def test_two_of_which_nothing_says_whether_they_are_corrected_are_a_choice(tmp_path: Path) -> None:
    write_nuclear(tmp_path / "a", scan(), SeriesDescription="Brain")
    derived = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    write_nuclear(tmp_path / "b", scan(), SeriesDescription="Brain 2", ImageType=derived)
    with pytest.raises(MmifError, match="2 series fit equally; choose one: --series-uid spect="):
        load(tmp_path, role="spect")


def test_info_says_whether_activity_is_corrected_and_what_is_assumed(tmp_path: Path) -> None:
    write_changed(tmp_path / "a", pixel_scale(4.0), CorrectedImage=["ATTN"])
    write_nuclear(tmp_path / "b", scan(), SeriesDescription="Brain NAC")
    write_nuclear(tmp_path / "c", scan())
    said = CliRunner().invoke(main, ["info", str(tmp_path)]).output
    for line in ("corrected", "not corrected (NAC)", "not stated"):
        assert f"  attenuation  {line}\n" in said
    assert "pixel scale of 4 is not applied" in said


def test_one_file_a_slice_counts_its_own_slices(tmp_path: Path) -> None:
    made = scan()
    for k, first in enumerate(made.first_pixels):
        write_nuclear(
            tmp_path / f"{k}.dcm",
            made,
            at_top=True,
            NumberOfFrames=1,
            NumberOfSlices=1,
            SliceVector=[1],
            PixelData=np.round(made.slices()[k]).astype("<u2").tobytes(),
            ImagePositionPatient=list(map(float, first)),
            SeriesInstanceUID="1.2.3",
            FrameOfReferenceUID="1.2.9",
        )
    volume = load(tmp_path, role="spect")
    assert landmark_error_mm(volume) < 0.1
    assert volume.meta["source"].warnings == ()


def test_of_the_study_of_a_spect_ct_the_ct_and_the_corrected_activity_are_taken(
    tmp_path: Path,
) -> None:
    """What the console of a SPECT/CT sends: all in one folder, in one study and one frame."""
    made, frame = scan(), {"FrameOfReferenceUID": "1.2.9"}
    derived = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    ct = write_series(tmp_path, made, CT, SeriesDescription="CTAC 3.0 B30s", **frame)
    ac = write_nuclear(
        tmp_path / "ac", made, ImageType=derived, SeriesDescription="Bone AC SC", **frame
    )
    for name, attributes in {
        "nac": {"SeriesDescription": "Bone NAC", "ImageType": derived},
        "raw": {"SeriesDescription": "Bone", "ImageType": ["ORIGINAL", "PRIMARY", "TOMO"]},
        "wb": {"ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]},
        "map": {"SeriesDescription": "Bone CT AC map", "ImageType": derived},
        "low": {"SeriesDescription": "Bone scatter window AC"},
        "trans": {"ImageType": ["DERIVED", "PRIMARY", "RECON TOMO", "TRANSMISSION"]},
    }.items():
        write_nuclear(tmp_path / name, made, **{**attributes, **frame})
    write_series(tmp_path, part(made, [3]), SC, name="shot", Modality="NM")
    assert load(tmp_path, role="ct").meta["source"].series_uid == ct
    spect = load(tmp_path, role="spect").meta["source"]
    assert spect.series_uid == ac
    assert spect.selection.startswith(
        "2 of 9 series usable as spect; attenuation correction left 1"
    )
    assert spect.warnings == ()
