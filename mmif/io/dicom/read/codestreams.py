"""What compressed frames claim about themselves, read before a decoder believes it.

A decoder allocates what the codestream says, not what the DICOM header says; a few bytes could
ask for gigabytes.
"""

import re
from typing import TYPE_CHECKING

from pydicom.encaps import get_frame
from pydicom.uid import RLELossless

from mmif.errors import InputError
from mmif.io.dicom.read.jpeg import JPEG_SYNTAXES

if TYPE_CHECKING:
    from mmif.io.dicom.read.pixels import PixelFormat

# Before the size may stand a comment or profile of 65,535 bytes (ITU-T T.81 B.1.1.4), and others
_SEARCHED_BYTES = 1 << 17
# Markers SOF0 to SOF15 (ITU-T T.81 Table B.1) without DHT, JPG and DAC; SOF55 of JPEG-LS (T.87)
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_EMPTY_SCAN = re.compile(rb"(\xff\xda\x00\x08\x01..)\x00\x00\x00", re.DOTALL)
_ZERO_RUN = bytes(256)
"""No coder of JPEG-LS or JPEG 2000 writes so many zeros: an empty packet is one (ISO 15444-1 B.10),
and no object of one tile has more than some 20 layers of 6 resolutions."""

_JPEG_2000 = b"\xff\x4f\xff\x51"


_SPARE_BYTES = 16
"""Bytes behind the runs of a segment: one pads to an even length, and some encoders to 16."""


def check_codestream(pixel_data: bytes, stored: "PixelFormat", index: int, notes: set[str]) -> None:
    """Refuse a compressed frame whose own size is not the size in the header.

    Args:
        pixel_data: encapsulated frames.
        stored: what the header says of them.
        index: which frame.
        notes: takes what is noticed, in words.

    Raises:
        InputError: another size, or no size found.
    """
    frame = get_frame(pixel_data, index, number_of_frames=stored.frames)
    if stored.transfer_syntax == RLELossless:
        _check_rle(frame, stored)
        return
    size = codestream_size(frame)
    if size is None:
        raise InputError("compressed pixels without a size of their own (truncated)")
    if size != (stored.columns, stored.rows):
        raise InputError(
            f"compressed pixels of {size[0]} x {size[1]}; expected {stored.columns} x {stored.rows}"
        )
    bits = _check_samples(frame, stored)
    if stored.transfer_syntax not in JPEG_SYNTAXES and bits != stored.bits_stored:
        notes.add(f"compressed pixels of {bits} bits, BitsStored says {stored.bits_stored}")
    _check_end(frame)
    if stored.transfer_syntax not in JPEG_SYNTAXES and _ZERO_RUN in frame:
        raise InputError("compressed pixels with a run of zeros (damaged)")


def _check_samples(frame: bytes, stored: "PixelFormat") -> int:
    """Refuse a codestream whose components, depth or sign cannot be those of the header.

    Returns:
        Bits of one sample.
    """
    found = codestream_samples(frame)
    if found is None:
        raise InputError("compressed pixels without a depth of their own (truncated)")
    components, bits, signed = found
    if components != stored.samples and stored.photometric != "PALETTE COLOR":
        raise InputError(f"compressed pixels of {components} components; expected {stored.samples}")
    if bits > stored.bits_allocated:
        raise InputError(
            f"compressed pixels of {bits} bits; expected at most {stored.bits_allocated}"
        )
    if signed is not None and signed and not stored.signed:
        raise InputError("compressed pixels are signed; the header says unsigned")
    if stored.signed and bits < stored.bits_stored and not signed:
        raise InputError(
            f"compressed pixels of {bits} bits; expected {stored.bits_stored}, with their sign"
        )
    return bits


def _check_end(frame: bytes) -> None:
    """Refuse a codestream without its end marker, or with less between than its parts claim."""
    end = len(frame)
    while end and frame[end - 1] in {0, 0xFF}:  # padding to an even length, NEMA's among them
        end -= 1
    if frame[max(end - 2, 0) : end] != b"\xff\xd9":
        raise InputError("compressed pixels without an end marker (truncated)")
    start = frame.find(_JPEG_2000, 0, _SEARCHED_BYTES)
    if start >= 0 and not _tiles_reach(frame, start + 2, end - 2):
        raise InputError("compressed pixels whose tiles do not reach their end (truncated)")


