"""Headers of the volumes that SimpleITK reads; neither torch nor MONAI is needed."""

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from mmif.errors import GeometryError, InputError
from mmif.geometry import Matrix, ras_lps
from mmif.io.checks import MAX_VOXELS, check_unpacked
from mmif.io.files import foreign_content, own_file, text_of

_FULL_FORMATS = frozenset({"MetaImageIO", "NrrdImageIO"})
"""ITK's readers of formats that can state where a volume lies and reach no other file unseen.

HDF5 can name files anywhere for its data (H5Pset_external), and only its own library knows which.
"""

_META_FIELDS = (("ElementSpacing", "ElementSize"), ("TransformMatrix", "Orientation", "Rotation"))
_NRRD_FIELDS = (("space",), ("space directions",))
_NRRD_SPACES = frozenset(
    {"right-anterior-superior", "left-anterior-superior", "left-posterior-superior"}
    | {"ras", "las", "lps"}
)
"""The spaces that ITK turns into its own; it takes every other for LPS."""

# The text of a MetaImage or NRRD header has some hundred; chosen, not measured
_MAX_TEXT_BYTES = 1 << 20
# Unpacked at once; decides memory, no result
_PIECE_BYTES = 1 << 24
MAX_SKEW = 0.01
"""By how much a product of two axes may be off: headers give them with three digits and more."""

