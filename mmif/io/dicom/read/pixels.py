"""Pixels of DICOM frames as physical values.

Stored values become physical ones per frame: modality LUT or rescale slope and intercept, as the
frame says. Padding becomes air. Uncompressed pixels are read straight from the file; compressed
ones go through pydicom's plug-ins, after their claimed size was checked.
"""

import io
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    RLELossless,
)
from scipy import ndimage

from mmif.errors import InputError
from mmif.io.checks import MAX_VOXELS
from mmif.io.dicom.read.codestreams import check_codestream, with_whole_scans
from mmif.io.dicom.read.frames import MAX_FRAMES, SINGLE, _size
from mmif.io.dicom.read.headers import (
    Header,
    first_item,
    header_errors,
    integer,
    items,
    number,
    text,
    value,
)
from mmif.io.dicom.read.jpeg import JPEG_SYNTAXES, decode_jpeg
from mmif.io.dicom.read.nuclear import modality_code

AIR_HU = -1024.0
"""What padding in a CT becomes, and the lowest value that a CT can have."""

_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
_INVERTED_MODALITIES = frozenset({"MR", "OT", ""})
_THREE_SAMPLES = frozenset(
    {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)
_DECODERS = {
    **dict.fromkeys(JPEG_SYNTAXES, "gdcm"),
    **dict.fromkeys(JPEGLSTransferSyntaxes, "gdcm"),
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pylibjpeg"),
    **dict.fromkeys((HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL, RLELossless), "pylibjpeg"),
}
"""The one plug-in of pydicom for each syntax: where it fails, no other guesses."""
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, *_DECODERS)
"""The transfer syntaxes that are read, uncompressed ones first."""

_PET_UNITS = frozenset(
    {
        *("CNTS", "NONE", "CM2", "CM2ML", "PCNT", "CPS", "BQML", "MGMINML", "UMOLMINML", "MLMING"),
        *("MLG", "1CM", "UMOLML", "PROPCNTS", "PROPCPS", "MLMINML", "MLML", "GML", "STDDEV"),
    }
)
"""What Units (PS3.3 C.8.9.1.1.3) may say; any other text there is no unit."""

_NO_HOUNSFIELD = frozenset({"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"})
"""What RescaleType (PS3.3 C.11.1.1.2) says of maps made from a CT that hold something else."""

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of one file are stored.

    Attributes:
        columns, rows, frames: their number.
        samples: 1 for grey, 3 for colour.
        bits_allocated, bits_stored: of one sample.
        signed: two's complement.
        photometric: PhotometricInterpretation.
        transfer_syntax: how they are encoded.
    """

    columns: int
    rows: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    transfer_syntax: UID

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.columns * self.rows * self.samples * self.bits_allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one stored sample, in the file's byte order."""
        kind = "i" if self.signed else "u"
        return np.dtype(f"{self.byte_order}{kind}{self.bits_allocated // 8}")

    @property
    def byte_order(self) -> str:
        """The file's byte order, as NumPy writes it."""
        return ">" if self.transfer_syntax == ExplicitVRBigEndian else "<"


def pixel_format(dataset: pydicom.Dataset) -> PixelFormat:
    """How a file's pixels are stored.

    Raises:
        InputError: attributes are missing, or describe no pixels that are read here.
    """
    columns, rows = _size(dataset)
    meta = getattr(dataset, "file_meta", pydicom.Dataset())
    syntax = UID(text(meta, "TransferSyntaxUID") or _guess_syntax(dataset))
    allocated = integer(dataset, "BitsAllocated") or 0
    stored = integer(dataset, "BitsStored") or allocated
    found = PixelFormat(
        columns,
        rows,
        integer(dataset, "NumberOfFrames") or 1,
        integer(dataset, "SamplesPerPixel") or 1,
        allocated,
        stored,
        integer(dataset, "PixelRepresentation") == 1,
        text(dataset, "PhotometricInterpretation"),
        syntax,
    )
    if found.bits_allocated not in {8, 16, 32} or not 0 < stored <= allocated:
        raise InputError(f"{stored} of {allocated} bits a pixel; expected 8, 16 or 32")
    if (sign := integer(dataset, "PixelRepresentation")) not in {None, 0, 1}:
        raise InputError(f"PixelRepresentation is {sign}; expected 0 or 1")
    high = integer(dataset, "HighBit")
    # compressed ones have their own depth, by which they are checked (codestreams.py)
    if syntax in {*_NATIVE, RLELossless} and high is not None and high >= stored:
        raise InputError(f"HighBit is {high} with BitsStored {stored}; expected {stored - 1}")
    if not 0 < found.frames <= MAX_FRAMES or found.samples not in {1, 3}:
        raise InputError(f"{found.frames} frames of {found.samples} samples a pixel")
    # a decoder would read beyond the frame, or leave two thirds of it
    if found.samples != (3 if found.photometric.upper() in _THREE_SAMPLES else 1):
        raise InputError(f"{found.samples} samples a pixel in {found.photometric or 'no colours'}")
    if columns * rows * found.frames > MAX_VOXELS:
        raise InputError(
            f"claims {columns} x {rows} x {found.frames} pixels; expected at most 2^30"
        )
    return found


