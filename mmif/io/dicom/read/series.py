"""The DICOM series under a path: which there are, what each is good for, and which one is meant.

Files are judged by content, never by name. The rules by which a series is chosen for a role, in
this order; the first one that leaves a single series decides:

1. modality: CT for ct, MR for mri, NM for spect, PT for pet;
2. usable: slices with a place in the patient that form one volume of grey values;
3. image type: original before derived images;
4. attenuation correction: corrected before uncorrected activity;
5. orientation: axial before other planes, unless another is more than twice as fine;
6. number of slices: one with at least 1.5 times those of every other;
7. volume covered: one with at least 1.5 times that of every other.

Phase images, parameter maps, projections and transmission maps have no role. Nothing is chosen
across patients, or across studies of several days.

Where they leave several, nothing is guessed: the choice is the user's, by SeriesInstanceUID.
This module needs neither torch nor MONAI.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pydicom

from mmif.errors import GeometryError, InputError, MmifError
from mmif.geometry import spacing_mm
from mmif.io.archive import unpack
from mmif.io.dicom.read.frames import (
    LABEL_KEYWORDS,
    MAX_FRAMES,
    Frame,
    check_is_volume_image,
    frames_of,
    lacks_pixels,
    sop_class_name,
)
from mmif.io.dicom.read.geometry import (
    PHASE,
    Placement,
    Stack,
    chosen,
    place,
    plane_name,
    stacks,
)
from mmif.io.dicom.read.headers import (
    Header,
    clean,
    collector_paused,
    integer,
    is_directory,
    named,
    one_line,
    patient_key,
    quiet,
    read_header,
    text,
    words,
)
from mmif.io.dicom.read.pixels import is_colour, pixel_format, units_of
from mmif.io.files import FoundFile, IgnoredFile, detect_format, foreign_content, require_path, walk
from mmif.roles import ROLES, VOLUME_ROLES

CLEARLY_MORE = 1.5
"""By which factor a series must lead in slices or volume to be chosen for it."""

KEPT_HEADERS = 5_000
"""Files up to which complete headers are kept while a tree is looked through."""

_LOOKED_AT = (
    *LABEL_KEYWORDS,
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "ImageType",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "SamplesPerPixel",
    "PixelRepresentation",
    "PixelSpacing",
    "PhotometricInterpretation",
    "RescaleType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "CorrectedImage",
    "StudyDate",
    "SpacingBetweenSlices",
    "DetectorInformationSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SliceVector",
    "EnergyWindowVector",
    "TimeSlotVector",
    "PhaseVector",
)


@dataclass(frozen=True)
class SeriesInfo:
    """What is known of one series without its pixels.

    Attributes:
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        patient_key: a one-way hash of PatientID, None where there is none.
        modality: Modality (CT, MR, NM, PT, ...).
        description: SeriesDescription.
        number: SeriesNumber.
        object_name: the name of the SOP class.
        slices: slices of its volume; images, where they form none.
        matrix: columns and rows.
        spacing_mm: along columns, rows and slices; None where they form no volume.
        orientation: axial, coronal or sagittal, with "oblique" before it; "" where unknown.
        image_type: ImageType.
        colour: whether its pixels are colours.
        roles: what it can be used for.
        reason: why it is not usable; "" where it is.
        warnings: what reading it would note.
        files: its files, by the name to show.
        frame_of_reference_uid: FrameOfReferenceUID.
        volume_ml: what its volume covers.
        study_date: StudyDate.
        attenuation_corrected: whether CorrectedImage names ATTN.
    """

    uid: str
    study_uid: str
    patient_key: str | None
    modality: str
    description: str
    number: int | None
    object_name: str
    slices: int
    matrix: tuple[int, int] | None
    spacing_mm: tuple[float, float, float] | None
    orientation: str
    image_type: tuple[str, ...]
    colour: bool
    roles: tuple[str, ...]
    reason: str
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    frame_of_reference_uid: str | None
    volume_ml: float
    study_date: str = ""
    attenuation_corrected: bool = False

    def line(self) -> str:
        """One line that tells it from others: UID, modality, slices, description, size, spacing."""
        size = f", {self.matrix[0]} x {self.matrix[1]}" if self.matrix else ""
        if self.spacing_mm:
            size += f", {' x '.join(f'{step:.4g}' for step in self.spacing_mm)} mm"
        return f"{self.uid} ({self.modality} {self.slices} slices {self.description!r}{size})"


@dataclass(frozen=True)
class Series:
    """The files of one series, in the order they were found.

    Attributes:
        uid: SeriesInstanceUID.
        files, headers: one of each for a file.
        complete: whether the headers hold every attribute.
        damaged_beside: files in its folders that may have been slices of it.
    """

    uid: str
    files: tuple[FoundFile, ...]
    headers: tuple[Header, ...]
    complete: bool
    damaged_beside: int = 0

    def completed(self) -> "Series":
        """The same with complete headers."""
        if self.complete:
            return self
        headers = tuple(read_header(file.path, file.name) for file in self.files)
        return replace(self, headers=headers, complete=True)

    @cached_property
    def stacks(self) -> tuple[list[Stack], tuple[str, ...]]:
        """Its volumes, the largest first, and what was noticed.

        Raises:
            MmifError: the images are no slices, or form no volumes.
        """
        frames: list[Frame] = []
        left_out: list[str] = []
        empty = sum(map(lacks_pixels, self.headers))
        if empty:
            total = len(self.headers)
            raise InputError(f"{empty} of {total} images are without pixel data (truncated?)")
        for number, header in enumerate(self.headers):
            try:
                frames += frames_of(header, number)
            except InputError as error:
                left_out.append(str(error))
            if len(frames) > MAX_FRAMES:
                raise InputError(f"more than {MAX_FRAMES} images in one series")
        if not frames or 2 * len(left_out) > len(self.headers):
            raise InputError(left_out[0])
        datasets = [self.headers[n].dataset for n in {frame.file for frame in frames}]
        _check_nothing_is_gone(self.files)
        place_notes = _check_is_one_place(datasets)
        _check_is_whole(datasets)
        try:
            found, notes = stacks(frames)
        except GeometryError:
            once = self._without_equal_pixels(frames)
            if len(once) == len(frames):
                raise
            found, notes = stacks(once)
            notes += (f"{len(frames) - len(once)} identical copies of images were left out",)
        notes += place_notes
        if left_out:
            notes += (f"{len(left_out)} images of the series left out: {left_out[0]}",)
        if self.damaged_beside and len(self.files) > 1:
            notes += (
                f"{self.damaged_beside} files beside the series could not be read; "
                "slices may be missing at its ends",
            )
        return found, notes

    def _without_equal_pixels(self, frames: list[Frame]) -> list[Frame]:
        """``frames`` of single-frame files without those equal in place and pixels to another."""
        if any(_frame_count(header.dataset) > 1 for header in self.headers):
            return frames
        known: set[tuple[object, ...]] = set()
        once = []
        for frame in frames:
            with self.files[frame.file].path.open("rb") as file:
                file.seek(self.headers[frame.file].pixel_offset or 0)
                digest = hashlib.sha256(file.read()).digest()
            key = (frame.position_lps, frame.row_lps, frame.column_lps, frame.size, digest)
            if key not in known:
                known.add(key)
                once.append(frame)
        return once

    def volume(self, frame: int | None = None) -> tuple[Stack, Placement, tuple[str, ...]]:
        """The volume to read: its slices, where they go, and what was noticed.

        Raises:
            MmifError: there is none, or no clear choice.
        """
        found, notes = self.stacks
        stack, choice = chosen(found, frame)
        placement = place(stack)
        return stack, placement, (*notes, *choice, *placement.warnings)


def _check_nothing_is_gone(files: Sequence[FoundFile]) -> None:
    """Refuse a series beside which links lead nowhere: they may have been slices of it.

    Raises:
        InputError: how many.
    """
    folders = {file.path.parent for file in files}
    dead = sum(p.is_symlink() and not p.exists() for folder in folders for p in folder.iterdir())
    if dead:
        raise InputError(f"{dead} dead links beside the slices; slices are missing")


def _check_is_one_place(datasets: Sequence[pydicom.Dataset]) -> tuple[str, ...]:
    """Refuse slices that share a SeriesInstanceUID by mistake; the values themselves stay unsaid.

    Returns:
        What was noticed.

    Raises:
        InputError: they are of several patients, modalities, or frames of reference.
    """
    patients = {text(dataset, "PatientID") for dataset in datasets} - {""}
    if len(patients) > 1:
        raise InputError(f"{len(patients)} PatientIDs in one series; expected one")
    modalities = Counter(text(dataset, "Modality") for dataset in datasets)
    if len(modalities) > 1:
        rare = modalities.most_common()[-1][0]
        odd = next(dataset for dataset in datasets if text(dataset, "Modality") == rare)
        raise InputError(
            f"Modality {_plain(rare)} at {_plain(text(odd, 'ImagePositionPatient'))} "
            f"among {_plain(modalities.most_common()[0][0])} images of one series; "
            "expected one modality"
        )
    frames = {text(dataset, "FrameOfReferenceUID") for dataset in datasets} - {""}
    if 1 < len(frames) == len(datasets):  # an anonymiser's fault
        return ("every slice has a FrameOfReferenceUID of its own; read as one volume",)
    if len(frames) > 1:
        raise InputError(f"{len(frames)} frames of reference in one series; expected one")
    return ()


def _check_is_whole(datasets: Sequence[pydicom.Dataset]) -> None:
    """Refuse a concatenation (one multi-frame object in several files) of which parts are missing.

    Raises:
        InputError: which parts there are.
    """
    parts: dict[str, set[int]] = defaultdict(set)
    totals: dict[str, int] = defaultdict(int)
    for dataset in datasets:
        if uid := text(dataset, "ConcatenationUID"):
            number = integer(dataset, "InConcatenationNumber") or 1
            parts[uid].add(number)
            total = integer(dataset, "InConcatenationTotalNumber") or 0
            totals[uid] = max(totals[uid], total, number)
    for uid, found in parts.items():
        if len(found) < totals[uid]:
            raise InputError(
                f"{len(found)} of {totals[uid]} parts of a concatenation; expected all"
            )


@dataclass(frozen=True)
class Scan:
    """What was found under a path."""

    path: Path
    series: tuple[Series, ...]
    ignored: tuple[IgnoredFile, ...]
    volumes: tuple[FoundFile, ...]


def find_series(path: str | Path) -> list[SeriesInfo]:
    """Every DICOM series under ``path``: a file, a folder of any depth, or a zip.

    Raises:
        InputError: nothing is there, or it cannot be looked through.
    """
    with scanned(path) as scan:
        return [describe(series) for series in scan.series]


def series_among(files: Iterable[Path], where: Path) -> list[SeriesInfo]:
    """Every DICOM series that ``files`` hold; ``where`` is what they have in common."""
    found = [FoundFile(path, str(path)) for path in files]
    return [describe(series) for series in _scan(where, found, complete=False).series]


@contextmanager
def scanned(path: str | Path, complete: bool = False) -> Iterator[Scan]:
    """Everything under ``path``, judged by content; a zip stays unpacked while inside.

    A DICOMDIR stands for its folder. A single-frame file, and a part of a concatenation, stands
    for its series in its folder.

    Args:
        path: a file, a folder or a zip.
        complete: keep complete headers, where the files are not too many.

    Raises:
        InputError: nothing is there, or it cannot be looked through.
    """
    root = require_path(path)
    kind = None if root.is_dir() else detect_format(root)
    with ExitStack() as stack:
        stack.enter_context(quiet)
        stack.enter_context(collector_paused)
        if kind is None:
            scan = _scan(root, list(walk(root)), complete)
        elif kind == "zip":
            scan = _scan(root, stack.enter_context(unpack(root)), complete)
        elif kind == "dicom":
            scan = _scan_of_file(root, complete)
        else:
            scan = _scan(root, [FoundFile(root, str(root))], complete)
        yield scan


def _scan_of_file(path: Path, complete: bool) -> Scan:
    """The series for which one DICOM file stands."""
    header = read_header(path)
    if is_directory(header.dataset):
        return _scan(path, list(walk(path.parent)), complete)
    with named(str(path)):
        part = text(header.dataset, "ConcatenationUID") != ""
        alone = (integer(header.dataset, "NumberOfFrames") or 1) > 1 and not part
        if not alone:
            check_is_volume_image(header)
    if alone:
        return _scan(path, [FoundFile(path, str(path))], complete)
    try:
        beside = [FoundFile(p, str(p)) for p in sorted(path.parent.iterdir()) if p.is_file()]
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be read ({error.strerror})") from error
    scan = _scan(path, beside, complete)
    uid = _series_key(header, FoundFile(path, str(path)))
    return replace(scan, series=tuple(s for s in scan.series if s.uid == uid), volumes=())


def _scan(root: Path, files: Sequence[FoundFile], complete: bool) -> Scan:
    """Sort ``files`` into series, volumes of other formats, and the rest with reasons."""
    complete = complete and len(files) <= KEPT_HEADERS
    only = () if complete else _LOOKED_AT
    groups: dict[str, list[tuple[FoundFile, Header]]] = defaultdict(list)
    ignored: list[IgnoredFile] = []
    damaged: Counter[Path] = Counter()
    volumes: list[FoundFile] = []
    for file in files:
        try:
            kind = detect_format(file.path)
            damaged[_folder(file)] += kind == "empty"
            if kind == "dicom":
                header = read_header(file.path, file.name, only)
                if is_directory(header.dataset):
                    ignored.append(IgnoredFile(file.name, "a DICOMDIR; files are found by content"))
                    continue
                groups[_series_key(header, file)].append((file, header))
                damaged[_folder(file)] += lacks_pixels(header) or _is_cut_short(header)
            elif kind in {"nifti", "itk", "mgh"}:
                volumes.append(file)
            else:
                reason = foreign_content(file.path) if kind == "other" else ""
                ignored.append(IgnoredFile(file.name, reason or _REASONS[kind]))
        except MmifError as error:
            reason = str(error).removeprefix(f"{file.name}: ")
            ignored.append(IgnoredFile(file.name, reason))
            damaged[_folder(file)] += 1
    series = tuple(
        Series(
            uid,
            tuple(file for file, _ in found),
            tuple(header for _, header in found),
            complete,
            sum(damaged[folder] for folder in {_folder(file) for file, _ in found}),
        )
        for uid, found in sorted(groups.items())
    )
    return Scan(root, series, tuple(ignored), tuple(volumes))


_REASONS: dict[str, str] = {
    "empty": "empty",
    "other": "neither DICOM, NIfTI, MetaImage nor NRRD",
    "analyze": "Analyze 7.5: it has no orientation",
    "zip": "an archive inside; name it itself",
}


def _series_key(header: Header, file: FoundFile) -> str:
    """SeriesInstanceUID; the modality and the folder's name where a file has none."""
    uid = text(header.dataset, "SeriesInstanceUID")
    if uid:
        return clean(uid)
    modality = _plain(text(header.dataset, "Modality"))
    of = f" of modality {modality}" if modality else ""
    return f"without SeriesInstanceUID{of} in {_folder(file)}"


