"""De-identified outputs: conformant, consistent within a run, and without any identity."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from mmif.io.dicom.deidentify import (
    DUMMY_TIME,
    UidMapper,
    clean_words,
    deidentify_header,
    deidentify_source,
    deidentify_volumes,
)
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.elements import encode
from mmif.io.dicom.write.header import PATIENT, STUDY, copy_elements, keywords
from mmif.io.dicom.write.iods import MR_ACQUISITION, PET_ACQUISITION
from mmif.io.dicom.write.registration import write_spatial_registration
from mmif.io.dicom.write.series import write_dicom_series
from mmif.io.source import SOURCE_KEY, Source, source_of

Faults = Callable[[Path], list[str]]
Volume = Callable[..., MetaTensor]
Recipe = Callable[..., DerivedSeries]
MAPPER = UidMapper("a fixed secret")
# Values of the sources of conftest that tell who and when
IDENTITY = [
    *("Muster", "Maria", "4711", "19600214", "064Y", "61.5", "20240305", "101112", "A-99"),
    *("Haus", "Gregor", "Schädel", "Kopf", "Klinik", "t1_mprage"),
]


def identity_in(ds: Dataset) -> list[str]:
    """The values of IDENTITY that stand in ``ds``; digits of the new UIDs do not count."""
    texts = [str(e.value) for e in ds.iterall() if e.VR not in ("UI", "SQ", "OB", "OW")]
    uids = [str(e.value) for e in ds.iterall() if e.VR == "UI"]
    old = [uid for uid in uids if uid.startswith("1.2.826.1.")]
    return old + [value for value in IDENTITY if any(value in text for text in texts)]


@pytest.fixture
def clean(sources) -> Callable[..., Source]:
    def make(modality: str, **attributes: object) -> Source:
        return deidentify_source(sources.dicom(modality, **attributes), MAPPER)

    return make


def with_source(volume: MetaTensor, source: Source) -> MetaTensor:
    volume.meta[SOURCE_KEY] = source
    volume.meta["filename_or_obj"] = "/home/Muster_Maria/ct"
    return volume


@pytest.mark.parametrize(
    ("modalities", "channels", "changes"),
    [
        (("MR", "CT"), 1, {}),
        (("CT", "NM"), 3, {}),
        (("MR", "NM"), 3, {"encoding": "multiframe"}),
        (("MR", "CT"), 1, {"kind": "registered"}),
        (("MR", "PT"), 1, {"kind": "registered"}),
    ],
)
def test_series_are_conformant_and_hold_no_identity(
    modalities: tuple[str, str],
    channels: int,
    changes: dict[str, str],
    clean,
    recipe: Recipe,
    volume: Volume,
    oblique: np.ndarray,
    faults: Faults,
    tmp_path: Path,
) -> None:
    made = recipe(*map(clean, modalities), created=DUMMY_TIME, **changes)
    write_dicom_series(volume(oblique, channels), tmp_path / "s", made)
    for path in (tmp_path / "s").iterdir():
        assert identity_in(dcmread(path)) == []
    assert faults(tmp_path / "s" / "0001.dcm") == []


def test_the_registration_object_holds_no_identity(
    clean, recipe: Recipe, faults: Faults, tmp_path: Path
) -> None:
    made = recipe(clean("MR"), clean("CT"), created=DUMMY_TIME)
    write_spatial_registration(tmp_path / "r.dcm", made)
    assert identity_in(dcmread(tmp_path / "r.dcm")) == []
    assert faults(tmp_path / "r.dcm") == []


def test_outputs_say_what_was_done(
    clean, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(clean("MR")))
    ds = dcmread(tmp_path / "s" / "0001.dcm")
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"
    assert (ds.PatientSex, ds.PatientBirthDate, ds.AccessionNumber) == ("", "", "")
    assert float(ds.EchoTime) == 3.1  # the technique is no identity


def test_the_search_for_identity_finds_it(
    sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    write_dicom_series(volume(oblique), tmp_path / "s", recipe(sources.dicom("MR")))
    found = identity_in(dcmread(tmp_path / "s" / "0001.dcm"))
    assert {"Muster", "4711", "19600214", "Haus", "Schädel", "t1_mprage", "1.2.826.1.2"} <= {*found}


def test_uids_are_new_and_consistent_within_a_run(
    clean, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    reference, other = clean("MR"), clean("CT")
    write_dicom_series(volume(oblique), tmp_path / "fused", recipe(reference, other))
    registered = recipe(reference, other, kind="registered")
    write_dicom_series(volume(oblique), tmp_path / "registered", registered)
    fused, moved = (dcmread(tmp_path / kind / "0001.dcm") for kind in ("fused", "registered"))
    true = sources.dicom("MR").headers[0]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert fused[keyword].value == moved[keyword].value
        assert fused[keyword].value != true[keyword].value
    assert fused.SeriesInstanceUID != moved.SeriesInstanceUID


def test_another_run_has_other_uids(sources) -> None:
    source = sources.dicom("MR")
    first, second = (deidentify_source(source, UidMapper()) for _ in range(2))
    assert first.series_uid != second.series_uid
    assert first.headers[0].PatientID != second.headers[0].PatientID


def test_one_patient_keeps_one_pseudonym(clean) -> None:
    assert clean("MR").headers[0].PatientID == clean("CT").headers[0].PatientID
    assert clean("MR").patient_key == clean("CT").patient_key
    assert clean("CT", PatientID="4712").headers[0].PatientID != clean("CT").headers[0].PatientID


def test_doses_keep_physics_and_lose_dates(sources) -> None:
    dose = Dataset()
    dose.RadiopharmaceuticalStartTime = "093000"
    dose.RadiopharmaceuticalStartDateTime = "20240305093000"
    dose.RadionuclideHalfLife = 6586.2
    source = sources.dicom("PT", RadiopharmaceuticalInformationSequence=[dose])
    header = deidentify_source(source, MAPPER).headers[0]
    kept = header.RadiopharmaceuticalInformationSequence[0]
    assert [element.keyword for element in kept] == ["RadionuclideHalfLife"]


def test_texts_of_a_source_lose_paths_names_and_uids(sources) -> None:
    source = replace(
        sources.dicom("MR"),
        path=Path("/home/Muster_Maria/mri"),
        selection="series 1.2.826.1.2.2 of Muster^Maria in /home/Muster_Maria/mri, largest, "
        "not 'T1 of Maria'",
        warnings=("IM_0001_Maria.dcm: not read", "spacing 2 mm/s is kept", "Schädel: SUV in g/ml"),
    )
    found = deidentify_source(source, MAPPER)
    assert "mri" not in str(found.path)
    text = " ".join((found.selection, *found.warnings))
    for value in ("Muster", "Maria", "1.2.826.1.", "/home", "Schädel"):
        assert value not in text
    assert "largest" in found.selection
    assert "spacing 2 mm/s is kept" in found.warnings
    assert "SUV in g/ml" in text


def test_nifti_sources_lose_their_path_and_keep_their_format(nifti_source: Source) -> None:
    found = deidentify_source(nifti_source, MAPPER)
    assert found.path.suffix == ".nii"
    assert nifti_source.path.stem not in str(found.path)
    assert found.series_uid


def test_volumes_keep_voxels_and_place_and_nothing_else(
    sources, volume: Volume, oblique: np.ndarray
) -> None:
    before = {
        "mri": with_source(volume(oblique), sources.dicom("MR")),
        "ct": with_source(volume(oblique), sources.dicom("CT")),
    }
    after = deidentify_volumes(before)
    for role, shown in after.items():
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(before[role]))
        np.testing.assert_allclose(shown.affine, oblique)
        assert "Maria" not in str(shown.meta)
        assert source_of(shown) is not None
    keys = {source_of(shown).patient_key for shown in after.values()}
    assert len(keys) == 1
    assert str(source_of(before["mri"]).headers[0].PatientName) == "Muster^Maria"


def test_words_lose_paths() -> None:
    found = clean_words(["CT: /data/Muster_Maria/ct: tilt", "Muster_Maria.nii.gz: 2 slices"])
    assert "Maria" not in " ".join(found)
    assert "tilt" in found[0]


def test_whatever_is_damaged_is_left_out(sources) -> None:
    """Raw bytes of any kind in every element that is taken over; nothing is raised."""
    draw = Random(1)
    kinds = [*keywords("CS DA DS FD IS LO OB PN SQ ST TM UI UN US XX"), None]
    names = (*PATIENT, *STUDY, *MR_ACQUISITION, *PET_ACQUISITION, "SharedFunctionalGroupsSequence")
    for _ in range(60):
        header = sources.dicom("MR").headers[0].copy()
        for name in names:
            texts = [b"1\\\\2", b"\xfe\xff\x00\xe0\x03", b"A^B=\xff\x1b$B", draw.randbytes(7)]
            data = draw.choice(texts)
            tag = Tag(name)
            raw = RawDataElement(tag, draw.choice(kinds), len(data), data, 0, False, True)
            header._dict[tag] = raw
        encode(copy_elements(header, names))
        encode(deidentify_header(header, MAPPER))
