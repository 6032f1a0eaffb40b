"""The DICOM series under a path: which there are, and what each is good for.

Files are judged by content, never by name.
This module needs neither torch nor MONAI.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pydicom
from pydicom.tag import BaseTag

from mmif.errors import GeometryError, InputError, MmifError, quote
from mmif.geometry import spacing_mm
from mmif.io.archive import Gunzip, unpack
from mmif.io.dicom.read.agreement import (
    AGREEMENT_KEYWORDS,
    check_no_conflict,
    check_no_holes,
    check_nothing_gone,
    check_one_place,
    check_one_scale,
    check_whole,
    count_notes,
    pixel_digest,
)
from mmif.io.dicom.read.auxiliary import (
    NO_ACTIVITY,
    SCATTER,
    is_attenuation_corrected,
    is_scatter_window,
    map_of,
    named_auxiliary,
)
from mmif.io.dicom.read.frames import (
    MAX_FRAMES,
    Frame,
    check_is_volume_image,
    frames_of,
    lacks_pixels,
    sop_class_name,
)
from mmif.io.dicom.read.geometry import Placement, Stack, fit_grid, plane_name
from mmif.io.dicom.read.headers import (
    Header,
    clean,
    code_strings,
    collector_paused,
    description,
    integer,
    is_directory,
    items,
    one_line,
    patient_key,
    person_key,
    prefix_errors,
    quiet,
    read_header,
    short_ascii,
    text,
)
from mmif.io.dicom.read.labels import LABEL_KEYWORDS, NM_COUNTS, PRIVATE_TAGS
from mmif.io.dicom.read.nuclear import SCALE_TAGS, modality_code, nuclear_notes
from mmif.io.dicom.read.pixels import is_colour, pixel_format, units_of
from mmif.io.dicom.read.split import is_phase, select_volume, split_volumes
from mmif.io.files import (
    DAMAGED_DICOM,
    FoundFile,
    IgnoredFile,
    detect_format,
    foreign_content,
    is_data,
    is_dead_link,
    require_path,
    walk,
)
from mmif.roles import ACTIVITY_ROLES, ROLES, VOLUME_ROLES

KEPT_HEADERS = 5_000
"""Files up to which complete headers are kept while a tree is looked through."""

_LOOKED_AT: tuple[str | BaseTag, ...] = (
    *LABEL_KEYWORDS,
    *PRIVATE_TAGS,
    *SCALE_TAGS,
    *AGREEMENT_KEYWORDS,
    "Manufacturer",
    "SequenceName",
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
    "AttenuationCorrectionMethod",
    "PatientName",
    "PatientBirthDate",
    "StudyDate",
    "SpacingBetweenSlices",
    "DetectorInformationSequence",
    "EnergyWindowInformationSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *NM_COUNTS,
    "SliceVector",
    "EnergyWindowVector",
    "TimeSlotVector",
    "PhaseVector",
    "DetectorVector",
    "RRIntervalVector",
    "TimeSliceVector",
    "RotationVector",
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
        attenuation_corrected: whether activity is corrected; None where nothing says it.
        auxiliary: what its description says it is, where that is no anatomy or activity.
        person_key: a one-way hash of PatientName and birth date, None where there are none.
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
    attenuation_corrected: bool | None = None
    auxiliary: str = ""
    person_key: str | None = None

    def line(self) -> str:
        """One line that tells it from others: UID, modality, slices, description, size, spacing."""
        size = f", {self.matrix[0]} x {self.matrix[1]}" if self.matrix else ""
        if self.spacing_mm:
            size += f", {' x '.join(f'{step:.4g}' for step in self.spacing_mm)} mm"
        return f"{self.uid} ({self.modality} {self.slices} slices {quote(self.description)}{size})"


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

    def with_complete_headers(self) -> "Series":
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
        frames, left_out = self._frames()
        datasets = [self.headers[n].dataset for n in {frame.file for frame in frames}]
        check_nothing_gone(self.files)
        place_notes = check_one_place(datasets)
        check_whole(datasets)
        check_no_conflict(frames, self.files, self.headers)
        try:
            found, notes = split_volumes(frames)
        except GeometryError as error:
            # archives send a slice twice under a new UID; only the pixels say that it is the same
            once = self._without_equal_pixels(frames)
            if len(once) == len(frames):
                several = self._multi_frame_files()
                way = f"; {several} multi-frame objects: name the file of one" * (several > 1)
                raise InputError(self._name(f"{error}{way}")) from error
            found, notes = split_volumes(once)
            notes += (f"{len(frames) - len(once)} identical copies of images were left out",)
        notes += place_notes
        packed = sum(file.name.lower().endswith(".gz") for file in self.files)
        if packed:
            notes += (f"{packed} of {len(self.files)} files were packed with gzip",)
        if left_out:
            notes += (f"{len(left_out)} images of the series left out: {left_out[0]}",)
        if self.damaged_beside and len(self.files) > 1:
            notes += (
                f"{self.damaged_beside} files beside the series could not be read; "
                "slices may be missing at its ends",
            )
        return found, notes

    def _frames(self) -> tuple[list[Frame], list[str]]:
        """Its images, and why others are none.

        Raises:
            InputError: images without pixels, too many, or hardly any with a place.
        """
        empty, total = sum(map(lacks_pixels, self.headers)), len(self.headers)
        if empty:
            raise InputError(f"{empty} of {total} images are without pixel data (truncated?)")
        frames: list[Frame] = []
        left_out: list[str] = []
        for number, header in enumerate(self.headers):
            try:
                frames += frames_of(header, number)
            except InputError as error:
                left_out.append(str(error))
            if len(frames) > MAX_FRAMES:
                raise InputError(f"more than {MAX_FRAMES} images in one series")
        # a few images without a place are localisers or screenshots; most of them are the series
        if not frames or 2 * len(left_out) > total:
            raise InputError(left_out[0])
        return frames, left_out

    def _multi_frame_files(self) -> int:
        """How many of its files hold several frames."""
        return sum(frame_count(header.dataset) > 1 for header in self.headers)

    def _without_equal_pixels(self, frames: list[Frame]) -> list[Frame]:
        """``frames`` of single-frame files without those equal in place and pixels to another."""
        if self._multi_frame_files() > 0:
            return frames
        known: set[tuple[object, ...]] = set()
        once = []
        for frame in frames:
            digest = pixel_digest(self.files[frame.file], self.headers[frame.file])
            key = (frame.position_lps, frame.row_lps, frame.column_lps, frame.size, digest)
            if key not in known:
                known.add(key)
                once.append(frame)
        return once

    def volume(
        self, frame: int | None = None, fill_gaps: bool = False
    ) -> tuple[Stack, Placement, tuple[str, ...]]:
        """The volume to read: its slices, where they go, and what was noticed.

        Args:
            frame: which of several; None for the one that is meant.
            fill_gaps: put a lost slice between its two neighbours, instead of refusing.

        Raises:
            MmifError: there is none, or no clear choice.
        """
        found, notes = self.stacks
        stack, choice = select_volume(found, frame)
        check_no_holes(stack.frames, self.headers, 0 if fill_gaps else self.damaged_beside)
        datasets = [self.headers[n].dataset for n in {frame.file for frame in stack.frames}]
        scale = check_one_scale(datasets)
        try:
            placement = fit_grid(stack, fill_gaps)
        except GeometryError as error:
            raise GeometryError(self._name("; ".join((str(error), *choice)))) from error
        every = [frame for other in found for frame in other.frames]
        counts = count_notes(stack.frames, every, self.headers)
        notes += (*choice, *nuclear_notes(self.headers[stack.frames[0].file].dataset))
        return stack, placement, (*notes, *counts, *scale, *placement.warnings)

    def _name(self, reason: str) -> str:
        """``reason``, with what its description says of a series that forms no volume."""
        dataset = self.headers[0].dataset
        what = named_auxiliary(description(dataset), modality_code(dataset))
        return f"{what}, not a volume: {reason}" if what else reason


@dataclass(frozen=True)
class FileIndex:
    """What was found under a path."""

    path: Path
    series: tuple[Series, ...]
    ignored: tuple[IgnoredFile, ...]
    volumes: tuple[FoundFile, ...]


def find_series(path: str | Path, fill_gaps: bool = False) -> list[SeriesInfo]:
    """Every DICOM series under ``path``: a file, a folder of any depth, or a zip.

    ``fill_gaps``: a lost slice is no reason against a series.

    Raises:
        InputError: nothing is there, or it cannot be looked through.
    """
    with index_files(path) as scan:
        return [describe(series, fill_gaps=fill_gaps) for series in scan.series]


def series_among(files: Iterable[Path], where: Path, fill_gaps: bool = False) -> list[SeriesInfo]:
    """Every DICOM series that ``files`` hold; ``where`` is what they have in common."""
    found = [FoundFile(path, str(path)) for path in files]
    with Gunzip() as gunzip:
        scan = _scan(where, found, False, gunzip)
        return [describe(series, fill_gaps=fill_gaps) for series in scan.series]


@contextmanager
def index_files(path: str | Path, complete: bool = False) -> Iterator[FileIndex]:
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
        gunzip = stack.enter_context(Gunzip())
        if kind is None:
            scan = _scan(root, list(walk(root)), complete, gunzip)
        elif kind == "zip":
            scan = _scan(root, stack.enter_context(unpack(root)), complete, gunzip)
        elif kind in {"dicom", "packed"}:
            scan = _scan_of_file(root, complete, gunzip)
        else:
            scan = _scan(root, [FoundFile(root, str(root))], complete, gunzip)
        yield scan


def _scan_of_file(path: Path, complete: bool, gunzip: Gunzip) -> FileIndex:
    """The series for which one DICOM file stands."""
    found = FoundFile(path, str(path))
    header = read_header(
        (gunzip(found) if detect_format(path) == "packed" else found).path, str(path)
    )
    if is_directory(header.dataset):
        return _scan(path, list(walk(path.parent)), complete, gunzip)
    with prefix_errors(str(path)):
        part = text(header.dataset, "ConcatenationUID") != ""
        alone = (integer(header.dataset, "NumberOfFrames") or 1) > 1 and not part
        if not alone:
            check_is_volume_image(header)
    if alone:
        return _scan(path, [found], complete, gunzip)
    try:
        beside = [FoundFile(p, str(p)) for p in sorted(path.parent.iterdir()) if p.is_file()]
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be read ({error.strerror})") from error
    scan = _scan(path, beside, complete, gunzip)
    uid = _series_key(header, found)
    return replace(scan, series=tuple(s for s in scan.series if s.uid == uid), volumes=())


def _scan(root: Path, files: Sequence[FoundFile], complete: bool, gunzip: Gunzip) -> FileIndex:
    """Sort ``files`` into series, volumes of other formats, and the rest with reasons."""
    # a tree of a hospital would not fit into memory: only what is looked at is kept of it
    complete = complete and len(files) <= KEPT_HEADERS
    only = () if complete else _LOOKED_AT
    groups: dict[str, list[tuple[FoundFile, Header]]] = defaultdict(list)
    ignored: list[IgnoredFile] = []
    damaged: Counter[Path] = Counter()
    volumes: list[FoundFile] = []
    dead: Counter[Path] = Counter()
    unknown: list[FoundFile] = []
    for file in files:
        try:
            dead[_folder(file)] += is_dead_link(file.path)
            kind = detect_format(file.path)
            damaged[_folder(file)] += kind == "empty"
            if kind == "packed":
                file = gunzip(file)
            if kind in {"dicom", "packed"}:
                header = read_header(file.path, file.name, only)
                if is_directory(header.dataset):
                    ignored.append(IgnoredFile(file.name, "a DICOMDIR; files are found by content"))
                    continue
                groups[_series_key(header, file)].append((file, header))
                # counted by folder: what is broken beside a series may be one of its slices
                damaged[_folder(file)] += is_cut_short(header)
            elif kind in {"nifti", "itk", "mgh"}:
                volumes.append(file)
            else:
                reason = foreign_content(file.path) if kind == "other" else ""
                ignored.append(IgnoredFile(file.name, reason or _REASONS[kind]))
                damaged[_folder(file)] += reason == DAMAGED_DICOM
                unknown += [file] if not reason and kind == "other" else []
        except MmifError as error:
            reason = str(error).removeprefix(f"{file.name}: ")
            ignored.append(IgnoredFile(file.name, reason))
            damaged[_folder(file)] += 1
    slices = {(f.path.parent, f.path.suffix) for found in groups.values() for f, _ in found}
    for file in unknown:
        damaged[_folder(file)] += (file.path.parent, file.path.suffix) in slices and is_data(file)
    series = tuple(
        Series(
            uid,
            tuple(file for file, _ in found),
            tuple(header for _, header in found),
            complete,
            _beside(damaged, dead, {_folder(file) for file, _ in found}),
        )
        for uid, found in sorted(groups.items())
    )
    return FileIndex(root, series, tuple(ignored), tuple(volumes))


def _beside(damaged: Counter[Path], dead: Counter[Path], folders: set[Path]) -> int:
    """Files in ``folders`` that could not be read, and links anywhere that lead nowhere."""
    elsewhere = sum(count for folder, count in dead.items() if folder not in folders)
    return sum(damaged[folder] for folder in folders) + elsewhere


_REASONS: dict[str, str] = {
    "empty": "empty",
    "other": "neither DICOM, NIfTI, MetaImage nor NRRD",
    "analyze": "Analyze 7.5: it has no orientation",
    "zip": "a zip archive inside; gunzip it, or name it itself",
}


def _series_key(header: Header, file: FoundFile) -> str:
    """SeriesInstanceUID; the modality and the folder's name where a file has none."""
    uid = text(header.dataset, "SeriesInstanceUID")
    if uid:
        return clean(uid)
    modality = short_ascii(text(header.dataset, "Modality"))
    of = f" of modality {modality}" if modality else ""
    return f"without SeriesInstanceUID{of} in {quote(str(_folder(file)))}"


