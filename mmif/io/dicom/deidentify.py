"""De-identification by the Basic Application Confidentiality Profile (PS3.15 Annex E).

It happens at the source: headers, UIDs and paths of what was read are replaced before anything is
derived from them, so that no output can hold what is not there any more. Of the headers only an
allow-list of attributes goes on, none of which stands in PS3.15 Table E.1-1; those that the table
keeps with a dummy or a new UID get one. What mmif writes anew (descriptions, comments) names no
patient.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from monai.data import MetaTensor
from pydicom import Dataset, Sequence
from pydicom.uid import generate_uid

from mmif.io.dicom.write.derived import fingerprint
from mmif.io.dicom.write.header import code, copy_elements, identifying_values, keywords
from mmif.io.dicom.write.iods import CT_ACQUISITION, MR_ACQUISITION, PET_ACQUISITION, flat_mr
from mmif.io.source import SOURCE_KEY, Source, source_of

DUMMY_TIME = datetime(1900, 1, 1)
WITHHELD = "withheld (de-identified)"
PROFILE = "PS3.15 Basic Application Confidentiality Profile"
# Attributes of Table E.1-1 among those that mmif carries over
LISTED = keywords(
    "ProtocolName AcquisitionDate AcquisitionTime RadiopharmaceuticalInformationSequence"
)
PLACE = keywords(
    "SOPClassUID Modality ImagePositionPatient ImageOrientationPatient PixelSpacing "
    "PatientPosition BodyPartExamined LossyImageCompression LossyImageCompressionRatio "
    "LossyImageCompressionMethod"
)
KEPT = tuple({*PLACE, *MR_ACQUISITION, *CT_ACQUISITION, *PET_ACQUISITION} - {*LISTED})
RADIOPHARMACEUTICAL = keywords(
    "RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction "
    "RadionuclideCodeSequence"
)
NEW_UIDS = keywords("SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID")
PATH_LIKE = re.compile(
    r"(?<![\w.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'\":,;)]+"  # from the root, here, home or a drive
    r"|[^\s'\"(]+[/\\][^\s'\":,;)]+[/\\][^\s'\":,;)]*"  # two separators
    r"|[^\s'\"(/\\]+\.(?:dcm|ima|nii|gz|img|hdr|zip)\b",  # the name of an image file
    re.IGNORECASE,
)
QUOTED = re.compile(r"'[^']*'")  # the readers quote descriptions, of this and of other series
UID_LIKE = re.compile(r"\b[0-2](?:\.\d+){4,}\b")


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
        series_uid=mapper.uid(source.series_uid or fingerprint(source)),
        frame_of_reference_uid=mapper.uid(frame) if frame else None,
        patient_key=mapper.name(key) if key else None,
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
    ds = copy_elements(flat_mr(header), KEPT)
    for keyword in NEW_UIDS:
        if header.get(keyword):
            setattr(ds, keyword, mapper.uid(str(header[keyword].value)))
    doses = header.get("RadiopharmaceuticalInformationSequence") or []
    if doses:
        ds.RadiopharmaceuticalInformationSequence = Sequence(
            copy_elements(dose, RADIOPHARMACEUTICAL) for dose in doses
        )
    pseudonym = mapper.name(f"{header.get('PatientID', '')}")
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


def clean_words(words: Iterable[str]) -> tuple[str, ...]:
    """``words`` without the paths that may stand in them."""
    return tuple(PATH_LIKE.sub("[path]", text) for text in words)


def _scrub(text: str, source: Source, mapper: UidMapper) -> str:
    """``text`` without paths and identifying values, and with the new UIDs."""
    text = UID_LIKE.sub(lambda found: mapper.uid(found.group()), text)
    text = PATH_LIKE.sub("[path]", text.replace(str(source.path), "[path]"))
    text = QUOTED.sub("'[removed]'", text)
    for value in sorted(_identifying(source), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "[removed]", text, flags=re.IGNORECASE)
    return text


def _identifying(source: Source) -> set[str]:
    """Values of the headers and of the path that can name a person or a visit."""
    found = {source.path.name, source.path.stem}
    for header in source.headers[:1]:
        for value in identifying_values(header):
            found |= {value, *(re.split(r"[\^=]+", value) if "^" in value else ())}
    return {value for value in found if len(value) > 3}