def _tiles_reach(frame: bytes, at: int, end: int) -> bool:
    """Whether the tile-parts of a JPEG 2000 lead exactly to ``end`` (ISO 15444-1 A.4.2)."""
    while at < end and frame[at : at + 2] != b"\xff\x90":
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    while at < end and frame[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(frame[at + 6 : at + 10], "big")
        at = at + length if length else end  # 0: to the end
    return at == end


def codestream_samples(frame: bytes) -> tuple[int, int, bool | None] | None:
    """Components, bits of one and whether they are signed (None: JPEG does not say)."""
    start = frame.find(_JPEG_2000, 0, _SEARCHED_BYTES)
    if start >= 0:
        marker = frame[start + 2 : start + 43]
        if len(marker) < 41:
            return None
        depth = marker[40]
        return int.from_bytes(marker[38:40], "big"), (depth & 0x7F) + 1, bool(depth & 0x80)
    at = _jpeg_frame_header(frame)
    return None if at is None else (frame[at + 9], frame[at + 4], None)


def _check_rle(frame: bytes, stored: "PixelFormat") -> None:
    """Refuse a run-length encoded frame that ends early or unpacks to too much (PS3.5 annex G).

    The decoder panics over such a frame.
    """
    wanted = stored.samples * stored.bits_allocated // 8
    header = [int.from_bytes(frame[at : at + 4], "little") for at in range(0, 64, 4)]
    starts = header[1 : header[0] + 1] if header[0] == wanted else []
    ends = [*starts[1:], len(frame)]
    pixels = stored.columns * stored.rows
    whole = all(
        64 <= start < end <= len(frame) and _unpacks_to(frame[start:end], pixels)
        for start, end in zip(starts, ends, strict=True)
    )
    if not starts or not whole:
        raise InputError(f"run-length encoded pixels that do not unpack to {pixels} (broken)")


def _unpacks_to(segment: bytes, size: int) -> bool:
    """Whether the runs of a segment give exactly ``size`` bytes."""
    at = done = 0
    while done < size and at < len(segment):
        code = segment[at]
        if code < 128:
            at, done = at + code + 2, done + code + 1
        else:
            at, done = (at + 2, done + 257 - code) if code > 128 else (at + 1, done)
    return done == size and at <= len(segment) <= at + _SPARE_BYTES


def with_whole_scans(pixel_data: bytes) -> bytes:
    """JPEG frames whose scans say that they end at coefficient 0, saying 63 instead.

    A widespread encoder of sequential 12-bit JPEG wrote 0 (NEMA's sample images among them);
    a sequential scan always ends at 63 (ISO 10918-1 table B.3), and decoders insist.
    """
    return _EMPTY_SCAN.sub(b"\\g<1>\x00\x3f\x00", pixel_data)


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it has none."""
    start = frame.find(_JPEG_2000, 0, _SEARCHED_BYTES)
    if start >= 0:
        return _jpeg_2000_size(frame[start + 2 : start + 40])
    return _jpeg_size(frame)


def _jpeg_2000_size(marker: bytes) -> tuple[int, int] | None:
    """Columns and rows of a SIZ marker segment (ISO 15444-1 A.5.1)."""
    if len(marker) < 22:
        return None
    x1, y1, x0, y0 = (int.from_bytes(marker[6 + 4 * n : 10 + 4 * n], "big") for n in range(4))
    return x1 - x0, y1 - y0


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows of the first frame header of a JPEG or JPEG-LS (ISO 10918-1 B.2.2)."""
    at = _jpeg_frame_header(frame)
    if at is None:
        return None
    rows = int.from_bytes(frame[at + 5 : at + 7], "big")
    return int.from_bytes(frame[at + 7 : at + 9], "big"), rows


def _jpeg_frame_header(frame: bytes) -> int | None:
    """Where the first frame header of a JPEG or JPEG-LS starts, at its marker."""
    at = frame.find(b"\xff\xd8", 0, 64) + 2
    while 2 <= at < min(len(frame) - 9, _SEARCHED_BYTES):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_FRAMES:
            return at
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
