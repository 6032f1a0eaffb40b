"""What tells an image of a series from others: contrast, time, gate, acquisition; by keyword.

The standard's attributes first; where a vendor keeps b-values in private elements instead, those.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pydicom
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from mmif.io.dicom.read.headers import quiet, text

COMPONENT = "ComplexImageComponent"
NO_MAGNITUDE = frozenset({"P", "R", "I", "PHASE", "REAL", "IMAGINARY", "PHASE MAP", "VELOCITY MAP"})
"""Values of ImageType (PS3.3 C.8.3.1.1.1) and ComplexImageComponent that are no magnitude."""

SEPARATORS = (
    "StackID",
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "InversionTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "RRInterval",
    "TimeSlot",
    "PhaseSlot",
    "EnergyWindow",
    "Detector",
    "TimeSlice",
    "Rotation",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "ImageType",
    "FrameType",
    COMPONENT,
    "KVP",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "RepetitionTime",
    "FlipAngle",
    "AcquisitionNumber",
    "FrameReferenceTime",
    "AcquisitionTime",
)
"""Attributes that tell volumes of one series apart, the most telling first."""

CONTRASTS = (
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "InversionTime",
    "RepetitionTime",
    "DiffusionBValue",
    COMPONENT,
    "KVP",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "ScanningSequence",
)
"""Attributes of which one image has one value."""

ALTERNATING = (
    "StackID",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "FlipAngle",
    "AcquisitionNumber",
    "FrameReferenceTime",
)
"""Attributes that may change along one image, but not back and forth: then there are several."""

NM_VECTORS = {
    "EnergyWindowVector": "EnergyWindow",
    "DetectorVector": "Detector",
    "RRIntervalVector": "RRInterval",
    "TimeSlotVector": "TimeSlot",
    "PhaseVector": "PhaseSlot",
    "TimeSliceVector": "TimeSlice",
    "RotationVector": "Rotation",
}

NM_COUNTS = {
    "NumberOfEnergyWindows": "EnergyWindow",
    "NumberOfRRIntervals": "RRInterval",
    "NumberOfTimeSlots": "TimeSlot",
    "NumberOfTimeSlices": "TimeSlice",
}
"""How many volumes an NM object says it holds, by the label of their vector (PS3.3 C.8.4.8).

Detectors and rotations are left out: reconstructions keep the numbers of their projections.
"""

LABEL_KEYWORDS = (
    *(k for k in SEPARATORS if k not in NM_VECTORS.values()),
    "ScanningSequence",
    "SliceThickness",
    "SpacingBetweenSlices",
)


@dataclass(frozen=True)
class _Private:
    """Where a vendor keeps a value: private creator, manufacturer, group, elements of block 10."""

    creator: str
    manufacturer: str
    group: int
    elements: tuple[int, ...]

    @cached_property
    def tags(self) -> tuple[BaseTag, ...]:
        """The elements, and their private creator first."""
        own = (BaseTag(self.group << 16 | 0x1000 | element) for element in self.elements)
        return (BaseTag(self.group << 16 | 0x10), *own)


_PRIVATE = {
    "DiffusionBValue": (
        _Private("SIEMENS MR HEADER", "SIEMENS", 0x0019, (0x0C,)),
        _Private("GEMS_PARM_01", "GE MEDICAL", 0x0043, (0x39,)),
        _Private("PHILIPS IMAGING DD 001", "PHILIPS", 0x2001, (0x03,)),
        _Private("IMAGE PRIVATE HEADER", "UIH", 0x0065, (0x09,)),
    ),
    "DiffusionGradientOrientation": (
        _Private("SIEMENS MR HEADER", "SIEMENS", 0x0019, (0x0E,)),
        _Private("GEMS_ACQU_01", "GE MEDICAL", 0x0019, (0xBB, 0xBC, 0xBD)),
        _Private("PHILIPS MR IMAGING DD 001", "PHILIPS", 0x2005, (0xB0, 0xB1, 0xB2)),
        _Private("IMAGE PRIVATE HEADER", "UIH", 0x0065, (0x37,)),
    ),
}
"""The vendors' DICOM conformance statements, and dcm2niix, which reads the same elements."""

CSA_HEADER = BaseTag(0x00291010)
"""CSA Image Header Info: Siemens' own tags, in a format that begins with SV10 (nibabel.nicom)."""

_SEQUENCE_B_VALUE = re.compile(r"ep_b(\d+)")

PRIVATE_TAGS = (
    *dict.fromkeys(tag for kept in _PRIVATE.values() for where in kept for tag in where.tags),
    CSA_HEADER,
)
"""All private elements that are looked at."""

_TAGS = {keyword: Tag(keyword) for keyword in LABEL_KEYWORDS}

_GE_FLAG = 1_000_000
"""GE adds 1e9 to some b-values: only what is below the flag counts (dcm2niix, GE's own notes)."""


