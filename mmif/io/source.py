"""Where a volume came from: what the readers know that the voxels do not say."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    import pydicom
    from monai.data import MetaTensor

from mmif.roles import ROLES

SOURCE_KEY = "source"
Format = Literal["dicom", "nifti", "other"]


@dataclass(frozen=True)
class StudyId:
    """Which study a series belongs to: StudyInstanceUID, and StudyDate where it can be read."""

    uid: str
    date: date | None


@dataclass(frozen=True)
class Slab:
    """A part of the patient that no slice saw: ``low_mm`` < normal . point < ``high_mm``, RAS."""

    normal: tuple[float, float, float]
    low_mm: float
    high_mm: float


@dataclass(frozen=True)
class SuvScale:
    """What makes SUV by body weight of a PET value, and what it follows from.

    Attributes:
        factor: SUVbw (g/ml) per unit of the value as stored and rescaled.
        stored_unit: of that value: BQML, CNTS, GML.
        by: what the factor follows from, in words.
        dose_bq, weight_kg, half_life_s: as the header has them; None where they are not asked for.
        uptake_s: from the injection to the time that decay is corrected to.
        withheld: whether weight, dose and times, and what gives them away, may not be told.
    """

    factor: float
    stored_unit: str
    by: str
    dose_bq: float | None = None
    weight_kg: float | None = None
    half_life_s: float | None = None
    uptake_s: float | None = None
    withheld: bool = False

    def without_person(self) -> "SuvScale":
        """The same without weight and times; the factor stays for the arithmetic, untold."""
        return SuvScale(self.factor, self.stored_unit, self.by, withheld=True)


@dataclass(frozen=True)
class Source(str):
    """The origin of a volume; stands in ``MetaTensor.meta["source"]``.

    It is a text, its path: of all that ``meta`` can hold, MONAI's loader and the collation of
    batches let nothing pass but numbers and texts.

    Attributes:
        path: the file or folder that was named.
        format: how it was stored.
        modality: DICOM Modality (CT, MR, NM, PT), or "" where the file does not say.
        shape: voxels along i, j, k as stored, before any step of ours.
        spacing_mm: their spacing.
        units: what a value means: HU, BQML, SUVBW, counts, or "".
        series_uid: SeriesInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID.
        patient_key: a one-way hash of PatientID, equal for equal patients; never the ID itself.
        selection: why this series was taken, in words.
        warnings: what the reader noticed and went on with.
        headers: the DICOM headers without pixels, one per slice (or one multi-frame file), in the
            order of the slices; never printed.
        suv: what makes SUV by body weight of a PET value as stored; None where the headers do not
            allow it.
        moved: whether a transform carried the voxels out of the frame that ``headers`` speak of;
            ``frame_of_reference_uid`` is then that of where they lie now, None if not known.
        unseen: where slices were lost and interpolated on demand, in the source's own frame.
    """

    path: Path
    format: Format = field()  # type: ignore[assignment]  # hides str.format
    modality: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    units: str = ""
    series_uid: str | None = None
    frame_of_reference_uid: str | None = None
    patient_key: str | None = None
    selection: str = ""
    warnings: tuple[str, ...] = ()
    headers: "tuple[pydicom.Dataset, ...]" = field(default=(), repr=False)
    suv: SuvScale | None = None
    moved: bool = False
    unseen: tuple[Slab, ...] = ()

    def __new__(cls, path: str | Path, *_: Any, **__: Any) -> Self:
        """The text alone; the fields follow."""
        return super().__new__(cls, path)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Source":
        """Itself: MONAI copies ``meta`` at every operation, and this never changes."""
        return self

    @property
    def study(self) -> StudyId | None:
        """The DICOM study it belongs to; None where the file has none."""
        header = self.headers[0] if self.headers else None
        uid = str(header.get("StudyInstanceUID") or "") if header is not None else ""
        if header is None or not uid:
            return None
        day = None
        with suppress(ValueError):  # a damaged or missing date is no date
            day = datetime.strptime(str(header.get("StudyDate") or ""), "%Y%m%d").date()
        return StudyId(uid, day)

    def with_warnings(self, *warnings: str) -> "Source":
        """A copy with ``warnings`` added."""
        return replace(self, warnings=self.warnings + warnings)


def source_of(volume: "MetaTensor") -> Source | None:
    """The origin of ``volume``, or None for one that was made in memory."""
    source: Source | None = volume.meta.get(SOURCE_KEY)
    return source


def modality_of(volume: "MetaTensor") -> str:
    """The DICOM modality that the file states, else that of the role it was loaded for, else ""."""
    source = source_of(volume)
    stated = source.modality if source is not None else ""
    role = ROLES.get(str(volume.meta.get("role", "")))
    return stated or (role.modality if role else "")
