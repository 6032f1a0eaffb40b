"""Every source is brought to the reference, each with a verdict."""

import logging
from collections.abc import Hashable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor

from mmif.config import RegistrationConfig
from mmif.errors import RegistrationError
from mmif.io.source import source_of
from mmif.io.transform_files import read_transform
from mmif.networks.inference import choose_device
from mmif.pair import (
    accept_registration,
    doubt_open_loop,
    name_inputs,
    registration_warnings,
)
from mmif.registration import (
    LoopClosure,
    Registration,
    check_headers,
    check_transform,
    close_loop,
    one_frame,
    register,
    trust_headers,
)
from mmif.result import STUDY_KEY, StudyRecord
from mmif.transforms.step import Data, Step

log = logging.getLogger(__name__)


class RegisterToReferenced(Step):
    """The rigid registration of each key to the reference; the volumes stay as they are.

    The registrations stand in the `StudyRecord`, by role, for `ResampleToAxialGridd`.

    Args:
        keys: roles, the reference among them.
        reference: the role that stays.
        transform: role to the file of a given transform, reference to that role.
        register: None searches where the headers do not say one frame, and checks the headers where
            they do; True searches in any case; False trusts the headers.
        accept_registration: go on with a verdict of fail.
        accept_other_anatomy: search although a volume does not look like a head.
        device: of the coarse search: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **search: ``seed`` and ``timeout_s``, as in `mmif.config.RegistrationConfig`.

    Raises:
        RegistrationError: two cannot be brought together; it names both.
    """

    part = "register"

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        *,
        transform: Mapping[str, str | Path] | None = None,
        register: bool | None = None,
        accept_registration: bool = False,
        accept_other_anatomy: bool = False,
        device: str = "auto",
        **search: Any,
    ) -> None:
        self.reference, self.register = reference, register
        self.transform = {role: Path(path) for role, path in (transform or {}).items()}
        self.accept, self.device = accept_registration, device
        self.accept_other_anatomy = accept_other_anatomy
        self.config = RegistrationConfig(**search)
        super().__init__(
            keys,
            reference=reference,
            transform={role: str(path) for role, path in self.transform.items()},
            register=register,
            accept_registration=accept_registration,
            accept_other_anatomy=accept_other_anatomy,
            device=device,
            **asdict(self.config),
        )

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the registrations in its record."""
        study = data.get(STUDY_KEY) or StudyRecord(self.reference)
        volumes = {role: data[role] for role in self.keys}
        moving = [role for role in self.keys if role != self.reference]
        found = {role: self._accepted(volumes, role) for role in moving}
        loop = self._close_loop(volumes, found)
        found = doubt_open_loop(found, loop)
        said = [
            line
            for role, registration in found.items()
            for line in registration_warnings(registration, role if len(found) > 1 else "")
        ]
        study = replace(study, registrations=found, loop=loop).with_warnings(*said)
        return {**data, STUDY_KEY: study}

    def _accepted(self, volumes: Mapping[str, MetaTensor], role: str) -> Registration:
        """The registration of one source; a refusal names the two volumes that do not fit."""
        try:
            return accept_registration(self._bring(volumes, role), self.accept)
        except RegistrationError as error:
            pair = {name: volumes[name] for name in (self.reference, role)}
            raise RegistrationError(name_inputs(str(error), pair)) from error

    def _bring(self, volumes: Mapping[str, MetaTensor], role: str) -> Registration:
        """The registration of one source as the options want it."""
        reference, moving = volumes[self.reference], volumes[role]
        if self.register is False:
            return trust_headers(reference, moving, self.config)
        if role in self.transform:
            fixed, other = source_of(reference), source_of(moving)
            matrix = read_transform(self.transform[role], fixed, other)
            return check_transform(matrix, reference, moving, self.config)
        if self.register is None and one_frame(reference, moving):
            return check_headers(reference, moving, self.config)
        return register(
            reference,
            moving,
            self.config,
            device=str(choose_device(self.device)),
            accept_other_anatomy=self.accept_other_anatomy,
        )

    def _close_loop(
        self, volumes: Mapping[str, MetaTensor], found: Mapping[str, Registration]
    ) -> LoopClosure | None:
        """Whether the registrations of three volumes agree; None of two, and of trusted headers."""
        if len(found) != 2 or self.register is False:
            return None
        (one, to_one), (other, to_other) = found.items()
        path = (one, self.reference, other, one)
        return close_loop(volumes[one], volumes[other], (to_one, to_other), path, self.config)

    def figures(self, data: Data) -> dict[str, Any]:
        """Verdict, estimated errors and checks of each registration."""
        loop = data[STUDY_KEY].loop
        closure = {} if loop is None else {"loop_residue_mm": loop.residue_mm}
        return closure | {
            role: {
                "verdict": found.verdict,
                "error_estimate_mm": found.error_estimate_mm,
                "error_farthest_mm": found.error_farthest_mm,
                **{check.name: check.value for check in found.checks},
            }
            for role, found in data[STUDY_KEY].registrations.items()
        }
