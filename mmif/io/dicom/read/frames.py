"""The frames of a DICOM object: where each lies in the patient, and what tells it from others.

One frame is one slice. A single-frame file has one; enhanced, legacy converted and NM files have
many. Positions come from the standard's attributes alone; where they are missing, the file is
refused with the name of the attribute.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pydicom
from pydicom.uid import UID

from mmif.errors import GeometryError, InputError, quote
from mmif.geometry import MIN_SLICES
from mmif.io.dicom.read.headers import (
    Header,
    code_strings,
    first_item,
    integer,
    items,
    number,
    numbers,
    text,
    value,
)
from mmif.io.dicom.read.labels import NM_COUNTS, NM_VECTORS, Labels
from mmif.io.dicom.read.nuclear import NUCLEAR, energy_windows

MAX_FRAMES = 20_000
"""Frames of one series; more are refused."""

MAX_SIDE = 16_384
"""Rows or columns of one frame; more are refused."""

ENHANCED = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
        "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
        "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
        "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture
    }
)
SINGLE = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.4",  # MR
        "1.2.840.10008.5.1.4.1.1.128",  # PET
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    }
)


_STANDARD = "1.2.840.10008."
_VENDORS = {
    "1.3.12.2.1107.": "Siemens",
    "1.2.840.113619.": "GE",
    "1.3.46.670589.": "Philips",
    "1.2.392.200036.9116.": "Canon (Toshiba)",
    "1.2.392.200036.9125.": "Fujifilm",
    "1.2.156.112605.": "United Imaging",
}
"""The roots of the vendors' UIDs, as their DICOM conformance statements give them."""

_NOT_GREY = {"1.2.840.10008.5.1.4.1.1.4.3": "colours, not grey values"}
"""What an object that looks like an image is instead."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice of a series.

    Attributes:
        file: which file of the series it is in.
        index: which frame of that file it is.
        position_lps: (x, y, z) mm of the centre of the first pixel.
        row_lps: unit vector along a row (growing column index).
        column_lps: unit vector along a column (growing row index).
        pixel_mm: distance between columns and distance between rows.
        size: columns and rows.
        labels: what may tell it from a frame at the same place, by attribute keyword.
        instance_uid: SOPInstanceUID of its file.
    """

    file: int
    index: int
    position_lps: tuple[float, float, float]
    row_lps: tuple[float, float, float]
    column_lps: tuple[float, float, float]
    pixel_mm: tuple[float, float]
    size: tuple[int, int]
    labels: Mapping[str, str]
    instance_uid: str


def sop_class_name(dataset: pydicom.Dataset) -> str:
    """The name of an object's SOP class (``CT Image Storage``)."""
    uid = text(dataset, "SOPClassUID")
    name = UID(uid).name
    if name.isprintable() and not name[:1].isdigit():
        return name
    vendor = next((vendor for root, vendor in _VENDORS.items() if uid.startswith(root)), "")
    if vendor:
        return f"a private object of {vendor}"
    return "an object of unknown class" if uid.startswith(_STANDARD) else "a private object"


def frames_of(header: Header, file: int) -> list[Frame]:
    """The frames of one file, in stored order.

    Args:
        header: the file's header.
        file: which file of its series it is.

    Raises:
        InputError: the object is no volume of grey or colour values, or is not readable.
        GeometryError: position, orientation or spacing are missing or impossible.
    """
    dataset = header.dataset
    check_is_volume_image(header)
    sop_class = text(dataset, "SOPClassUID")
    if sop_class == NUCLEAR:
        return list(_nuclear_frames(dataset, file))
    if sop_class in ENHANCED and items(dataset, "PerFrameFunctionalGroupsSequence"):
        return list(_enhanced_frames(dataset, file))
    if (integer(dataset, "NumberOfFrames") or 1) > 1:
        raise GeometryError(
            f"{sop_class_name(dataset)} with {integer(dataset, 'NumberOfFrames')} frames "
            "but no per-frame positions"
        )
    return [_frame(dataset, [dataset], file, 0, Labels((dataset,)))]


