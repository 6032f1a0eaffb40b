"""Which files a path stands for, and what each one is, judged by its first bytes alone."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmif.errors import InputError

Kind = Literal["dicom", "packed", "nifti", "analyze", "mgh", "itk", "zip", "empty", "other"]

MAX_FILES = 200_000
"""Files looked at in one tree; a larger one is refused."""

# A NIfTI-1 header and its magic: 348 + 4
_SNIFFED_BYTES = 352
VALUE_REPRESENTATIONS = frozenset(
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


def require_path(path: str | Path) -> Path:
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


def text_of(path: Path) -> str:
    """``path`` as the text that SimpleITK takes; any other ends the process (a null in C++).

    Raises:
        InputError: its name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: a name that is not UTF-8; expected it renamed") from error
    return str(path)


def sibling(path: Path, endings: tuple[str, ...]) -> Path | None:
    """The regular file beside ``path`` with its stem and one of ``endings``, in any capitals.

    Args:
        path: ``a.hdr``, or ``a.hdr.gz``.
        endings: in lower case, the preferred one first.

    Raises:
        InputError: it is a link that leaves the folder.
    """
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    stem = Path(name).stem
    for ending in endings:
        exact = path.with_name(stem + ending)
        if is_ordinary(exact):
            return own_file(path, exact.name)
    wanted = {(stem.lower() + ending): number for number, ending in enumerate(endings)}
    try:
        beside = [p for p in sorted(path.parent.iterdir()) if p.name.lower() in wanted]
    except OSError:
        return None
    beside = [p for p in beside if is_ordinary(p)]
    own = [p for p in beside if p.stem.split(".")[0] == stem.split(".")[0]]
    beside = own or (beside if len(beside) == 1 else [])  # M.IMG beside m.hdr
    if not beside:
        return None
    return own_file(path, min(beside, key=lambda p: wanted[p.name.lower()]).name)


def own_file(header: Path, name: str) -> Path:
    """The regular file ``name`` in the folder of the detached header that names it.

    Raises:
        InputError: it lies elsewhere, by its name or as a link, or is no regular file.
    """
    plain = name not in {"", ".", ".."} and not {"/", "\\", "\0"} & set(name)
    if not plain or len(os.fsencode(name)) > 255:
        raise InputError(f"{header}: names pixels in {name[:80]!r}; expected a file of its folder")
    data = header.parent / name
    homes = {header.parent.resolve(), header.resolve().parent}
    if data.resolve().parent not in homes:
        raise InputError(f"{header}: {name!r} is a link out of its folder; expected a file there")
    if not is_ordinary(data):
        raise InputError(f"{header}: {name!r} is missing or no regular file")
    return data


def walk(folder: Path) -> Iterator[FoundFile]:
    """Every ordinary file and dead link below ``folder``, in a stable order, each folder once.

    A link to a folder is followed, unless it leads to ``folder`` or above it. A folder that cannot
    be looked into stands among them as if it were a file.

    Raises:
        InputError: more than MAX_FILES files.
    """
    count = 0
    left, above = [folder], {_identity(p) for p in (folder, *folder.resolve().parents)}
    seen: set[tuple[int, int]] = set()
    while left:
        parent = left.pop()
        place = _identity(parent)
        if place in seen and place != _UNSEEN:
            continue
        seen.add(place)
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
        except OSError:
            yield FoundFile(parent, str(parent))  # `detect_format` says why it cannot be read
            continue
        folders = [
            Path(entry)
            for entry in entries
            if _is_folder(entry) and not (entry.is_symlink() and _identity(Path(entry)) in above)
        ]
        left += reversed(folders)
        for path in map(Path, entries):
            if not (is_ordinary(path) or is_dead_link(path)):
                continue
            count += 1
            if count > MAX_FILES:
                raise InputError(f"{folder}: more than {MAX_FILES} files; name a smaller folder")
            yield FoundFile(path, str(path))


_UNSEEN = (0, 0)


def _identity(folder: Path) -> tuple[int, int]:
    """The folder itself, whatever links lead to it; (0, 0) where it cannot be looked at.

    Paths resolved to their ends take a look at every folder above: minutes, a thousand deep.
    """
    try:
        found = folder.stat()
    except OSError:
        return _UNSEEN
    return found.st_dev, found.st_ino


