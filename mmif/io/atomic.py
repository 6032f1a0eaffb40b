"""Outputs that appear whole or not at all: written beside their place, then renamed."""

import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mmif.errors import OutputError

LONGEST_NAME = 200
"""Bytes that a temporary name takes over of its output's, so that 255 are never exceeded."""
ASIDE = ".replaced"
PENDING = ".pending"
"""What in a temporary folder says which renames belong together, while they are under way."""
PRIVATE = "mmif-"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"  # tempfile's
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2  # renameat2(2)
NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output``; gone at the end, whatever happens.

    Folders above ``output`` that had to be made and stay empty go too. What a run that was killed
    (SIGKILL, power) has left for this ``output`` goes first.

    Raises:
        OutputError: the system refuses (no space, no permission, a file in the way).
    """
    parent = output.absolute().parent
    folder = _new_name(parent, hidden_prefix(output))  # known before it is made: Ctrl-C may come
    made: list[Path] = []
    lock = -1
    try:
        made = [p for p in (parent, *parent.parents) if not p.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        tidy(output)
        lock = _make_locked(folder)
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
        try:
            _give_up(folder, lock)
        finally:
            for empty in made:
                with suppress(OSError):
                    empty.rmdir()


@contextmanager
def staging_path(output: Path) -> Iterator[Path]:
    """Where to write one file or folder, which stands at ``output`` after the block.

    Raises:
        OutputError: the system refuses.
    """
    with staging_folder(output) as folder:
        yield folder / output.name
        commit(folder / output.name, output)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for patients' data in the system's place for temporary files; gone at the end.

    What killed processes of this user have left there goes first.

    Raises:
        OutputError: there is no such place, or it takes nothing.
    """
    tidy_private_folders()
    place = Path(tempfile.gettempdir())
    folder, lock = _new_name(place, PRIVATE), -1
    try:
        try:
            lock = _make_locked(folder)
        except OSError as error:
            raise OutputError(f"{place}: takes no temporary folder ({error.strerror})") from error
        yield folder
    finally:
        _give_up(folder, lock)


def tidy_private_folders() -> None:
    """Remove the private folders of this user's processes that were killed."""
    for folder in abandoned_folders(Path(tempfile.gettempdir()), PRIVATE):
        remove(folder)


def hidden_prefix(output: Path) -> str:
    """What the name of a temporary folder for ``output`` begins with; 8 letters follow."""
    return f".{os.fsencode(output.name)[:LONGEST_NAME].decode(errors='ignore')}."


def _new_name(parent: Path, prefix: str) -> Path:
    """A path that nobody has: ``prefix`` and 8 letters."""
    return parent / (prefix + "".join(secrets.choice(LETTERS) for _ in range(8)))


def _make_locked(folder: Path) -> int:
    """Make ``folder``; the open file by which it is known to be in use: others see the lock."""
    while True:
        folder.mkdir(mode=0o700)
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody took it for abandoned before the lock was there
            continue
        with suppress(OSError):  # a file system without locks: then nobody tidies
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return lock
        os.close(lock)


def _give_up(folder: Path, lock: int) -> None:
    """Remove a folder of `_make_locked`, if it was made, and its lock."""
    remove(folder)
    if lock >= 0:
        os.close(lock)


def tidy(output: Path) -> None:
    """Remove what killed runs have left for ``output``; an old result among it is put back.

    Renames that belong together and of which some were done are all done.
    """
    for folder in abandoned_folders(output.absolute().parent, hidden_prefix(output)):
        for aside in folder.rglob(f"{ASIDE}/*"):
            if not os.path.lexists(folder.parent / aside.name):
                aside.rename(folder.parent / aside.name)
        _end_pending(folder)
        remove(folder)


def abandoned_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """The folders of `_make_locked` that no running process holds; each is ours when given."""
    shape = re.compile(f"{re.escape(prefix)}[{LETTERS}]{{8}}")
    try:
        found = [Path(e) for e in os.scandir(parent) if shape.fullmatch(e.name)]
    except OSError:
        return
    for folder in found:
        try:  # it may vanish at any moment: another process may find it abandoned as well
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        except OSError:
            continue
        finally:
            os.close(lock)


