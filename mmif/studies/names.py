"""Studies whose sources say by their names what they are."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mmif.io.dicom.read.series import find_series, series_among
from mmif.io.files import is_ordinary
from mmif.roles import ROLES, VOLUME_ROLES
from mmif.studies.bids import sort_bids
from mmif.studies.candidates import name_below, several, take_series
from mmif.studies.study import Input, Rejected, Study, input_of, is_complete, safe_id
from mmif.studies.walk import NAMED_ONLY, VOLUMES, Found, split_suffix

NAMES = {name: role for role in VOLUME_ROLES for name in ROLES[role].names}
LATER = {"t2": 1, "t2w": 1, "flair": 2}
"""Names of MRI that are taken only where no earlier one is: T1 first, as of BIDS names."""


def sort_names(
    found: Found, root: Path, folder: Path, folders: list[str], names: Sequence[str]
) -> None:
    """Put each file of ``folder`` where it belongs; a folder that is a source is not entered."""
    for name in names:
        path, stem, suffix = folder / name, *split_suffix(name)
        if suffix in VOLUMES and name.startswith("sub-"):
            sort_bids(found, path, stem)
        elif suffix in VOLUMES:
            prefix, role = _prefix_and_role(stem)
            (found.cases[folder, prefix][role] if role else found.unnamed[folder]).append(path)
        elif suffix in NAMED_ONLY and stem.lower() in NAMES:
            found.cases[folder, ""][NAMES[stem.lower()]].append(path)
        else:
            found.loose.append(path)
    if folder.name.startswith(("sub-", "ses-")):  # BIDS has folders named ct and pet
        return
    has_case = (folder, "") in found.cases
    for name in list(folders):
        if name.lower() in NAMES and (has_case or folder != root) and _is_source(folder / name):
            folders.remove(name)
            found.cases[folder, ""][NAMES[name.lower()]].append(folder / name)


def _prefix_and_role(stem: str) -> tuple[str, str | None]:
    """What stands before the role in a name, and the role.

    >>> _prefix_and_role("P7_ct"), _prefix_and_role("MRI"), _prefix_and_role("brain")
    (('P7', 'ct'), ('', 'mri'), ('brain', None))
    """
    match = re.fullmatch(r"(?:(.*)[-_. ])?([^-_. ]+)", stem)
    if not match or match[2].lower() not in NAMES:
        return stem, None
    return match[1] or "", NAMES[match[2].lower()]


def _is_source(folder: Path) -> bool:
    """Whether a folder named for a role holds one patient (and not a whole department)."""
    return len({info.patient_key or info.study_uid for info in find_series(folder)}) <= 1


def loosen_lone_dicom(found: Found) -> None:
    """DICOM that is named for a role, and makes no pair where it lies, goes by its headers.

    ``patient/monday/ct`` and ``patient/friday/nm.dcm`` may be of one patient: the headers say so.
    """
    others = {parent for path in found.loose for parent in path.parents}
    for (folder, prefix), roles in list(found.cases.items()):
        if prefix or folder in others or is_complete(roles):
            continue
        sources = [path for paths in roles.values() for path in paths]
        if all(_is_dicom(path) for path in sources):
            del found.cases[folder, prefix]
            found.loose += [file for path in sources for file in _files_of(path)]


def _is_dicom(path: Path) -> bool:
    """Whether a source is DICOM: a single file, or a folder of series."""
    return bool(find_series(path)) if path.is_dir() else split_suffix(path.name)[1] == ".dcm"


def _files_of(path: Path) -> list[Path]:
    """The file, or the ordinary files below the folder."""
    return [f for f in sorted(path.rglob("*")) if is_ordinary(f)] if path.is_dir() else [path]


def loose_by_case(found: Found) -> dict[Path, list[Path]]:
    """Files whose names say nothing, by the named study above them that lacks a role."""
    folders = [folder for (folder, prefix), roles in found.cases.items() if not prefix]
    result: dict[Path, list[Path]] = defaultdict(list)
    known = set(folders)
    for path in found.loose:
        owner = next((parent for parent in path.parents if parent in known), None)
        if owner is not None:
            result[owner].append(path)
    for owner, paths in result.items():
        if is_complete(found.cases[owner, ""]):
            result[owner] = _further(found.cases[owner, ""], owner, paths)
    return result


def _further(roles: dict[str, list[Path]], folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Of DICOM files in or right below the folder of a pair those of roles that it lacks.

    Only of a pair in DICOM, whose headers tell whether they are of the same patient.
    """
    near = [p for p in paths if folder in p.parents[:2] and p.suffix.lower() != ".zip"]
    if not near or not all(_is_dicom(path) for named in roles.values() for path in named):
        return []
    lacking = {ROLES[role].modality for role in VOLUME_ROLES if role not in roles}
    further = [info for info in series_among(near, folder) if info.modality in lacking]
    return [file for info in further for file in info.files]


def study_by_names(
    root: Path,
    folder: Path,
    prefix: str,
    roles: dict[str, list[Path]],
    loose: Sequence[Path],
    fill_gaps: bool,
) -> Study:
    """A study whose sources are named for their roles, completed from the DICOM files beside."""
    inputs: dict[str, Input] = {}
    problems: dict[str, str] = {}
    for role, every in roles.items():
        paths = _first_by_name(every)
        if len(paths) > 1:
            problems[role] = several(role, paths)
        elif paths[0].is_dir():
            take_series(paths[0], find_series(paths[0], fill_gaps), role, inputs, problems)
        else:
            inputs[role] = input_of(paths[0])
    beside = series_among(loose, folder, fill_gaps) if loose else []
    for role in VOLUME_ROLES:
        modality = ROLES[role].modality  # a faulty series has no role, but a reason to tell
        if role not in roles and any(info.modality == modality for info in beside):
            take_series(folder, beside, role, inputs, problems)
    return Study(name_below(root, folder / prefix), inputs, problems)


def _first_by_name(paths: Sequence[Path]) -> list[Path]:
    """Of sources for one role those whose names come first in the order of MRI."""

    def rank(path: Path) -> int:
        return LATER.get(re.split(r"[-_. ]", split_suffix(path.name)[0].lower())[-1], 0)

    first = min(map(rank, paths))
    return [path for path in paths if rank(path) == first]


def unnamed_volumes(root: Path, found: Found) -> list[Rejected]:
    """Volumes whose names say no role, a folder at a time."""
    known = {folder for folder, _ in found.cases}
    return [
        Rejected(
            safe_id(name_below(root, folder)),
            f"{len(paths)} volumes whose names say no role ({paths[0].name} ...); expected "
            "ct, mri, spect or pet in the name, BIDS, or a list",
        )
        for folder, paths in found.unnamed.items()
        if folder not in known
    ]