def detect_format(path: Path) -> Kind:
    """What ``path`` holds, judged by its first bytes.

    Raises:
        InputError: it cannot be read.
    """
    if is_dead_link(path):
        raise InputError(f"{path}: a link that leads nowhere")
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
            head = file.read(_SNIFFED_BYTES)
        if _foreign_name(head):
            return "other"
        kind = _kind_of_bytes(head)
    except (OSError, EOFError, zlib.error):
        kind = "other"
    if kind == "other" and path.name.lower().endswith((".mgz", ".mgh.gz")):
        return "mgh"
    if kind not in {"nifti", "analyze", "mgh", "dicom"} and path.name.lower().endswith(
        (".nii.gz", ".nii")
    ):
        return "nifti"
    if kind == "dicom":
        return "packed"
    return kind if kind in {"nifti", "analyze", "mgh"} else "other"


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
    if _is_mgh(head):
        return "mgh"
    return "other"


def _is_mgh(head: bytes) -> bool:
    """Whether ``head`` is a FreeSurfer volume's: version 1, four sizes, a known type."""
    words = [int.from_bytes(head[at : at + 4], "big", signed=True) for at in range(0, 24, 4)]
    known = {0, 1, 3, 4, 10}  # uint8, int32, float32, int16, uint16 (FreeSurfer's MGH format)
    return len(head) >= 284 and words[0] == 1 and min(words[1:5]) > 0 and words[5] in known


_STANDARD_ROOT = b"1.2.840.10008."
"""How every UID of DICOM itself begins; the first of a file stands in its first 352 bytes."""

DAMAGED_DICOM = "a damaged DICOM file"
_FOREIGN = (
    (b"version https://git-lfs", "the pointer of a large-file store (Git LFS), not its content"),
    (b"/annex/objects/", "the pointer of git-annex, not its content"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"PK\x03\x04", "a zip archive inside"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%!PS", "a PostScript document"),
    (b"CDF\x01", "a MINC 1 volume"),
)


def foreign_content(path: Path) -> str:
    """What a file that is no volume is instead, in words; "" where that is not known either."""
    import gzip
    import zlib

    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head[:2] != b"\x1f\x8b":
            return _foreign_name(head) or (DAMAGED_DICOM if _STANDARD_ROOT in head else "")
        try:
            with gzip.open(path) as packed:
                inside = packed.read(512)
        except (OSError, EOFError, zlib.error):
            return "gzip that is damaged or cut short"
        return _foreign_name(inside) or "gzip of something that is no volume"
    except OSError:
        return ""


def is_data(file: FoundFile) -> bool:
    """Whether a file holds binary data, and is none that a file browser hides."""
    if Path(file.name).name.startswith("."):
        return False
    with file.path.open("rb") as stream:
        return b"\0" in stream.read(512)


def _foreign_name(head: bytes) -> str:
    """As `foreign_content`, of the first bytes."""
    for start, name in _FOREIGN:
        if head.startswith(start):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, or pack it as zip"
    opening = head.lstrip().lower()
    if opening.startswith((b"<!doctype html", b"<html", b"<head")) or (
        opening.startswith(b"<!--") and b"<html" in opening
    ):
        return "a web page (HTML): the download answered with an error?"
    if head.lstrip().startswith((b"<?xml", b"{")):
        return "a text (XML or JSON)"
    return ""


def _is_bare_dicom(head: bytes) -> bool:
    """Whether ``head`` starts a DICOM data set without preamble (group 0002 or 0008)."""
    if len(head) < 16 or head[:2] not in {b"\x02\x00", b"\x08\x00"}:
        return False
    element, length = int.from_bytes(head[2:4], "little"), int.from_bytes(head[4:8], "little")
    explicit = head[4:6] in VALUE_REPRESENTATIONS
    return element <= 0x0060 and (explicit or (length <= 64 and length % 2 == 0))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_dead_link(path: Path) -> bool:
    """Whether ``path`` is a link that leads nowhere."""
    return path.is_symlink() and not path.exists()


def is_ordinary(path: Path) -> bool:
    """Whether ``path`` is a regular file; a pipe or a device would block the reader."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
