"""What a derived DICOM object takes over from its sources: patient, study, frame, references."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from pydicom import DataElement, Dataset, Sequence, config
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import generate_uid
from pydicom.valuerep import validate_value

from mmif.errors import InputError
from mmif.io.dicom.read.headers import items, quiet
from mmif.io.dicom.write.derived import DerivedSeries, fingerprint
from mmif.io.source import Source

if TYPE_CHECKING:
    from pydicom.sr.coding import Code


def keywords(text: str) -> tuple[str, ...]:
    """The words of ``text``: long lists of keywords read best as running text."""
    return tuple(text.split())


# PS3.3 C.7.1.3 and C.7.2.3; sites fill them in by halves
TRIAL = keywords(
    "ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName "
    "ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID "
    "ClinicalTrialSubjectReadingID ClinicalTrialTimePointID ClinicalTrialTimePointDescription"
)
# PS3.3 C.7.1.1, of a human, without what is retired
PATIENT = keywords(
    "PatientName PatientID IssuerOfPatientID TypeOfPatientID IssuerOfPatientIDQualifiersSequence "
    "OtherPatientIDsSequence PatientBirthDate PatientBirthTime PatientSex OtherPatientNames "
    "EthnicGroup PatientComments PatientIdentityRemoved DeidentificationMethod "
    "DeidentificationMethodCodeSequence LongitudinalTemporalInformationModified"
)
# PS3.3 C.7.2.1 General Study, C.7.2.2 Patient Study; without codes, which are a site's own
STUDY = keywords(
    "StudyInstanceUID StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber "
    "IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord "
    "NameOfPhysiciansReadingStudy RequestingService ReferencedStudySequence "
    "AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight MedicalAlerts Allergies "
    "PregnancyStatus AdmissionID"
)
# Type 2: they must stand there, and may be empty
PATIENT_AND_STUDY_TYPE_2 = keywords(
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime "
    "ReferringPhysicianName StudyID AccessionNumber"
)
# Values that may stand there; others are a site's own words
ENUMERATED = {
    "PatientSex": ("M", "F", "O"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "PregnancyStatus": (1, 2, 3, 4),
    "BodyPartExamined": keywords(
        "HEAD BRAIN SKULL HEADNECK NECK FACE JAW MAXILLA CSPINE WHOLEBODY"
    ),
}
# Measures that scanners set to zero where they do not know them
UNKNOWN_AT_ZERO = keywords(
    "PatientSize PatientWeight EchoTime InversionTime NumberOfAverages ImagingFrequency "
    "MagneticFieldStrength EchoTrainLength FlipAngle KVP DataCollectionDiameter "
    "ReconstructionDiameter ExposureTime XRayTubeCurrent Exposure GeneratorPower"
)
VERBATIM = keywords("PatientID IssuerOfPatientID AccessionNumber")  # by which archives match
# Characters that a value may have (PS3.5 Table 6.2-1)
LENGTHS = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
RETIRED_SCHEMES = ("SRT", "SNM3", "99SDM")  # SNOMED RT, which SNOMED CT replaced (PS3.16 8.1)
# Routes, orientations, radionuclides, radiopharmaceuticals: what carried sequences hold
CONTEXT_GROUPS = ("cid11", "cid19", "cid20", "cid21", "cid4020", "cid4021")
# Where a million each begin: far above those of scanners, and an IS (PS3.5 6.2: 32 bits)
SERIES_NUMBERS = {
    "fused": 91_000_000,
    "registered": 92_000_000,
    "registration": 93_000_000,
    "blending": 94_000_000,
}
TEXT = ("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT")


def copy_elements(header: Dataset, keywords: Iterable[str]) -> Dataset:
    """The elements ``keywords`` of ``header`` that are there and valid, with decoded text.

    Text keeps its characters whatever the character set of ``header`` was, and is cut to the
    length that it may have; dates, numbers and codes that break their value representation
    (anonymisers write such) are left out.
    """
    found = Dataset()
    for keyword in keywords:
        kept = _element(header, keyword)
        if kept is not None and _is_allowed(keyword, kept.value):
            found[kept.tag] = kept
    return found


def sequence_items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is missing, damaged, or no sequence."""
    try:
        return items(header, keyword)
    except InputError:
        return []


