"""What a batch has to do: the jobs found in a folder tree or a list, and why the rest is none."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from mmif.batch.jobs import Job
from mmif.errors import InputError, on_one_line
from mmif.roles import TASKS, VOLUME_TASKS, label
from mmif.studies.discover import find_studies
from mmif.studies.study import (
    Input,
    Rejected,
    Study,
    choose_tasks,
    unique_names,
)


@dataclass(frozen=True)
class Plan:
    """The jobs, and what could not become one; both sorted by id."""

    jobs: tuple[Job, ...]
    rejected: tuple[Rejected, ...] = ()

    @property
    def studies(self) -> list[Study]:
        """The studies of the jobs, sorted by name, with the sources that the jobs need."""
        inputs: dict[str, dict[str, Input]] = {}
        for job in self.jobs:
            inputs.setdefault(job.id.partition("/")[0], {}).update(job.inputs)
        return [Study(name, found, {}) for name, found in sorted(inputs.items())]


def make_plan(studies: Path, tasks: Sequence[str] = (), fill_gaps: bool = False) -> Plan:
    """The plan for a folder tree, a CSV list or a JSON list.

    Args:
        studies: the folder or list.
        tasks: the tasks that are wanted; what a study can make, `choose_tasks`, when left out.
        fill_gaps: plan for series that lack single slices too.

    Raises:
        InputError: nothing there, nothing in it, or a list that is not right.
    """
    found, rejected = find_studies(studies, fill_gaps)
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
        why += _rejections(study, tasks, made)
    return Plan(tuple(sorted(jobs, key=lambda job: job.id)), tuple(_one_row_each(why)))


def _one_row_each(rejected: Iterable[Rejected]) -> Iterator[Rejected]:
    """Sorted by id, each id once, with all its reasons."""
    by_id = sorted(rejected, key=lambda one: one.id)
    for _, same in groupby(by_id, key=lambda one: one.id):
        every = list(same)
        reasons = dict.fromkeys(on_one_line(one.reason) for one in every)
        yield replace(every[0], reason="; ".join(reasons))


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


def _rejections(study: Study, tasks: Sequence[str], made: Sequence[str]) -> list[Rejected]:
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
