"""De-identification by the Basic Application Confidentiality Profile (PS3.15 Annex E).

It happens at the source: headers, UIDs and paths of what was read are replaced before anything is
derived from them, so that no output can hold what is not there any more. Of the headers only an
allow-list of attributes goes on, as numbers or as terms and codes that the standard defines: no
text, and nothing of PS3.15 Table E.1-1 but what the table keeps with a dummy or a new UID. What
mmif writes anew (descriptions, comments) names no patient.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from monai.data import MetaTensor
from pydicom import Dataset, Sequence
from pydicom._uid_dict import UID_dictionary
from pydicom.multival import MultiValue
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DSfloat

from mmif.errors import MmifError, without_quotes
from mmif.io.dicom.write.derived import fingerprint
from mmif.io.dicom.write.header import (
    ENUMERATED,
    code,
    copy_elements,
    identifying_values,
    keywords,
    known_code,
    sequence_items,
)
from mmif.io.dicom.write.iods import MR_TERMS, flat_mr
from mmif.io.source import SOURCE_KEY, Source, source_of

# A dummy as PS3.15 Table E.1-1 asks for (codes D and Z)
DUMMY_TIME = datetime(1900, 1, 1)
WITHHELD = "withheld (de-identified)"
PROFILE = "PS3.15 Basic Application Confidentiality Profile"
# What goes on, each with the values that it may have; None: numbers. A text that the standard does
# not define can be anything, a name as well, so there is none here.
POSITIONS = tuple(
    f"{f}{side}" for f in ("HF", "FF", "LF", "RF", "AF", "PF") for side in keywords("P S DR DL")
)
DEFINED: Mapping[str, tuple[str, ...] | None] = {
    **dict.fromkeys(
        keywords(
            "ImagePositionPatient ImageOrientationPatient PixelSpacing LossyImageCompressionRatio "
            "RepetitionTime EchoTime InversionTime NumberOfAverages ImagingFrequency EchoNumbers "
            "MagneticFieldStrength EchoTrainLength FlipAngle KVP DataCollectionDiameter "
            "ReconstructionDiameter GantryDetectorTilt ExposureTime XRayTubeCurrent Exposure "
            "GeneratorPower FrameReferenceTime ActualFrameDuration DecayFactor"
        )
    ),
    # PS3.3 C.7.3.1.1.1 and C.7.3.1.1.2; the modalities of images (not retired)
    "Modality": keywords("CT MR NM PT SC OT CR DX US XA XC"),
    "PatientPosition": POSITIONS,
    "BodyPartExamined": tuple(map(str, ENUMERATED["BodyPartExamined"])),
    # PS3.3 C.7.6.1.1.5
    "LossyImageCompression": ("00", "01"),
    "LossyImageCompressionMethod": keywords(
        "ISO_10918_1 ISO_14495_1 ISO_15444_1 ISO_15444_15 ISO_13818_2 ISO_14496_10 ISO_23008_2"
    ),
    **MR_TERMS,
    "ImagedNucleus": keywords("1H 3HE 7LI 13C 19F 23NA 31P 129XE"),
    # PS3.3 C.8.9.1
    "CountsSource": keywords("EMISSION TRANSMISSION"),
    "SeriesType": ("STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "IMAGE", "REPROJECTION"),
    "Units": keywords(
        "CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS "
        "PROPCPS MLMINML MLML GML STDDEV"
    ),
    "SUVType": keywords("BSA BW LBM LBMJAMES128 LBMJANMA IBW"),
    "CorrectedImage": keywords("DECY ATTN SCAT DTIM MOTN PMOT CLN RAN RADL DCAL NORM"),
    "DecayCorrection": keywords("NONE START ADMIN"),
    "CollimatorType": keywords("NONE RING"),
    "RandomsCorrectionMethod": keywords("NONE DLYD SING"),
}
CODES = keywords("PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence")
DOSE = keywords("RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction")
NEW_UIDS = keywords("SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID")
PATH_LIKE = re.compile(
    r"(?<![\w.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'\":,;)]+"  # from the root, here, home or a drive
    r"|[^\s'\"(]+[/\\][^\s'\":,;)]+[/\\][^\s'\":,;)]*"  # two separators
    r"|[^\s'\"(/\\]+\.(?:dcm|ima|nii|gz|img|hdr|zip)\b",  # the name of an image file
    re.IGNORECASE,
)
UID_LIKE = re.compile(r"\b[0-2](?:\.\d+){4,}\b")
DAYS_APART = re.compile(r", \d+ days apart")


@dataclass(frozen=True)
class UidMapper:
    """New UIDs and pseudonyms: equal for equal input within a run, of no use outside it.

    ``secret`` is what ties a run together; without it nobody can find an old UID by trying.
    """

    secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def uid(self, old: str) -> str:
        """The new UID that stands for ``old``."""
        return str(generate_uid(entropy_srcs=["mmif de-identified", self.secret, old]))

    def name(self, old: str) -> str:
        """Eight letters and digits that stand for the text ``old``."""
        return hashlib.sha256(f"{self.secret}\n{old}".encode()).hexdigest()[:8]


def deidentify_volumes(
    volumes: Mapping[str, MetaTensor], mapper: UidMapper | None = None
) -> dict[str, MetaTensor]:
    """``volumes`` with sources that hold no identity; one mapper for all of them."""
    mapper = mapper or UidMapper()
    return {role: deidentify_volume(volume, mapper) for role, volume in volumes.items()}


def deidentify_volume(volume: MetaTensor, mapper: UidMapper) -> MetaTensor:
    """``volume`` with the same voxels, and of its metadata only a source without identity."""
    source = source_of(volume)
    meta = {} if source is None else {SOURCE_KEY: deidentify_source(source, mapper)}
    return MetaTensor(volume.as_tensor(), affine=volume.affine, meta=meta)


def deidentify_source(source: Source, mapper: UidMapper) -> Source:
    """``source`` with new UIDs and names, and headers by the Basic Profile."""
    frame = source.frame_of_reference_uid
    key = source.patient_key
    return replace(
        source,
        path=Path(mapper.name(str(source.path)) + _suffix(source.path)),
        modality=source.modality if source.modality in (DEFINED["Modality"] or ()) else "",
        series_uid=mapper.uid(source.series_uid or fingerprint(source)),
        frame_of_reference_uid=mapper.uid(frame) if frame else None,
        patient_key=mapper.name(key) if key else None,
        suv=source.suv.without_person() if source.suv else None,
        selection=_scrub(source.selection, source, mapper),
        warnings=tuple(_scrub(text, source, mapper) for text in source.warnings),
        headers=tuple(deidentify_header(header, mapper) for header in source.headers),
    )


def _suffix(path: Path) -> str:
    """The endings of ``path`` that name a format (``.nii.gz``), nothing else of its name."""
    known = (".nii.gz", ".nii", ".dcm", ".zip", ".mha", ".mhd", ".nrrd", ".hdr", ".img")
    return next((ending for ending in known if path.name.lower().endswith(ending)), "")


def deidentify_header(header: Dataset, mapper: UidMapper) -> Dataset:
    """What of ``header`` may go on, with dummies where an attribute must stand."""
    ds = _keep_defined(copy_elements(flat_mr(header), DEFINED))
    for keyword in CODES:
        if codes := _known_items(sequence_items(header, keyword)):
            setattr(ds, keyword, Sequence(codes))
    known = copy_elements(header, (*NEW_UIDS, "SOPClassUID", "PatientID"))
    for keyword in NEW_UIDS:
        if known.get(keyword):
            setattr(ds, keyword, mapper.uid(str(known[keyword].value)))
    # a UID that is not the standard's can hold a site's own number
    if UID(str(known.get("SOPClassUID", ""))) in UID_dictionary:
        ds.SOPClassUID = known.SOPClassUID
    doses = sequence_items(header, "RadiopharmaceuticalInformationSequence")
    if doses:
        ds.RadiopharmaceuticalInformationSequence = Sequence(map(_dose, doses))
    pseudonym = mapper.name(f"{known.get('PatientID', '')}")
    ds.PatientName, ds.PatientID = f"Anonymous^{pseudonym}", f"ANON-{pseudonym}"
    ds.StudyDate, ds.StudyTime = DUMMY_TIME.strftime("%Y%m%d"), DUMMY_TIME.strftime("%H%M%S")
    ds.StudyID = "0"
    ds.PatientIdentityRemoved = "YES"
    ds.LongitudinalTemporalInformationModified = "REMOVED"
    ds.DeidentificationMethod = "mmif: PS3.15 Basic Profile, by allow-list"
    ds.DeidentificationMethodCodeSequence = code(
        "113100", "DCM", "Basic Application Confidentiality Profile"
    )
    return ds


def _keep_defined(ds: Dataset) -> Dataset:
    """``ds`` with the values that `DEFINED` allows, numbers written anew."""
    kept = Dataset()
    for element in ds:
        values = element.value if isinstance(element.value, MultiValue) else [element.value]
        terms = DEFINED[element.keyword]
        if terms is None:
            with suppress(ValueError):  # "1\\\\2" has a value that is no number
                numbers = [_plain_number(value, element.VR) for value in values]
                setattr(kept, element.keyword, numbers)
        elif left := [value for value in values if value in terms]:
            setattr(kept, element.keyword, left if len(left) > 1 else left[0])
    return kept


def _plain_number(value: object, vr: str) -> object:
    """A number without the text that it was read from."""
    number = float(str(value))
    if vr in {"DS", "FD", "FL"}:
        return DSfloat(number, auto_format=True) if vr == "DS" else number
    return int(number)


def _known_items(items_of_codes: Iterable[Dataset]) -> list[Dataset]:
    """Of coded items those that the standard has, with the standard's own meaning."""
    kept = []
    for item in items_of_codes:
        found = known_code(copy_elements(item, ("CodeValue", "CodingSchemeDesignator")))
        if found is None:
            continue
        (clean,) = code(found.value, found.scheme_designator, found.meaning)
        modifiers = sequence_items(item, "PatientOrientationModifierCodeSequence")
        if further := _known_items(modifiers):
            clean.PatientOrientationModifierCodeSequence = Sequence(further)
        kept.append(clean)
    return kept