def _guess_syntax(dataset: pydicom.Dataset) -> UID:
    """The transfer syntax of a data set without file meta information."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def is_colour(dataset: pydicom.Dataset) -> bool:
    """Whether the pixels are colours, not grey values."""
    photometric = text(dataset, "PhotometricInterpretation").upper()
    return not photometric.startswith("MONOCHROME")


FrameReader = Callable[[int], Pixels]
"""From a frame's index to its stored samples: (rows, columns) or (rows, columns, 3).

They stay valid until the same thread reads the next frame.
"""


def frame_reader(path: Path, header: Header, name: str, notes: set[str]) -> FrameReader:
    """A function that reads the stored samples of one frame of a file.

    Args:
        path: the file.
        header: its header.
        name: what to call it in errors.
        notes: takes what is noticed in the pixels, in words.

    Raises:
        InputError: the file holds fewer pixels than it claims, or an encoding that is not read.
    """
    stored = pixel_format(header.dataset)
    if not text(getattr(header.dataset, "file_meta", pydicom.Dataset()), "TransferSyntaxUID"):
        notes.add(f"no TransferSyntaxUID: read as {stored.transfer_syntax.name}")
    if integer(header.dataset, "BitsStored") is None:
        notes.add(f"no BitsStored: {stored.bits_stored} are taken")
    if integer(header.dataset, "PixelRepresentation") is None:
        notes.add("no PixelRepresentation: values are taken for unsigned")
    grey = stored.photometric.startswith("MONOCHROME")
    if stored.transfer_syntax in _NATIVE and grey and header.pixel_offset:
        return _native_reader(path, header.pixel_offset, stored, name, notes)
    if stored.transfer_syntax == DeflatedExplicitVRLittleEndian and grey:
        return _deflated_reader(path, stored, name, notes)
    return _decoding_reader(path, stored, name, notes)


def _native_reader(
    path: Path, offset: int, stored: PixelFormat, name: str, notes: set[str]
) -> FrameReader:
    """Reads uncompressed frames straight from the file."""
    order = "big" if stored.transfer_syntax == ExplicitVRBigEndian else "little"
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(12)
        # files lie about this; as the first half of a length, both words would make it odd
        implicit = head[4:6] not in {b"OW", b"OB"}
        start = offset + (8 if implicit else 12)
        held = os.fstat(file.fileno()).st_size - start
    if head[:4] not in _PIXEL_DATA:
        raise InputError(f"{name}: pixels as floating point numbers; expected PixelData")
    claimed = int.from_bytes(head[4:8] if implicit else head[8:12], order)  # type: ignore[arg-type]
    if claimed == 0xFFFFFFFF:
        raise InputError(f"{name}: compressed pixels where its transfer syntax says uncompressed")
    needed = stored.frame_bytes * stored.frames
    available = max(min(held, claimed), 0)
    if available < needed:
        raise InputError(f"{name}: {available} bytes of pixels; expected {needed} (truncated)")
    if available > needed:
        with path.open("rb") as file:
            file.seek(start + needed)
            _check_padding(file.read(available - needed), needed, name)

    def read(index: int) -> Pixels:
        room = _scratch_bytes(stored.frame_bytes)
        with path.open("rb", buffering=0) as file:
            file.seek(start + index * stored.frame_bytes)
            _fill(file, room, name)
        samples = np.frombuffer(room, dtype=stored.dtype)
        return _used_bits(samples.reshape(stored.rows, stored.columns), stored, notes)

    return read


def _deflated_reader(path: Path, stored: PixelFormat, name: str, notes: set[str]) -> FrameReader:
    """Frames of a deflated data set, which is in memory once it is parsed."""
    with header_errors(name):
        data = pydicom.dcmread(path, force=True).PixelData
    needed = stored.frame_bytes * stored.frames
    if len(data) < needed:
        raise InputError(f"{name}: {len(data)} bytes of pixels; expected {needed} (truncated)")
    _check_padding(data[needed:], needed, name)

    def read(index: int) -> Pixels:
        start = index * stored.frame_bytes
        samples = np.frombuffer(data[start : start + stored.frame_bytes], dtype=stored.dtype)
        return _used_bits(samples.reshape(stored.rows, stored.columns), stored, notes)

    return read


def _check_padding(surplus: bytes, needed: int, name: str) -> None:
    """Refuse more pixels than the header says: another size, or more frames.

    One byte evens the length out (PS3.5 8.1.1); writers that add more add zeros.
    """
    if len(surplus) > 1 and any(surplus):
        raise InputError(
            f"{name}: {needed + len(surplus)} bytes of pixels; expected {needed} "
            "(another size, or more frames?)"
        )


_scratch = threading.local()


def _scratch_bytes(size: int) -> memoryview:
    """Room for ``size`` bytes that this thread uses again and again: fresh memory is slow."""
    room: bytearray | None = getattr(_scratch, "room", None)
    if room is None or len(room) < size:
        room = _scratch.room = bytearray(size)
    return memoryview(room)[:size]


def _fill(file: io.FileIO, room: memoryview, name: str) -> None:
    """Read into all of ``room``."""
    done = 0
    while done < len(room):
        count = file.readinto(room[done:])
        if not count:
            raise InputError(f"{name}: the file ends inside its pixels (truncated)")
        done += count


def _used_bits(samples: Pixels, stored: PixelFormat, notes: set[str]) -> Pixels:
    """``samples`` without the bits above BitsStored (old files keep overlays there)."""
    spare = stored.bits_allocated - stored.bits_stored
    if not spare:
        return samples
    native = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if not stored.signed and int(native.max()) >> stored.bits_stored:
        notes.add(f"bits above the {stored.bits_stored} of BitsStored are set: left out (overlay?)")
    return np.asarray(np.right_shift(np.left_shift(native, spare), spare))


def _decoding_reader(path: Path, stored: PixelFormat, name: str, notes: set[str]) -> FrameReader:
    """Decodes frames with pydicom's plug-ins."""
    try:
        decoder = get_decoder(stored.transfer_syntax)
    except NotImplementedError as error:
        raise InputError(f"{name}: pixels in {stored.transfer_syntax.name} are not read") from error

    with header_errors(name):
        dataset = pydicom.dcmread(path, force=True)
        if not text(getattr(dataset, "file_meta", pydicom.Dataset()), "TransferSyntaxUID"):
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = stored.transfer_syntax
        if stored.transfer_syntax == JPEGExtended12Bit:
            dataset.PixelData = with_whole_scans(dataset.PixelData)

    def read(index: int) -> Pixels:
        with header_errors(name):
            if stored.transfer_syntax.is_encapsulated:
                check_codestream(dataset.PixelData, stored, index, notes)
            # pydicom's door to GDCM turns away 12 bits, and sees no end that is missing (jpeg.py)
            if stored.transfer_syntax in JPEG_SYNTAXES and stored.samples == 1:
                frame = get_frame(dataset.PixelData, index, number_of_frames=stored.frames)
                pixels = decode_jpeg(frame, stored)
            else:
                plugin = _DECODERS.get(stored.transfer_syntax, "")
                pixels, _ = decoder.as_array(dataset, index=index, decoding_plugin=plugin)
            expected = (stored.rows, stored.columns, 3)[: 3 if stored.samples == 3 else 2]
            if pixels.shape != expected:
                raise InputError(f"{name}: decodes to {pixels.shape}; expected {expected}")
            if stored.photometric == "PALETTE COLOR":
                return np.asarray(apply_color_lut(pixels, dataset))
            if stored.samples == 1 and 8 * pixels.dtype.itemsize == stored.bits_allocated:
                return _used_bits(pixels, stored, notes)
            return np.asarray(pixels)

    return read


