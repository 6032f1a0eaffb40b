"""Studies of DICOM files under any names: by patient, then by study."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmif.io.dicom.read.series import SeriesInfo, find_series, series_among
from mmif.roles import ROLES, VOLUME_ROLES
from mmif.studies.candidates import name_below, take_series
from mmif.studies.study import Input, Rejected, Study, is_complete, safe_id


def dicom_studies(
    root: Path, loose: Sequence[Path], fill_gaps: bool
) -> tuple[list[Study], list[Rejected]]:
    """The studies of all patients among the files, and patients without a pair."""
    patients: dict[str, list[SeriesInfo]] = defaultdict(list)
    studies: list[Study] = []
    rejected: list[Rejected] = []
    for info in _all_series(root, loose, fill_gaps):
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


def _all_series(root: Path, loose: Sequence[Path], fill_gaps: bool) -> Iterator[SeriesInfo]:
    """The series among the files, looked at one branch of the tree at a time, zips included."""
    branches: dict[Path, list[Path]] = defaultdict(list)
    for path in loose:
        if path.suffix.lower() == ".zip":
            yield from find_series(path, fill_gaps)
        else:
            branches[_branch(root, path)].append(path)
    for branch, files in branches.items():
        yield from series_among(files, branch, fill_gaps)


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
    return [Rejected(safe_id(name_below(root, top)), why)]


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
        take_series(root, own or fitting, role, inputs, problems)
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
    name = f"patient-{patient}" if folder == root else name_below(root, folder)
    if study_uid:
        return f"{name}-{hashlib.sha256(study_uid.encode()).hexdigest()[:6]}"
    return name
