"""Studies under other names: what a de-identified batch calls them, and the key to it."""

import csv
import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

from mmif.batch.jobs import Job
from mmif.batch.plan import Plan
from mmif.errors import OutputError
from mmif.io.atomic import staging_path
from mmif.io.cells import plain_cell
from mmif.studies.study import Rejected

WITHHELD = "the reason may name the study; mmif batch --dry-run without --deidentify says it"
"""In place of why something failed or became no job: reasons quote paths and headers."""

DIGITS = 12
"""Hexadecimal digits of a pseudonym: among 100,000 studies two agree with a chance of 2e-5."""

COLUMNS = ("pseudonym", "study")


def pseudonymise(plan: Plan) -> tuple[Plan, dict[str, str]]:
    """``plan`` with pseudonyms for its studies, and the key: pseudonym to study.

    A pseudonym comes of the files' paths, sizes and times to the nanosecond, so the same command
    again finds what is done, and nobody finds the name who has not the files. What became no job
    has no files; it is numbered.
    """
    stamps: dict[str, list[str]] = {}
    for job in plan.jobs:
        stamps.setdefault(_study_of(job), []).append(job.stamp())
    names = {study: _pseudonym(found) for study, found in stamps.items()}
    jobs = [
        replace(job, id=f"{names[_study_of(job)]}/{job.task}", pseudonymous=True)
        for job in plan.jobs
    ]
    rejected, key = [], {other: study for study, other in names.items()}
    for number, one in enumerate(plan.rejected, 1):
        other = f"not-done-{number:04}"
        key[other] = one.id
        rejected.append(Rejected(other, WITHHELD, one.task))
    return Plan(tuple(sorted(jobs, key=lambda job: job.id)), tuple(rejected)), key


def write_key(key: Mapping[str, str], path: Path) -> None:
    """Write ``key`` as CSV, beside the rows that an earlier run has left in it.

    A name that a spreadsheet would take for a formula stands behind an apostrophe.

    Raises:
        OutputError: something else stands at ``path``, or it cannot be written.
    """
    rows = {**_earlier(path), **{other: plain_cell(study) for other, study in key.items()}}
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *sorted(rows.items())])
    with staging_path(path) as staged:
        staged.touch(mode=0o600)  # who may read it is the user's to say
        staged.write_text(text.getvalue(), encoding="utf-8")


def _earlier(path: Path) -> dict[str, str]:
    """The rows of a key that stands at ``path`` already."""
    if not os.path.lexists(path):
        return {}
    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError("a link, a folder, a pipe or a device")
        head, *rows = csv.reader(StringIO(path.read_text(encoding="utf-8")))
        if tuple(head) == COLUMNS:
            return dict(rows)
    except (OSError, ValueError, csv.Error):
        pass
    raise OutputError(f"{path}: found something that is no key of a batch; expected another place")


def _study_of(job: Job) -> str:
    return job.id.partition("/")[0]


def _pseudonym(stamps: list[str]) -> str:
    digest = hashlib.sha256("".join(sorted(stamps)).encode()).hexdigest()
    return f"study-{digest[:DIGITS]}"