def is_cut_short(header: Header) -> bool:
    """Whether an image ends before its pixels, or a file before it says which series it is of."""
    lost = header.pixel_offset is None and "SeriesInstanceUID" not in header.dataset
    return lost or lacks_pixels(header)


def _folder(file: FoundFile) -> Path:
    """The folder of a file, by the name to show."""
    return Path(file.name).parent


def describe(series: Series, frame: int | None = None, fill_gaps: bool = False) -> SeriesInfo:
    """What is known of ``series``, or of its volume number ``frame``, without its pixels.

    ``fill_gaps``: a lost slice is no reason against it.
    """
    try:
        return _describe_volume(series, frame, fill_gaps)
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


def _describe_volume(series: Series, frame: int | None, fill_gaps: bool) -> SeriesInfo:
    """As `describe`, for headers whose common attributes can be read."""
    header = _typical(series)
    dataset = header.dataset
    modality = modality_code(dataset)[:16]
    modality = modality if modality.isascii() and modality.isprintable() else ""
    info = SeriesInfo(
        uid=series.uid,
        study_uid=text(dataset, "StudyInstanceUID"),
        patient_key=patient_key(dataset),
        modality=modality,
        description=description(dataset),
        number=_series_number(dataset),
        object_name=sop_class_name(dataset),
        slices=sum(frame_count(h.dataset) for h in series.headers),
        matrix=None,
        spacing_mm=None,
        orientation="",
        image_type=code_strings(dataset, "ImageType"),
        colour=is_colour(dataset),
        roles=(),
        reason="",
        warnings=(),
        files=_names(series),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID") or None,
        volume_ml=0.0,
        study_date=text(dataset, "StudyDate"),
        attenuation_corrected=is_attenuation_corrected(
            code_strings(dataset, "CorrectedImage"),
            text(dataset, "AttenuationCorrectionMethod"),
            description(dataset),
        ),
        auxiliary=_named_auxiliary(dataset, modality),
        person_key=person_key(dataset),
    )
    try:
        stack, placement, notes = series.volume(frame, fill_gaps)
        # one file is enough for what a listing says; all of them are checked when they are read
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
    if info.modality == "MR" and is_phase(stack) and "M" not in kinds:
        return "a phase, real or imaginary image"
    if info.modality == "NM" and "TRANSMISSION" in kinds:
        return "a transmission (attenuation) map"
    if kind := map_of(list(kinds)):
        return f"a derived image of type {kind}"
    derived = info.image_type[:1] == ("DERIVED",)
    is_activity = info.modality in {ROLES[role].modality for role in ACTIVITY_ROLES}
    meant = derived or (is_activity and info.auxiliary in NO_ACTIVITY)
    return f"{info.auxiliary} by its description" if meant and info.auxiliary else ""


def _named_auxiliary(dataset: pydicom.Dataset, modality: str) -> str:
    """What its description or its energy windows' names say a series is; "" for an image."""
    windows = items(dataset, "EnergyWindowInformationSequence")
    named = [name for window in windows if (name := text(window, "EnergyWindowName"))]
    if is_scatter_window(named):
        return SCATTER
    return named_auxiliary(description(dataset), modality)


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


def frame_count(dataset: pydicom.Dataset) -> int:
    """Frames of a file, 1 where it does not say."""
    try:
        return integer(dataset, "NumberOfFrames") or 1
    except MmifError:
        return 1


def is_volume(info: SeriesInfo) -> bool:
    """Whether a series can be read as a volume."""
    return info.spacing_mm is not None
