"""Outputs that appear whole or not at all: written beside their place, then renamed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmif.errors import OutputError


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output``; gone at the end, whatever happens.

    Folders above ``output`` that had to be made and stay empty go too.

    Raises:
        OutputError: the system refuses (no space, no permission, a file in the way).
    """
    parent = output.absolute().parent
    made = [p for p in (parent, *parent.parents) if not p.exists()]
    folder: Path | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=parent))
        yield folder
    except OutputError as error:  # of a writer, which knows the temporary place only
        raise OutputError(str(error).replace(f"{folder}/", f"{output}: ")) from error
    except OSError as error:
        if error.errno is None:  # not the system's, so a bug: it keeps its traceback
            raise
        reason = os.strerror(error.errno)
        raise OutputError(
            f"{output}: cannot be written ({reason}); nothing was left there"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def refuse_existing(
    *outputs: Path, overwrite: bool, inputs: Iterable[Path] = (), made_by_mmif: Iterable[str] = ()
) -> None:
    """Refuse outputs that stand already and may not be replaced.

    Args:
        outputs: what is going to be written.
        overwrite: whether what stands there may be replaced.
        inputs: paths that are read; an output that is one of them, or holds one, is never replaced.
        made_by_mmif: a folder is replaced only if it is empty or holds one of these names.

    Raises:
        OutputError: one of ``outputs`` may not be written.
    """
    read = [path.resolve() for path in inputs]
    for output in outputs:
        above = next((p for p in output.absolute().parents if p.exists()), output)
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise OutputError(f"{output}: {above} is not a folder that can be written to")
        if not (output.exists() or output.is_symlink()):
            continue
        if not overwrite:
            raise OutputError(f"{output} exists; expected a new path, or --overwrite")
        if output.is_symlink():
            raise OutputError(
                f"{output} is a link; expected a path of its own, or the link's target"
            )
        if os.path.ismount(output):
            raise OutputError(f"{output} is a mount point; expected a path below it")
        place = output.resolve()
        for path in read:
            if path == place or place in path.parents:
                raise OutputError(f"{output} holds the input {path.name}; expected another output")
        if output.is_dir() and any(output.iterdir()):
            marks = list(made_by_mmif)
            if marks and not any((output / mark).exists() for mark in marks):
                raise OutputError(
                    f"{output} is a folder without {' or '.join(marks)}, so mmif did not make it; "
                    "expected a new path, or a folder that mmif wrote"
                )
            strange = foreign_files(output) if "summary.json" in marks else []
            if strange:
                more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
                raise OutputError(
                    f"{output} holds {strange[0]}{more}, which its summary.json does not list as "
                    "an output; expected a new path, or only files that mmif wrote"
                )


def foreign_files(output: Path) -> list[str]:
    """What lies in the folder ``output`` that its ``summary.json`` does not list, relative to it.

    A summary that cannot be read lists nothing, so that nothing is removed by it. Folders count
    by their files; an empty one or a link is nobody's output.
    """
    try:
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        summary = {}
    listed = summary.get("outputs") if isinstance(summary, dict) else None
    patterns = (
        {str(p) for p in map(_listed_name, listed or [])} if isinstance(listed, list) else set()
    )
    # summary.json may not list itself; thumbnail.jpg is a batch's, beside what the study lists
    known = {"summary.json", "thumbnail.jpg", *patterns} - {"", "None"}
    strange = []
    for top, folders, names in os.walk(output):
        links = [name for name in folders if Path(top, name).is_symlink()]
        empty = not folders and not names and Path(top) != output
        for path in [Path(top)] * empty + [Path(top, name) for name in [*names, *links]]:
            relative = path.relative_to(output).as_posix()
            # fnmatch's * crosses folders, an output's does not
            fits = any(fnmatch(relative, p) and relative.count("/") == p.count("/") for p in known)
            if not fits or path.is_symlink():
                strange.append(relative)
    return sorted(strange)


def _listed_name(entry: Any) -> Any:
    """The name of an entry of the summary's ``outputs``: a text, or a record with its name."""
    return entry.get("path", entry.get("name", "")) if isinstance(entry, dict) else entry


def commit(finished: Path, output: Path) -> None:
    """Rename ``finished`` (a file or folder) to ``output``; what stood there is replaced.

    ``finished`` must lie inside the folder of `staging_folder`, on the same file system. Its bytes
    are on the disk before it is shown, and the new name is when this returns.
    """
    commit_together([(finished, output)])


def commit_together(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename each finished file or folder to its place: all of them, or the old ones are back.

    Args:
        pairs: what is finished, and its place; each as `commit` takes it.

    Raises:
        OSError: a rename was refused; every place is as it was.
    """
    for finished, _ in pairs:
        flush_to_disk(finished)
    placed: list[tuple[Path, Path, Path | None]] = []
    try:
        for finished, output in pairs:
            old = None
            if output.exists() or output.is_symlink():
                old = finished.parent / f"{finished.name}.replaced"
                if output.is_dir():
                    output.rename(old)
                else:
                    os.link(output, old, follow_symlinks=False)  # a file is never absent
            placed.append((finished, output, old))
            finished.replace(output)
    except BaseException:
        for finished, output, old in reversed(placed):
            if old is not None and old.is_dir():
                if output.exists():
                    output.rename(finished)
                old.rename(output)
            elif old is not None:
                old.replace(output)
            elif not finished.exists() and output.exists():
                output.rename(finished)
        raise
    for folder in {output.absolute().parent for _, output in pairs}:
        sync(folder)


def flush_to_disk(path: Path) -> None:
    """Have the system write a file, or all of a folder, to the disk (fsync(2))."""
    if path.is_dir():
        for top, _, names in os.walk(path):
            for name in names:
                sync(Path(top, name))
            sync(Path(top))
    else:
        sync(path)


def sync(path: Path) -> None:
    """Have the system write one file, or the names in one folder, to the disk (fsync(2))."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
