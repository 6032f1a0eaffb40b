"""A study: the sources of one patient that belong together, and what can be made of them."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmif.roles import PAIR_TASKS, TASKS, VOLUME_TASKS

MAX_NAME_BYTES = 120
"""Of a study's name in paths: half of what file systems take, so that endings fit behind it."""


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
class Study:
    """The sources of one patient that belong together.

    Attributes:
        name: what to call it.
        inputs: role to source.
        problems: role to why none of its candidates was taken.
        uid: tells it from others of its name, where its files do not.
    """

    name: str
    inputs: Mapping[str, Input]
    problems: Mapping[str, str]
    uid: str = ""


@dataclass(frozen=True)
class Rejected:
    """Something that became no job.

    Attributes:
        id: the study, or ``STUDY/TASK``.
        reason: why, in one line.
        task: the task, if it is clear; else "".
    """

    id: str
    reason: str
    task: str = ""


def is_complete(roles: Collection[str]) -> bool:
    """Whether any task can be made of sources of these roles."""
    return any(set(TASKS[task].roles) <= set(roles) for task in VOLUME_TASKS)


def choose_tasks(roles: Collection[str], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The tasks that are made of sources of ``roles``.

    Args:
        roles: those of a study.
        wanted: the tasks that were asked for. Without any: every pair with the MRI; without an MRI
            every pair with the CT.

    >>> choose_tasks({"ct", "mri", "spect"}), choose_tasks({"ct", "spect"})
    (('ct-mri', 'spect-mri'), ('spect-ct',))
    """
    asked = wanted or [task for task in PAIR_TASKS if task in VOLUME_TASKS]
    possible = tuple(task for task in asked if set(TASKS[task].roles) <= set(roles))
    if wanted:
        return possible
    with_mri = tuple(task for task in possible if TASKS[task].reference == "mri")
    return with_mri or possible


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


def unique_names(found: Iterable[Study]) -> list[Study]:
    """The studies under names that are unique and safe on any file system."""
    named = [(safe_id(study.name), study) for study in found]
    count = Counter(name.lower() for name, _ in named)
    return [
        replace(study, name=name + _suffix(study) if count[name.lower()] > 1 else name)
        for name, study in named
    ]


def _suffix(study: Study) -> str:
    """What tells a study from others of the same name: a hash of what it was called, and its files.

    However the path of the tree is given, the hash is the same.
    """
    said = [study.name]
    for _, source in sorted(study.inputs.items()):
        said += [*sorted(source.files), source.series_uid or ""]
    text = "\n".join([*said, *sorted(study.problems), study.uid])
    return f"-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