@dataclass(frozen=True)
class Rescale:
    """From stored to physical values of one frame.

    Attributes:
        slope, intercept: physical = slope * stored + intercept, where there is no table.
        table: physical value by stored value, from ``first`` on (modality LUT).
        first: the stored value of the table's first entry.
        padding: lowest and highest stored value that mean "no image here".
        mirror: a negative's values are this minus the physical ones.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: npt.NDArray[np.float32] | None = None
    first: int = 0
    padding: tuple[int, int] | None = None
    mirror: float | None = None

    def __call__(self, stored: Pixels, out: npt.NDArray[np.float32]) -> tuple[int, int]:
        """Write physical values of ``stored`` into ``out``, NaN for padding.

        Returns:
            How many pixels are padding, and how many have its value inside of the image.

        Args:
            stored: (rows, columns) samples.
            out: (rows, columns) float32 that receives the values.
        """
        if self.table is not None:
            index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
            out[...] = self.table[index]
        elif self.slope == 1:
            np.add(stored, np.float32(self.intercept), out=out, casting="unsafe")
        else:
            np.multiply(stored, np.float32(self.slope), out=out, casting="unsafe")
            out += np.float32(self.intercept)
        if self.mirror is not None:
            np.subtract(np.float32(self.mirror), out, out=out)
        if self.padding is None:
            return 0, 0
        low, high = self.padding
        padded = (stored >= low) & (stored <= high)
        found = int(np.count_nonzero(padded))
        if not found:
            return 0, 0
        if stored.min() < low and stored.max() > high:
            padded = _reaches_border(padded)
        count = int(np.count_nonzero(padded))
        out[padded] = np.nan
        return count, found - count


def _reaches_border(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pieces of ``mask`` that touch the border of the image: a value between others is tissue.

    Scanners pad what lies outside of the reconstructed circle or of the tilted field.
    """
    labels, _ = ndimage.label(mask)
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.asarray(mask & np.isin(labels, np.unique(edges)))


