"""A walk through a folder tree, and what it meets."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmif.io.files import is_ordinary

VOLUMES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
NAMED_ONLY = (*VOLUMES, ".dcm", ".zip")
BIDS_ASIDE = ("derivatives", "sourcedata", "code", "stimuli")


@dataclass
class Found:
    """What a walk through the tree has met.

    Attributes:
        cases: (folder, prefix) -> role -> files and folders whose names say the role.
        bids: (folder of the subject, subject, session) -> role -> files.
        unnamed: folder -> volumes whose names say no role.
        loose: all other files, perhaps DICOM.
        unreadable: folders that the system refuses to list, and why.
    """

    cases: dict[tuple[Path, str], dict[str, list[Path]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    bids: dict[tuple[Path, str, str], dict[str, list[Path]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    unnamed: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    loose: list[Path] = field(default_factory=list)
    unreadable: list[OSError] = field(default_factory=list)


def walk_studies(
    root: Path, refused: Callable[[OSError], None]
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders with their subfolders and ordinary files; links are followed, each folder once.

    Hidden names and the results of a batch are passed over.
    """
    seen: set[tuple[int, int]] = set()
    for top, folders, names in os.walk(root, onerror=refused, followlinks=True):
        status = Path(top).stat()
        if (status.st_dev, status.st_ino) in seen or ".claims" in names:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if "dataset_description.json" in names:
            folders[:] = [name for name in folders if name not in BIDS_ASIDE]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [n for n in sorted(names) if not n.startswith(".") and is_ordinary(Path(top, n))]
        yield Path(top), folders, files


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and known suffix; the suffix is "" if it is not known.

    >>> split_suffix("P7_ct.nii.gz")
    ('P7_ct', '.nii.gz')
    """
    for suffix in NAMED_ONLY:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""