def _element(header: Dataset, keyword: str) -> DataElement | None:
    """A copy of an element; None where it is missing, damaged, or of another kind than it should.

    Whoever stores a name as a number or a sequence as a text has damaged it.
    """
    with quiet:
        try:
            element = header.get(Tag(keyword))
            if element is None or element.is_empty:
                return None
            if element.VR not in dictionary_VR(element.tag).split(" or "):
                return None
            kept = _recode(element)
            if kept is not None:
                write_data_element(_nowhere(), kept, ["utf8"])
            return kept
        except Exception:  # pydicom raises a dozen kinds over what it cannot decode or encode
            return None


def _nowhere() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer


def _is_allowed(keyword: str, value: object) -> bool:
    if keyword in UNKNOWN_AT_ZERO:
        return value != 0
    return keyword not in ENUMERATED or value in ENUMERATED[keyword]


def _recode(element: DataElement) -> DataElement | None:
    """A copy of ``element`` whose text is ``str``; None where none of its value is valid."""
    if element.VR == "SQ":
        items = [_with_current_code(copy_elements(item, _keywords(item))) for item in element.value]
        kept = [item for item in items if len(item) and not _is_own_code(item)]
        return DataElement(element.tag, "SQ", Sequence(kept)) if kept else None
    values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
    if dictionary_VM(element.tag) == "1":
        del values[1:]
    if element.VR == "PN":
        values = list(map(str, values))
    elif element.VR in TEXT and element.keyword not in VERBATIM:
        values = [value[: LENGTHS.get(element.VR)] for value in values]
    elif element.VR not in TEXT and not _valid(element.VR, values):
        return None
    value = values if len(values) > 1 else values[0]
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _is_own_code(item: Dataset) -> bool:
    """Whether ``item`` is a code that only a site or a vendor knows (PS3.16 8.2)."""
    return str(item.get("CodingSchemeDesignator", "")).startswith("99")


def _with_current_code(item: Dataset) -> Dataset:
    """``item``, or where it is a code of SNOMED RT, the same concept in SNOMED CT."""
    if item.get("CodingSchemeDesignator") not in RETIRED_SCHEMES or "CodeValue" not in item:
        return item
    from pydicom.sr.coding import Code  # 0.2 s of dictionaries for the rare header of that kind

    given = Code(item.CodeValue, "SRT", item.get("CodeMeaning", ""))
    current = next((known for known in _known_codes() if known == given), None)
    if current is None:
        return item
    item.CodeValue, item.CodingSchemeDesignator = current.value, current.scheme_designator
    item.CodeMeaning = current.meaning
    return item


def known_code(item: Dataset) -> "Code | None":
    """The code of the standard's context groups that ``item`` holds, None where it is no such."""
    from pydicom.sr.coding import Code

    if not (item.get("CodeValue") and item.get("CodingSchemeDesignator")):
        return None
    given = Code(str(item.CodeValue), str(item.CodingSchemeDesignator), "")
    return next((known for known in _known_codes() if known == given), None)


