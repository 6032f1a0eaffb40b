"""The studies in a folder tree.

The rules, in this order:

1. A file or folder whose name says a role belongs to the study of its folder:
   ``case/ct.nii.gz``, ``case/mri.nii.gz``, ``case/spect.dcm``, ``case/ct/``; ``P7_ct.nii.gz`` and
   ``P7_mri.nii.gz`` are the study ``P7`` of their folder. Of several MRI the first of T1, T2,
   FLAIR is taken.
2. BIDS names: ``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz`` with ``.../sub-01_ses-1_ct.nii.gz`` (or
   ``_pet``, ``_spect``) of the same subject and session. Of several MRI the first of T1w, T2w,
   FLAIR, PDw, inplaneT1 is taken; of equals the one with the fewest entities.
3. All other files that are DICOM, whatever their names, and those whose names say a role that makes
   no pair where they lie: by patient (PatientID), then by study
   (StudyInstanceUID). The MRI's study gives the other sources; what it lacks comes from the
   patient's other studies. Series are chosen by the rules of `mmif.io.dicom.read.series`.

Where several candidates are left, nothing is guessed: the study is reported with all of them.
"""

from pathlib import Path

from mmif.errors import InputError
from mmif.studies.bids import bids_study, whole_subjects
from mmif.studies.candidates import name_below
from mmif.studies.dicom import dicom_studies
from mmif.studies.lists import exists, read_list
from mmif.studies.names import (
    loose_by_case,
    loosen_lone_dicom,
    sort_names,
    study_by_names,
    unnamed_volumes,
)
from mmif.studies.study import Rejected, Study, safe_id
from mmif.studies.walk import Found, walk_studies


def find_studies(where: Path, fill_gaps: bool = False) -> tuple[list[Study], list[Rejected]]:
    """The studies in a folder tree, or of a CSV or JSON list, and what could not become one.

    ``fill_gaps``: single lost slices of a DICOM series are no reason against it.

    Raises:
        InputError: nothing there, or a list that is not right.
    """
    if not exists(where):
        raise InputError(f"{where}: no such file or folder; expected a folder tree or a list")
    return studies_below(where, fill_gaps) if where.is_dir() else (read_list(where), [])


def studies_below(root: Path, fill_gaps: bool = False) -> tuple[list[Study], list[Rejected]]:
    """The studies in the folder tree ``root``, and what could not become one."""
    found = Found()
    for folder, folders, names in walk_studies(root, found.unreadable.append):
        sort_names(found, root, folder, folders, names)
    loosen_lone_dicom(found)
    owned = loose_by_case(found)
    studies = [
        study_by_names(root, folder, prefix, roles, owned.get(folder, []), fill_gaps)
        for (folder, prefix), roles in found.cases.items()
    ]
    studies += [bids_study(root, *key, roles) for key, roles in whole_subjects(found.bids)]
    taken = {path for paths in owned.values() for path in paths}
    loose = [path for path in found.loose if path not in taken]
    dicom, rejected = dicom_studies(root, loose, fill_gaps)
    return studies + dicom, rejected + unnamed_volumes(root, found) + _unreadable(root, found)


def _unreadable(root: Path, found: Found) -> list[Rejected]:
    """Folders that could not be looked into."""
    return [
        Rejected(
            safe_id(name_below(root, Path(error.filename))),
            f"{error.filename}: cannot be looked into ({error.strerror})",
        )
        for error in found.unreadable
    ]
