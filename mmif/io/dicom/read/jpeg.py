"""JPEG frames decoded by GDCM: baseline, extended of 8 and 12 bits, and lossless.

pydicom's own door to GDCM turns away extended JPEG of 12 bits; this one does not.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from mmif.errors import InputError

if TYPE_CHECKING:
    from mmif.io.dicom.read.pixels import PixelFormat

JPEG_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})


_MORE_SCAN = bytes(range(1, 65)) * 4
"""Bytes that no whole scan reaches: its decoder stops at its last block."""

_ZERO_RUN = bytes(64)
"""Zeros that a lost part of a file leaves; a flat region can have as many."""

_LAST_BYTES = 32
"""Bytes at the end of a scan that a whole picture needs; encoders pad with fewer."""

_STDERR = threading.Lock()
"""Held by the thread whose decoder is kept quiet: there is one stderr for all."""


def decode_jpeg(frame: bytes, stored: "PixelFormat") -> npt.NDArray[Any]:
    """The samples of a grey JPEG frame: (rows, columns).

    Decoders fill up a scan that ends before its last block. So the frame is decoded once more
    with bytes before its end marker: where they change the picture, blocks were missing. A run of
    zeros can be a part that was lost, of which a decoder makes blocks too; then the last bytes
    are not needed, and the picture stays as it is with others in their place.

    Raises:
        InputError: GDCM does not decode it, or the scan ends early.
    """
    end = frame.rfind(b"\xff\xd9")
    with _quiet_stderr():
        pixels = _decode(frame, stored)
        longer = _decode(frame[:end] + _MORE_SCAN + frame[end:], stored)
        surplus = _ZERO_RUN in frame and _is_whole_without_end(frame, end, pixels, stored)
    if surplus:
        raise InputError("compressed pixels with a run of zeros before their end (damaged)")
    if not np.array_equal(pixels, longer):
        raise InputError("compressed pixels whose scan ends early (truncated)")
    return pixels


def _is_whole_without_end(
    frame: bytes, end: int, pixels: npt.NDArray[Any], stored: "PixelFormat"
) -> bool:
    """Whether other bytes in place of the last ones before ``end`` make the same ``pixels``."""
    try:
        other = _decode(frame[: end - _LAST_BYTES] + _MORE_SCAN + frame[end:], stored)
    except InputError:
        return False  # the last bytes are needed
    return bool(np.array_equal(pixels, other))


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Nothing on the process's stderr: libjpeg's C code tells there of the bytes added above."""
    with _STDERR:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _decode(frame: bytes, stored: "PixelFormat") -> npt.NDArray[Any]:
    """As `decode_jpeg`, without the look for an early end."""
    import gdcm  # only a JPEG frame needs it, and most series hold none

    if stored.bits_allocated > 16:
        raise InputError(f"JPEG pixels in {stored.bits_allocated} bits; expected 8 or 16")
    # GDCM ends the process where 8 allocated bits are not all stored; the reader masks them after
    used = stored.bits_stored if stored.bits_allocated == 16 else 8

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stored.columns, stored.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(stored.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(str.__str__(stored.transfer_syntax))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(
        gdcm.PixelFormat(
            1,
            stored.bits_allocated,
            used,
            used - 1,
            int(stored.signed),
        )
    )
    try:
        text = image.GetBuffer()
    except Exception as error:  # GDCM's wrapper raises what its C++ does
        raise InputError("compressed pixels that GDCM does not decode (broken)") from error
    if not isinstance(text, str):
        raise InputError("compressed pixels that GDCM does not decode (broken)")
    data = text.encode("utf-8", errors="surrogateescape")
    if len(data) != stored.frame_bytes:
        raise InputError(f"compressed pixels decode to {len(data)} bytes; not {stored.frame_bytes}")
    kind_of_sample = f"<{'i' if stored.signed else 'u'}{stored.bits_allocated // 8}"
    return np.frombuffer(data, dtype=kind_of_sample).reshape(stored.rows, stored.columns)