def _plain(label: str) -> str:
    """A short attribute for a message: printable ASCII, at most 60 characters."""
    return "".join(letter for letter in label if " " <= letter <= "~")[:60]


def _is_cut_short(header: Header) -> bool:
    """Whether a file ends before it says which series it belongs to."""
    return header.pixel_offset is None and "SeriesInstanceUID" not in header.dataset


def _folder(file: FoundFile) -> Path:
    """The folder of a file, by the name to show."""
    return Path(file.name).parent


def describe(series: Series, frame: int | None = None) -> SeriesInfo:
    """What is known of ``series``, or of its volume number ``frame``, without its pixels."""
    try:
        return _described(series, frame)
    except MmifError as error:
        first = series.headers[0].dataset
        return SeriesInfo(
            series.uid,
            "",
            None,
            "",
            "",
            None,
            sop_class_name(first),
            len(series.files),
            None,
            None,
            "",
            (),
            False,
            (),
            one_line(error, 400),
            (),
            _names(series),
            None,
            0.0,
        )


def _described(series: Series, frame: int | None) -> SeriesInfo:
    """As `describe`, for headers whose common attributes can be read."""
    header = _typical(series)
    dataset = header.dataset
    modality = "".join(words(dataset, "Modality")[:1])[:16]
    modality = modality if modality.isascii() and modality.isprintable() else ""
    info = SeriesInfo(
        uid=series.uid,
        study_uid=text(dataset, "StudyInstanceUID"),
        patient_key=patient_key(dataset),
        modality=modality,
        description=text(dataset, "SeriesDescription"),
        number=_series_number(dataset),
        object_name=sop_class_name(dataset),
        slices=sum(_frame_count(h.dataset) for h in series.headers),
        matrix=None,
        spacing_mm=None,
        orientation="",
        image_type=words(dataset, "ImageType"),
        colour=is_colour(dataset),
        roles=(),
        reason="",
        warnings=(),
        files=_names(series),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID") or None,
        volume_ml=0.0,
        study_date=text(dataset, "StudyDate"),
        attenuation_corrected="ATTN" in words(dataset, "CorrectedImage"),
    )
    try:
        stack, placement, notes = series.volume(frame)
        for number in {frame.file for frame in stack.frames[:1]}:
            pixel_format(series.headers[number].dataset)
        unit = units_of(dataset) if modality == "CT" else ""
    except MmifError as error:
        return replace(info, reason=one_line(error, 400))
    info = _with_volume(info, stack, placement, notes)
    if unit not in {"HU", ""} and not info.colour:
        reason = f"a map of {unit} made from a CT, not HU; no source for a role"
        return replace(info, roles=(), reason=reason)
    return info


