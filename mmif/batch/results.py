"""What was done, what failed, and why: ``summary.csv`` and ``index.html``, from the ledgers."""

import base64
import csv
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmif.batch.ledger import Entry, Ledger, ledgers_of
from mmif.batch.locks import Claims
from mmif.errors import InputError
from mmif.io.atomic import commit_together, staging_folder
from mmif.io.cells import plain_cell
from mmif.io.seals import file_sha256

if TYPE_CHECKING:
    from mmif.report.page import Table

METRICS = ("EN", "AG", "MI", "SSIM", "PSNR", "Qabf", "SCD", "SF")
log = logging.getLogger(__name__)
_KNOWN = re.compile(rb"<!-- summary\.csv sha256 ([0-9a-f]{64}) -->\s*\Z")
COLUMNS = (
    "study",
    "task",
    "state",
    "verdict",
    "registration_error_mm",
    *METRICS,
    "seconds",
    "cause",
    "reason",
    "output",
)
STATES = {
    "done": "done",
    "failed": "failed",
    "died": "unfinished",
    "started": "unfinished",
    "planned": "unfinished",
}
THUMBNAIL = "thumbnail.jpg"


@dataclass(frozen=True)
class Row:
    """One study and task, as the answer shows it.

    Attributes:
        study: the study.
        task: the task, "" for a study that became no job.
        state: ``done``, ``failed`` or ``unfinished``.
        cause: kind of failure, "" if done.
        reason: why it failed, in one line.
        figures: what the work returned: verdict, error estimate, metrics, seconds.
    """

    study: str
    task: str
    state: str
    cause: str
    reason: str
    figures: Mapping[str, Any]

    @property
    def output(self) -> str:
        """The folder of the results, relative to OUT; "" if not done."""
        return f"studies/{self.study}/{self.task}" if self.state == "done" else ""

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """The eight metrics; None where one is not known."""
        known = self.figures.get("metrics") or {}
        return {name: known.get(name) for name in METRICS}


def read_rows(out: Path) -> list[Row]:
    """The rows of all ledgers of ``out``, sorted by study and task.

    Raises:
        InputError: no folder, or no ledger in it.
    """
    if not out.is_dir():
        raise InputError(f"{out}: no such folder; expected the OUT of a batch")
    with Claims(out) as claims:
        ledger = Ledger(out, claims)
        ledger.refresh()
    if not ledger.headers:
        raise InputError(f"{out}: no ledger*.jsonl; expected the OUT of a batch")
    known = {job_id: entry for job_id, entry in ledger.entries.items() if entry.state in STATES}
    return [_row(job_id, entry) for job_id, entry in sorted(known.items())]


def missing_shards(out: Path) -> list[str]:
    """``I/N`` of the shards without a ledger, where no other run can have done their part."""
    shards: dict[int, set[int]] = defaultdict(set)
    for path in ledgers_of(out):
        match = re.fullmatch(r"ledger-(\d+)-of-(\d+)\.jsonl", path.name)
        if match is None:  # a run over everything
            return []
        shards[int(match[2])].add(int(match[1]))
    missing = [[f"{i}/{n}" for i in range(n) if i not in found] for n, found in shards.items()]
    return min(missing, key=len, default=[])


def count(rows: Iterable[Row]) -> Counter[str]:
    """How many rows there are of each state."""
    return Counter(row.state for row in rows)


def write_results(out: Path) -> list[Row]:
    """Write ``summary.csv`` and ``index.html`` of ``out`` from its ledgers; the rows.

    Raises:
        InputError: nothing to sum up.
        OutputError: they cannot be written.
    """
    rows = read_rows(out)
    with (
        Claims(out) as claims,
        claims.write_lock("summary.csv"),
        staging_folder(out / "index.html") as new,
    ):
        _keep_edited(out)
        (new / "summary.csv").write_text(csv_text(rows), encoding="utf-8")
        known = f"<!-- summary.csv sha256 {file_sha256(new / 'summary.csv')} -->\n"
        (new / "index.html").write_text(page(out, rows) + known, encoding="utf-8")
        commit_together([(new / name, out / name) for name in ("summary.csv", "index.html")])
    return rows


