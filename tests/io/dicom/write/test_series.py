"""What mmif writes as DICOM: conformant objects, the right values, the right references."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import SaveImage
from pydicom import Dataset, dcmread
from scipy.spatial.transform import Rotation

from mmif.errors import GeometryError, OutputError
from mmif.geometry import Grid, apply, ras_lps
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.planes import planes_of
from mmif.io.dicom.write.series import DicomSeriesWriter, write_dicom_series
from mmif.io.source import Source

Faults = Callable[[Path], list[str]]
Volume = Callable[..., MetaTensor]
Recipe = Callable[..., DerivedSeries]
MR, CT, PET, SC, COLOUR_MULTIFRAME = (
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "2", "128", "7", "7.4")
)
# What is written: reference and others, channels, changes to the recipe, and the class it becomes
KINDS = {
    "grey, MR the reference": (("MR", "CT"), 1, {}, MR),
    "grey, CT the reference": (("CT", "MR"), 1, {}, MR),
    "grey, no MR": (("CT", "NM"), 1, {}, SC),
    "colour": (("MR", "NM"), 3, {}, SC),
    "colour, multi-frame": (("MR", "PT"), 3, {"encoding": "multiframe"}, COLOUR_MULTIFRAME),
    "registered CT": (("MR", "CT"), 1, {"kind": "registered"}, CT),
    "registered MR": (("CT", "MR"), 1, {"kind": "registered"}, MR),
    "registered PET": (("MR", "PT"), 1, {"kind": "registered"}, PET),
    "registered SPECT": (("MR", "NM"), 1, {"kind": "registered"}, SC),
}


def read(folder: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(folder.iterdir())]


def physical(datasets: list[Dataset]) -> np.ndarray:
    """(X, Y, Z) values as the attributes say them."""
    stack = np.stack([ds.pixel_array for ds in datasets]).astype(np.float64)
    slope, intercept = (
        float(datasets[0].get(word, default))
        for word, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    return np.transpose(stack * slope + intercept, (2, 1, 0))


@pytest.mark.parametrize("maker", ["dicom", "anonymised"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_series_has_no_error_and_no_warning(
    name: str,
    maker: str,
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    faults: Faults,
    tmp_path: Path,
) -> None:
    modalities, channels, changes, sop_class = KINDS[name]
    made = [getattr(sources, maker)(modality) for modality in modalities]
    write_dicom_series(volume(oblique, channels), tmp_path / "s", recipe(*made, **changes))
    files = sorted((tmp_path / "s").iterdir())
    assert dcmread(files[0]).SOPClassUID == sop_class
    for path in {files[0], files[-1]}:
        assert faults(path) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["fused", "registered"])
def test_nifti_sources_become_a_new_study_that_is_said_aloud(
    kind: str,
    channels: int,
    nifti_source: Source,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    faults: Faults,
    tmp_path: Path,
) -> None:
    other = replace(nifti_source, modality="CT", units="HU")
    made = recipe(nifti_source, other, kind=kind)
    warnings = write_dicom_series(volume(oblique, channels), tmp_path / "s", made)
    assert "new study" in " ".join(warnings)
    assert faults(tmp_path / "s" / "0001.dcm") == []


def test_fused_and_registered_of_one_nifti_share_study_and_frame(
    nifti_source: Source, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    heads = []
    for kind in ("fused", "registered"):
        made = recipe(nifti_source, nifti_source, kind=kind)
        write_dicom_series(volume(oblique), tmp_path / kind, made)
        heads.append(read(tmp_path / kind)[0])
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert heads[0][keyword].value == heads[1][keyword].value
    assert heads[0].SeriesInstanceUID != heads[1].SeriesInstanceUID


def test_another_nifti_of_the_same_name_is_another_study(
    nifti_source: Source, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    first = recipe(nifti_source).uid()
    nifti_source.path.write_bytes(b"other voxels")
    assert recipe(nifti_source).uid() != first


def test_patient_study_and_frame_are_those_of_the_reference(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    reference, other = sources.dicom("CT"), sources.dicom("MR", PatientID="other")
    assert write_dicom_series(volume(oblique), tmp_path / "s", recipe(reference, other)) == ()
    ds, header = read(tmp_path / "s")[0], reference.headers[0]
    copied = (
        "PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyID "
        "AccessionNumber StudyDescription FrameOfReferenceUID PatientPosition"
    )
    for keyword in copied.split():
        assert ds[keyword].value == header[keyword].value
    assert float(ds.EchoTime) == 3.1  # of the MR, for the readers that want one


def test_other_pixels_have_other_uids_and_another_number_whatever_the_recipe_says(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    made = recipe(sources.dicom("MR"), sources.dicom("CT"))
    first = volume(oblique)
    second = first.clone()
    second[0, 0, 0, -1] = 1 - second[0, 0, 0, -1]  # one voxel of the last slice
    heads = []
    for name, one in (("a", first), ("b", second)):
        write_dicom_series(one, tmp_path / name, made)
        heads.append(read(tmp_path / name))
    uids = [{ds.SOPInstanceUID for ds in series} for series in heads]
    assert not uids[0] & uids[1]
    assert heads[0][0].SeriesInstanceUID != heads[1][0].SeriesInstanceUID
    assert heads[0][0].SeriesNumber != heads[1][0].SeriesNumber


@pytest.mark.parametrize("kind", ["fused", "registered"])
def test_a_series_number_that_a_source_has_is_not_taken(
    kind: str, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    made = recipe(sources.dicom("MR"), sources.dicom("CT"), kind=kind)
    write_dicom_series(volume(oblique), tmp_path / "s", made)
    free = read(tmp_path / "s")[0].SeriesNumber
    assert free > 1_000_000
    sources_with = (sources.dicom("MR", SeriesNumber=free), made.others[0])
    assert replace(made, reference=sources_with[0]).number(
        read(tmp_path / "s")[0].SeriesInstanceUID, free // 1_000_000 * 1_000_000
    ) not in (free, made.others[0].headers[0].get("SeriesNumber"))


def test_a_registered_ct_has_the_window_presets_of_a_console(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    made = recipe(sources.dicom("MR"), sources.dicom("CT"), kind="registered")
    write_dicom_series(volume(oblique), tmp_path / "s", made)
    ds = read(tmp_path / "s")[0]
    names = list(ds.WindowCenterWidthExplanation)
    presets = dict(zip(names, zip(ds.WindowCenter, ds.WindowWidth, strict=True), strict=True))
    assert names[0] == "BRAIN"
    assert presets["BRAIN"] == (40, 80)
    assert presets["BONE"] == (600, 2800)


def test_derived_images_say_that_they_are(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    made = recipe(sources.dicom("MR"), sources.dicom("CT"))
    write_dicom_series(volume(oblique), tmp_path / "s", made)
    ds = read(tmp_path / "s")[0]
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert ds.ImageComments == "NOT FOR PRIMARY DIAGNOSIS"
    assert ds.ContentQualification == "RESEARCH"
    assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("NO", "YES")
    assert ds.LossyImageCompression == "00"
    assert ds.DerivationCodeSequence[0].CodeValue == "113085"
    equipment = ds.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert "ab" * 32 in equipment.ContributionDescription
    assert equipment.SoftwareVersions == "1.2.3"


def test_lossy_compression_of_a_source_is_inherited(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    lossy = sources.dicom(
        "CT",
        LossyImageCompression="01",
        LossyImageCompressionRatio=[12.5],
        LossyImageCompressionMethod="ISO_10918_1",
    )
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(sources.dicom("MR"), lossy))
    ds = read(tmp_path / "s")[0]
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12.5)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Люкceмбypг^Иван"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Ελληνικά^Όνομα"),
    ],
)
def test_names_survive_whatever_their_character_set(
    charset: str | list[str],
    name: str,
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    faults: Faults,
    tmp_path: Path,
) -> None:
    changes = {"SpecificCharacterSet": charset, "PatientName": name}
    if charset == "ISO_IR 144":
        changes |= {"StudyDescription": "Голова"}
    elif charset != "ISO_IR 100":
        changes |= {"StudyDescription": "Head"}
    changes |= {"SeriesDescription": "Head"}
    source = sources.dicom("MR", **changes)
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(source))
    ds = read(tmp_path / "s")[0]
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == name
    assert ds.StudyDescription == source.headers[0].StudyDescription
    assert faults(tmp_path / "s" / "0001.dcm") == []


def test_a_second_run_makes_the_same_uids(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    reference = sources.dicom("MR")
    for folder in "ab":
        write_dicom_series(volume(oblique), tmp_path / folder, recipe(reference))
    first, second = read(tmp_path / "a"), read(tmp_path / "b")
    assert [ds.SOPInstanceUID for ds in first] == [ds.SOPInstanceUID for ds in second]
    assert len({ds.SOPInstanceUID for ds in first}) == len(first)
    assert {ds.SeriesInstanceUID for ds in first} == {ds.SeriesInstanceUID for ds in second}


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"weights_sha256": "cd" * 32},
        {"parameters": {"window": 80}},
        {"kind": "registered"},
    ],
)
def test_whatever_decides_the_pixels_decides_the_uids(change, sources, recipe: Recipe) -> None:
    reference = sources.dicom("MR")
    assert recipe(reference).uid("series") != recipe(reference, **change).uid("series")


def test_the_date_of_making_does_not_decide_the_uids(sources, recipe: Recipe) -> None:
    made = recipe(sources.dicom("MR"))
    assert made.uid() == replace(made, created=made.created.replace(year=2031)).uid()


def referenced(ds: Dataset, keyword: str) -> list[str]:
    return [item.ReferencedSOPInstanceUID for item in ds.get(keyword, [])]


def test_only_contributing_slices_are_sources(
    sources, recipe: Recipe, volume: Volume, tmp_path: Path
) -> None:
    """On the reference's own slices each output slice comes from one, between them from two."""
    reference = sources.dicom("MR")
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    affine[:3, 3] = (40, 50, 0)
    write_dicom_series(volume(affine), tmp_path / "on", recipe(reference))
    affine[2, 3] = 1.0
    write_dicom_series(volume(affine), tmp_path / "between", recipe(reference))
    own = [header.SOPInstanceUID for header in reference.headers]
    for index, ds in enumerate(read(tmp_path / "on")):
        assert referenced(ds, "SourceImageSequence") == [own[index]]
    for index, ds in enumerate(read(tmp_path / "between")[:-1]):
        assert referenced(ds, "SourceImageSequence") == own[index : index + 2]