def _with_volume(
    info: SeriesInfo, stack: Stack, placement: Placement, notes: tuple[str, ...]
) -> SeriesInfo:
    """``info`` completed with the volume that its slices form, and its roles."""
    x, y, z = spacing_mm(placement.affine_ras)
    columns, rows, slices = placement.shape
    roles = tuple(role for role in VOLUME_ROLES if ROLES[role].modality == info.modality)
    reason = "" if roles else f"modality {info.modality or 'unknown'} has no role"
    if info.object_name in _WITHOUT_UNITS:
        roles, reason = (), f"{info.object_name}: values without a unit; no source for a role"
    if info.colour:
        roles, reason = (), "colour, not grey values; no source for a role"
    if roles and (what := _auxiliary(info, stack)):
        roles, reason = (), f"{what}, not the image itself; no source for a role"
    return replace(
        info,
        slices=len(stack.frames),
        matrix=stack.frames[0].size,
        spacing_mm=(x, y, z),
        orientation=plane_name(stack.frames[0]),
        roles=roles,
        reason=reason,
        warnings=notes,
        volume_ml=x * y * z * columns * rows * slices / 1000,
    )


def _auxiliary(info: SeriesInfo, stack: Stack) -> str:
    """What a series is where it is no image of anatomy or activity; "" where it is one."""
    kinds = {
        part.strip() for part in stack.frames[0].labels.get("ImageType", "").upper().split("\\")[2:]
    } | set(info.image_type[2:])
    if info.modality == "MR" and not kinds.isdisjoint(PHASE) and "M" not in kinds:
        return "a phase, real or imaginary image"
    if info.modality == "NM" and "TRANSMISSION" in kinds:
        return "a transmission (attenuation) map"
    found = sorted(kinds & _AUXILIARY)
    return f"a derived image of type {found[0]}" if found else ""