class Labels(Mapping[str, str]):
    """What may tell a frame from another at the same place, looked up only when asked for.

    Args:
        groups: data sets, the frame's own before what it shares with others.
    """

    def __init__(self, groups: tuple[pydicom.Dataset, ...]) -> None:
        self._groups = groups
        self._known: dict[str, str] = {}

    def __getitem__(self, keyword: str) -> str:
        if keyword not in self._known:
            self._known[keyword] = self._find(keyword) if keyword in LABEL_KEYWORDS else ""
        if not self._known[keyword]:
            raise KeyError(keyword)
        return self._known[keyword]

    def _find(self, keyword: str) -> str:
        """The label; "" where no data set has it."""
        for group in self._groups:
            if _TAGS[keyword] in group and (label := _label(group, keyword)):
                return label
        for where in _PRIVATE.get(keyword, ()):
            if label := _private(self._groups[-1], where):
                return label
        if keyword == "DiffusionBValue":
            return _old_siemens_b_value(self._groups[-1])
        return _component(self._groups) if keyword == COMPONENT else ""

    def __iter__(self) -> Iterator[str]:
        return (keyword for keyword in LABEL_KEYWORDS if keyword in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def as_number(label: str) -> float | None:
    """A label as a number, None where it is none."""
    try:
        return float(label)
    except ValueError:
        return None


def _label(group: pydicom.Dataset, keyword: str) -> str:
    """One label as text; numbers rounded, so that rounding separates nothing."""
    return _round(text(group, keyword))


def _round(label: str) -> str:
    """``label``, with six digits where it is a number."""
    number = as_number(label)
    return label if number is None or not math.isfinite(number) else f"{number:.6g}"


def _component(groups: tuple[pydicom.Dataset, ...]) -> str:
    """PHASE, REAL or IMAGINARY, where ImageType alone says so; "" where not."""
    kinds = next((t for group in groups if (t := text(group, "ImageType"))), "").upper()
    parts = [part.strip() for part in kinds.split("\\")[2:]]
    found = [part for part in parts if part in NO_MAGNITUDE]
    return found[0] if found else ""


def _private(dataset: pydicom.Dataset, where: _Private) -> str:
    """The value that a vendor keeps at ``where``; "" where it is not this vendor's, or absent."""
    creator, *tags = where.tags
    if not all(tag in dataset for tag in tags):
        return ""
    if creator in dataset:
        known = _plain_text(dataset, creator).upper().startswith(where.creator)
    else:  # an anonymiser took the creator and left its elements
        known = text(dataset, "Manufacturer").upper().startswith(where.manufacturer)
    parts = [part for tag in tags for part in _private_numbers(dataset, tag)] if known else []
    if where.elements == (0x39,):
        parts = [value % _GE_FLAG for value in parts[:1]]
    return "\\".join(_round(str(part)) for part in parts)


def _old_siemens_b_value(dataset: pydicom.Dataset) -> str:
    """The b-value in the header within the header (CSA) of old Siemens scanners; "" for none.

    Where that is taken out, the name of the sequence still says it: ``*ep_b1000#12``.
    """
    sequence = _SEQUENCE_B_VALUE.search(text(dataset, "SequenceName"))
    if not sequence and "DIFFUSION" not in text(dataset, "ImageType").upper():
        return ""
    found = dataset.get_item(CSA_HEADER)
    values = _csa_items(found.value, "B_value") if found is not None else []
    return _round(values[0]) if values else sequence[1] if sequence else ""


def _csa_items(held: object, name: str) -> list[str]:
    """The values of one tag of a CSA header; none where it cannot be read."""
    if not isinstance(held, bytes) or not held.startswith(b"SV10"):
        return []
    with quiet:  # it says at its import that it is young
        from nibabel.nicom import csareader

        try:
            return [str(item) for item in csareader.read(held)["tags"][name]["items"]]
        except Exception:  # of a damaged header: its own, struct's, and Unicode's errors
            return []


def _plain_text(dataset: pydicom.Dataset, tag: BaseTag) -> str:
    """The text of an element, whatever its representation."""
    found = dataset.get_item(tag)
    held = found.value if found is not None else ""
    return held.decode("latin-1").strip(" \0") if isinstance(held, bytes) else str(held).strip()


def _private_numbers(dataset: pydicom.Dataset, tag: BaseTag) -> list[float]:
    """The numbers of an element; of unknown representation where the file is implicit."""
    found = dataset.get_item(tag)
    held: Any = found.value if found is not None else ""
    if not isinstance(held, bytes):
        listed = isinstance(held, list | tuple | MultiValue)
        return _texts("\\".join(map(str, held)) if listed else str(held))
    size = {"FL": 4, "FD": 8}.get(str(getattr(found, "VR", "")), 0)
    numbers = [] if size else _texts(held.decode("latin-1"))
    return numbers or _floats(held, size or (8 if len(held) % 8 == 0 else 4))


def _texts(held: str) -> list[float]:
    """Decimal numbers between backslashes; none where one is no number."""
    listed = held.strip("[] \0").replace(",", "\\").split("\\")
    found = [as_number(part.strip(" \0")) for part in listed]
    known = [number for number in found if number is not None and math.isfinite(number)]
    return known if len(known) == len(found) else []


def _floats(held: bytes, size: int) -> list[float]:
    """Little-endian floating point numbers; none where one is not finite."""
    count = len(held) // size
    if not 0 < count <= 16:
        return []
    found = struct.unpack(f"<{count}{'d' if size == 8 else 'f'}", held[: count * size])
    return list(found) if all(map(math.isfinite, found)) else []
