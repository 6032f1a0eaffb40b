"""What may be replaced: nothing but what mmif wrote, and never an input, a link or a mount point.

A folder says by its ``summary.json`` which files mmif wrote into it, their sizes and checksums; a
single file says by its content who wrote it (`mmif.io.seals`).
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from mmif.errors import OutputError
from mmif.io.atomic import tidy
from mmif.io.seals import (
    MOST_BYTES,
    file_sha256,
    is_sealed_json,
    is_sealed_picture,
    is_sealed_text,
    sealed_json,
)

SUMMARY = "summary.json"

CHANGED = "a file that mmif did not write, or that was changed since"
Foreign = Callable[[Path], str]
"""What at an output is not mmif's, in words; "" where all of it is."""


def refuse_existing(
    *outputs: Path, overwrite: bool, inputs: Iterable[Path] = (), foreign: Foreign | None = None
) -> None:
    """Refuse outputs that stand already and may not be replaced.

    Args:
        outputs: what is going to be written.
        overwrite: whether what stands there may be replaced.
        inputs: paths that are read; an output that is one of them, or holds one, is never replaced.
        foreign: what at an output is not mmif's; by default `foreign_in_folder` for a folder and
            `foreign_file` for a file.

    Raises:
        OutputError: one of ``outputs`` may not be written.
    """
    read = [path.resolve() for path in inputs]
    for output in outputs:
        _refuse_place(output)
        with suppress(OSError):  # who cannot put a killed run's leftovers right cannot write either
            tidy(output)
        if not os.path.lexists(output):
            continue
        if not overwrite:
            raise OutputError(f"{output} exists; expected a new path, or --overwrite")
        _refuse_irreplaceable(output)
        _refuse_holding(output, read)
        strange = (foreign or _foreign)(output)
        if strange:
            raise OutputError(
                f"{output}: {strange}; expected a new path, or only what mmif wrote there"
            )


def _refuse_place(output: Path) -> None:
    """Refuse an output for which there is no place.

    Raises:
        OutputError: a name that is too long, or a folder that takes no new file.
    """
    try:
        os.path.lexists(output)
        above = next((p for p in output.absolute().parents if p.exists()), output)
    except (OSError, ValueError) as error:
        raise OutputError(f"{output}: no name of a file ({error})") from error
    if len(os.fsencode(output.name)) > 255:
        raise OutputError(f"{output}: a name of more than 255 bytes; expected a shorter one")
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: {above} is not a folder that can be written to")


def _refuse_irreplaceable(output: Path) -> None:
    """Refuse an output that cannot be renamed away and removed as a whole.

    Raises:
        OutputError: a link, a mount point, a device, or no permission.
    """
    if output.is_symlink():
        raise OutputError(f"{output} is a link; expected a path of its own, or the link's target")
    mode, place = output.lstat(), output.resolve()
    if not (stat.S_ISREG(mode.st_mode) or stat.S_ISDIR(mode.st_mode)):
        raise OutputError(f"{output} is a pipe or a device; expected a file or a folder")
    for mounted in mount_points():
        if mounted == place or place in mounted.parents:
            raise OutputError(f"{output} is or holds a mount point; expected a path without one")
    above = output.absolute().parent.stat()
    owners = {0, above.st_uid, mode.st_uid}
    if above.st_mode & stat.S_ISVTX and os.geteuid() not in owners:
        raise OutputError(f"{output} belongs to another user; expected a path of your own")
    for top, _, _ in os.walk(output):
        if not os.access(top, os.W_OK | os.X_OK | os.R_OK):
            raise OutputError(f"{top} cannot be changed; expected an output that can be replaced")


def _refuse_holding(output: Path, read: Iterable[Path]) -> None:
    """Refuse an output that is, or holds, one of the paths ``read``, or what their links lead to.

    Raises:
        OutputError: it does.
    """
    place = output.resolve()
    for path in read:
        if path == place or place in path.parents:
            raise OutputError(f"{output} holds the input {path.name}; expected another output")
        if any(place in (link, *link.parents) for link in _links_below(path, place)):
            raise OutputError(f"{output} holds what {path.name} links to; expected another output")


def _links_below(folder: Path, output: Path) -> Iterator[Path]:
    """Where the links within a folder lead to, but for those that lie in ``output``."""
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(top, name) != output]
        paths = (Path(top, name) for name in (*folders, *names))
        yield from (path.resolve() for path in paths if path.is_symlink())


def refuse_links(output: Path) -> None:
    """Refuse to write on in a folder that holds a link, a pipe or a device: it leads elsewhere.

    Raises:
        OutputError: it does.
    """
    for name, size in sorted(file_sizes(output).items()) if output.is_dir() else ():
        path = output / name
        if size < 0 and not (path.is_dir() and not path.is_symlink()):
            raise OutputError(
                f"{path} is a link, a pipe or a device; expected a file that mmif wrote"
            )