_AUXILIARY = frozenset(
    {"ADC", "FA", "TRACEW", "MAP", "B0", "B1", "T1_MAP", "T2_MAP", "T2_STAR_MAP", "MTT", "CBF"}
    | {"CBV", "RCBF", "RCBV", "TTP", "TMAX", "PERFUSION", "SUBTRACTION", "SUB", "MIP", "MINIP"}
    | {"PROJECTION", "SCOUT", "ATTENUATION", "SCATTER"}
) | {"ADC MAP", "FIELD MAP", "B0 MAP", "B1 MAP", "T1 MAP", "T2 MAP", "FA MAP", "PROJECTION IMAGE"}
"""Values of ImageType after the second that scanners and workstations give to maps."""


_WITHOUT_UNITS = frozenset(
    {
        "Secondary Capture Image Storage",
        "Multi-frame Grayscale Byte Secondary Capture Image Storage",
        "Multi-frame Grayscale Word Secondary Capture Image Storage",
    }
)


def _typical(series: Series) -> Header:
    """The first header that is a volume image; the first of all where none is."""
    for header in series.headers:
        try:
            check_is_volume_image(header)
        except MmifError:
            continue
        return header
    return series.headers[0]


def _names(series: Series) -> tuple[Path, ...]:
    """The files of a series, by the name to show."""
    return tuple(Path(file.name) for file in series.files)


