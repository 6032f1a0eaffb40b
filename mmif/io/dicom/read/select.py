"""Which series is meant for a role, among those under a path.

The rules, in this order; the first one that leaves a single series decides:

1. modality: CT for ct, MR for mri, NM for spect, PT for pet;
2. usable: slices with a place in the patient that form one volume of grey values;
3. description: before what is called a map, a projection, a subtraction or a scout;
4. attenuation correction: corrected before uncorrected activity;
5. image type: original before derived images, but for NM;
6. resolution: not one more than twice as coarse as another that covers as much;
7. orientation: axial before other planes;
8. number of slices: one with at least 1.5 times those of every other;
9. volume covered: one with at least 1.5 times that of every other.

Phase images, parameter maps, projections and transmission maps have no role. Nothing is chosen
across patients, or across studies of several days.

Where they leave several, nothing is guessed: the choice is the user's, by SeriesInstanceUID.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmif.errors import InputError
from mmif.io.dicom.read.series import SeriesInfo, is_volume
from mmif.roles import ROLES, VOLUME_ROLES

CLEARLY_MORE = 1.5
"""By which factor a series must lead in slices or volume to be chosen for it."""

MUCH_FINER = 2.0
"""By which factor a series must be finer to be taken before another plane or thicker slices."""

MAX_LISTED = 6
"""Series that a refusal lists."""

COVERS_AS_MUCH = 0.5
"""The share of the largest volume that a fine series must cover: a slab is no head."""


def select(
    infos: Sequence[SeriesInfo], where: Path, role: str | None, series_uid: str | None
) -> tuple[SeriesInfo, str]:
    """The series that is meant, and why, in words.

    Args:
        infos: what was found.
        where: the path that was named, for messages.
        role: ct, mri, spect or pet; None for any volume.
        series_uid: the user's own choice, or None.

    Raises:
        InputError: none fits, or several fit equally.
    """
    if not infos:
        raise InputError(f"{where}: no DICOM series found")
    if series_uid is not None:
        return _by_uid(infos, where, role, series_uid)
    usable = [info for info in infos if (role in info.roles if role else is_volume(info))]
    _check_one_patient_and_day(infos, usable, where, role)
    if not usable:
        wanted = f"{ROLES[role].modality} series usable as {role}" if role else "usable series"
        raise InputError(_for_role(f"{where}: no {wanted}; found {_list_series(infos)}", role))
    said = f"{len(usable)} of {len(infos)} series usable as {role or 'a volume'}"
    left = usable
    for name, rule in _RULES:
        if len(left) == 1:
            break
        better = rule(left)
        if len(better) < len(left):
            said += f"; {name} left {len(better)}"
            left = better
    if len(left) > 1:
        raise InputError(
            f"{where}: {len(left)} series fit equally; choose one: {_choices(left, role)}"
        )
    return left[0], f"{said}: {left[0].line()}"


def _check_one_patient_and_day(
    infos: Sequence[SeriesInfo], usable: Sequence[SeriesInfo], where: Path, role: str | None
) -> None:
    """Refuse to choose across patients, or across studies of several days.

    Raises:
        InputError: how many there are, and their series.
    """
    patients = {info.patient_key for info in infos} - {None}
    unknown = {info.person_key for info in infos if info.patient_key is None} - {None}
    if len(patients) > 1 or len(unknown) > 1:
        count = max(len(patients), len(unknown))
        raise InputError(
            f"{where}: {count} patients; expected one; choose a series: {_choices(infos, role)}"
        )
    days = {info.study_date or info.study_uid for info in usable}
    studies = {info.study_uid for info in usable}
    if len(studies) > 1 and len(days) > 1:
        raise InputError(
            f"{where}: {len(studies)} studies of several days; expected one; "
            f"choose a series: {_choices(usable, role)}"
        )


def _choices(infos: Sequence[SeriesInfo], role: str | None) -> str:
    """The first series, each as the option that takes it."""
    more = f"; and {len(infos) - MAX_LISTED} more" if len(infos) > MAX_LISTED else ""
    prefix = f"--series-uid {role}=" if role else "--series-uid "
    return "; ".join(prefix + info.line() for info in infos[:MAX_LISTED]) + more


def _for_role(message: str, role: str | None) -> str:
    """``message`` with the options in it for ``role``."""
    return message.replace("--frame ROLE=", f"--frame {role}=") if role else message


def _by_uid(
    infos: Sequence[SeriesInfo], where: Path, role: str | None, series_uid: str
) -> tuple[SeriesInfo, str]:
    """The series that the user named."""
    for info in infos:
        if info.uid == series_uid:
            if not is_volume(info):
                reason = _for_role(info.reason, role)
                raise InputError(f"{where}: series {series_uid} is not usable: {reason}")
            check_modality(info, where, role)
            return info, f"named by its SeriesInstanceUID: {info.line()}"
    known = "; ".join(info.line() for info in infos)
    raise InputError(f"{where}: no series {series_uid}; found {known}")


def check_modality(info: SeriesInfo, where: Path, role: str | None) -> None:
    """Refuse a series of plainly another modality, or of colours, for a role.

    Raises:
        InputError: what it is and what was expected.
    """
    if role is None:
        return
    if info.colour:
        raise InputError(f"{where}: series {info.uid} holds colours; expected grey values")
    known = {ROLES[one].modality for one in VOLUME_ROLES}
    wanted = ROLES[role].modality
    if info.modality in known and info.modality != wanted:
        raise InputError(
            f"{where}: modality {info.modality}; expected {wanted} for the {role} source"
        )


def _list_series(infos: Iterable[SeriesInfo]) -> str:
    """Series and why they do not fit, on one line."""
    said = [f"{i.line()}: {i.reason or 'usable as ' + ', '.join(i.roles)}" for i in infos]
    more = f"; and {len(said) - 6} more" if len(said) > 6 else ""
    return "; ".join(said[:6]) + more


def _original(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Original images, where there are any.

    Not of NM: each camera has its own mind of whether what it reconstructs is original, and the
    choice may be that of a correction for attenuation.
    """
    if any(i.modality == "NM" for i in infos):
        return infos
    return [i for i in infos if i.image_type[:1] == ("ORIGINAL",)] or infos