def mount_points() -> list[Path]:
    """Every mount point of this process, bind mounts too (proc_pid_mountinfo(5))."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    octal = re.compile(r"\\([0-7]{3})")
    return [Path(octal.sub(lambda m: chr(int(m[1], 8)), line.split(" ")[4])) for line in lines]


def _foreign(output: Path) -> str:
    return foreign_in_folder(output) if output.is_dir() else foreign_file(output)


@dataclass(frozen=True)
class Record:
    """The files of an output as mmif wrote them, relative to it, but for ``summary.json``.

    Attributes:
        sizes: in bytes.
        sha256: 64 hexadecimal digits each; empty in a record of mmif 0.1, which had none.
    """

    sizes: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict)

    def difference(self, name: str, path: Path) -> str:
        """In what the file at ``path`` is not what was written as ``name``; "" where it is."""
        size = path.lstat().st_size if path.is_file() and not path.is_symlink() else -1
        if self.sizes[name] != size:
            return f"has {size} bytes, not the {self.sizes[name]} that its {SUMMARY} says"
        if name in self.sha256 and self.sha256[name] != file_sha256(path):
            return f"has been changed: its sha256 is not the one that its {SUMMARY} says"
        return ""


def foreign_in_folder(output: Path) -> str:
    """What in a folder its ``summary.json`` does not list as written by mmif, byte by byte.

    A summary that cannot be read lists nothing, so that nothing is removed by it.
    """
    record = read_record(output / SUMMARY)
    found = file_sizes(output)
    if not found:
        return ""
    if record is None:
        return f"a folder without a {SUMMARY} that lists what mmif wrote, as it was written"
    for name in sorted(found.keys() - {SUMMARY}):
        if name not in record.sizes:
            return f"{name} is not among the files that its {SUMMARY} lists"
        if difference := record.difference(name, output / name):
            return f"{name} {difference}"
    return ""


def read_record(summary: Path) -> Record | None:
    """What a summary says that mmif wrote; None where it says nothing, or was edited."""
    text = text_at(summary)
    content = _json(text)
    sizes, sha256 = content.get("files"), content.get("sha256", {})
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        return None
    if not isinstance(sha256, dict) or (sha256 and sha256.keys() != sizes.keys()):
        return None
    if "seal" in content and not is_sealed_json(text):
        return None
    return Record(sizes, sha256)


def file_sizes(output: Path) -> dict[str, int]:
    """The files at ``output``, a folder or one file, relative to it, with their sizes in bytes.

    Links, and folders without anything in them, count as files of no size (-1).
    """
    if not output.is_dir():
        return {"": output.stat().st_size}
    sizes = {}
    for top, folders, names in os.walk(output):
        links = [name for name in folders if Path(top, name).is_symlink()]
        if not folders and not names and Path(top) != output:
            sizes[Path(top).relative_to(output).as_posix()] = -1
        for path in (Path(top, name) for name in [*names, *links]):
            regular = path.is_file() and not path.is_symlink()
            sizes[path.relative_to(output).as_posix()] = path.stat().st_size if regular else -1
    return sizes


def foreign_file(path: Path) -> str:
    """What a single file is that mmif does not write there; "" where it may have written it."""
    if path.is_dir():
        return "a folder where mmif writes a file"
    own = _OWN.get(path.suffix.lower())
    if own is None:
        return f"{path.suffix or 'a file without ending'} does not say who wrote it"
    return "" if own(path) else CHANGED


def foreign_names(output: Path, patterns: Iterable[str]) -> str:
    """What in a folder fits none of ``patterns`` (as fnmatch, but * crosses no folder)."""
    known = tuple(patterns)
    for name in sorted(file_sizes(output)):
        fits = (fnmatch(name, p) and name.count("/") == p.count("/") for p in known)
        if (output / name).is_symlink() or not any(fits):
            return f"{name} is none of the files that mmif writes there"
    return ""


def foreign_pictures(output: Path) -> str:
    """What in a folder is no picture that mmif wrote."""
    for name in sorted(file_sizes(output)):
        if strange := foreign_file(output / name):
            return f"{name}: {strange}"
    return ""


def record_of(output: Path) -> Record:
    """The record of the files in the folder ``output`` as they are now."""
    sizes = file_sizes(output)
    return Record(sizes, {n: file_sha256(output / n) for n, size in sizes.items() if size >= 0})


def record_files(output: Path, version: str) -> None:
    """Write a ``summary.json`` into ``output`` that says nothing but what mmif wrote there."""
    record = record_of(output)
    content = {"mmif_version": version, "files": record.sizes, "sha256": record.sha256}
    (output / SUMMARY).write_text(sealed_json(content), encoding="utf-8")


def foreign_pair(volume: Path) -> str:
    """As `foreign_in_folder`, of a single volume and the summary beside it, either of which may be
    missing."""
    beside = summary_beside(volume)
    record = read_record(beside) if beside.exists() else Record({})
    if record is None or (beside.exists() and set(record.sizes) != {volume.name}):
        return f"{beside.name} is no summary of {volume.name}, as it was written"
    if not volume.exists():
        return ""
    if volume.name not in record.sizes:
        return f"no {beside.name} lists {volume.name}"
    difference = record.difference(volume.name, volume)
    return difference and f"{volume.name} {difference}".replace(SUMMARY, beside.name)


def foreign_study(volume: Path | None) -> Foreign:
    """What at the outputs of a study is not mmif's; ``volume`` is its single file, if it is one."""

    def foreign(output: Path) -> str:
        if volume is not None and output in (volume, summary_beside(volume)):
            return foreign_pair(volume)
        return _foreign(output)

    return foreign


def summary_beside(volume: Path) -> Path:
    """Where the summary of a single volume ``X.nii`` or ``X.nii.gz`` stands: ``X.json``."""
    return volume.with_name(f"{volume.name.removesuffix('.gz').removesuffix('.nii')}.json")


def text_at(path: Path) -> str:
    """The content of a text file; "" where it is none."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return ""
        return path.read_bytes().decode("utf-8")  # line ends as they are
    except (OSError, ValueError):
        return ""


def _json(text: str) -> Mapping[str, object]:
    """The keys and values of a JSON text; none where it is something else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


_OWN: dict[str, Callable[[Path], bool]] = {
    ".json": lambda path: is_sealed_json(text_at(path)),
    **dict.fromkeys((".tex", ".tfm", ".txt"), lambda path: is_sealed_text(text_at(path))),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"), is_sealed_picture),
}