_SKIPS = ("HeaderSize", "byte skip", "line skip")
_NRRD_END = re.compile(rb"\n\r?\n")
_META_END = re.compile(rb"^[ \t]*ElementDataFile[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True)
class ItkHeader:
    """What the header of a file says.

    Attributes:
        reader: has seen the header, and can read the pixels.
        size: voxels along each axis, 3 or 4 of them.
        affine_ras: voxel to RAS mm.
        warnings: what was noticed, in words.
    """

    reader: sitk.ImageFileReader
    size: tuple[int, ...]
    affine_ras: Matrix
    warnings: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Volumes in the file."""
        return self.size[3] if len(self.size) == 4 else 1

    @property
    def colour(self) -> bool:
        """Whether a voxel holds a colour."""
        return bool(self.reader.GetNumberOfComponents() == 3)


def read_itk_header(path: Path) -> ItkHeader:
    """The header of a file, if it claims no more than it can hold."""
    with path.open("rb") as file:
        if file.read(4) == b"CDF\x01":
            raise InputError(f"{path}: MINC 1 is not read; expected NIfTI, MetaImage or NRRD")
    what = foreign_content(path)
    if what:
        raise InputError(f"{path}: {what}; expected an image volume")
    # before ITK opens it: a header can name other files, and claim more than they hold
    fields = _geometry_fields(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: no volume that SimpleITK reads (broken or unknown)") from error
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) not in {3, 4} or components not in {1, 3}:
        kind = " x ".join(map(str, size))
        raise InputError(f"{path}: {kind} with {components} values a pixel; expected a volume")
    voxels = math.prod(size)
    if voxels > MAX_VOXELS:
        raise InputError(f"{path}: claims {voxels} voxels; expected no more than 2^30")
    pixel = sitk.Image([1] * 3, reader.GetPixelID()).GetSizeOfPixelComponent() * components
    data = _data_file(path, fields)
    compressed = fields.get("CompressedData", "").lower().startswith(("t", "1"))
    notes = _place_warnings(fields)
    # a compressed file says nothing of its size but by the ratio that is believed
    if not compressed and fields.get("encoding", "raw") == "raw":
        notes += _check_plain(path, data, fields, voxels * pixel)
    check_unpacked(voxels * pixel, data.stat().st_size, str(path))
    if compressed:
        _check_compressed(path, fields, voxels * pixel)
    if fields.get("encoding", "") in {"gzip", "gz"}:
        _check_gzipped(path, data, fields, voxels * pixel)
    _check_read_as_stated(path, fields, reader)
    n = len(size)
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (n, n))[:3, :3]
    if np.abs(direction.T @ direction - np.eye(3)).max() > MAX_SKEW:
        raise GeometryError(f"{path}: axes that are not perpendicular; expected a rotation")
    affine[:3, :3] = direction * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return ItkHeader(reader, size, ras_lps(affine), notes)


def _check_plain(path: Path, data: Path, fields: dict[str, str], expected: int) -> tuple[str, ...]:
    """Refuse fewer bytes of uncompressed pixels than ``expected``; ITK makes values up for them.

    Returns:
        A note, where there are more.
    """
    held, skipped = data.stat().st_size, 0
    if data == path:
        with path.open("rb") as file:
            end = (_NRRD_END if "space" in fields else _META_END).search(file.read(_MAX_TEXT_BYTES))
        held -= end.end() if end else 0
    else:
        skipped = sum(int(fields.get(key, "0") != "0") for key in _SKIPS)
    if held < expected:
        raise InputError(f"{path}: claims {expected} bytes of pixels; it holds {held} (truncated)")
    if held == expected or skipped:
        return ()
    return (f"{held - expected} bytes more than its header says: it may be damaged",)


def _check_read_as_stated(path: Path, fields: dict[str, str], reader: sitk.ImageFileReader) -> None:
    """Refuse a MetaImage of which ITK reads another geometry than its text says.

    A line that it cannot parse makes it leave out the next.
    """
    n = reader.GetDimension()
    axes = np.reshape(reader.GetDirection(), (n, n))
    for names, found in (
        (("ElementSpacing", "ElementSize"), (reader.GetSpacing(),)),
        (("Offset", "Position", "Origin"), (reader.GetOrigin(),)),
        (("TransformMatrix", "Rotation", "Orientation"), (axes.ravel(), axes.T.ravel())),
    ):
        name = next((name for name in names if fields.get(name)), "")
        stated = fields.get(name, "").split()
        try:
            known = [float(number) for number in stated]
        except ValueError:
            known = []
        read = any(len(known) == len(one) and np.allclose(known, one, atol=1e-4) for one in found)
        if stated and not read:
            raise InputError(f"{path}: {name} {' '.join(stated)[:40]} is not read as such")


def _place_warnings(fields: dict[str, str]) -> tuple[str, ...]:
    """A note where a MetaImage or NRRD does not say where its volume lies."""
    if not fields or any(fields.get(name) for name in _PLACES):
        return ()
    names = "space origin" if "space" in fields else " or ".join(_PLACES[:2])
    return (f"no {names}: the position is not known, 0 0 0 is taken",)


def _check_data_files(path: Path, found: dict[str, str], is_nrrd: bool) -> None:
    """Refuse a header whose pixels are not one regular file of its own folder, or within it."""
    name = found.get("data file") or found.get("datafile") if is_nrrd else found.get(_META_DATA)
    if name is None and is_nrrd:
        return
    if not is_nrrd and name is not None and name.upper() == "LOCAL":
        return
    if not name or name.split()[0].upper() == "LIST" or "%" in name:
        raise InputError(f"{path}: pixels in {name or 'no file'}; expected them in one file")
    own_file(path, name)


def _data_file(path: Path, fields: dict[str, str]) -> Path:
    """The file with the pixels of a header that `_check_data_files` has let pass."""
    name = fields.get(_META_DATA) or fields.get("data file") or fields.get("datafile") or "LOCAL"
    return path if name.upper() == "LOCAL" else own_file(path, name)


def _check_nrrd_axes(path: Path, found: dict[str, str]) -> None:
    """Refuse NRRD axes that are neither space nor a plain list, and lengths not in mm.

    ITK reads neither ``space units`` nor ``kinds``.
    """
    for field in ("space units", "units"):
        units = {unit.lower() for unit in re.findall(r'"([^"]*)"', found.get(field, ""))}
        lengths = units & _OTHER_LENGTHS if field == "units" else units - _MILLIMETRES
        if lengths:
            raise InputError(f"{path}: {field} {', '.join(sorted(lengths))}; expected mm")
    kinds = [kind.lower() for kind in found.get("kinds", "").split()]
    for kind in kinds:
        if kind not in _NRRD_KINDS:
            raise InputError(
                f"{path}: an axis of kind {kind} (components, no space); expected grey"
            )


_META_DATA = "ElementDataFile"
_PLACES = ("Offset", "Position", "Origin", "space origin")
_MILLIMETRES = frozenset({"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?"})
_OTHER_LENGTHS = frozenset({"m", "cm", "um", "µm", "nm", "in", "inch", "meter", "metre", "micron"})
_NRRD_KINDS = frozenset(
    {"domain", "space", "time", "list", "none", "???", "scalar", "stub"}
    | {"rgb-color", "3-color", "vector", "3-vector"}
)
"""Kinds that are read; the last four as three channels, which no role takes."""


_MOST_SIDES = 10
"""ITK's MetaImage writes NDims numbers into arrays of ten, whatever NDims says."""


def _geometry_fields(path: Path) -> dict[str, str]:
    """The header's fields, if SimpleITK need not make up a spacing or an orientation.

    Raises:
        InputError: what its format or its header lacks.
    """
    name = sitk.ImageFileReader.GetImageIOFromFileName(text_of(path))
    if not name:
        raise InputError(f"{path}: no volume that SimpleITK reads (broken or unknown)")
    if name not in _FULL_FORMATS:
        what = name.removesuffix("ImageIO")
        lacks = "name other files" if what == "HDF5" else "lack spacing or orientation"
        raise InputError(f"{path}: {what} files may {lacks}; expected NIfTI, MetaImage or NRRD")
    is_nrrd = name == "NrrdImageIO"
    found = _text_fields(path, is_nrrd)
    for names in _NRRD_FIELDS if is_nrrd else _META_FIELDS:
        if not any(found.get(field) for field in names):
            raise InputError(f"{path}: no {' or '.join(names)}; expected the volume's geometry")
    _check_data_files(path, found, is_nrrd)
    if is_nrrd:
        _check_nrrd_axes(path, found)
    sides = found.get("NDims", "3")
    if not is_nrrd and not (sides.isdecimal() and 1 <= int(sides[:9]) <= _MOST_SIDES):
        raise InputError(f"{path}: NDims {sides[:20]}; expected 3")
    if not is_nrrd and not found.get("BinaryData", "").lower().startswith(("t", "1")):
        raise InputError(f"{path}: BinaryData is not True (numbers as text); expected binary")
    unit = found.get("DistanceUnits", "mm").lower()
    if not is_nrrd and unit not in _MILLIMETRES:
        raise InputError(f"{path}: DistanceUnits {unit[:20]}; expected mm")
    if is_nrrd and found["space"].lower() not in _NRRD_SPACES:
        raise InputError(f"{path}: NRRD space of another kind; expected RAS, LAS or LPS")
    return found


def _check_compressed(path: Path, fields: dict[str, str], expected: int) -> None:
    """Refuse a compressed MetaImage that does not unpack to ``expected`` bytes.

    ITK would give back uninitialised voxels, or unpack for ever, without an error.
    """
    name, claimed = fields.get("ElementDataFile", ""), fields.get("CompressedDataSize", "0")
    local = name.upper() == "LOCAL"
    data = path if local else path.parent / name
    if len(name) > 255 or not data.is_file() or fields.get("HeaderSize", "0") != "0":
        raise InputError(f"{path}: compressed pixels not found; expected them in one file")
    size = data.stat().st_size
    if not re.fullmatch(r"[0-9]{1,15}", claimed) or int(claimed) > size:
        raise InputError(f"{path}: compressed pixels of a size that its file does not hold")
    with data.open("rb") as file:
        if local and (end := _META_END.search(file.read(_MAX_TEXT_BYTES))):
            file.seek(end.end())
        _check_unpacks(path, file.read(int(claimed) or size), expected)


def _check_gzipped(path: Path, data: Path, fields: dict[str, str], expected: int) -> None:
    """Refuse a gzipped NRRD that does not unpack to ``expected`` bytes, with their checksum.

    ITK does not look at the checksum.
    """
    if any(fields.get(key, "0") != "0" for key in _SKIPS):
        return
    with data.open("rb") as file:
        if data == path and (end := _NRRD_END.search(file.read(_MAX_TEXT_BYTES))):
            file.seek(end.end())
        _check_unpacks(path, file.read(), expected)


def _check_unpacks(path: Path, packed: bytes, expected: int) -> None:
    """Refuse zlib or gzip data that do not unpack to ``expected`` bytes."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked = _unpacked_bytes(stream, packed, expected)
    except zlib.error as error:
        raise InputError(f"{path}: compressed pixels are damaged") from error
    if not stream.eof or unpacked != expected:
        raise InputError(f"{path}: compressed pixels do not unpack to {expected} bytes")


def _unpacked_bytes(stream: Any, packed: bytes, expected: int) -> int:
    """Bytes that come out of ``packed``, piece by piece; at most a piece more than ``expected``."""
    total = 0
    while packed and total <= expected and not stream.eof:
        total += len(stream.decompress(packed, _PIECE_BYTES))
        packed = stream.unconsumed_tail
    return total


def _text_fields(path: Path, is_nrrd: bool) -> dict[str, str]:
    """The fields of a MetaImage or NRRD header, which is text in front of the pixels."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        for raw in file.read(_MAX_TEXT_BYTES).splitlines():
            line = raw.decode("latin-1").strip()
            if is_nrrd and not line:
                break
            field, _, value = line.partition(":" if is_nrrd or "=" not in line else "=")
            field = field.strip().lower() if is_nrrd else field.strip()
            found[field] = value.strip()
            if not is_nrrd and field == "ElementDataFile":
                break
    return found