def _dose(item: Dataset) -> Dataset:
    """The physics of a radiopharmaceutical: dose, half-life and nuclide, no names or times."""
    ds = Dataset()
    for element in copy_elements(item, DOSE):
        with suppress(ValueError):
            setattr(ds, element.keyword, _plain_number(element.value, element.VR))
    if nuclides := _known_items(sequence_items(item, "RadionuclideCodeSequence")):
        ds.RadionuclideCodeSequence = Sequence(nuclides)
    return ds


def clean_words(words: Iterable[str]) -> tuple[str, ...]:
    """``words`` without paths, texts of files, UIDs of theirs and the days between studies."""
    return tuple(_clean(text, {}) for text in words)


def clean_error(error: MmifError, paths: Mapping[str, Path]) -> MmifError:
    """``error`` as it may be said where no identity may: ``paths`` (name to path) by their names.

    >>> from mmif.errors import InputError
    >>> print(clean_error(InputError("/a/Doe J/ct: no such file"), {"the CT": Path("/a/Doe J/ct")}))
    the CT: no such file
    """
    return type(error)(UID_LIKE.sub("[UID]", _clean(str(error), paths)))


def _clean(text: str, paths: Mapping[str, Path]) -> str:
    """``text`` without texts of files, days between studies and paths; ``paths`` by their names."""
    text = DAYS_APART.sub("", without_quotes(text))
    for name, path in sorted(paths.items(), key=lambda pair: -len(str(pair[1]))):
        for one in dict.fromkeys((str(path.absolute()), str(path))):
            below = rf"(?<![\w/.-]){re.escape(one)}(?:/[^:;]*)?(?![\w-])"
            text = re.sub(below, name, text)
    return PATH_LIKE.sub("[path]", text)


def _scrub(text: str, source: Source, mapper: UidMapper) -> str:
    """``text`` without paths and identifying values, and with the new UIDs."""
    text = UID_LIKE.sub(lambda found: mapper.uid(found.group()), text)
    text = _clean(text, {"[path]": source.path})
    for value in sorted(_identifying_texts(source), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "[removed]", text, flags=re.IGNORECASE)
    return text


def _identifying_texts(source: Source) -> set[str]:
    """Values of the headers and of the path that can name a person or a visit."""
    found = {source.path.name, source.path.stem}
    for header in source.headers[:1]:
        for value in identifying_values(header):
            found |= {value, *(re.split(r"[\^=]+", value) if "^" in value else ())}
    return {value for value in found if len(value) > 3}
