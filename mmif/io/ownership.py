"""What may be replaced: nothing but what mmif wrote, and never an input, a link or a mount point.

A folder says by its ``summary.json`` which files mmif wrote into it, and of which sizes; a single
file says by its content who wrote it.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from mmif.errors import OutputError

SUMMARY = "summary.json"
MARK = "mmif"
"""What pictures name as the software that made them."""
MOST_BYTES = 64 << 20
"""Bytes of a summary or table that are looked at."""

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


def foreign_in_folder(output: Path) -> str:
    """What in a folder its ``summary.json`` does not list as written by mmif, with its size.

    A summary that cannot be read lists nothing, so that nothing is removed by it.
    """
    listed = listed_files(output / SUMMARY)
    found = file_sizes(output)
    if not found:
        return ""
    if listed is None:
        return f"a folder without a {SUMMARY} that lists what mmif wrote"
    for name, size in sorted(found.items()):
        if name != SUMMARY and name not in listed:
            return f"{name} is not among the files that its {SUMMARY} lists"
        if name != SUMMARY and listed[name] != size:
            return f"{name} has {size} bytes, not the {listed[name]} that its {SUMMARY} says"
    return ""


def listed_files(summary: Path) -> dict[str, int] | None:
    """The files that a summary lists, with their sizes in bytes; None where it lists none."""
    content = _json(summary)
    listed = content.get("files") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not all(type(size) is int for size in listed.values()):
        return None
    return listed


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
    return "" if own(path) else "a file that mmif did not write"


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


def record_files(output: Path, version: str) -> None:
    """Write a ``summary.json`` into ``output`` that says nothing but what mmif wrote there."""
    content = {"mmif_version": version, "files": file_sizes(output)}
    (output / SUMMARY).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def foreign_pair(volume: Path) -> str:
    """As `foreign_in_folder`, of a single volume and the summary beside it, either of which may be
    missing."""
    record = summary_beside(volume)
    listed = listed_files(record) if record.exists() else {}
    if listed is None or (record.exists() and set(listed) != {volume.name}):
        return f"{record.name} is no summary of {volume.name}"
    if volume.exists() and listed.get(volume.name) != volume.stat().st_size:
        return f"{record.name} does not list {volume.name} in its size"
    return ""


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


def _json(path: Path) -> object:
    """The content of a JSON file; None where it is none."""
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _is_own_json(path: Path) -> bool:
    content = _json(path)
    return isinstance(content, dict) and "mmif_version" in content


def _begins(*starts: str) -> Callable[[Path], bool]:
    """Whether a text begins as mmif's do."""

    def test(path: Path) -> bool:
        with path.open("rb") as file:
            head = file.read(1 << 12)
        return any(head.startswith(start.encode()) for start in starts)

    return test


def _is_own_picture(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            tags = getattr(image, "tag_v2", {})
            said = (image.info.get("Software"), image.info.get("comment"), tags.get(305))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return any(one in (MARK, MARK.encode()) for one in said)


_TRANSFORM = "#Insight Transform File V1.0\n#Transform 0\nTransform: Euler3DTransform_double_3_3\n"
_OWN: dict[str, Callable[[Path], bool]] = {
    ".json": _is_own_json,
    ".csv": _begins("method,case,image,"),
    ".tex": _begins("% mmif"),
    **dict.fromkeys((".tfm", ".txt"), _begins(_TRANSFORM)),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff"), _is_own_picture),
}
