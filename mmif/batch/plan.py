"""What a batch has to do: the jobs found in a folder tree or a list, and why the rest is none."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

from mmif.batch.jobs import Job
from mmif.errors import InputError
from mmif.roles import TASKS, VOLUME_ROLES, VOLUME_TASKS, label
from mmif.studies.discover import studies_below
from mmif.studies.study import (
    Input,
    Rejected,
    Study,
    choose_tasks,
    input_of,
    printable,
    safe_id,
)

SERIES = {role: f"{role}_series_uid" for role in VOLUME_ROLES}
COLUMNS = ("study", *VOLUME_ROLES, *SERIES.values())


@dataclass(frozen=True)
class Plan:
    """The jobs, and what could not become one; both sorted by id."""

    jobs: tuple[Job, ...]
    rejected: tuple[Rejected, ...] = ()


def make_plan(studies: Path, tasks: Sequence[str] = ()) -> Plan:
    """The plan for a folder tree, a CSV list or a JSON list.

    Args:
        studies: the folder or list.
        tasks: the tasks that are wanted; what a study can make, `choose_tasks`, when left out.

    Raises:
        InputError: nothing there, nothing in it, or a list that is not right.
    """
    if not _exists(studies):
        raise InputError(f"{studies}: no such file or folder; expected a folder tree or a list")
    if studies.is_dir():
        found, rejected = studies_below(studies)
    else:
        found, rejected = read_list(studies), []
    plan = plan_of(found, rejected, tasks)
    if not plan.jobs and not plan.rejected:
        raise InputError(f"{studies}: no studies found; expected two of CT, MRI and SPECT or PET")
    return plan


def plan_of(found: Iterable[Study], rejected: Iterable[Rejected], tasks: Sequence[str]) -> Plan:
    """The jobs of all pairs in the studies; a study without a pair says what it lacks."""
    jobs: list[Job] = []
    why = list(rejected)
    for study in map(_with_names_to_write, unique_names(found)):
        made = choose_tasks(study.inputs, tasks)
        jobs += [_job(study, task) for task in made]
        why += _lacking(study, tasks, made)
    return Plan(tuple(sorted(jobs, key=lambda job: job.id)), tuple(_one_row_each(why)))


def _one_row_each(rejected: Iterable[Rejected]) -> Iterator[Rejected]:
    """Sorted by id, each id once, with all its reasons."""
    by_id = sorted(rejected, key=lambda one: one.id)
    for _, same in groupby(by_id, key=lambda one: one.id):
        every = list(same)
        reasons = dict.fromkeys(printable(one.reason) for one in every)
        yield replace(every[0], reason="; ".join(reasons))


def unique_names(found: Iterable[Study]) -> list[Study]:
    """The studies under names that are unique and safe on any file system."""
    named = [(safe_id(study.name), study) for study in found]
    count = Counter(name.lower() for name, _ in named)
    return [
        replace(study, name=name + _suffix(study) if count[name.lower()] > 1 else name)
        for name, study in named
    ]


def _suffix(study: Study) -> str:
    """What tells a study from others of the same name: a hash of what it was called, and its files.

    However the path of the tree is given, the hash is the same.
    """
    said = [study.name]
    for _, source in sorted(study.inputs.items()):
        said += [*sorted(source.files), source.series_uid or ""]
    text = "\n".join([*said, *sorted(study.problems), study.uid])
    return f"-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _with_names_to_write(study: Study) -> Study:
    """The study without sources whose names no summary could hold: those become problems."""
    lost = {role: source for role, source in study.inputs.items() if not _is_text(source.path)}
    expected = "not a name in UTF-8; expected it renamed"
    return replace(
        study,
        inputs={role: source for role, source in study.inputs.items() if role not in lost},
        problems={
            **study.problems,
            **{role: f"{role.upper()} {source.path}: {expected}" for role, source in lost.items()},
        },
    )


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _job(study: Study, task: str) -> Job:
    inputs = {role: study.inputs[role] for role in TASKS[task].roles}
    return Job(f"{study.name}/{task}", task, inputs)


def _lacking(study: Study, tasks: Sequence[str], made: Sequence[str]) -> list[Rejected]:
    """What keeps the study, or one more task of it, from being done."""
    there = {*study.inputs, *study.problems}
    if made:
        missed = [task for task in choose_tasks(there, tasks) if task not in made]
        return [Rejected(f"{study.name}/{t}", _problems_of(study, t), t) for t in missed]
    if study.problems:
        return [Rejected(study.name, "; ".join(study.problems.values()))]
    if not study.inputs:
        return []
    have = " and ".join(label(role) for role in study.inputs)
    wanted = tasks or VOLUME_TASKS
    ways = [[label(r) for r in TASKS[task].roles if r not in there] for task in wanted]
    nearest = [way for way in ways if len(way) == min(map(len, ways))]
    missing = " or ".join(dict.fromkeys(" and ".join(way) for way in nearest))
    return [Rejected(study.name, f"no pair: found {have}, no {missing}")]


def _problems_of(study: Study, task: str) -> str:
    return "; ".join(study.problems[r] for r in TASKS[task].roles if r in study.problems)


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
        missing += [f"{name} {role} {found}" for role, found in given.items() if not _exists(found)]
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


def _exists(path: Path) -> bool:
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
        rows: list[Mapping[str, Any]] = list(reader)
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
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a list in UTF-8 ({error})") from error


def _refuse_columns(path: Path, columns: Sequence[str]) -> None:
    if not {"study"} <= set(columns) <= set(COLUMNS):
        found = ", ".join(dict.fromkeys(columns)) or "nothing"
        raise InputError(f"{path}: found columns {found}; expected {', '.join(COLUMNS)}")


def write_list(plan: Plan, path: Path) -> None:
    """The jobs of ``plan`` as a CSV list that `read_list` reads, with absolute paths."""
    rows: dict[str, dict[str, str]] = {}
    for job in plan.jobs:
        row = rows.setdefault(job.id.partition("/")[0], {})
        for role, source in job.inputs.items():
            row[role] = str(_listed(source).absolute())
            row[SERIES[role]] = source.series_uid or ""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({"study": name, **row} for name, row in sorted(rows.items()))


def _listed(source: Input) -> Path:
    """The path that stands for all files of ``source``: its folder, if it has that for itself."""
    alone = len(source.files) > 1 and {p.name for p in source.folder.iterdir()} == {*source.files}
    return source.folder if alone else source.path
