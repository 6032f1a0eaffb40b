"""Lists of studies as CSV or JSON, with the columns ``study, ct, mri, spect, pet``."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from mmif.errors import InputError
from mmif.io.cells import cell_text, plain_cell
from mmif.roles import VOLUME_ROLES
from mmif.studies.study import Input, Study, input_of

SERIES = {role: f"{role}_series_uid" for role in VOLUME_ROLES}
MAX_LIST_BYTES = 64 << 20
"""Bytes of a list: 100,000 studies of 600 bytes each."""
COLUMNS = ("study", *VOLUME_ROLES, *SERIES.values())


def read_list(path: Path) -> list[Study]:
    """The studies of a CSV or JSON list with the columns ``study, ct, mri, spect, pet``.

    Paths are relative to the list. JSON is an array of objects with these keys. Where a path holds
    several series, a column ``ct_series_uid`` (and so on) says which one.

    Raises:
        InputError: not such a list, files that are missing, ids that stand twice.
    """
    rows = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    names = [_cell(row, "study") for row in rows]
    _refuse_names(path, names)
    studies = []
    missing = []
    for name, row in zip(names, rows, strict=True):
        given = {role: path.parent / text for role in VOLUME_ROLES if (text := _cell(row, role))}
        missing += [f"{name} {role} {found}" for role, found in given.items() if not exists(found)]
        studies.append((name, given, row))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{path}: missing file {missing[0]}{more}; expected every file of the list"
        )
    return [
        Study(
            name,
            {role: input_of(at, _cell(row, SERIES[role]) or None) for role, at in given.items()},
            {},
        )
        for name, given, row in studies
    ]


def exists(path: Path) -> bool:
    """Whether something is there; nothing is under a name that is too long."""
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _refuse_names(path: Path, names: Sequence[str]) -> None:
    """Refuse ids that are empty or stand twice."""
    if "" in names:
        raise InputError(f"{path}: row {names.index('') + 1} has no study; expected an id")
    twice = [name for name, n in Counter(name.lower() for name in names).items() if n > 1]
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise InputError(f"{path}: study {twice[0]} stands twice{more}; expected each id once")


def _cell(row: Mapping[str, Any], column: str) -> str:
    return str(row.get(column) or "").strip()


def _read_csv(path: Path) -> list[Mapping[str, Any]]:
    try:
        reader = csv.DictReader(StringIO(_read_text(path)), skipinitialspace=True, strict=True)
        columns = [name.strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows: list[Mapping[str, Any]] = [
            {k: cell_text(v) if isinstance(v, str) else v for k, v in row.items()} for row in reader
        ]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV list ({error})") from error
    _refuse_columns(path, columns)
    for number, row in enumerate(rows, 1):
        if reader.restkey in row:
            raise InputError(
                f"{path}: row {number} has more cells than there are columns; expected a path "
                "with a comma in quotes"
            )
    return rows


def _read_json(path: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected an array of objects with the keys study, ct, mri ...")
    _refuse_columns(path, [key for row in rows for key in row])
    return rows


def _read_text(path: Path) -> str:
    """The text of a list.

    Raises:
        InputError: no ordinary file, not to be read, not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"{path}: neither a folder nor an ordinary file")
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path}: more than {MAX_LIST_BYTES >> 20} MiB; expected a list")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a list in UTF-8 ({error})") from error


def _refuse_columns(path: Path, columns: Sequence[str]) -> None:
    if not {"study"} <= set(columns) <= set(COLUMNS):
        found = ", ".join(dict.fromkeys(columns)) or "nothing"
        raise InputError(f"{path}: found columns {found}; expected {', '.join(COLUMNS)}")


def write_list(studies: Iterable[Study], path: Path) -> None:
    """``studies`` as a CSV list that `read_list` reads, with absolute paths and no formula."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for study in studies:
            row = {role: str(_listed_path(one).absolute()) for role, one in study.inputs.items()}
            uids = {SERIES[role]: one.series_uid or "" for role, one in study.inputs.items()}
            cells = {"study": study.name, **row, **uids}
            writer.writerow({name: plain_cell(text) for name, text in cells.items()})


def _listed_path(source: Input) -> Path:
    """The path that stands for all files of ``source``: its folder, if it has that for itself."""
    alone = len(source.files) > 1 and {p.name for p in source.folder.iterdir()} == {*source.files}
    return source.folder if alone else source.path