def test_moving_slices_are_found_through_the_transform(
    sources, recipe: Recipe, volume: Volume, tmp_path: Path
) -> None:
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    affine[:3, 3] = (40, 50, 0)
    shifted = np.eye(4)
    shifted[2, 3] = 8.0
    moving = sources.dicom("CT")
    made = recipe(sources.dicom("MR"), moving, fixed_to_moving_lps=shifted)
    write_dicom_series(volume(affine), tmp_path / "s", made)
    ds = read(tmp_path / "s")[0]
    assert moving.headers[2].SOPInstanceUID in referenced(ds, "SourceImageSequence")
    assert moving.headers[0].SOPInstanceUID not in referenced(ds, "SourceImageSequence")


def test_every_source_image_stands_in_the_references_by_study(
    sources, recipe: Recipe, volume: Volume, tmp_path: Path
) -> None:
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    affine[:3, 3] = (40, 50, 0)
    made = recipe(sources.dicom("MR"), sources.dicom("CT"), fixed_to_moving_lps=np.eye(4))
    write_dicom_series(volume(affine), tmp_path / "s", made)
    for ds in read(tmp_path / "s"):
        other = ds.StudiesContainingOtherReferencedInstancesSequence[0]
        listed = [
            item.ReferencedSOPInstanceUID
            for series in (*ds.ReferencedSeriesSequence, *other.ReferencedSeriesSequence)
            for item in series.ReferencedInstanceSequence
        ]
        assert sorted(listed) == sorted(referenced(ds, "SourceImageSequence"))
        assert other.StudyInstanceUID == made.others[0].headers[0].StudyInstanceUID
        item = ds.SourceImageSequence[0]
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert item.SpatialLocationsPreserved == "NO"