def _prefer_plainly_named(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Series whose description names no map, projection or scout, where there are any."""
    return [i for i in infos if not i.auxiliary] or infos


def _prefer_corrected(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Series corrected for attenuation, where there are any; else those not said to be not."""
    known = [i for i in infos if i.attenuation_corrected]
    return known or [i for i in infos if i.attenuation_corrected is None] or infos


def _fine(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Series without those far coarser than another that covers as much."""
    largest = max(i.volume_ml for i in infos)
    coarseness = {i.uid: max(i.spacing_mm or (0.0,)) for i in infos}
    finest = min(coarseness[i.uid] for i in infos if i.volume_ml >= COVERS_AS_MUCH * largest)
    return [i for i in infos if coarseness[i.uid] <= MUCH_FINER * finest]


def _axial(infos: list[SeriesInfo]) -> list[SeriesInfo]:
    """Axial series, where there are any."""
    return [i for i in infos if i.orientation.endswith("axial")] or infos


def _clear_leader(
    measure: Callable[[SeriesInfo], float],
) -> Callable[[list[SeriesInfo]], list[SeriesInfo]]:
    """A rule that keeps the one series that leads clearly in ``measure``, if one does."""

    def rule(infos: list[SeriesInfo]) -> list[SeriesInfo]:
        ranked = sorted(infos, key=measure, reverse=True)
        clear = measure(ranked[0]) >= CLEARLY_MORE * measure(ranked[1])
        return ranked[:1] if clear else infos

    return rule


_RULES: tuple[tuple[str, Callable[[list[SeriesInfo]], list[SeriesInfo]]], ...] = (
    ("description", _prefer_plainly_named),
    ("attenuation correction", _prefer_corrected),
    ("image type (original)", _original),
    ("resolution", _fine),
    ("orientation (axial)", _axial),
    ("number of slices", _clear_leader(lambda info: info.slices)),
    ("volume covered", _clear_leader(lambda info: info.volume_ml)),
)
