"""What is particular to NM objects (PS3.3 C.8.4): their windows, and what a reader must be told.

Cameras differ more than scanners of any other modality do: in Modality, in what they leave out, and
in private factors by which their own consoles multiply.
"""

import re
from collections.abc import Iterable
from typing import Any

import pydicom
from pydicom.tag import BaseTag

from mmif.errors import quote
from mmif.io.dicom.read.headers import (
    code_strings,
    description,
    integer,
    items,
    number,
    short_ascii,
    text,
    value,
)

NUCLEAR = "1.2.840.10008.5.1.4.1.1.20"
"""Nuclear Medicine Image Storage."""

_SCALES = (
    ("GE", 0x0011, "GEMS_GENIE_1", 0x3B),
    ("Siemens", 0x0033, "SIEMENS MED NM", 0x38),
    ("Siemens", 0x0057, "SIEMENS MED NM", 0x07),
)
"""Where vendors keep factors of the whole object: Pixel Scale and Rescale Slope in pydicom's
dictionary of private elements."""

SCALE_TAGS = tuple(
    BaseTag(group << 16 | element)
    for _, group, _, own in _SCALES
    for element in (0x10, 0x1000 | own)
)
"""Where they mostly stand, each behind its private creator, for headers that are read in part."""

_REORIENTED = re.compile(r"(?<![a-z0-9])(reor\w*|short ?axis|sax|sa|vla|hla|[hv]\w* long axis)\b")


def modality_code(dataset: pydicom.Dataset) -> str:
    """Modality in capitals; NM for each object of that class: exports say OT, or the retired ST."""
    if text(dataset, "SOPClassUID") == NUCLEAR:
        return "NM"
    return "".join(code_strings(dataset, "Modality")[:1])


def energy_windows(dataset: pydicom.Dataset) -> list[str]:
    """Name and limits of each energy window, as ``Tc99m_EM, 126.5 to 154.6 keV``; "" for neither.

    EnergyWindowVector counts them from 1.
    """
    said = []
    for window in items(dataset, "EnergyWindowInformationSequence"):
        parts = [short_ascii(text(window, "EnergyWindowName"))]
        for limits in items(window, "EnergyWindowRangeSequence"):
            low, high = (number(limits, f"EnergyWindow{end}Limit") for end in ("Lower", "Upper"))
            if low is not None and high is not None:
                parts.append(f"{low:g} to {high:g} keV")
        said.append(", ".join(filter(None, parts)))
    return said


def nuclear_notes(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What was assumed of an NM object, and what of it was left alone; nothing for another."""
    if text(dataset, "SOPClassUID") != NUCLEAR:
        return ()
    notes = []
    stated = text(dataset, "Modality")
    if stated.upper() != "NM":
        named = f"of Modality {quote(stated)}" if stated else "without Modality"
        notes.append(f"a Nuclear Medicine object {named}: read as NM")
    if (integer(dataset, "NumberOfFrames") or 1) > 1 and value(dataset, "SliceVector") is None:
        notes.append("no SliceVector: the slices are taken to lie in the order they are stored in")
    if _REORIENTED.search(description(dataset).lower().replace("_", " ")):
        notes.append(
            "reoriented by its description: it may lie in another frame than it says "
            "(FrameOfReferenceUID, ImageOrientationPatient)"
        )
    return (*notes, *_scale_notes(dataset))


def _scale_notes(dataset: pydicom.Dataset) -> list[str]:
    """Which private factors were not applied: they are in no standard, and say no unit."""
    notes = []
    for vendor, group, creator, element in _SCALES:
        factors = private_numbers(dataset, group, creator, element)
        low, high = min(factors, default=1.0), max(factors, default=1.0)
        if low < high:
            notes.append(
                f"{vendor}'s private pixel scale differs between the slices ({low:g} to {high:g}) "
                "and is not applied: their counts may not compare"
            )
        elif low not in {0.0, 1.0}:
            notes.append(
                f"counts are as stored: {vendor}'s private pixel scale of {low:g} is not applied"
            )
    return notes


def private_numbers(
    dataset: pydicom.Dataset, group: int, creator: str, element: int
) -> list[float]:
    """The numbers of a private element; none where it is absent or holds something else."""
    found = private_value(dataset, group, creator, element)
    try:
        return [float(one) for one in (found if isinstance(found, Iterable) else [found])]
    except (TypeError, ValueError):
        return []


def private_value(dataset: pydicom.Dataset, group: int, creator: str, element: int) -> Any:
    """The value of a private element; None where it is absent or cannot be read."""
    try:
        return dataset.private_block(group, creator)[element].value
    except Exception:  # absent, or of a kind that pydicom cannot decode
        return None