def test_a_registered_ct_keeps_its_hounsfield_units(
    sources, recipe: Recipe, oblique: np.ndarray, tmp_path: Path
) -> None:
    values = np.random.default_rng(5).integers(-1024, 3000, (1, 7, 6, 5)).astype(np.float32)
    made = recipe(sources.dicom("MR"), sources.dicom("CT"), kind="registered")
    write_dicom_series(MetaTensor(values, affine=oblique), tmp_path / "s", made)
    datasets = read(tmp_path / "s")
    assert datasets[0].RescaleType == "HU"
    np.testing.assert_array_equal(physical(datasets), values[0])


def test_air_stands_where_a_registered_ct_has_no_value(
    sources, recipe: Recipe, oblique: np.ndarray, tmp_path: Path
) -> None:
    values = np.full((1, 4, 4, 3), np.nan, dtype=np.float32)
    made = recipe(sources.dicom("MR"), sources.dicom("CT"), kind="registered")
    write_dicom_series(MetaTensor(values, affine=oblique), tmp_path / "s", made)
    assert physical(read(tmp_path / "s")).max() == -1024


@pytest.mark.parametrize(("modality", "peak"), [("PT", 48123.4), ("NM", 0.0371), ("NM", 2.0e9)])
def test_registered_pet_and_spect_keep_their_units(
    modality: str, peak: float, sources, recipe: Recipe, oblique: np.ndarray, tmp_path: Path
) -> None:
    values = (np.random.default_rng(5).random((1, 7, 6, 5)) * peak).astype(np.float32)
    made = recipe(sources.dicom("MR"), sources.dicom(modality), kind="registered")
    write_dicom_series(MetaTensor(values, affine=oblique), tmp_path / "s", made)
    datasets = read(tmp_path / "s")
    assert datasets[0].Modality == modality
    step = float(datasets[0].RescaleSlope)
    assert step < 1.01 * peak / 32767 * 1.01
    assert np.abs(physical(datasets) - values[0]).max() <= 0.501 * step


