"""The studies in a folder tree.

The rules, in this order:

1. A file or folder whose name says a role belongs to the study of its folder:
   ``case/ct.nii.gz``, ``case/mri.nii.gz``, ``case/spect.dcm``, ``case/ct/``; ``P7_ct.nii.gz`` and
   ``P7_mri.nii.gz`` are the study ``P7`` of their folder.
2. BIDS names: ``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz`` with ``.../sub-01_ses-1_ct.nii.gz`` (or
   ``_pet``, ``_spect``) of the same subject and session. Of several MRI the first of T1w, T2w,
   FLAIR, PDw, inplaneT1 is taken; of equals the one with the fewest entities.
3. All other files that are DICOM, whatever their names: by patient (PatientID), then by study
   (StudyInstanceUID). The MRI's study gives the other sources; what it lacks comes from the
   patient's other studies. Series are chosen by the rules of `mmif.io.dicom.read.series`.

Where several candidates are left, nothing is guessed: the study is reported with all of them.
"""

import hashlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmif.errors import InputError
from mmif.io.dicom.read.series import SeriesInfo, find_series, select, series_among
from mmif.roles import ROLES, VOLUME_ROLES
from mmif.studies.study import Input, Rejected, Study, input_of, is_complete, safe_id

NAMES = {name: role for role in VOLUME_ROLES for name in ROLES[role].names}
BIDS_MRI = ("T1w", "T2w", "FLAIR", "PDw", "inplaneT1")
BIDS = {**dict.fromkeys(BIDS_MRI, "mri"), "ct": "ct", "pet": "pet", "spect": "spect", "nm": "spect"}
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


def studies_below(root: Path) -> tuple[list[Study], list[Rejected]]:
    """The studies in the folder tree ``root``, and what could not become one."""
    found = Found()
    for folder, folders, names in _walk(root, found.unreadable.append):
        _sort_names(found, root, folder, folders, names)
    loose_by_case = _loose_by_case(found)
    studies = [
        _named_study(root, folder, prefix, roles, loose_by_case.get(folder, []))
        for (folder, prefix), roles in found.cases.items()
    ]
    studies += [_bids_study(root, *key, roles) for key, roles in _whole_subjects(found.bids)]
    taken = {path for paths in loose_by_case.values() for path in paths}
    loose = [path for path in found.loose if path not in taken]
    dicom, rejected = _dicom_studies(root, loose)
    return studies + dicom, rejected + _unnamed(root, found) + _unreadable(root, found)