@cache
def _known_codes() -> "tuple[Code, ...]":
    """The codes of CONTEXT_GROUPS; each equals its SNOMED RT predecessor."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    groups = [getattr(codes, name) for name in CONTEXT_GROUPS]
    found = (getattr(group, name) for group in groups for name in dir(group))
    return tuple(code for code in found if isinstance(code, Code))


def _keywords(item: Dataset) -> Iterator[str]:
    """The keywords of the public elements of a sequence item."""
    return (keyword for keyword in item.dir() if keyword)


def _valid(vr: str, values: list[object]) -> bool:
    """Whether each of ``values`` is legal for ``vr`` (PS3.5 6.2)."""
    if vr not in ("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"):
        return True
    try:
        for one in values:
            validate_value(vr, str(getattr(one, "original_string", one)), config.RAISE)
    except ValueError:
        return False
    return True


def identifying_values(header: Dataset) -> list[str]:
    """The patient's and study's names, numbers, dates and descriptions in ``header``."""
    kept = (*PATIENT, *TRIAL, *STUDY, "SeriesDescription", "InstitutionName", "OtherPatientIDs")
    elements = copy_elements(header, kept)
    return [
        str(value)
        for element in elements
        if element.VR in ("PN", "LO", "SH", "DA", "LT")
        for value in (element.value if isinstance(element.value, MultiValue) else [element.value])
    ]


def patient_and_study(recipe: DerivedSeries) -> Dataset:
    """The Patient and Study modules of the reference, or of a new study (PS3.3 C.7.1, C.7.2).

    A reference without DICOM headers starts a new study; its patient is that of the first other
    source that came as DICOM, else an unnamed one with an ID of its own.
    """
    if recipe.reference.headers:
        ds = copy_elements(recipe.reference.headers[0], (*PATIENT, *TRIAL, *STUDY))
    else:
        ds = _new_study(recipe)
    if "StudyInstanceUID" not in ds:
        ds.StudyInstanceUID = generate_uid(
            entropy_srcs=["mmif study", *map(fingerprint, recipe.sources)]
        )
    if "PatientID" not in ds:
        ds.PatientID = "MMIF-" + _short_hash(ds.StudyInstanceUID)
    for keyword in PATIENT_AND_STUDY_TYPE_2:
        if keyword not in ds:
            setattr(ds, keyword, "")
    _complete(ds)
    return _with_dates(ds, recipe)


def _complete(ds: Dataset) -> None:
    """Add to ``ds`` what its other attributes require; a trial without its name is left out."""
    subject = ds.get("ClinicalTrialSubjectID") or ds.get("ClinicalTrialSubjectReadingID")
    if subject and ds.get("ClinicalTrialSponsorName") and ds.get("ClinicalTrialProtocolID"):
        for keyword in keywords(
            "ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName"
        ):
            ds.setdefault(keyword, "")
    else:
        for keyword in TRIAL[:7]:
            ds.pop(keyword, None)
    if "ClinicalTrialTimePointDescription" in ds:
        ds.setdefault("ClinicalTrialTimePointID", "")
    for other in ds.get("OtherPatientIDsSequence") or ():
        other.setdefault("TypeOfPatientID", "TEXT")
    if ds.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in ds:
        ds.setdefault("DeidentificationMethod", "not stated by the source")


def _with_dates(ds: Dataset, recipe: DerivedSeries) -> Dataset:
    """``ds`` with the study's date and number filled in: a DICOMDIR cannot list it without."""
    header = recipe.reference.headers[0] if recipe.reference.headers else Dataset()
    parts = ("Study", "Series", "Acquisition", "Content")
    known = copy_elements(header, [f"{part}{what}" for part in parts for what in ("Date", "Time")])
    for what, made in (("Date", "%Y%m%d"), ("Time", "%H%M%S")):
        found = (known.get(f"{part}{what}") for part in parts)
        value = next(filter(None, found), recipe.created.strftime(made))
        setattr(ds, f"Study{what}", value)
    ds.StudyID = ds.StudyID or "0"
    return ds


def _new_study(recipe: DerivedSeries) -> Dataset:
    headers = [source.headers[0] for source in recipe.others if source.headers]
    ds = copy_elements(headers[0], (*PATIENT, *TRIAL)) if headers else Dataset()
    ds.StudyDescription = "mmif image fusion"
    return ds


def _short_hash(text: str) -> str:
    """16 digits that stand for ``text``."""
    return str(generate_uid(entropy_srcs=["mmif patient", text]))[-16:]


def header_warnings(recipe: DerivedSeries) -> tuple[str, ...]:
    """What a reader of DICOM outputs must know of their patient and study."""
    if recipe.reference.headers:
        if "PatientID" in copy_elements(recipe.reference.headers[0], ["PatientID"]):
            return ()
        return ("the reference has no PatientID: the DICOM output has one made from its study",)
    patient = next((s.modality or s.format for s in recipe.others if s.headers), None)
    whose = f"the patient is that of the {patient} source" if patient else "the patient is unnamed"
    return (
        "the reference did not come as DICOM: the DICOM output starts a new study and a new frame "
        f"of reference; {whose}",
    )