def test_pet_as_suv_says_so(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, faults: Faults, tmp_path: Path
) -> None:
    suv = replace(sources.dicom("PT"), units="SUVBW")
    made = recipe(sources.dicom("MR"), suv, kind="registered")
    write_dicom_series(volume(oblique), tmp_path / "s", made)
    ds = read(tmp_path / "s")[0]
    assert (ds.Units, ds.SUVType) == ("GML", "BW")
    assert faults(tmp_path / "s" / "0001.dcm") == []


def test_an_enhanced_mr_gives_its_echo_and_repetition_times(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, faults: Faults, tmp_path: Path
) -> None:
    """They stand in functional groups there; a classic MR Image has them at its top level."""
    timing, echo, groups = Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle = 2000, 9
    echo.EffectiveEchoTime = 2.98
    groups.MRTimingAndRelatedParametersSequence, groups.MREchoSequence = [timing], [echo]
    enhanced = sources.dicom(
        "MR",
        ScanningSequence=None,
        EchoTime=None,
        RepetitionTime=None,
        EchoPulseSequence="GRADIENT",
        SharedFunctionalGroupsSequence=[groups],
    )
    enhanced = replace(enhanced, headers=enhanced.headers[:1])
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(enhanced))
    ds = read(tmp_path / "s")[0]
    assert (ds.EchoTime, ds.RepetitionTime, ds.ScanningSequence) == (2.98, 2000, "GR")
    assert faults(tmp_path / "s" / "0001.dcm") == []