def _walk(
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
        files = [n for n in sorted(names) if not n.startswith(".") and _is_ordinary(Path(top, n))]
        yield Path(top), folders, files


def _is_ordinary(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


# What names say


def _sort_names(
    found: Found, root: Path, folder: Path, folders: list[str], names: Sequence[str]
) -> None:
    """Put each file of ``folder`` where it belongs; a folder that is a source is not entered."""
    for name in names:
        path, stem, suffix = folder / name, *_split(name)
        if suffix in VOLUMES and name.startswith("sub-"):
            _sort_bids(found, path, stem)
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


def _split(name: str) -> tuple[str, str]:
    """Stem and known suffix; the suffix is "" if it is not known.

    >>> _split("P7_ct.nii.gz")
    ('P7_ct', '.nii.gz')
    """
    for suffix in NAMED_ONLY:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


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


def _loose_by_case(found: Found) -> dict[Path, list[Path]]:
    """Files whose names say nothing, by the named study above them that lacks a role."""
    folders = [folder for (folder, prefix), roles in found.cases.items() if not prefix]
    result: dict[Path, list[Path]] = defaultdict(list)
    known = set(folders)
    for path in found.loose:
        owner = next((parent for parent in path.parents if parent in known), None)
        if owner is not None and not is_complete(found.cases[owner, ""]):
            result[owner].append(path)
    return result


def _named_study(
    root: Path, folder: Path, prefix: str, roles: dict[str, list[Path]], loose: Sequence[Path]
) -> Study:
    """A study whose sources are named for their roles, completed from the DICOM files beside."""
    inputs: dict[str, Input] = {}
    problems: dict[str, str] = {}
    for role, paths in roles.items():
        if len(paths) > 1:
            problems[role] = _several(role, paths)
        elif paths[0].is_dir():
            _take_series(paths[0], find_series(paths[0]), role, inputs, problems)
        else:
            inputs[role] = input_of(paths[0])
    beside = series_among(loose, folder) if loose else []
    for role in VOLUME_ROLES:
        if role not in roles and any(role in info.roles for info in beside):
            _take_series(folder, beside, role, inputs, problems)
    return Study(_name(root, folder / prefix), inputs, problems)


def _several(role: str, paths: Iterable[Path]) -> str:
    listed = ", ".join(sorted(path.name for path in paths))
    return f"several {role.upper()}: {listed}; expected one, or a list that names it"


def _take_series(
    where: Path,
    infos: Sequence[SeriesInfo],
    role: str,
    inputs: dict[str, Input],
    problems: dict[str, str],
) -> None:
    """The series of ``infos`` for ``role`` into ``inputs``, or why there is none."""
    if not infos and where.is_dir():
        inputs[role] = input_of(where)  # no DICOM: the reader says what it is
        return
    try:
        inputs[role] = _series_input(select(infos, where, role, None)[0])
    except InputError as error:
        problems[role] = str(error).replace("--series-uid", "a list that names it")


def _series_input(info: SeriesInfo) -> Input:
    """A series as a source: by one of its files, or by UID where they lie in several folders."""
    zipped = next((parent for parent in info.files[0].parents if parent.is_file()), None)
    if zipped:
        return Input(zipped, zipped.parent, (zipped.name,), info.uid)
    folder = Path(os.path.commonpath([file.parent for file in info.files]))
    files = tuple(os.path.relpath(file, folder) for file in info.files)
    if all(file.parent == folder for file in info.files):
        return Input(info.files[0], folder, files)
    return Input(folder, folder, files, info.uid)


def _name(root: Path, path: Path) -> str:
    """A study's name: where it lies below ``root``."""
    relative = os.path.relpath(path, root)
    return root.resolve().name if relative == "." else relative


def _unnamed(root: Path, found: Found) -> list[Rejected]:
    """Volumes whose names say no role, a folder at a time."""
    known = {folder for folder, _ in found.cases}
    return [
        Rejected(
            safe_id(_name(root, folder)),
            f"{len(paths)} volumes whose names say no role ({paths[0].name} ...); expected "
            "ct, mri, spect or pet in the name, BIDS, or a list",
        )
        for folder, paths in found.unnamed.items()
        if folder not in known
    ]


def _unreadable(root: Path, found: Found) -> list[Rejected]:
    """Folders that could not be looked into."""
    return [
        Rejected(
            safe_id(_name(root, Path(error.filename))),
            f"{error.filename}: cannot be looked into ({error.strerror})",
        )
        for error in found.unreadable
    ]


# BIDS


def _sort_bids(found: Found, path: Path, stem: str) -> None:
    """A file with a BIDS name to its subject and session; bold, dwi and the like are no source."""
    entities = stem.split("_")
    role = BIDS.get(entities[-1])
    if role is None:
        return
    session = next((e for e in entities if e.startswith("ses-")), "")
    subject = next((p.parent for p in path.parents if p.name == entities[0]), path.parent)
    found.bids[subject, entities[0], session][role].append(path)


def _whole_subjects(
    bids: dict[tuple[Path, str, str], dict[str, list[Path]]],
) -> Iterator[tuple[tuple[Path, str, str], dict[str, list[Path]]]]:
    """Sessions that hold a pair; the sessions of a subject without one are taken together."""
    subjects: dict[tuple[Path, str], list[str]] = defaultdict(list)
    for folder, subject, session in bids:
        subjects[folder, subject].append(session)
    for (folder, subject), sessions in subjects.items():
        whole = [s for s in sessions if is_complete(bids[folder, subject, s])]
        for session in whole:
            yield (folder, subject, session), bids[folder, subject, session]
        if not whole:
            merged: dict[str, list[Path]] = defaultdict(list)
            for session in sessions:
                for role, paths in bids[folder, subject, session].items():
                    merged[role] += paths
            yield (folder, subject, ""), merged


def _bids_study(
    root: Path, folder: Path, subject: str, session: str, roles: dict[str, list[Path]]
) -> Study:
    """A subject and session."""
    inputs, problems = {}, {}
    for role, paths in roles.items():
        best = _best_bids(paths)
        if len(best) > 1:
            problems[role] = _several(role, best)
        else:
            inputs[role] = input_of(best[0])
    name = "_".join(filter(None, (subject, session)))
    return Study(_name(root, folder / name), inputs, problems)


def _best_bids(paths: Sequence[Path]) -> list[Path]:
    """The files of the first suffix in the order of MRI, with the fewest entities."""

    def rank(path: Path) -> tuple[int, int]:
        entities = _split(path.name)[0].split("_")
        suffix = entities[-1]
        return (BIDS_MRI.index(suffix) if suffix in BIDS_MRI else 0), len(entities)

    first = min(map(rank, paths))
    return [path for path in paths if rank(path) == first]


# DICOM


def _dicom_studies(root: Path, loose: Sequence[Path]) -> tuple[list[Study], list[Rejected]]:
    """The studies of all patients among the files, and patients without a pair."""
    patients: dict[str, list[SeriesInfo]] = defaultdict(list)
    studies: list[Study] = []
    rejected: list[Rejected] = []
    for info in _all_series(root, loose):
        if info.modality:
            patients[_patient(info)].append(info)
        else:  # headers that cannot be understood
            rejected.append(Rejected(safe_id(_dicom_name(root, [info], "")), info.reason))
    lonely: dict[Path, list[list[SeriesInfo]]] = defaultdict(list)
    for infos in patients.values():
        found = list(_studies_of(root, infos))
        if any(is_complete({*s.inputs, *s.problems}) for s in found):
            studies += found
        else:
            lonely[_top(root, infos)].append(infos)
    for top, groups in lonely.items():
        rejected_here = _two_patients(root, top, groups)
        rejected += rejected_here
        if not rejected_here:
            studies += [study for infos in groups for study in _studies_of(root, infos)]
    return studies, rejected


def _all_series(root: Path, loose: Sequence[Path]) -> Iterator[SeriesInfo]:
    """The series among the files, looked at one branch of the tree at a time, zips included."""
    branches: dict[Path, list[Path]] = defaultdict(list)
    for path in loose:
        if path.suffix.lower() == ".zip":
            yield from find_series(path)
        else:
            branches[_branch(root, path)].append(path)
    for branch, files in branches.items():
        yield from series_among(files, branch)


def _branch(root: Path, path: Path) -> Path:
    """The folder directly below ``root`` that holds ``path``; ``root`` for its own files."""
    parts = path.relative_to(root).parts
    return root / parts[0] if len(parts) > 1 else root


def _patient(info: SeriesInfo) -> str:
    """What tells patients apart: PatientID; the study, or the series, where there is none."""
    return info.patient_key or info.study_uid or info.uid


def _top(root: Path, infos: Sequence[SeriesInfo]) -> Path:
    return _branch(root, infos[0].files[0])


def _two_patients(root: Path, top: Path, groups: list[list[SeriesInfo]]) -> list[Rejected]:
    """One line for a folder that holds the halves of a pair from two patients."""
    roles = [{role for info in infos for role in info.roles} for infos in groups]
    if len(groups) != 2 or not is_complete(roles[0] | roles[1]):
        return []
    why = f"{top}: two patients in one folder (different PatientIDs); expected one"
    return [Rejected(safe_id(_name(root, top)), why)]


def _studies_of(root: Path, infos: Sequence[SeriesInfo]) -> Iterator[Study]:
    """The studies of one patient, one for each StudyInstanceUID with an MRI (at least one).

    Where there is no MRI, one for each with a CT.
    """
    anchor = "mri" if any("mri" in info.roles for info in infos) else "ct"
    anchors = sorted({info.study_uid for info in infos if anchor in info.roles}) or [""]
    for uid in anchors:
        inputs: dict[str, Input] = {}
        problems: dict[str, str] = {}
        for role in VOLUME_ROLES:
            _take_role(root, infos, role, uid, anchors, inputs, problems)
        if inputs or problems:
            name = _dicom_name(root, infos, uid if len(anchors) > 1 else "")
            yield Study(name, inputs, problems, uid or min(info.uid for info in infos))


def _take_role(
    root: Path,
    infos: Sequence[SeriesInfo],
    role: str,
    study_uid: str,
    anchors: Sequence[str],
    inputs: dict[str, Input],
    problems: dict[str, str],
) -> None:
    """The series for ``role`` beside the MRI (or CT) of ``study_uid``: of that study, or another.

    ``anchors`` are all studies of the patient that have one.
    """
    fitting = [info for info in infos if info.modality == ROLES[role].modality]
    own = [info for info in fitting if info.study_uid == study_uid]
    if own or (fitting and len(anchors) == 1):
        _take_series(root, own or fitting, role, inputs, problems)
    elif fitting:
        where = fitting[0].study_uid
        if where not in anchors:
            problems[role] = (
                f"{role.upper()} of study {where}: {len(anchors)} studies of this patient have "
                "what it goes with; expected one, or a list that names the pair"
            )


def _dicom_name(root: Path, infos: Sequence[SeriesInfo], study_uid: str) -> str:
    """A name without any identity: the folder that holds only this patient, else a UID's hash.

    Not one of the PatientID: those are so few that each can be tried.
    """
    own = [info for info in infos if not study_uid or info.study_uid == study_uid]
    folder = Path(os.path.commonpath([file.parent for info in own for file in info.files]))
    patient = hashlib.sha256(min(info.uid for info in infos).encode()).hexdigest()[:8]
    name = f"patient-{patient}" if folder == root else _name(root, folder)
    if study_uid:
        return f"{name}-{hashlib.sha256(study_uid.encode()).hexdigest()[:6]}"
    return name