def check_is_volume_image(header: Header) -> None:
    """Refuse, by name, an object that cannot be a slice or a volume of an image.

    Raises:
        InputError: what it is instead.
    """
    dataset = header.dataset
    sop_class = text(dataset, "SOPClassUID")
    name = sop_class_name(dataset)
    if sop_class not in ENHANCED | SINGLE | {NUCLEAR}:
        raise InputError(f"{name}: {_NOT_GREY.get(sop_class, 'not a volume image')}")
    kinds = code_strings(dataset, "ImageType")
    if "MOSAIC" in kinds:
        raise InputError("Siemens mosaic: many slices tiled in one image; export it untiled")
    if "LOCALIZER" in kinds:
        raise InputError("a localizer (scout), not a volume")
    capture = sop_class.startswith("1.2.840.10008.5.1.4.1.1.7")
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    if capture and value(dataset, "ImagePositionPatient") is None and not per_frame:
        raise InputError(f"{name} without position in the patient (a screen or a scanned page)")
    if sop_class == NUCLEAR:
        _check_is_reconstructed(kinds)
    if header.pixel_offset is None:
        raise InputError(f"{name} without pixel data (truncated?)")


def lacks_pixels(header: Header) -> bool:
    """Whether a file of an image's SOP class ends before its pixels."""
    images = ENHANCED | SINGLE | {NUCLEAR}
    return header.pixel_offset is None and text(header.dataset, "SOPClassUID") in images


def _check_is_reconstructed(kinds: tuple[str, ...]) -> None:
    """Refuse NM projections and planar images: their frames are no slices (PS3.3 C.8.4.9)."""
    kind = kinds[2] if len(kinds) > 2 else "unknown"
    if not kind.startswith("RECON"):
        raise InputError(
            f"NM image of type {quote(kind)}; expected RECON TOMO (reconstructed slices)"
        )


def _enhanced_frames(dataset: pydicom.Dataset, file: int) -> Iterator[Frame]:
    """Frames of an object with functional groups (PS3.3 C.7.6.16)."""
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    count = integer(dataset, "NumberOfFrames") or 1
    if count != len(per_frame):
        raise GeometryError(f"{count} frames but {len(per_frame)} functional groups")
    _check_frame_count(count)
    for index, own in enumerate(per_frame):
        groups = [
            *_macros(own, shared),
            dataset,
        ]
        yield _frame(dataset, groups, file, index, Labels(tuple(groups)))


_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "FrameContentSequence",
    "MREchoSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRDiffusionSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "CTReconstructionSequence",
    "CTXRayDetailsSequence",
    "MRModifierSequence",
    "CardiacSynchronizationSequence",
    "TemporalPositionSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "UnassignedSharedConvertedAttributesSequence",
)


