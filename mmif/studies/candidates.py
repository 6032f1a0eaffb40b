"""Of several candidates for a role one, or why none: nothing is guessed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmif.errors import InputError
from mmif.io.dicom.read.select import select
from mmif.io.dicom.read.series import SeriesInfo
from mmif.studies.study import Input, input_of


def several(role: str, paths: Iterable[Path]) -> str:
    """Why none of ``paths`` is taken for ``role``."""
    listed = ", ".join(sorted(path.name for path in paths))
    return f"several {role.upper()}: {listed}; expected one, or a list that names it"


def take_series(
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
        problems[role] = _for_lists(str(error))


def _for_lists(message: str) -> str:
    """``message`` with the way that a batch has to choose, in place of the command's option."""
    message = message.replace("choose one: ", "choose one with a list that names it: ")
    return message.replace("choose a series: ", "choose with a list: ").replace("--series-uid ", "")


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


def name_below(root: Path, path: Path) -> str:
    """A study's name: where it lies below ``root``."""
    relative = os.path.relpath(path, root)
    return root.resolve().name if relative == "." else relative
