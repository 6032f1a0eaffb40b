"""Locks that keep two runs from doing one job twice.

All claims on one OUT are byte ranges of one file, locked by open file description (fcntl(2),
F_OFD_SETLK): the kernel drops them when their holder dies, so no claim is ever stale, and they
work across the nodes of a shared file system that has POSIX locks.
"""

import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmif.errors import OutputError

RUNNING = 0  # shared by all runs, exclusive for moving a ledger aside
# The first byte after RUNNING
FIRST_NAME = 1
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Claims:
    """The locks of one OUT, through one open file."""

    def __init__(self, out: Path) -> None:
        """Open the lock file of ``out``, which must exist.

        Raises:
            OutputError: the system refuses.
        """
        self._path = out / ".claims"
        try:
            self._file = os.open(self._path, _FLAGS, 0o666)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be opened ({error.strerror})") from error

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up every claim held through this object."""
        os.close(self._file)

    @contextmanager
    def job(self, job_id: str) -> Iterator[bool]:
        """Whether the job is ours alone until the end of the ``with`` block."""
        place = _place(job_id)
        mine = self._try(fcntl.F_WRLCK, place)
        try:
            yield mine
        finally:
            if mine:
                self._set(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, place)

    @contextmanager
    def write_lock(self, ledger: str) -> Iterator[None]:
        """Wait until no other process appends to the ledger of that name."""
        place = _place(ledger)
        self._set(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, place)
        try:
            yield
        finally:
            self._set(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, place)

    def run(self, *, alone: bool = False) -> bool:
        """Count as a run on this OUT until `close`; ``alone``: only if there is no other."""
        return self._try(fcntl.F_WRLCK if alone else fcntl.F_RDLCK, RUNNING)

    def _try(self, kind: int, place: int) -> bool:
        try:
            self._set(fcntl.F_OFD_SETLK, kind, place)
        except BlockingIOError:
            return False
        except PermissionError:  # EACCES is the other way to say "held by somebody"
            return False
        return True

    def _set(self, command: int, kind: int, place: int) -> None:
        """One fcntl call on the byte ``place`` (struct flock of Linux)."""
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(self._file, command, lock)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise OutputError(
                    f"{self._path}: the file system has no POSIX locks ({error.strerror}); "
                    "expected an OUT on one that has"
                ) from error
            raise


def _place(name: str) -> int:
    """The byte that stands for a job or a ledger; two of a million share one with chance 1e-7."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return FIRST_NAME + (number >> 2)