def _series_number(dataset: pydicom.Dataset) -> int | None:
    """SeriesNumber, None where it is absent or no number."""
    try:
        return integer(dataset, "SeriesNumber")
    except MmifError:
        return None


def _frame_count(dataset: pydicom.Dataset) -> int:
    """Frames of a file, 1 where it does not say."""
    try:
        return integer(dataset, "NumberOfFrames") or 1
    except MmifError:
        return 1


def select(
    infos: Sequence[SeriesInfo], where: Path, role: str | None, series_uid: str | None
) -> tuple[SeriesInfo, str]:
    """The series that is meant, and why, in words.

    Args:
        infos: what was found.
        where: the path that was named, for messages.
        role: ct, mri, spect or pet; None for any volume.
        series_uid: the user's own choice, or None.

    Raises:
        InputError: none fits, or several fit equally.
    """
    if not infos:
        raise InputError(f"{where}: no DICOM series found")
    if series_uid is not None:
        return _by_uid(infos, where, role, series_uid)
    usable = [info for info in infos if (role in info.roles if role else _is_volume(info))]
    _check_one_patient_and_day(infos, usable, where)
    if not usable:
        wanted = f"{ROLES[role].modality} series usable as {role}" if role else "usable series"
        raise InputError(f"{where}: no {wanted}; found {_listed(infos)}")
    said = f"{len(usable)} of {len(infos)} series usable as {role or 'a volume'}"
    left = usable
    for name, rule in _RULES:
        if len(left) == 1:
            break
        better = rule(left)
        if len(better) < len(left):
            said += f"; {name} left {len(better)}"
            left = better
    if len(left) > 1:
        lines = "; ".join(info.line() for info in left)
        raise InputError(
            f"{where}: {len(left)} series fit equally: {lines}; choose one with --series-uid"
        )
    return left[0], f"{said}: {left[0].line()}"


