"""How much a DICOM header would take once it is parsed, told before it is.

An element of eight bytes becomes an object of hundreds: 32 MiB of empty items would take gigabytes
and a minute. This looks over the elements without making anything of them.
"""

import struct
from collections.abc import Iterator
from mmap import mmap

from mmif.errors import InputError

ELEMENT_BYTES, ITEM_BYTES = 350, 700
"""What pydicom 3.0 takes for an empty element and an empty item of a sequence."""
MAX_PARSED_BYTES = 600 << 20
"""What one header may take; an object of 10,000 frames takes about 250 MiB."""

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SEQUENCE_STARTS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_UNDEFINED = 0xFFFFFFFF  # a length that a delimiter ends (PS3.5 7.1.1)
_ITEMS, _PIXELS = 0xFFFE, 0x7FE0  # groups of items (PS3.5 7.5) and of the pixels (PS3.5 8)


def check_elements(data: bytes | mmap, start: int, implicit: bool, big: bool = False) -> None:
    """Refuse a header that would take more than `MAX_PARSED_BYTES`.

    Args:
        data: a file, or an unpacked data set; looked at up to its pixels.
        start: where the data set begins.
        implicit: whether elements come without their value representation.
        big: whether numbers are big endian.

    Raises:
        InputError: how much of what there is.
    """
    elements = items = 0
    for is_item in _elements(data, start, implicit, ">" if big else "<"):
        items += is_item
        elements += not is_item
        if elements * ELEMENT_BYTES + items * ITEM_BYTES > MAX_PARSED_BYTES:
            raise InputError(
                f"more than {elements} elements and {items} items of sequences in the header; "
                "expected an image"
            )


def _elements(data: bytes | mmap, at: int, implicit: bool, order: str) -> Iterator[bool]:
    """For each element or item at any depth whether it is an item (PS3.5 7.1 and 7.5)."""
    tag, short, long = (struct.Struct(order + form).unpack_from for form in ("HH", "H", "L"))
    size = len(data)
    while at + 8 <= size:
        group, _ = tag(data, at)
        if group == _ITEMS:
            yield True
            at += 8
            continue
        if group == _PIXELS:
            return
        yield False
        vr = b"" if implicit else data[at + 4 : at + 6]
        if vr in _LONG and at + 12 > size:
            return
        wide = 12 if vr in _LONG else 8
        length = short(data, at + 6)[0] if vr and wide == 8 else long(data, at + wide - 4)[0]
        at += wide
        inside = length == _UNDEFINED or data[at : at + 4] in _SEQUENCE_STARTS
        at += 0 if inside else length
