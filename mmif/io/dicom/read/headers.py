"""DICOM headers, read without pixels, with bounded memory, and looked at without surprises."""

import gc
import hashlib
import logging
import math
import os
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, cast

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from mmif.errors import InputError, MmifError
from mmif.io.checks import check_unpacked
from mmif.io.dicom.read.elements import check_elements
from mmif.io.files import VALUE_REPRESENTATIONS

MAX_HEADER_BYTES = 32 << 20
"""Bytes in front of the pixels that are read; a 10,000-frame object needs about 15 MB."""

MAX_DEFLATED_BYTES = 1 << 28
"""Bytes that a deflated data set may unpack to."""


SMALL_BYTES = 1 << 20
"""A file of so many bytes can hold no header that takes too much."""

_TEXTS = frozenset({"AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})
"""Value representations whose values are texts between backslashes."""

_DICOMDIR = "1.2.840.10008.1.3.10"
_HEAD_BYTES = 2048  # hold the transfer syntax, in a group of some 200 behind 128 (PS3.10 7.1)


@dataclass(frozen=True)
class Header:
    """The header of one DICOM file.

    Attributes:
        dataset: everything but the pixel data.
        pixel_offset: where the pixel data element starts in the file, None where the file has
            none, 0 where it is inside a deflated data set.
    """

    dataset: pydicom.Dataset
    pixel_offset: int | None


_PYDICOM_LOG = logging.getLogger("pydicom")


class _Quiet:
    """Silences Python's warnings and pydicom's log while any thread is inside.

    Both repeat odd values of headers, which can be a patient's. The last thread out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: Any = None
        self._log_was_off = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
                self._log_was_off, _PYDICOM_LOG.disabled = _PYDICOM_LOG.disabled, True
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)
                _PYDICOM_LOG.disabled = self._log_was_off


quiet = _Quiet()
"""Context in which pydicom's and the decoders' warnings about odd values are not heard."""


class _Paused:
    """Pauses the garbage collector while any thread is inside.

    Headers are many small objects and no rubbish; the collector would walk all that MONAI has
    loaded again and again while they come in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_on:
                gc.enable()


collector_paused = _Paused()
"""Context for work that makes many objects and no rubbish."""


class _BoundedFile:
    """A binary file that refuses to hand out more than ``limit`` bytes."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit
        self.name = file.name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise InputError(f"more than {MAX_HEADER_BYTES >> 20} MiB in front of the pixels")
        data = self._file.read(size)
        self._left -= len(data)
        return data


@contextmanager
def header_errors(name: str) -> Iterator[None]:
    """Turns whatever a foreign parser or decoder raises over ``name`` into one InputError line."""
    try:
        with quiet:
            yield
    except MmifError:
        raise
    except RecursionError as error:
        raise InputError(f"{name}: sequences nested too deeply") from error
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a decoder in Rust is no Exception
        raise InputError(f"{name}: not readable as DICOM ({unquote(error)})") from error


@contextmanager
def prefix_errors(name: str) -> Iterator[None]:
    """Puts ``name`` in front of errors that do not name it."""
    try:
        yield
    except MmifError as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error


def one_line(error: BaseException, length: int = 160) -> str:
    """The message of ``error`` on one line of at most ``length`` characters."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= length else message[: length - 3] + "..."


def unquote(error: BaseException) -> str:
    """The message of a foreign ``error`` without what it quotes: that can be a patient's name."""
    message = re.sub(r"'.*'|\".*\"|b'.*", "...", one_line(error))
    return "".join(letter for letter in message if letter.isprintable() and letter.isascii())


def short_ascii(label: str) -> str:
    """A short attribute for a message: printable ASCII, at most 60 characters."""
    return "".join(letter for letter in label if " " <= letter <= "~")[:60]


def clean(content: str) -> str:
    """``content`` if it is a valid UID, else a word of its own for it.

    Broken files swallow other elements, so that an invalid UID can be anything, a name as well.
    """
    if UID(content).is_valid:
        return content
    return f"(invalid UID {hashlib.sha256(content.encode()).hexdigest()[:8]})"


def read_header(
    path: Path, name: str | None = None, only: tuple[str | BaseTag, ...] = ()
) -> Header:
    """The header of a DICOM file, with or without preamble.

    Args:
        path: the file.
        name: what to call it in errors, if not by its path.
        only: attributes to keep; all where none are named.

    Raises:
        InputError: the file is not DICOM, broken, or larger in front of its pixels than allowed.
    """
    where = name or str(path)
    with prefix_errors(where), header_errors(where), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if DeflatedExplicitVRLittleEndian.encode() in head:
            _check_deflated(file)
            return Header(_usable(_parse(file, only), path, name), 0)
        if size > SMALL_BYTES:
            _check_elements(file, head)
        bounded = size > MAX_HEADER_BYTES
        stream = cast(BinaryIO, _BoundedFile(file, MAX_HEADER_BYTES)) if bounded else file
        found = _parse(stream, only)
        offset = file.tell()
        return Header(_usable(found, path, name), offset if offset < size else None)


def _check_elements(file: BinaryIO, head: bytes) -> None:
    """Refuse a header with more elements than an image has."""
    meta, start = _file_meta(head)
    start = start if meta else 132 * (head[128:132] == b"DICM")
    big = ExplicitVRBigEndian.encode() + b"\0" in head[:start]
    implicit = head[start + 4 : start + 6] not in VALUE_REPRESENTATIONS
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        check_elements(data, start, implicit, big)


def _usable(dataset: pydicom.Dataset, path: Path, name: str | None) -> pydicom.Dataset:
    """``dataset``, if it says what it is.

    Raises:
        InputError: it has no SOP class.
    """
    if "SOPClassUID" not in dataset and not is_directory(dataset):
        raise InputError(f"{name or path}: a DICOM file without SOPClassUID")
    return dataset


def _parse(stream: BinaryIO, only: tuple[str | BaseTag, ...]) -> pydicom.Dataset:
    """Everything before the pixels, however the file is encoded."""
    return pydicom.dcmread(
        stream,
        stop_before_pixels=True,
        force=True,
        specific_tags=[BaseTag(Tag(name)) for name in only] or None,
    )


def _file_meta(head: bytes) -> tuple[dict[BaseTag, DataElement | RawDataElement], int]:
    """The elements of group 0002 in the first bytes of a file, and where they end."""
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    at = 132
    while head[128:132] == b"DICM" and head[at : at + 2] == b"\x02\x00" and at + 12 <= len(head):
        vr = head[at + 4 : at + 6].decode("latin-1")
        wide = vr in {"OB", "UN", "OW", "UT", "SQ"}
        start = at + (12 if wide else 8)
        length = int.from_bytes(head[at + 8 : at + 12] if wide else head[at + 6 : at + 8], "little")
        if start + length > len(head):
            return {}, 0
        tag = BaseTag(0x00020000 + int.from_bytes(head[at + 2 : at + 4], "little"))
        content = head[start : start + length]
        found[tag] = RawDataElement(tag, vr, length, content, start, False, True)
        at = start + length
    return found, at


def is_directory(dataset: pydicom.Dataset) -> bool:
    """Whether a data set is that of a DICOMDIR."""
    meta = getattr(dataset, "file_meta", pydicom.Dataset())
    return text(meta, "MediaStorageSOPClassUID") == _DICOMDIR


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that unpacks to more than the limit; rewinds the file."""
    pydicom.filereader.read_preamble(file, force=True)
    pydicom.filereader._read_file_meta_info(file)
    unpack, content = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    packed = os.fstat(file.fileno()).st_size
    chunk = file.read(1 << 20)
    while chunk and not unpack.eof:
        content += unpack.decompress(chunk, 1 << 24)
        check_unpacked(len(content), packed, "deflated data")
        if len(content) > MAX_DEFLATED_BYTES:
            raise InputError(f"deflated data of more than {MAX_DEFLATED_BYTES >> 20} MiB")
        chunk = unpack.unconsumed_tail or file.read(1 << 20)
    file.seek(0)
    check_elements(bytes(content), 0, implicit=False)


def value(dataset: pydicom.Dataset, keyword: str) -> Any:
    """The value of an attribute; None where it is absent or empty.

    Raises:
        InputError: the value cannot be read.
    """
    if _tag(keyword) not in dataset:
        return None
    try:
        found = dataset[_tag(keyword)].value
    except Exception as error:
        raise InputError(f"{keyword} is not readable ({type(error).__name__})") from error
    return None if found is None or (hasattr(found, "__len__") and len(found) == 0) else found


def text(dataset: pydicom.Dataset, keyword: str) -> str:
    """The value of an attribute as a stripped string; "" where it is absent."""
    raw = _raw_text(dataset, keyword)
    if raw is not None:
        return raw
    found = value(dataset, keyword)
    if found is None:
        return ""
    return "\\".join(map(str, found)) if _is_list(found) else str(found).strip()


def description(dataset: pydicom.Dataset) -> str:
    """SeriesDescription, up to where a damaged length makes it swallow the next elements.

    A long string has at most 64 letters and no control character (PS3.5 table 6.2-1).
    """
    return re.split(r"[\x00-\x1f\x7f]", text(dataset, "SeriesDescription"))[0][:64].strip()


def code_strings(dataset: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a text attribute such as ImageType, in capitals."""
    return tuple(part.strip().upper() for part in text(dataset, keyword).split("\\") if part)


def numbers(dataset: pydicom.Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers of an attribute; None where it is absent.

    Raises:
        InputError: another count, or something that is no finite number.
    """
    if _tag(keyword) not in dataset:
        return None
    found: Any = _raw_numbers(dataset, keyword) or value(dataset, keyword)
    if found is None:
        return None
    try:
        values = tuple(float(part) for part in (found if _is_list(found) else [found]))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{keyword} is no number") from error
    if len(values) != count or not all(map(math.isfinite, values)):
        raise InputError(f"{keyword} holds {len(values)} values; expected {count} finite numbers")
    return values


def _raw_text(dataset: pydicom.Dataset, keyword: str) -> str | None:
    """A text as it stands in the file, "" for none; None where pydicom has to say what it means.

    As in `_raw_numbers`, for the sake of time. ASCII means the same in every character set, but
    where an escape sequence changes it.
    """
    try:
        raw: Any = dataset.get_item(_tag(keyword))
    except Exception:  # an element of an unknown kind, which pydicom decodes at once
        return None
    if raw is None:
        return ""
    if not isinstance(raw, RawDataElement) or not raw.value:
        return None
    if (raw.VR or _representation(keyword)) not in _TEXTS:
        return None
    if not raw.value.isascii() or b"\x1b" in raw.value:
        return None
    held = raw.value.decode("ascii")
    if "\\" not in held:
        return held.strip(" \0")
    return "\\".join(part.strip(" \0") for part in held.split("\\"))


def _raw_numbers(dataset: pydicom.Dataset, keyword: str) -> list[Any] | None:
    """The numbers of an attribute as they stand in the file, if pydicom has not yet parsed them.

    pydicom validates each value at length; over the slices of a series that takes seconds.
    """
    try:
        raw: Any = dataset.get_item(_tag(keyword))
    except Exception:  # an element of an unknown kind, which pydicom decodes at once
        return None
    if not isinstance(raw, RawDataElement) or not raw.value:
        return None
    representation = raw.VR or _representation(keyword)
    if representation in {"DS", "IS"}:
        return raw.value.strip(b" \0").split(b"\\")
    if representation == "US" and len(raw.value) == 2:
        return [int.from_bytes(raw.value, "little" if raw.is_little_endian else "big")]
    return None


@cache
def _tag(keyword: str) -> BaseTag:
    """The tag of an attribute."""
    return Tag(keyword)


@cache
def _representation(keyword: str) -> str:
    """The value representation of an attribute, where a file in implicit form does not say it."""
    return dictionary_VR(_tag(keyword))


def number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """One finite number of an attribute; None where it is absent."""
    values = numbers(dataset, keyword, 1)
    return None if values is None else values[0]


def integer(dataset: pydicom.Dataset, keyword: str) -> int | None:
    """One whole number of an attribute; None where it is absent."""
    found = number(dataset, keyword)
    return None if found is None else int(found)


def items(dataset: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """The items of a sequence; empty where it is absent or not a sequence."""
    found = value(dataset, keyword)
    if found is None or isinstance(found, str | bytes) or not _is_list(found):
        return []
    return [item for item in found if isinstance(item, pydicom.Dataset)]


def first_item(dataset: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    """The first item of a sequence; an empty data set where there is none."""
    found = items(dataset, keyword)
    return found[0] if found else pydicom.Dataset()


def patient_key(dataset: pydicom.Dataset) -> str | None:
    """A one-way hash of PatientID; None where the file has none.

    The issuer is left out: scanners of one hospital differ in whether they write it.
    """
    identity = text(dataset, "PatientID")
    return hashlib.sha256(identity.encode()).hexdigest() if identity else None


def person_key(dataset: pydicom.Dataset) -> str | None:
    """A one-way hash of PatientName and PatientBirthDate; None where the file has no name."""
    name = " ".join(text(dataset, "PatientName").replace("^", " ").upper().split())
    identity = f"{name}/{text(dataset, 'PatientBirthDate')}"
    return hashlib.sha256(identity.encode()).hexdigest() if name else None


def _is_list(found: object) -> bool:
    """Whether an attribute's value holds several values."""
    return isinstance(found, list | tuple) or (
        not isinstance(found, str | bytes) and hasattr(found, "__iter__")
    )