def rescale_of(dataset: pydicom.Dataset, index: int = 0) -> Rescale:
    """How frame ``index`` of a file becomes physical."""
    group = _value_transformation(dataset, index)
    padding = _padding(dataset)
    lut = first_item(dataset, "ModalityLUTSequence")
    if len(lut):
        return _table(lut, padding, pixel_format(dataset))
    slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
    if slope == 0 or (slope is not None and not 1e-12 < abs(slope) < 1e12):
        raise InputError(f"RescaleSlope is {slope:g}; expected a number that scales")
    slope = 1.0 if slope is None else slope
    intercept = 0.0 if intercept is None else intercept
    mirror = slope * _range_sum(dataset) + 2 * intercept if inverts(dataset) else None
    return Rescale(slope, intercept, padding=padding, mirror=mirror)


def _range_sum(dataset: pydicom.Dataset) -> int:
    """Lowest plus highest value that a sample can have."""
    return (
        -1
        if integer(dataset, "PixelRepresentation") == 1
        else ((1 << (integer(dataset, "BitsStored") or 16)) - 1)
    )


def _value_transformation(dataset: pydicom.Dataset, index: int) -> pydicom.Dataset:
    """The data set that holds the rescale attributes of one frame."""
    if text(dataset, "SOPClassUID") in SINGLE:
        return dataset
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    for group in (per_frame[index] if index < len(per_frame) else shared, shared):
        found = first_item(group, "PixelValueTransformationSequence")
        if len(found):
            return found
    return dataset


