"""One job of a batch: a study and a task, its input files and their fingerprints."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmif.studies.study import Input


@dataclass(frozen=True)
class Job:
    """One study and one task.

    Attributes:
        id: ``STUDY/TASK``; the output is ``OUT/studies/STUDY/TASK``.
        task: one of `mmif.roles.VOLUME_TASKS`.
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


def _stamp_of(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} missing\n"
    return f"{path} {status.st_size} {status.st_mtime_ns}\n"


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
