"""Whether the files of one series agree: one patient, study, modality, place, scale and unit.

What cannot be meant is refused; what can, but is odd, is said.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.tag import Tag
from pydicom.uid import UID

from mmif.errors import GeometryError, InputError, MmifError
from mmif.io.dicom.read.frames import SINGLE, Frame, frames_of
from mmif.io.dicom.read.geometry import is_alike, normal, positions
from mmif.io.dicom.read.headers import Header, integer, short_ascii, text
from mmif.io.dicom.read.nuclear import NUCLEAR
from mmif.io.files import FoundFile, is_dead_link

ALL_OR_NONE = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
"""Attributes without which a slice would be on another scale than the others."""

ONE_UNIT = ("Units", "RescaleType")
"""Attributes that say what a value means."""

ONE_FORM = ("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "PixelPaddingValue")
"""Attributes that a scanner gives one value in a series; each slice is read by its own."""

ONE_SCALE = ("RescaleSlope", "RescaleIntercept")
"""The same, except in PET, where each slice has a scale of its own."""

NEXT_STEPS = 1.5
"""How many spacings beyond its end a slice of a volume lies: one, and what positions jitter."""

AGREEMENT_KEYWORDS = (
    *(*ALL_OR_NONE, *ONE_UNIT, *ONE_FORM),
    *("NumberOfSlices", "ImagesInAcquisition", "NumberOfTemporalPositions", "NumberOfTimeSlices"),
    *("InstanceNumber", "AcquisitionNumber", "SamplesPerPixel"),
)
"""What is looked at here, for headers that are read in part."""


def check_one_place(datasets: Sequence[pydicom.Dataset]) -> tuple[str, ...]:
    """Refuse slices that share a SeriesInstanceUID by mistake; the values themselves stay unsaid.

    Returns:
        What was noticed.

    Raises:
        InputError: they are of several patients, studies, modalities, or frames of reference.
    """
    patients = {text(dataset, "PatientID") for dataset in datasets} - {""}
    if len(patients) > 1:
        raise InputError(f"{len(patients)} PatientIDs in one series; expected one")
    modalities = Counter(text(dataset, "Modality") for dataset in datasets)
    if len(modalities) > 1:
        rare = modalities.most_common()[-1][0]
        odd = next(dataset for dataset in datasets if text(dataset, "Modality") == rare)
        raise InputError(
            f"Modality {short_ascii(rare)} at {short_ascii(text(odd, 'ImagePositionPatient'))} "
            f"among {short_ascii(modalities.most_common()[0][0])} images of one series; "
            "expected one modality"
        )
    notes: tuple[str, ...] = ()
    for keyword, name in (
        ("StudyInstanceUID", "studies"),
        ("FrameOfReferenceUID", "frames of reference"),
    ):
        uids = {text(dataset, keyword) for dataset in datasets} - {""}
        if 1 < len(uids) == len(datasets):  # an anonymiser's fault
            notes += (f"every slice has a {keyword} of its own; read as one volume",)
        elif len(uids) > 1:
            raise InputError(f"{len(uids)} {name} in one series; expected one")
    return notes


def check_whole(datasets: Sequence[pydicom.Dataset]) -> None:
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


def check_nothing_gone(files: Sequence[FoundFile]) -> None:
    """Refuse a series beside which links lead nowhere: they may have been slices of it.

    Raises:
        InputError: how many.
    """
    folders = {file.path.parent for file in files}
    dead = sum(is_dead_link(path) for folder in folders for path in folder.iterdir())
    if dead:
        raise InputError(f"{dead} dead links beside the slices; slices are missing")


def pixel_digest(file: FoundFile, header: Header) -> bytes:
    """A digest of the pixel data of a file, as they are stored."""
    with file.path.open("rb") as stream:
        stream.seek(header.pixel_offset or 0)
        return hashlib.sha256(stream.read()).digest()


def check_no_conflict(
    frames: Sequence[Frame], files: Sequence[FoundFile], headers: Sequence[Header]
) -> None:
    """Refuse two files of one SOPInstanceUID and place with different pixels.

    Raises:
        InputError: how many there are.
    """
    known: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for frame in frames:
        if frame.instance_uid and frame.index == 0:
            known[frame.instance_uid, frame.position_lps, frame.row_lps].add(frame.file)
    conflicts = sum(
        len({pixel_digest(files[number], headers[number]) for number in numbers}) > 1
        for numbers in known.values()
        if len(numbers) > 1
    )
    if conflicts:
        raise InputError(
            f"{conflicts} SOPInstanceUIDs with several files of different pixels (a conflict); "
            "expected one image for one UID"
        )


def check_one_scale(datasets: Sequence[pydicom.Dataset]) -> tuple[str, ...]:
    """Refuse slices of one volume on different scales or in different units.

    Returns:
        What changes between the slices, in words.

    Raises:
        InputError: some slices lack what others are scaled by, or have another unit.
    """
    single = [dataset for dataset in datasets if text(dataset, "SOPClassUID") in SINGLE]
    if len(single) < 2:
        return ()
    for keyword in ALL_OR_NONE:
        tag = Tag(keyword)
        count = sum(tag in dataset for dataset in single)
        if 0 < count < len(single):
            raise InputError(f"{keyword} in {count} of {len(single)} slices; expected all or none")
    for keyword in ONE_UNIT:
        units = sorted({text(dataset, keyword) for dataset in _of_kinds(single, keyword)} - {""})
        if len(units) > 1:
            found = " and ".join(map(short_ascii, units))
            raise InputError(f"{keyword} {found} in one volume; expected one unit")
    is_pet = text(single[0], "Modality") == "PT"
    notes = []
    if is_pet and Tag("RescaleSlope") not in single[0]:  # type 1 of PET (PS3.3 C.8.9.4)
        notes.append(
            "a PET without RescaleSlope: values are as stored, and their scale may differ from "
            "slice to slice"
        )
    for keyword in ONE_FORM if is_pet else (*ONE_FORM, *ONE_SCALE):
        kinds = sorted({text(dataset, keyword) for dataset in _of_kinds(single, keyword)})
        if len(kinds) > 1:
            listed = ", ".join(short_ascii(kind) or "none" for kind in kinds[:3])
            notes.append(
                f"{keyword} changes between the slices ({listed}): each is read by its own"
            )
    return tuple(notes)


def _of_kinds(datasets: Sequence[pydicom.Dataset], keyword: str) -> list[pydicom.Dataset]:
    """One data set of each different stored value; parsing every one of a long series is slow."""
    found: dict[object, pydicom.Dataset] = {}
    tag = Tag(keyword)
    for dataset in datasets:
        try:
            stored = dataset.get_item(tag)
        except Exception:  # an element of an unknown kind, which pydicom decodes at once
            stored = None
        held = stored.value if stored is not None else None
        found.setdefault(held if isinstance(held, bytes | str) else str(held), dataset)
    return list(found.values())


def count_notes(
    chosen: Sequence[Frame], frames: Sequence[Frame], headers: Sequence[Header]
) -> tuple[str, ...]:
    """Where a header counts other slices, images or time points than lie there.

    Args:
        chosen: the frames of the volume.
        frames: all frames of the series.
        headers: of its files.
    """
    dataset = headers[chosen[0].file].dataset
    acquisition = text(dataset, "AcquisitionNumber")
    own = sum(text(headers[f.file].dataset, "AcquisitionNumber") == acquisition for f in frames)
    volumes = len(frames) / len(chosen)
    in_file = sum(frame.file == chosen[0].file for frame in chosen)
    of_object = {in_file} if text(dataset, "SOPClassUID") == NUCLEAR else set()
    fitting: dict[str, set[float]] = {
        "NumberOfSlices": {len(chosen), len(frames), *of_object},
        "ImagesInAcquisition": {len(chosen), own, len(frames)},
        "NumberOfTemporalPositions": {1, volumes},
        "NumberOfTimeSlices": {1, volumes},
    }
    notes = []
    for keyword, counts in fitting.items():
        if keyword not in dataset:
            continue
        claimed = integer(dataset, keyword)
        if claimed and claimed > 0 and claimed not in counts:
            there = volumes if keyword.startswith("NumberOfT") else len(chosen)
            notes.append(f"{keyword} says {claimed}, {there:g} lie there; some may be missing")
    return tuple(notes)


def stray_notes(
    chosen: Sequence[Frame], headers: Sequence[Header], others: Sequence[Header]
) -> tuple[str, ...]:
    """Whether images of series of one or two images may be slices of this one.

    A damaged or renewed SeriesInstanceUID takes a slice away; at an end of the volume nothing else
    tells.

    Args:
        chosen: the frames of the volume, from low to high.
        headers: of the files of its series.
        others: of the other images, one a file.
    """
    own = headers[chosen[0].file].dataset
    strays = sum(_is_stray(chosen, own, header) for header in others)
    if not strays:
        return ()
    return (
        f"{strays} images of another SeriesInstanceUID would continue the volume or have no place; "
        "slices may be missing at its ends",
    )


def _is_stray(chosen: Sequence[Frame], own: pydicom.Dataset, header: Header) -> bool:
    """Whether an image of another series is like ``chosen`` and lies at an end of it, or nowhere.

    Args:
        chosen: frames from low to high.
        own: a header of theirs.
        header: that of the other image.
    """
    dataset = header.dataset
    modality = _text_or_none(dataset, "Modality")
    if not modality:  # every object has one (PS3.3 C.7.3.1)
        return True
    localizer = "LOCALIZER" in (_text_or_none(dataset, "ImageType") or "")
    if localizer or modality != text(own, "Modality"):
        return False
    if not UID(_text_or_none(dataset, "SeriesInstanceUID") or "").is_valid:
        return True
    try:
        frame = frames_of(header, 0)[0]
    except GeometryError:
        return True
    except MmifError:  # another object, perhaps of the same space
        space = text(own, "FrameOfReferenceUID")
        return space != "" and _text_or_none(dataset, "FrameOfReferenceUID") == space
    along, depths = normal(chosen[0]), positions(chosen) @ normal(chosen[0])
    step = (depths[-1] - depths[0]) / (len(depths) - 1)
    depth = float(np.dot(frame.position_lps, along))
    ends = (depths[0] - depth, depth - depths[-1])
    nearest = chosen[0] if ends[0] > ends[1] else chosen[-1]
    apart = np.subtract(frame.position_lps, nearest.position_lps)
    beside = float(np.linalg.norm(apart - along * (apart @ along)))
    return 0 < max(ends) < NEXT_STEPS * step and beside < step and is_alike(frame, nearest)


def _text_or_none(dataset: pydicom.Dataset, keyword: str) -> str | None:
    """An attribute as text; None where it cannot be read."""
    try:
        return text(dataset, keyword)
    except InputError:
        return None


def check_no_holes(chosen: Sequence[Frame], headers: Sequence[Header], damaged: int) -> None:
    """Refuse a volume of which numbers are missing where files could not be read.

    Args:
        chosen: the frames of the volume.
        headers: of the files of the series.
        damaged: files beside it that may have been slices of it.

    Raises:
        GeometryError: how many numbers are missing.
    """
    numbers = {integer(headers[frame.file].dataset, "InstanceNumber") for frame in chosen} - {None}
    if not damaged or len(numbers) < len(chosen):
        return
    known = [number for number in numbers if number is not None]
    holes = max(known) - min(known) + 1 - len(known)
    if 0 < holes <= damaged:
        raise GeometryError(
            f"{damaged} files or links beside the series could not be read, and {holes} "
            "InstanceNumbers are missing between its first and last; slices are missing"
        )