def test_terms_of_a_vendor_are_left_out(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, faults: Faults, tmp_path: Path
) -> None:
    vendor = sources.dicom(
        "MR", ScanOptions=["FAST_GEMS", "FS"], ScanningSequence="GR", EchoTrainLength=0
    )
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(vendor))
    assert read(tmp_path / "s")[0].ScanOptions == "FS"
    assert faults(tmp_path / "s" / "0001.dcm") == []


def test_values_that_break_their_representation_are_left_out(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, faults: Faults, tmp_path: Path
) -> None:
    """Anonymisers write words into dates and codes."""
    odd = sources.dicom(
        "MR",
        PatientBirthDate="REMOVED",
        PatientSex="X",
        PatientAge="old",
        StudyTime="noon",
        BodyPartExamined="brain",
    )
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(odd))
    ds = read(tmp_path / "s")[0]
    assert (ds.PatientBirthDate, ds.PatientSex) == ("", "")
    assert faults(tmp_path / "s" / "0001.dcm") == []


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({}, "HEAD"),
        ({"of_heads": False}, None),
        ({"alignment": "given"}, None),
        ({"alignment": "headers"}, None),
    ],
)
def test_a_body_part_that_no_source_says_is_that_of_a_search_of_heads(
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    tmp_path: Path,
    how: dict[str, object],
    part: str | None,
) -> None:
    unsaid = sources.dicom("CT", BodyPartExamined=None)
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(unsaid, **how))
    assert read(tmp_path / "s")[0].get("BodyPartExamined") == part


