"""Outputs that appear whole or not at all: written beside their place, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmif.errors import OutputError


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
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


def publish(finished: Path, output: Path) -> None:
    """Rename ``finished`` (a file or folder) to ``output``; what stood there is replaced.

    ``finished`` must lie inside the folder of `unfinished`, on the same file system.
    """
    if output.is_dir() and not output.is_symlink():
        old = finished.parent / f"{finished.name}.replaced"
        output.rename(old)
        try:
            finished.rename(output)
        except OSError:
            old.rename(output)
            raise
    else:
        finished.replace(output)