def _macros(own: pydicom.Dataset, shared: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The functional group macros of one frame, its own before the shared ones."""
    found = [first_item(group, keyword) for keyword in _MACROS for group in (own, shared)]
    found += [first_item(macro, "DiffusionGradientDirectionSequence") for macro in found]
    return [item for item in found if len(item)]


def _nuclear_frames(dataset: pydicom.Dataset, file: int) -> Iterator[Frame]:
    """Frames of a reconstructed NM object (PS3.3 C.8.4.15).

    The first frame's position and orientation stand in the item of its detector, or at top level.
    SpacingBetweenSlices counts along the cross product of row and column; its sign counts too.
    """
    count = integer(dataset, "NumberOfFrames") or 1
    _check_frame_count(count)
    spacing = number(dataset, "SpacingBetweenSlices")
    if not spacing and count > 1:
        raise GeometryError("SpacingBetweenSlices is missing; the slices' places are unknown")
    vectors = {label: _vector(dataset, key, count) for key, label in NM_VECTORS.items()}
    told = {label: values for label, values in vectors.items() if values}
    slices = _vector(dataset, "SliceVector", count) or _counted_slices(dataset, count, told)
    windows = energy_windows(dataset)
    detectors = told.get("Detector", (1,) * count)
    first_index = {detector: detectors.index(detector) for detector in set(detectors)}
    firsts = {detector: _first_of_detector(dataset, file, detector) for detector in first_index}
    for index, detector in enumerate(detectors):
        first, steps = firsts[detector], slices[index] - slices[first_index[detector]]
        normal = np.cross(first.row_lps, first.column_lps)
        x, y, z = np.add(first.position_lps, normal * (spacing or 0) * steps)
        labels = {name: str(values[index]) for name, values in told.items()}
        window = int(labels.get("EnergyWindow", 0))
        if 0 < window <= len(windows) and windows[window - 1]:
            labels["EnergyWindow"] += f" ({windows[window - 1]})"
        yield replace(
            first,
            index=index,
            position_lps=(float(x), float(y), float(z)),
            labels={**labels, "ImageType": text(dataset, "ImageType")},
        )


def _counted_slices(
    dataset: pydicom.Dataset, count: int, told: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """The slice of each frame, counted as stored in each volume that other vectors tell apart.

    Args:
        dataset: an NM object without SliceVector.
        count: its frames.
        told: the other vectors, by label.

    Raises:
        GeometryError: the frames are of several volumes that no vector tells apart.
    """
    met: Counter[tuple[int, ...]] = Counter()
    slices = []
    for volume in zip(*told.values(), strict=True) if told else [()] * count:
        met[volume] += 1
        slices.append(met[volume])
    stated = integer(dataset, "NumberOfSlices") or 0
    claims = {key: integer(dataset, key) or 1 for key, of in NM_COUNTS.items() if of not in told}
    most = max(met.values())
    claimed = most // stated if stated > 0 else math.prod(claims.values())
    per_volume = stated if stated > 0 else most // max(claimed, 1)
    # a volume has a few slices: a writer whose numbers leave it fewer means something else
    if claimed > 1 and claimed * per_volume == most and per_volume >= MIN_SLICES:
        raise GeometryError(
            f"{most} frames of {claimed} volumes without SliceVector, and no vector "
            "that tells the volumes apart; which frame is which slice is unknown"
        )
    return tuple(slices)


def _first_of_detector(dataset: pydicom.Dataset, file: int, detector: int) -> Frame:
    """The first frame of the detector that DetectorVector calls by that number (from 1).

    Raises:
        GeometryError: it has no item, no position or no orientation.
    """
    known = items(dataset, "DetectorInformationSequence") or [pydicom.Dataset()]
    if len(known) > 1 and not 0 < detector <= len(known):
        raise GeometryError(f"DetectorVector says {detector} of {len(known)} detectors")
    own = known[detector - 1 if len(known) > 1 else 0]
    return _frame(dataset, [own, dataset], file, 0, {})


def _vector(dataset: pydicom.Dataset, keyword: str, count: int) -> tuple[int, ...] | None:
    """A frame increment vector: one whole number a frame."""
    if value(dataset, keyword) is None:
        return None
    return tuple(int(v) for v in numbers(dataset, keyword, count) or ())


def _check_frame_count(count: int) -> None:
    """Refuse a number of frames that no scanner makes."""
    if not 0 < count <= MAX_FRAMES:
        raise InputError(f"NumberOfFrames is {count}; expected 1 to {MAX_FRAMES}")


def _frame(
    dataset: pydicom.Dataset,
    groups: list[pydicom.Dataset],
    file: int,
    index: int,
    labels: Mapping[str, str],
) -> Frame:
    """A frame from the first of ``groups`` that has each attribute."""
    position = _require_numbers(groups, "ImagePositionPatient", 3)
    row, column = _directions(_require_numbers(groups, "ImageOrientationPatient", 6))
    between_rows, between_columns = _require_numbers(groups, "PixelSpacing", 2)
    # a micrometre and a metre: beyond, a unit or an exponent is wrong; positions likewise
    if not all(1e-3 < spacing < 1e3 for spacing in (between_rows, between_columns)):
        raise GeometryError(f"PixelSpacing is {between_rows:g}\\{between_columns:g} mm")
    if max(map(abs, position)) > 1e5:
        raise GeometryError("ImagePositionPatient is more than 100 m from the origin")
    return Frame(
        file,
        index,
        (position[0], position[1], position[2]),
        row,
        column,
        (between_columns, between_rows),
        _size(dataset),
        labels,
        text(dataset, "SOPInstanceUID"),
    )


def _require_numbers(groups: list[pydicom.Dataset], keyword: str, count: int) -> tuple[float, ...]:
    """``count`` numbers of an attribute, from the first of ``groups`` that has it."""
    for group in groups:
        found = numbers(group, keyword, count)
        if found is not None:
            return found
    raise GeometryError(f"{keyword} is missing; the image has no place in the patient")


@lru_cache(maxsize=256)
def _directions(
    cosines: tuple[float, ...],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Row and column directions as exact, perpendicular unit vectors."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    # writers round to two or three digits; a degree off the right angle is 2e-2
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(row @ column) > 1e-2:
        raise GeometryError("ImageOrientationPatient holds no two perpendicular unit vectors")
    row = row / lengths[0]
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return (float(row[0]), float(row[1]), float(row[2])), (
        float(column[0]),
        float(column[1]),
        float(column[2]),
    )


def _size(dataset: pydicom.Dataset) -> tuple[int, int]:
    """Columns and rows."""
    columns, rows = integer(dataset, "Columns"), integer(dataset, "Rows")
    if not columns or not rows or not (0 < columns <= MAX_SIDE and 0 < rows <= MAX_SIDE):
        raise InputError(f"{columns} x {rows} pixels; expected 1 to {MAX_SIDE} a side")
    return columns, rows
