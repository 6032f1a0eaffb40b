"""One job of a batch: a study and a task, its input files and their fingerprints."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_NAME_BYTES = 120


@dataclass(frozen=True)
class Input:
    """One source of a job.

    Attributes:
        path: what is handed to the reader: a file, or a folder.
        series_uid: the series to take, where the path holds several.
        files: all files the path stands for, relative to ``folder``.
        folder: what ``files`` are relative to.
    """

    path: Path
    folder: Path
    files: tuple[str, ...]
    series_uid: str | None = None

    def paths(self) -> Iterator[Path]:
        """The files, in a stable order."""
        return (self.folder / name for name in sorted(self.files))


@dataclass(frozen=True)
class Job:
    """One study and one task.

    Attributes:
        id: ``STUDY/TASK``; the output is ``OUT/studies/STUDY/TASK``.
        task: ``ct-mri``, ``spect-mri`` or ``pet-mri``.
        inputs: role to source.
    """

    id: str
    task: str
    inputs: Mapping[str, Input]

    def output(self, out: Path) -> Path:
        """Where the results of this job go."""
        return out / "studies" / self.id

    def stamp(self) -> str:
        """Fingerprint by paths, sizes and times of the files: cheap, changed by a copy.

        A file that is gone counts as such, so that the stamp never raises.
        """
        digest = hashlib.sha256()
        for role, source in sorted(self.inputs.items()):
            digest.update(f"{role} {source.series_uid or ''}\n".encode())
            for path in source.paths():
                digest.update(_stamp_of(path).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def content(self) -> str:
        """Fingerprint by the bytes of the files, whatever their names: survives a copy.

        Raises:
            OSError: a file cannot be read.
        """
        digest = hashlib.sha256()
        for role, source in sorted(self.inputs.items()):
            digest.update(f"{role} {source.series_uid or ''}\n".encode())
            for one in sorted(map(_digest_of, source.paths())):
                digest.update(one)
        return digest.hexdigest()


def input_of(path: Path, series_uid: str | None = None) -> Input:
    """The source that a file or folder is, with every file below a folder.

    Args:
        path: a file, or a folder that holds one source.
        series_uid: the series to take of the folder.
    """
    if path.is_dir():
        files = tuple(
            os.path.relpath(Path(top) / name, path)
            for top, _, names in os.walk(path)
            for name in names
        )
        return Input(path, path, files, series_uid)
    return Input(path, path.parent, (path.name,), series_uid)


def safe_id(text: str) -> str:
    """``text`` as a name that any file system and spreadsheet takes; letters of all scripts stay.

    >>> safe_id("site A/case 7"), safe_id("Ärzte & Co")
    ('site_A-case_7', 'Ärzte_Co')
    """
    joined = unicodedata.normalize("NFC", text).replace(os.sep, "-")
    plain = re.sub(r"[^\w.-]+", "_", joined).strip("._-")
    return plain.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "study"


def printable(text: str) -> str:
    """``text`` on one line, without anything that a terminal would obey or a file not take.

    >>> printable("two\\nlines \\x1b[31m")
    'two lines �[31m'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _stamp_of(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} missing\n"
    return f"{path} {status.st_size} {status.st_mtime_ns}\n"


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