def _table(lut: pydicom.Dataset, padding: tuple[int, int] | None, stored: PixelFormat) -> Rescale:
    """A modality LUT (PS3.3 C.11.1); its first stored value is signed where the samples are."""
    descriptor = value(lut, "LUTDescriptor")
    data = value(lut, "LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise InputError("ModalityLUTSequence without LUTDescriptor or LUTData")
    entries, first = int(descriptor[0]) or 65536, int(descriptor[1])
    if isinstance(data, bytes):
        wide = f"{stored.byte_order}u2"
        data = np.frombuffer(data, dtype=wide if len(data) >= 2 * entries else "u1")
    table = np.asarray(data, dtype=np.float32)[:entries]
    if len(table) < entries:
        raise InputError(f"LUTData holds {len(table)} values; expected {entries}")
    if stored.signed and first >= 1 << 15:
        first -= 1 << 16
    return Rescale(table=table, first=first, padding=padding)


def _padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """The range of stored values that PixelPaddingValue declares, or None."""
    low = integer(dataset, "PixelPaddingValue")
    high = integer(dataset, "PixelPaddingRangeLimit")
    signed = integer(dataset, "PixelRepresentation") == 1
    if low is None or (low == 0 and not high and not signed and not inverts(dataset)):
        return None  # the lowest value there is stands for air already
    ends = [low, low if high is None else high]
    if signed:
        bits = integer(dataset, "BitsAllocated") or 16
        ends = [end - (1 << bits) if end >= 1 << (bits - 1) else end for end in ends]
    return min(ends), max(ends)


def to_air(ct: npt.NDArray[np.float32]) -> int:
    """Set padding and whatever is thinner than air in a CT slice to air; how much that was."""
    low = float(ct.min())
    if low >= AIR_HU:
        return 0
    below = ~(ct >= AIR_HU)
    padded = int(np.count_nonzero(np.isnan(ct)))
    ct[below] = AIR_HU
    return int(np.count_nonzero(below)) - padded


def fill_padding(volume: npt.NDArray[np.float32]) -> float:
    """Set NaN in ``volume`` to its lowest other value, in place; that value."""
    lowest = float(np.fmin.reduce(volume, axis=None))
    air = lowest if np.isfinite(lowest) else 0.0
    for image in volume:
        image[np.isnan(image)] = air
    return air


def units_of(dataset: pydicom.Dataset) -> str:
    """What a value means: HU, BQML, SUVBW, counts, another unit of CT or PET, or ""."""
    modality = modality_code(dataset)
    if modality == "CT":
        kind = text(_value_transformation(dataset, 0), "RescaleType").upper()
        return kind if kind in _NO_HOUNSFIELD else "HU"
    if modality not in {"NM", "PT"}:
        return ""
    unit = text(dataset, "Units").upper()
    if modality == "NM":  # the module has no Units; quantitative cameras write it, or a mapping
        return "BQML" if unit == "BQML" or _is_mapped_to_bqml(dataset) else "counts"
    if unit and unit not in _PET_UNITS:
        return ""
    if unit == "GML" and text(dataset, "SUVType").upper() in {"", "BW"}:
        return "SUVBW"
    return {"CNTS": "counts", "": "BQML" if _is_mapped_to_bqml(dataset) else ""}.get(unit, unit)


def _is_mapped_to_bqml(dataset: pydicom.Dataset) -> bool:
    """Whether an enhanced PET, or an NM, says in its real world value mapping that it is in Bq/ml.

    A mapping of another slope than RescaleSlope does not speak of the values that are read.
    """
    groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    for group in (dataset, *(first_item(dataset, keyword) for keyword in groups)):
        mapping = first_item(group, "RealWorldValueMappingSequence")
        code = text(first_item(mapping, "MeasurementUnitsCodeSequence"), "CodeValue")
        if code.upper() == "BQ/ML":
            slope = number(mapping, "RealWorldValueSlope")
            return slope is None or math.isclose(slope, rescale_of(dataset).slope, rel_tol=1e-4)
    return False


def inverts(dataset: pydicom.Dataset) -> bool:
    """Whether a MONOCHROME1 image is a negative.

    CT, PET and NM values are physical and only their display is inverted; an MR or another value
    without unit means the opposite.
    """
    return (
        text(dataset, "PhotometricInterpretation").upper() == "MONOCHROME1"
        and modality_code(dataset) in _INVERTED_MODALITIES
    )