def _check_one_patient_and_day(
    infos: Sequence[SeriesInfo], usable: Sequence[SeriesInfo], where: Path
) -> None:
    """Refuse to choose across patients, or across studies of several days.

    Raises:
        InputError: how many there are, and their series.
    """
    patients = {info.patient_key for info in infos} - {None}
    if len(patients) > 1:
        raise InputError(
            f"{where}: {len(patients)} patients; expected one: {_lines(infos)}; "
            "choose one with --series-uid"
        )
    days = {(info.study_uid, info.study_date) for info in usable}
    if len({study for study, _ in days}) > 1 and len({day for _, day in days}) > 1:
        raise InputError(
            f"{where}: {len(days)} studies of several days; expected one: {_lines(usable)}; "
            "choose one with --series-uid"
        )


def _lines(infos: Sequence[SeriesInfo]) -> str:
    """The first series, a line each, on one line."""
    more = f"; and {len(infos) - 6} more" if len(infos) > 6 else ""
    return "; ".join(info.line() for info in infos[:6]) + more


def _by_uid(
    infos: Sequence[SeriesInfo], where: Path, role: str | None, series_uid: str
) -> tuple[SeriesInfo, str]:
    """The series that the user named."""
    for info in infos:
        if info.uid == series_uid:
            if not _is_volume(info):
                raise InputError(f"{where}: series {series_uid} is not usable: {info.reason}")
            check_modality(info, where, role)
            return info, f"named by its SeriesInstanceUID: {info.line()}"
    known = "; ".join(info.line() for info in infos)
    raise InputError(f"{where}: no series {series_uid}; found {known}")


