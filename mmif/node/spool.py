"""What has come and is not complete yet: one folder a patient, one below it a series."""

import hashlib
import hmac
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from mmif.errors import InputError, OutputError
from mmif.io.atomic import sync
from mmif.io.dicom.read.headers import patient_key, quiet, text

IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
PATIENT = re.compile(r"patient-[0-9a-f]{16}")
LOOKED_AT = [*IDENTIFIERS, "PatientID", "SpecificCharacterSet", "ManufacturerModelName"]


class Spool:
    """Received instances, kept on the disk before their sender is told so.

    A patient's folder is named by a keyed hash of the PatientID (of the study's UID where there is
    none): the finder of studies looks for a patient's sources across studies. The key is made once
    and stays beside the spool, for PatientIDs are so few that without one each can be tried.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Take up what lies in ``root``; it is made if missing.

        What lies there already counts as come just now: its sender may go on sending.

        Raises:
            OutputError: the system refuses.
        """
        self.root = root
        self.receiving = root / ".receiving"
        self._clock = clock
        self._lock = threading.Lock()
        try:
            shutil.rmtree(self.receiving, ignore_errors=True)  # of transfers that were cut off
            root.mkdir(mode=0o700, parents=True, exist_ok=True)  # images with their identities
            self.receiving.mkdir()
            self._key = _key(root / ".key")
            self._latest = {folder.name: clock() for folder in self._folders()}
        except OSError as error:
            raise OutputError(f"{root}: cannot be used ({error.strerror})") from error

    def keep(self, received: Path, header: Dataset) -> None:
        """Move the DICOM file ``received`` to its place; on the disk when this returns.

        An instance that comes again replaces itself.

        Args:
            received: below ``receiving``.
            header: of `read_identifiers`.

        Raises:
            OSError: the disk takes nothing more.
        """
        patient = self._patient(header)
        folder = self.root / patient / str(header.SeriesInstanceUID)
        sync(received)
        with self._lock:  # `remove_old` may not come between the folder and the file
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            received.replace(folder / f"{header.SOPInstanceUID}.dcm")
            self._latest[patient] = self._clock()
        for changed in (folder, folder.parent, self.root)[: 3 if new else 1]:
            sync(changed)

    def complete(self, quiet_s: float) -> list[Path]:
        """The folders of patients of whom nothing has come for ``quiet_s``, each told once."""
        with self._lock:
            before = self._clock() - quiet_s
            found = [name for name, latest in self._latest.items() if latest <= before]
            for name in found:
                del self._latest[name]
        return [self.root / name for name in sorted(found)]

    def postpone(self, folder: Path) -> None:
        """Tell of ``folder`` again, as if something had come just now."""
        with self._lock:
            self._latest.setdefault(folder.name, self._clock())

    def remove_old(self, before: float) -> int:
        """Remove patients of whom nothing has come since ``before`` (s of the epoch); how many."""
        count = 0
        for folder in self._folders():
            with self._lock:
                if folder.name not in self._latest and _newest(folder) < before:
                    shutil.rmtree(folder)
                    count += 1
        return count

    def _folders(self) -> list[Path]:
        """The patients' folders; what else lies in the spool is somebody's own."""
        found = (path for path in self.root.iterdir() if PATIENT.fullmatch(path.name))
        return [path for path in found if path.is_dir() and not path.is_symlink()]

    def _patient(self, header: Dataset) -> str:
        identity = patient_key(header) or str(header.StudyInstanceUID)
        return f"patient-{hmac.new(self._key, identity.encode(), 'sha256').hexdigest()[:16]}"


def read_identifiers(path: Path) -> Dataset:
    """What says to what a DICOM file belongs, without its pixels.

    Raises:
        InputError: no DICOM, or without valid UIDs of instance, series and study.
    """
    try:
        with quiet:
            header = dcmread(path, stop_before_pixels=True, specific_tags=LOOKED_AT)
            uids = [text(header, keyword) for keyword in IDENTIFIERS]
    except (InvalidDicomError, ValueError, TypeError, EOFError) as error:
        raise InputError("found no readable DICOM; expected an image") from error
    for keyword, uid in zip(IDENTIFIERS, uids, strict=True):
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", uid) or len(uid) > 64:  # PS3.5 9.1
            raise InputError(f"found an image without a valid {keyword}; expected all UIDs")
    return header


def _key(path: Path) -> bytes:
    """The key of the spool, made if it is not there."""
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.new")
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(secrets.token_bytes(hashlib.sha256().digest_size))
        sync(unfinished)
        unfinished.replace(path)
    return path.read_bytes()


def _newest(folder: Path) -> float:
    """When the newest file below ``folder`` was written, in seconds of the epoch."""
    return max((path.stat().st_mtime for path in folder.rglob("*")), default=0.0)