def frame_of_reference(source: Source) -> Dataset:
    """The Frame of Reference module (C.7.4.1) of ``source``; a UID is made where it has none."""
    header = source.headers[0] if source.headers and not source.moved else Dataset()
    ds = copy_elements(header, ["PositionReferenceIndicator"])
    ds.FrameOfReferenceUID = frame_uid(source)
    if "PositionReferenceIndicator" not in ds:
        ds.PositionReferenceIndicator = ""
    return ds


def frame_uid(source: Source) -> str:
    """The FrameOfReferenceUID of where ``source`` lies, or one that follows from its content.

    The headers of a source that was moved name a frame that it has left: they are not asked.
    """
    if source.frame_of_reference_uid:
        return source.frame_of_reference_uid
    if source.moved:
        return str(generate_uid(entropy_srcs=["mmif frame after a transform", fingerprint(source)]))
    if source.headers and source.headers[0].get("FrameOfReferenceUID"):
        return str(source.headers[0].FrameOfReferenceUID)
    return str(generate_uid(entropy_srcs=["mmif frame of reference", fingerprint(source)]))


def code(value: str, scheme: str, meaning: str) -> Sequence:
    """A code sequence of one item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def series_elements(
    recipe: DerivedSeries, modality: str, kind: str, uid: str, description: str
) -> Dataset:
    """Patient, study, series and equipment of an object by ``recipe`` (C.7.1 to C.7.3, C.7.5.1).

    Args:
        recipe: how the object came about.
        modality: of the object.
        kind: of series, one of ``SERIES_NUMBERS``.
        uid: its SeriesInstanceUID.
        description: SeriesDescription.
    """
    ds = patient_and_study(recipe)
    ds.SpecificCharacterSet = "ISO_IR 192"
    reference = recipe.reference.headers[0] if recipe.reference.headers else Dataset()
    ds.update(copy_elements(reference, ["BodyPartExamined"]))
    for keyword, part in recipe.body_part.items():
        ds.setdefault(keyword, part)
    ds.Modality = modality
    ds.SeriesInstanceUID = uid
    ds.SeriesNumber = recipe.number(uid, SERIES_NUMBERS[kind])
    ds.SeriesDescription = description
    ds.update(dates_of_making(recipe, "Series", "InstanceCreation"))
    ds.Manufacturer = ds.ManufacturerModelName = "mmif"
    ds.SoftwareVersions = recipe.version
    ds.ContributingEquipmentSequence = contributing_equipment(recipe)
    return ds


def dates_of_making(recipe: DerivedSeries, *parts: str) -> Dataset:
    """Date and time at which ``recipe`` was made, of each of ``parts`` (``Series`` ...)."""
    ds = Dataset()
    for part in parts:
        setattr(ds, f"{part}Date", recipe.created.strftime("%Y%m%d"))
        setattr(ds, f"{part}Time", recipe.created.strftime("%H%M%S"))
    return ds


def content_elements(label: str, description: str) -> Dataset:
    """What an object that is no image has of equipment and content (C.7.5.2, Table 10-12)."""
    ds = Dataset()
    ds.DeviceSerialNumber = "0"
    ds.InstanceNumber = 1
    ds.ContentLabel = label
    ds.ContentDescription = description
    ds.ContentCreatorName = "mmif^software"
    return ds


def contributing_equipment(recipe: DerivedSeries) -> Sequence:
    """One item that names mmif, its version and its weights (C.12.1.1.5)."""
    item = Dataset()
    item.Manufacturer = "mmif"
    item.ManufacturerModelName = "mmif"
    item.SoftwareVersions = recipe.version
    item.ContributionDateTime = recipe.created.strftime("%Y%m%d%H%M%S")
    weights = f"weights sha256 {recipe.weights_sha256}" if recipe.weights_sha256 else "no network"
    item.ContributionDescription = f"mmif {recipe.version}; {weights}"
    item.PurposeOfReferenceCodeSequence = code("109102", "DCM", "Processing Equipment")
    return Sequence([item])
