"""What a batch has to do: the jobs found in a folder tree or a list, and why the rest is none."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmif.batch.jobs import Input, Job, input_of, printable, safe_id
from mmif.errors import InputError

OTHERS = ("ct", "spect", "pet")
ROLES = ("mri", *OTHERS)
TASKS = tuple(f"{role}-mri" for role in OTHERS)


@dataclass(frozen=True)
class Rejected:
    """Something that became no job.

    Attributes:
        id: the study, or ``STUDY/TASK``.
        reason: why, in one line.
        task: the task, if it is clear; else "".
    """

    id: str
    reason: str
    task: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs, and what could not become one; both sorted by id."""

    jobs: tuple[Job, ...]
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Study:
    """The sources of one patient that belong together.

    Attributes:
        name: what to call it.
        inputs: role to source.
        problems: role to why none of its candidates was taken.
    """

    name: str
    inputs: Mapping[str, Input]
    problems: Mapping[str, str]


def make_plan(studies: Path, tasks: Sequence[str] = TASKS) -> Plan:
    """The plan for a folder tree, a CSV list or a JSON list.

    Args:
        studies: the folder or list.
        tasks: the tasks that are wanted.

    Raises:
        InputError: nothing there, nothing in it, or a list that is not right.
    """
    if not studies.exists():
        raise InputError(f"{studies}: no such file or folder; expected a folder tree or a list")
    if studies.is_dir():
        from mmif.batch.tree import studies_below

        found, rejected = studies_below(studies)
    else:
        found, rejected = read_list(studies), []
    plan = plan_of(found, rejected, tasks)
    if not plan.jobs and not plan.rejected:
        raise InputError(f"{studies}: no studies found; expected CT, SPECT or PET with MRI")
    return plan


def plan_of(found: Iterable[Study], rejected: Iterable[Rejected], tasks: Sequence[str]) -> Plan:
    """The jobs of all pairs in the studies; a study without a pair says what it lacks."""
    jobs: list[Job] = []
    why = list(rejected)
    for study in map(_with_names_to_write, unique_names(found)):
        made = [job for task in tasks if (job := _job(study, task))]
        jobs += made
        why += _lacking(study, tasks, bool(made))
    why = [replace(one, reason=printable(one.reason)) for one in why]
    return Plan(tuple(sorted(jobs, key=lambda j: j.id)), tuple(sorted(why, key=lambda r: r.id)))


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
    text = "\n".join([*said, *sorted(study.problems)])
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


def _job(study: Study, task: str) -> Job | None:
    other = task.removesuffix("-mri")
    if other not in study.inputs or "mri" not in study.inputs:
        return None
    pair = {other: study.inputs[other], "mri": study.inputs["mri"]}
    return Job(f"{study.name}/{task}", task, pair)


def _lacking(study: Study, tasks: Sequence[str], has_jobs: bool) -> list[Rejected]:
    """What keeps the study, or one more task of it, from being done."""
    wanted = [task.removesuffix("-mri") for task in tasks]
    others = [role for role in wanted if role in study.inputs or role in study.problems]
    problems = {r: text for r, text in study.problems.items() if r == "mri" or r in wanted}
    if has_jobs:
        return [Rejected(f"{study.name}/{r}-mri", text, f"{r}-mri") for r, text in problems.items()]
    if problems:
        return [Rejected(study.name, "; ".join(problems.values()))]
    if not others and not study.inputs:
        return []
    have = " and ".join(role.upper() for role in study.inputs)
    missing = "MRI" if others else " or ".join(role.upper() for role in wanted)
    return [Rejected(study.name, f"no pair: found {have}, no {missing}")]


def read_list(path: Path) -> list[Study]:
    """The studies of a CSV or JSON list with the columns ``study, ct, mri, spect, pet``.

    Paths are relative to the list. JSON is an array of objects with these keys.

    Raises:
        InputError: not such a list, files that are missing, ids that stand twice.
    """
    rows = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    names = [str(row.get("study") or "").strip() for row in rows]
    _refuse_names(path, names)
    studies = []
    missing = []
    for name, row in zip(names, rows, strict=True):
        given = {
            r: path.parent / str(row[r]).strip() for r in ROLES if str(row.get(r) or "").strip()
        }
        missing += [f"{name} {role} {found}" for role, found in given.items() if not found.exists()]
        studies.append((name, given))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{path}: missing file {missing[0]}{more}; expected every file of the list"
        )
    return [
        Study(name, {role: input_of(found) for role, found in given.items()}, {})
        for name, given in studies
    ]


def _refuse_names(path: Path, names: Sequence[str]) -> None:
    """Refuse ids that are empty or stand twice."""
    if "" in names:
        raise InputError(f"{path}: row {names.index('') + 1} has no study; expected an id")
    twice = [name for name, n in Counter(name.lower() for name in names).items() if n > 1]
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise InputError(f"{path}: study {twice[0]} stands twice{more}; expected each id once")


def _read_csv(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows: list[Mapping[str, Any]] = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV list ({error})") from error
    _refuse_columns(path, columns)
    return rows


def _read_json(path: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected an array of objects with the keys study, ct, mri ...")
    _refuse_columns(path, [key for row in rows for key in row])
    return rows


def _refuse_columns(path: Path, columns: Sequence[str]) -> None:
    known = ("study", *ROLES)
    unknown = sorted(set(columns) - set(known))
    if unknown or "study" not in columns:
        found = ", ".join(dict.fromkeys(columns)) or "nothing"
        raise InputError(f"{path}: found columns {found}; expected {', '.join(known)}")


def write_list(plan: Plan, path: Path) -> None:
    """The jobs of ``plan`` as a CSV list that `read_list` reads, with absolute paths."""
    rows: dict[str, dict[str, str]] = {}
    for job in plan.jobs:
        row = rows.setdefault(job.id.partition("/")[0], {})
        row |= {role: str(source.path.absolute()) for role, source in job.inputs.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["study", *ROLES], restval="")
        writer.writeheader()
        writer.writerows({"study": name, **row} for name, row in sorted(rows.items()))