def _keep_edited(out: Path) -> None:
    """Move a ``summary.csv`` that is not as it was written aside: what somebody noted in it stays.

    The page that was written with it says what it was.
    """
    table, last = out / "summary.csv", out / "index.html"
    if not (table.is_file() and last.is_file()):
        return
    with last.open("rb") as file:
        file.seek(max(0, last.stat().st_size - 200))
        said = _KNOWN.search(file.read())
    if said is None or said[1].decode() == file_sha256(table):
        return
    names = (out / f"summary-edited-{n}.csv" for n in range(1, 10_000))
    aside = next(path for path in names if not os.path.lexists(path))
    table.rename(aside)
    log.warning("%s was changed since it was written; it is %s now", table, aside.name)


def csv_text(rows: Iterable[Row]) -> str:
    """The rows as CSV."""
    from io import StringIO

    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                "study": plain_cell(row.study),
                "task": plain_cell(row.task),
                "state": row.state,
                "verdict": plain_cell(str(row.figures.get("verdict") or "")),
                "registration_error_mm": row.figures.get("registration_error_mm"),
                **row.metrics,
                "seconds": row.figures.get("seconds"),
                "cause": plain_cell(row.cause),
                "reason": plain_cell(row.reason),
                "output": plain_cell(row.output),
            }
        )
    return text.getvalue()


def page(out: Path, rows: Sequence[Row]) -> str:
    """``index.html``: two tables that sort, with links to the reports and small pictures."""
    from mmif.report.page import render

    counted = count(rows)
    causes = Counter(row.cause for row in rows if row.state == "failed")
    return render(
        "batch.html",
        scripts=["table.js"],
        styles=["batch.css"],
        context={
            "title": "mmif batch",
            "not_done": _table_of_failures([row for row in rows if row.state != "done"]),
            "done": _table_of_results(out, [row for row in rows if row.state == "done"]),
            "total": len(rows),
            "counted": {state: counted[state] for state in ("done", "failed", "unfinished")},
            "causes": dict(causes.most_common()),
        },
    )


def _table_of_failures(rows: Sequence[Row]) -> "Table":
    """What was not done, and why."""
    from mmif.report.page import Cell, Table

    heads = ["Study", "Task", "State", "Cause", "Why"]
    texts = [(row.study, row.task, row.state, row.cause, row.reason) for row in rows]
    return Table("What was not done, and why", heads, [[*map(Cell, text)] for text in texts])


def _table_of_results(out: Path, rows: Sequence[Row]) -> "Table":
    """What was done, with its figures."""
    from mmif.report.page import Cell, Table

    def cells(row: Row) -> list[Cell]:
        report = f"{row.output}/report.html"
        verdict = str(row.figures.get("verdict") or "")
        numbers = [
            (row.figures.get("registration_error_mm"), 1),
            *[(value, 3) for value in row.metrics.values()],
            (row.figures.get("seconds"), 1),
        ]
        return [
            Cell(f"{row.study}, fused", picture=_picture(out, row)),
            Cell(row.study, link=report if (out / report).is_file() else None),
            Cell(row.task),
            Cell(verdict, tone=verdict or None),
            *[Cell(_text(value, digits), sort=value) for value, digits in numbers],
        ]

    heads = ["Picture", "Study", "Task", "Registration", "Error (mm)", *METRICS, "Seconds"]
    figures = range(4, len(heads))
    return Table("What was done", heads, [cells(row) for row in rows], numeric=figures)


def _row(job_id: str, entry: Entry) -> Row:
    study, _, task = job_id.partition("/")
    state = STATES[entry.state]
    unfinished = "not begun" if entry.state == "planned" else "no end is recorded"
    reason = entry.reason or (unfinished if state == "unfinished" else "")
    return Row(
        study,
        task or str(entry.line.get("task", "")),
        state,
        str(entry.line.get("cause", "")),
        reason,
        entry.line.get("row") or {},
    )


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _picture(out: Path, row: Row) -> str | None:
    """The thumbnail of a study as a data URI, or None."""
    path = out / row.output / THUMBNAIL
    if not row.output or not path.is_file():
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