def item(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


LOCAL = item(CodeValue="MR7", CodingSchemeDesignator="99LOCAL", CodeMeaning="Head")


@pytest.mark.parametrize(
    "told",
    [
        {"OtherPatientIDs": ["A", "B"]},
        {"OtherPatientIDsSequence": [item(PatientID="A", IssuerOfPatientID="B")]},
        {"PatientIdentityRemoved": "YES"},
        {"ClinicalTrialSponsorName": "S", "ClinicalTrialTimePointDescription": "later"},
        {"ClinicalTrialSubjectID": "7", "ClinicalTrialSiteName": "here"},
        {
            "ClinicalTrialSponsorName": "S",
            "ClinicalTrialProtocolID": "P",
            "ClinicalTrialSubjectID": "7",
        },
        {"PatientSpeciesDescription": "Canine", "ResponsiblePerson": "A^B"},
        {"ProcedureCodeSequence": [LOCAL]},
        {"StudyDescription": "x" * 80, "StudyID": "y" * 20},
        {"StudyDescription": ["Head", "Brain"], "ReferringPhysicianName": ["A^B", "C^D"]},
        {"BodyPartExamined": "KOPF", "PregnancyStatus": 9},
        {"OtherPatientIDsSequence": [LOCAL]},
        {"PatientWeight": 0, "PatientSize": 0, "EchoTime": 0, "NumberOfAverages": 0},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("format_", ["dicom", "nifti"])
def test_what_a_header_tells_by_halves_is_completed_or_left_out(
    told: dict[str, object],
    format_: str,
    sources,
    nifti_source: Source,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    faults: Faults,
    tmp_path: Path,
) -> None:
    source = sources.dicom("MR", **told)
    made = recipe(source) if format_ == "dicom" else recipe(nifti_source, source)
    write_dicom_series(volume(oblique), tmp_path / "s", made)
    assert faults(tmp_path / "s" / "0001.dcm") == []
    ds = read(tmp_path / "s")[0]
    whole = "ClinicalTrialProtocolID" in told
    assert ("ClinicalTrialSubjectID" in ds) == whole
    assert ds.get("PatientIdentityRemoved") == told.get("PatientIdentityRemoved")


@pytest.mark.parametrize("factor", [1.0, 1000.0, -700.0])
def test_registered_mr_keeps_its_relative_values(
    factor: float, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    values = volume(oblique) * factor
    made = recipe(sources.dicom("CT"), sources.dicom("MR"), kind="registered")
    write_dicom_series(values, tmp_path / "s", made)
    datasets = read(tmp_path / "s")
    assert "RescaleSlope" not in datasets[0]
    stored = physical(datasets)
    scale = float(datasets[0].DerivationDescription.split("stored value = ")[1].split(" x")[0])
    assert np.abs(stored / scale - np.asarray(values[0])).max() <= abs(0.51 / scale)


def test_fused_grey_and_colour_keep_their_values(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    grey, colour = volume(oblique), volume(oblique, 3)
    write_dicom_series(grey, tmp_path / "grey", recipe(sources.dicom("MR")))
    write_dicom_series(colour, tmp_path / "colour", recipe(sources.dicom("MR")))
    stored = physical(read(tmp_path / "grey")) / 32767
    assert np.abs(stored - np.asarray(grey[0])).max() < 1e-4
    stack = np.stack([ds.pixel_array for ds in read(tmp_path / "colour")])
    assert np.abs(np.transpose(stack, (3, 2, 1, 0)) / 255 - np.asarray(colour)).max() < 0.501 / 255


def test_numbers_have_at_most_sixteen_characters(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(sources.dicom("MR")))
    decimals = [
        str(value)
        for ds in read(tmp_path / "s")
        for element in ds.iterall()
        if element.VR == "DS"
        for value in np.atleast_1d(element.value)
    ]
    assert len(decimals) > 50
    assert max(map(len, decimals)) <= 16


@settings(max_examples=150, deadline=None)
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_planes_lie_where_the_voxels_do(order, signs, angles, spacing, origin) -> None:
    """Position, orientation and spacing as DICOM defines them (C.7.6.2.1.1), any handedness."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.eye(3)[:, list(order)] * signs * spacing
    affine[:3, 3] = origin
    shape = (5, 4, 3)
    planes = planes_of(Grid(shape, affine), "test")
    for i, j, k in ((0, 0, 0), (4, 1, 2), (2, 3, 1)):
        place = shape[2] - 1 - k if planes.reversed else k
        found = (
            planes.positions[place]
            + planes.row * i * planes.pixel_mm[1]
            + planes.column * j * planes.pixel_mm[0]
        )
        np.testing.assert_allclose(found, apply(ras_lps(affine), (i, j, k)), atol=1e-6)
    assert np.all(np.diff(planes.positions @ planes.normal) > 0)


def test_a_sheared_volume_is_refused(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    sheared = oblique.copy()
    sheared[0, 2] += 1.0
    with pytest.raises(GeometryError, match="sheared"):
        write_dicom_series(volume(sheared), tmp_path / "s", recipe(sources.dicom("MR")))


def test_another_number_of_channels_is_refused(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="expected"):
        write_dicom_series(volume(oblique, 2), tmp_path / "s", recipe(sources.dicom("MR")))


def test_a_file_in_the_way_is_one_line(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as refusal:
        write_dicom_series(volume(oblique), tmp_path / "s", recipe(sources.dicom("MR")))
    assert "\n" not in str(refusal.value)


def test_a_full_disk_is_one_line(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0003.dcm").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"0003\.dcm: cannot be written \(No space"):
        write_dicom_series(volume(oblique), tmp_path / "s", recipe(sources.dicom("MR")))


def test_monai_saves_through_the_writer(
    volume: Volume,
    oblique: np.ndarray,
    faults: Faults,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    saving = SaveImage(
        output_ext="", writer=DicomSeriesWriter, separate_folder=False, print_log=False
    )
    saving(volume(oblique), filename=tmp_path / "series")
    assert "starts a new study" in caplog.text
    datasets = read(tmp_path / "series")
    assert len(datasets) == 9
    np.testing.assert_allclose(
        np.asarray(datasets[0].ImagePositionPatient, dtype=float),
        ras_lps(oblique)[:3, 3],
        atol=1e-6,
    )
    assert faults(tmp_path / "series" / "0001.dcm") == []
