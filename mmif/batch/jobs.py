"""One job of a batch: a study and a task, its input files and their fingerprints."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmif.studies.study import Input


@dataclass(frozen=True)
class Job:
    """One study and one task.

    Attributes:
        id: ``STUDY/TASK``; the output is ``OUT/studies/STUDY/TASK``.
        task: one of `mmif.roles.VOLUME_TASKS`.
        inputs: role to source.
        pseudonymous: whether the id follows from the files, so that no other study has it.
    """

    id: str
    task: str
    inputs: Mapping[str, Input] = field(repr=False)  # Dask writes what fails into its logs
    pseudonymous: bool = False

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

    def place(self) -> str:
        """What stands for where the files lie; "" where nothing may be known of that."""
        if self.pseudonymous:
            return ""
        digest = hashlib.sha256()
        for _, source in sorted(self.inputs.items()):
            for path in source.paths():
                digest.update(f"{path.absolute()}\n".encode("utf-8", "surrogateescape"))
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