def remove(folder: Path) -> None:
    """Remove a folder; an interrupt waits until it is gone."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def commit(finished: Path, output: Path) -> None:
    """Rename ``finished`` (a file or folder) to ``output``; what stood there is replaced.

    ``finished`` must lie inside the folder of `staging_folder`, on the same file system. Its bytes
    are on the disk before it is shown, and the new name is when this returns.
    """
    commit_together([(finished, output)])


def commit_together(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename each finished file or folder to its place: all of them, or the old ones are back.

    An old result and its successor change places at once (renameat2(2)), so that one of them
    stands there at any time, even if the power goes.

    Args:
        pairs: what is finished, and its place; each as `commit` takes it.

    Raises:
        OSError: a rename was refused; every place is as it was.
    """
    for finished, _ in pairs:
        flush_to_disk(finished)
    begun: list[tuple[Path, Path, int]] = []
    try:
        _note_pending(pairs)
        for finished, output in pairs:
            begun.append((finished, output, _inode(finished)))
            if os.path.lexists(output):
                _exchange(finished, output)
            else:
                _rename(finished, output, RENAME_NOREPLACE)
    except BaseException:
        for finished, output, inode in reversed(begun):
            _take_back(finished, output, inode)
        raise
    for folder in {output.absolute().parent for _, output in pairs}:
        sync(folder)
    _pending(pairs).unlink(missing_ok=True)  # what is in the temporary folder now is the old one's


def _pending(pairs: Sequence[tuple[Path, Path]]) -> Path:
    return pairs[0][0].parent / PENDING


def _note_pending(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Write down several renames before the first of them, for `tidy` after a kill between them."""
    if len(pairs) < 2:
        return
    lines = [
        [str(new.absolute()), _identity(new), str(out.absolute()), _identity(out)]
        for new, out in pairs
    ]
    note = _pending(pairs)
    note.write_text(json.dumps(lines), encoding="utf-8", errors="surrogateescape")
    for path in (note, note.parent, note.parent.parent):
        sync(path)


def _end_pending(folder: Path) -> None:
    """Do what is left of renames that belong together, if the first was done.

    A path under which something else stands by now is left alone, and so is its fellow.
    """
    for note in [*folder.glob(PENDING), *folder.glob(f"*/{PENDING}")]:
        try:
            lines = json.loads(note.read_bytes().decode(errors="surrogateescape"))
            known = [(Path(a), new, Path(b), old) for a, new, b, old in lines]
        except (OSError, ValueError, TypeError):
            continue  # torn: then nothing was renamed yet
        staged = all(_is_staged(finished, output) for finished, _, output, _ in known)
        if not staged or not any(_identity(output) == new for _, new, output, _ in known):
            continue
        for finished, new, output, old in known:
            if _identity(finished) == new and _identity(output) == old:
                _exchange(finished, output) if old else _rename(finished, output, RENAME_NOREPLACE)


def _is_staged(finished: Path, output: Path) -> bool:
    """Whether ``finished`` lies in a temporary folder beside ``output``, and not anywhere else."""
    beside = (folder.name for folder in finished.parents if folder.parent == output.parent)
    return any(re.fullmatch(rf"\..+\.[{LETTERS}]{{8}}", name) for name in beside)


def _take_back(finished: Path, output: Path, inode: int) -> None:
    """Undo the renaming of one output as far as it came."""
    aside = _aside(finished, output)
    if os.path.lexists(output) and _inode(output) == inode:
        if os.path.lexists(finished):
            _exchange(finished, output)
        else:
            output.rename(finished)
    if os.path.lexists(aside) and not os.path.lexists(output):
        aside.rename(output)


def _inode(path: Path) -> int:
    return path.lstat().st_ino


def _identity(path: Path) -> str:
    """What tells what stands at ``path`` from anything else, wherever it is moved; "" for nothing.

    Numbers of inodes are used again, times of a file's last change are not.
    """
    try:
        known = path.lstat()
    except OSError:
        return ""
    return f"{known.st_ino} {'' if path.is_dir() else known.st_mtime_ns}"


def _aside(finished: Path, output: Path) -> Path:
    return finished.parent / ASIDE / output.name


def _exchange(finished: Path, output: Path) -> None:
    """Let two paths change places; by three renames where the file system cannot at once."""
    try:
        _rename(finished, output, RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        aside = _aside(finished, output)
        aside.parent.mkdir(exist_ok=True)
        output.rename(aside)
        finished.rename(output)
        aside.rename(finished)


def _rename(source: Path, target: Path, flag: int) -> None:
    """renameat2(2).

    Raises:
        OSError: it refuses; EINVAL or ENOSYS where it is not known.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(source), os.fsencode(target)
    if call is not None and call(AT_FDCWD, names[0], AT_FDCWD, names[1], flag) == 0:
        return
    code = ctypes.get_errno() if call is not None else errno.ENOSYS
    if flag == RENAME_NOREPLACE and code in NOT_SUPPORTED:
        source.rename(target)
        return
    raise OSError(code, os.strerror(code), str(target))


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