def check_modality(info: SeriesInfo, where: Path, role: str | None) -> None:
    """Refuse a series of plainly another modality, or of colours, for a role.

    Raises:
        InputError: what it is and what was expected.
    """
    if role is None:
        return
    if info.colour:
        raise InputError(f"{where}: series {info.uid} holds colours; expected grey values")
    known = {ROLES[one].modality for one in VOLUME_ROLES}
    wanted = ROLES[role].modality
    if info.modality in known and info.modality != wanted:
        raise InputError(
            f"{where}: modality {info.modality}; expected {wanted} for the {role} source"
        )


def _is_volume(info: SeriesInfo) -> bool:
    """Whether a series can be read as a volume."""
    return info.spacing_mm is not None


def _listed(infos: Iterable[SeriesInfo]) -> str:
    """Series and why they do not fit, on one line."""
    said = [f"{i.line()}: {i.reason or 'usable as ' + ', '.join(i.roles)}" for i in infos]
    more = f"; and {len(said) - 6} more" if len(said) > 6 else ""
    return "; ".join(said[:6]) + more


def _original(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Original images, where there are any."""
    return [i for i in infos if i.image_type[:1] == ("ORIGINAL",)] or infos


def _axial(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Axial series, where there are any; not before a volume that is far finer."""
    axial = [i for i in infos if i.orientation.endswith("axial")]
    if not axial:
        return infos
    finest = min(max(i.spacing_mm or (0.0,)) for i in infos)
    return axial if min(max(i.spacing_mm or (0.0,)) for i in axial) <= 2 * finest else infos


def _corrected(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Series corrected for attenuation, where there are any."""
    return [i for i in infos if i.attenuation_corrected] or infos


def _leading(
    measure: Callable[[SeriesInfo], float],
) -> Callable[[list[SeriesInfo]], list[SeriesInfo]]:
    """A rule that keeps the one series that leads clearly in ``measure``, if one does."""

    def rule(infos: list[SeriesInfo]) -> list[SeriesInfo]:
        ranked = sorted(infos, key=measure, reverse=True)
        clear = measure(ranked[0]) >= CLEARLY_MORE * measure(ranked[1])
        return ranked[:1] if clear else infos

    return rule


_RULES: tuple[tuple[str, Callable[[list[SeriesInfo]], list[SeriesInfo]]], ...] = (
    ("image type (original)", _original),
    ("attenuation correction", _corrected),
    ("orientation (axial)", _axial),
    ("number of slices", _leading(lambda info: info.slices)),
    ("volume covered", _leading(lambda info: info.volume_ml)),
)
