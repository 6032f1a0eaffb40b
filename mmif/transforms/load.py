"""Paths become volumes."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor

from mmif.errors import InputError
from mmif.io.loading import load
from mmif.pair import check_images_differ, check_one_patient
from mmif.result import STUDY_KEY, StudyRecord
from mmif.transforms.step import Data, Step


class LoadVolumed(Step):
    """The volumes at the paths of the keys, read side by side; `mmif.load` for each role.

    A volume that is there in place of a path stays as it is. MONAI's ``LoadImaged`` takes one
    reader and no role or series for each key, and chooses by the ending of a name; this one asks
    the content, and says what was chosen.

    Args:
        keys: roles.
        series_uid: role to the SeriesInstanceUID to take.
        frame: role to the frame to take of a 4-D volume.
        fill_gaps: interpolate single lost slices of a DICOM series instead of refusing them.

    Raises:
        MmifError: nothing there that can be read rightly, or one image for two roles.
    """

    part = "read"

    def __init__(
        self,
        keys: KeysCollection,
        series_uid: Mapping[str, str] | None = None,
        frame: Mapping[str, int] | None = None,
        fill_gaps: bool = False,
    ) -> None:
        self.series_uid, self.frame = dict(series_uid or {}), dict(frame or {})
        self.fill_gaps = fill_gaps
        super().__init__(keys, series_uid=self.series_uid, frame=self.frame, fill_gaps=fill_gaps)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with volumes (1, X, Y, Z) in place of paths."""
        # one after the other: reading DICOM holds Python's lock (mmif/io/dicom/read/reader.py)
        volumes = {role: self._volume(role, data[role]) for role in self.keys}
        check_images_differ(volumes)
        return {**data, **volumes}

    def _volume(self, role: str, found: Any) -> MetaTensor:
        if not isinstance(found, MetaTensor):
            return load(
                found,
                role=role,
                series_uid=self.series_uid.get(role),
                frame=self.frame.get(role),
                fill_gaps=self.fill_gaps,
            )
        if found.ndim != 4 or found.shape[0] != 1:
            raise InputError(
                f"the {role.upper()} has shape {tuple(found.shape)}; expected (1, X, Y, Z)"
            )
        return found

    def figures(self, data: Data) -> dict[str, Any]:
        """Shape of each volume."""
        return {role: list(data[role].shape[1:]) for role in self.keys}


class CheckOnePatientd(Step):
    """Refuses the volumes of two patients, and begins the `StudyRecord`; see `mmif.pair`.

    Args:
        keys: roles.
        reference: the role whose frame the fused volume will have.
        accept_different_patients: go on with a warning.

    Raises:
        InputError: two patients, not accepted.
    """

    part = "read"

    def __init__(
        self, keys: KeysCollection, reference: str, accept_different_patients: bool = False
    ) -> None:
        self.reference, self.accept = reference, accept_different_patients
        super().__init__(
            keys, reference=reference, accept_different_patients=accept_different_patients
        )

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with a record under ``"study"``."""
        volumes = {role: data[role] for role in self.keys}
        warnings = check_one_patient(volumes, self.accept)
        return {**data, STUDY_KEY: StudyRecord(self.reference, warnings=warnings)}
