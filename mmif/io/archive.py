"""Zip archives and gzip files, unpacked where they can do no harm."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from mmif.errors import InputError, MmifError
from mmif.io.atomic import private_folder
from mmif.io.checks import check_unpacked
from mmif.io.files import MAX_FILES, FoundFile

MAX_UNPACKED_BYTES = 16 << 30
"""Bytes that one archive may unpack to."""

MAX_GZIP_BYTES = 4 << 30
"""Bytes that one gzip file may unpack to."""

# Read at once; decides memory, no result
_CHUNK_BYTES = 1 << 20


@contextmanager
def unpack(archive: Path) -> Iterator[tuple[FoundFile, ...]]:
    """The files of a zip, in a temporary folder that is gone afterwards.

    A member's name is never used as a path: members are numbered. An archive with a member that
    would leave its folder, that is encrypted, or that unpacks to more than the limits is refused.

    Raises:
        InputError: the archive is broken, hostile or too large.
    """
    with private_folder() as folder:
        try:
            with zipfile.ZipFile(archive) as members:
                found = tuple(_extract(archive, members, folder))
        except MmifError:
            raise
        except Exception as error:  # zipfile and its decompressors raise ten kinds over damage
            raise InputError(f"{archive}: not readable as a zip archive ({error})") from error
        yield found


def _extract(archive: Path, members: zipfile.ZipFile, folder: Path) -> Iterator[FoundFile]:
    """Write every member into ``folder`` under a number, counting the bytes that come out."""
    infos = [info for info in members.infolist() if not info.is_dir()]
    if len(infos) > MAX_FILES:
        raise InputError(f"{archive}: {len(infos)} members; expected at most {MAX_FILES}")
    for info in infos:
        _check_member(archive, info)
    total = sum(info.file_size for info in infos)  # zipfile reads no more of a member than it says
    check_unpacked(total, archive.stat().st_size, str(archive))
    if total > MAX_UNPACKED_BYTES:
        raise InputError(
            f"{archive}: unpacks to {total >> 30} GiB; expected at most {MAX_UNPACKED_BYTES >> 30}"
        )
    for number, info in enumerate(infos):
        target = folder / f"{number:06d}{_ending(info.filename)}"
        _copy(members, info, target)
        yield FoundFile(target, f"{archive}/{info.filename}")


def _check_member(archive: Path, info: zipfile.ZipInfo) -> None:
    """Refuse a member that names a place outside the archive, or that is encrypted."""
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1]):
        raise InputError(f"{archive}: member {info.filename!r} leaves the archive's folder")
    if info.flag_bits & 0x1:
        raise InputError(f"{archive}: member {info.filename!r} is encrypted")


def _ending(name: str) -> str:
    """The ending that tells a volume's format (``.nii.gz``), of harmless letters only."""
    endings = "".join(PurePosixPath(name).suffixes[-2:])
    return endings if endings.replace(".", "").isalnum() and len(endings) <= 16 else ""


def _copy(members: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one member to ``target``."""
    written = 0
    with members.open(info) as source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            written += len(chunk)
            sink.write(chunk)
    if written != info.file_size:
        raise zipfile.BadZipFile("a member is cut short")


class Gunzip:
    """Unpacks gzip files into a temporary folder, made when the first one comes.

    A context manager: what was unpacked is gone afterwards.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._count = 0

    def __enter__(self) -> "Gunzip":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __call__(self, packed: FoundFile) -> FoundFile:
        """The unpacked file, under the name of the packed one.

        Raises:
            InputError: it is damaged, or unpacks to more than the limits.
        """
        self._folder = self._folder or self._stack.enter_context(private_folder())
        self._count += 1
        target = self._folder / f"{self._count:06d}"
        size, total = packed.path.stat().st_size, 0
        try:
            with gzip.open(packed.path) as source, target.open("wb") as sink:
                while chunk := source.read(_CHUNK_BYTES):
                    total += len(chunk)
                    check_unpacked(total, size, packed.name)
                    if total > MAX_GZIP_BYTES:
                        raise InputError(
                            f"{packed.name}: unpacks to more than {MAX_GZIP_BYTES >> 30} GiB"
                        )
                    sink.write(chunk)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{packed.name}: gzip that is damaged or cut short") from error
        return FoundFile(target, packed.name)
