"""Which files a path stands for, and what each one is, judged by its first bytes alone."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmif.errors import InputError

Kind = Literal["dicom", "nifti", "analyze", "itk", "zip", "empty", "other"]

MAX_FILES = 200_000
"""Files looked at in one tree; a larger one is refused."""

_SNIFFED_BYTES = 352
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN "
    b"UR US UT UV".split()
)


@dataclass(frozen=True)
class FoundFile:
    """A file under the path that was named.

    Attributes:
        path: where its bytes are.
        name: what to call it in messages (inside a zip: archive and member).
    """

    path: Path
    name: str


@dataclass(frozen=True)
class IgnoredFile:
    """A file that is no image, and why."""

    name: str
    reason: str


def existing(path: str | Path) -> Path:
    """``path`` as a Path.

    Raises:
        InputError: nothing is there, or neither a file nor a folder.
    """
    found = Path(path).expanduser()
    try:
        mode = found.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file or folder") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: neither a file nor a folder; a pipe or a device is not read")
    return found


def walk(folder: Path) -> Iterator[FoundFile]:
    """Every ordinary file below ``folder``, in a stable order; folder links are not followed.

    A folder that cannot be looked into stands among them as if it were a file.

    Raises:
        InputError: more than MAX_FILES files.
    """
    count = 0
    left = [folder]
    while left:
        parent = left.pop()
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
        except OSError:
            yield FoundFile(parent, str(parent))  # `kind_of` says why it cannot be read
            continue
        folders = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
        left += reversed(folders)
        for path in map(Path, entries):
            if not _is_ordinary(path):
                continue
            count += 1
            if count > MAX_FILES:
                raise InputError(f"{folder}: more than {MAX_FILES} files; name a smaller folder")
            yield FoundFile(path, str(path))


def kind_of(path: Path) -> Kind:
    """What ``path`` holds, judged by its first bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
        if head[:2] == b"\x1f\x8b":
            return _kind_inside_gzip(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _kind_of_bytes(head)


def _kind_inside_gzip(path: Path) -> Kind:
    """The kind of a gzip file's content; a broken one named as NIfTI is still called NIfTI."""
    import gzip
    import zlib

    try:
        with gzip.open(path) as file:
            kind = _kind_of_bytes(file.read(_SNIFFED_BYTES))
    except (OSError, EOFError, zlib.error):
        kind = "other"
    if kind not in {"nifti", "analyze"} and path.name.lower().endswith((".nii.gz", ".nii")):
        return "nifti"
    return kind if kind in {"nifti", "analyze"} else "other"


def _kind_of_bytes(head: bytes) -> Kind:
    """The kind of a file that starts with ``head``."""
    if not head:
        return "empty"
    if head[128:132] == b"DICM" or _is_bare_dicom(head):
        return "dicom"
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return "zip"
    if head[4:8] in {b"n+2\0", b"ni2\0"} or head[344:348] in {b"n+1\0", b"ni1\0"}:
        return "nifti"
    if head.startswith((b"NRRD000", b"ObjectType", b"NDims")):
        return "itk"
    if head[:4] in {b"\x5c\x01\0\0", b"\0\0\x01\x5c"} and len(head) >= 348:
        return "analyze"
    return "other"


def _is_bare_dicom(head: bytes) -> bool:
    """Whether ``head`` starts a DICOM data set without preamble (group 0002 or 0008)."""
    if len(head) < 16 or head[:2] not in {b"\x02\x00", b"\x08\x00"}:
        return False
    element, length = int.from_bytes(head[2:4], "little"), int.from_bytes(head[4:8], "little")
    explicit = head[4:6] in _VALUE_REPRESENTATIONS
    return element <= 0x0060 and (explicit or (length <= 64 and length % 2 == 0))


def _is_ordinary(path: Path) -> bool:
    """Whether ``path`` is a regular file; a pipe or a device would block the reader."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
