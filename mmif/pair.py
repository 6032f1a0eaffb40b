"""The one policy for what belongs together: patients, studies and registrations.

``fuse``, ``register``, ``batch``, ``train`` and the node ask the same questions here.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import torch
from monai.data import MetaTensor

from mmif.errors import InputError, RegistrationError
from mmif.io.source import source_of
from mmif.registration.loop import LoopClosure
from mmif.registration.result import Registration
from mmif.roles import label

Volumes = Mapping[str, MetaTensor]


def check_one_patient(volumes: Volumes, accept: bool = False) -> tuple[str, ...]:
    """What must be said of the patients and studies of ``volumes`` (a name or role to a volume).

    Args:
        volumes: what is to be fused or registered.
        accept: whether two PatientIDs are accepted, with a warning.

    Raises:
        InputError: two patients, not accepted.
    """
    sources = {name: s for name, v in volumes.items() if (s := source_of(v)) is not None}
    if len({s.patient_key for s in sources.values() if s.patient_key}) < 2:
        return different_studies(volumes)
    if not accept:
        paths = " and ".join(str(source.path) for source in sources.values())
        raise InputError(
            f"{paths}: two different PatientIDs; expected one patient, or "
            "--accept-different-patients"
        )
    return ("the inputs carry different PatientIDs; accepted by option",)


def check_images_differ(volumes: Volumes) -> None:
    """Refuse one image for two roles: it would be registered and fused with itself, and pass.

    Args:
        volumes: role to a volume (1, X, Y, Z).

    Raises:
        InputError: two of them have the same voxels at the same places.
    """
    for one, other in itertools.combinations(volumes, 2):
        a, b = volumes[one], volumes[other]
        if a.shape == b.shape and torch.equal(a.affine, b.affine) and torch.equal(a, b):
            raise InputError(
                f"{source_of(a) or one} and {source_of(b) or other}: the same image as "
                f"{label(one)} and as {label(other)}; expected two"
            )


def different_studies(volumes: Volumes) -> tuple[str, ...]:
    """One warning where the DICOM inputs come from different studies, with the days between."""
    found = {n: s.study for n, v in volumes.items() if (s := source_of(v)) and s.study}
    if len({study.uid for study in found.values()}) < 2:
        return ()
    days = sorted(study.date for study in found.values() if study.date is not None)
    between = (days[-1] - days[0]).days if len(days) == len(found) else 0
    apart = f", {between} days apart" if between else ""
    return (f"{' and '.join(map(label, found))} come from different studies{apart}",)


def reader_warnings(volumes: Volumes) -> tuple[str, ...]:
    """What the readers noticed of each volume and went on with, by role."""
    sources = {name: source_of(volume) for name, volume in volumes.items()}
    return tuple(f"{label(name)}: {w}" for name, s in sources.items() if s for w in s.warnings)


def accept_registration(registration: Registration, accept: bool = False) -> Registration:
    """``registration``, unless its verdict is a refusal.

    Raises:
        RegistrationError: the verdict is fail and was not accepted.
    """
    if registration.verdict == "fail" and not accept:
        raise RegistrationError(
            f"the registration failed ({'; '.join(registration.reasons)}); expected two volumes of "
            "one head, or --accept-registration"
        )
    return registration


def registration_warnings(registration: Registration, moving: str = "") -> tuple[str, ...]:
    """What must be said of a registration that is not a plain pass.

    Args:
        registration: what was found.
        moving: the role that moved, named where there are several.
    """
    reasons = "; ".join(registration.reasons) or registration.method
    of = f" of the {label(moving)}" if moving else ""
    return {
        "pass": (),
        "review": (f"registration{of} to be reviewed: {reasons}",),
        "fail": (f"registration{of} failed, accepted by option: {reasons}",),
        "skipped": (reasons,),
    }[registration.verdict]


def doubt_open_loop(
    registrations: Mapping[str, Registration], loop: LoopClosure | None
) -> dict[str, Registration]:
    """``registrations`` by role, none of them a pass where the three do not agree.

    One leg of the loop is wrong then, and the loop does not say which.
    """
    if loop is None or loop.is_closed:
        return dict(registrations)
    way = " to ".join(map(label, loop.path))
    reason = (
        f"the registrations do not agree: from {way} it is {loop.residue_mm:.1f} mm, "
        f"expected at most {loop.expected_mm:.1f} mm"
    )
    return {
        role: replace(
            one,
            verdict="review" if one.verdict == "pass" else one.verdict,
            reasons=(*one.reasons, reason),
        )
        for role, one in registrations.items()
    }


def name_inputs(reason: str, volumes: Volumes) -> str:
    """``reason`` with what it happened to, and what the readers noticed, which may be why."""
    names = (str(source_of(volume) or name) for name, volume in volumes.items())
    return f"{' and '.join(names)}: {'; '.join([reason, *reader_warnings(volumes)])}"
