"""What ``mmif batch`` shows on a terminal: its progress, its plan and its answer."""

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmif.cli.progress import quiet

if TYPE_CHECKING:
    from rich.table import Table

    from mmif.batch.plan import Plan
    from mmif.batch.results import Row
    from mmif.batch.run import Tally
    from mmif.batch.run_job import Outcome

# A screen or two; more rows show only what is not done
SHOWN_ROWS = 60
# Columns of a redirected table, so that no reason is cut
FILE_WIDTH = 2000
log = logging.getLogger(__name__)


@contextmanager
def progress() -> Iterator[Callable[["Tally", "Outcome | None"], None]]:
    """Counts, rate and time left on a terminal; a line a study with ``-v``."""
    level = logging.getLogger("mmif").level
    if quiet() or (level != logging.INFO and not sys.stderr.isatty()):
        yield lambda tally, outcome: None
    elif level == logging.INFO:
        yield _log_outcome
    else:
        with _bar() as watch:
            yield watch


def _log_outcome(tally: "Tally", outcome: "Outcome | None") -> None:
    if outcome is None:
        log.info("%d studies, %d done earlier, %d no job", tally.total, tally.earlier, tally.failed)
        return
    said = f" ({outcome.cause}: {outcome.reason})" if outcome.reason else ""
    log.info("%s: %s in %.1f s%s", outcome.job_id, outcome.state, outcome.seconds, said)


@contextmanager
def _bar() -> Iterator[Callable[["Tally", "Outcome | None"], None]]:
    """One bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("fusing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("")

        def watch(tally: "Tally", outcome: "Outcome | None") -> None:
            bars.update(
                bar,
                total=tally.total,
                completed=tally.total - tally.jobs_left,
                description=_rate(tally),
            )

        yield watch


def _rate(tally: "Tally") -> str:
    """Failures, studies a minute and the time left."""
    said = f"{tally.failed} failed" if tally.failed else ""
    if tally.rate <= 0:
        return said
    minutes, seconds = divmod(round(tally.jobs_left / tally.rate), 60)
    return f"{said} {60 * tally.rate:.1f}/min, {minutes // 60}:{minutes % 60:02}:{seconds:02} left"


def say_plan(plan: "Plan", root: Path | None, done: Collection[str]) -> None:
    """The table of what would be done, and why the rest would not.

    Args:
        plan: all of it.
        root: paths are shown from there on; None shows none.
        done: ids of the jobs that are done already.
    """
    from rich.table import Table
    from rich.text import Text

    from mmif.errors import on_one_line

    table = Table("Study", "Task", "Sources, or why not", box=None)
    for job in plan.jobs:
        study, _, task = job.id.partition("/")
        paths = {role: source.path for role, source in job.inputs.items()}
        sources = "  ".join(
            role if root is None else f"{role} {on_one_line(str(_below(root, path)))}"
            for role, path in paths.items()
        )
        said = "done already" if job.id in done else sources
        table.add_row(*map(Text, (study, task, said)))
    for rejected in plan.rejected:
        study = rejected.id.partition("/")[0]
        table.add_row(*map(Text, (study, rejected.task or "none", rejected.reason)))
    _print(table)
    earlier = f"{len(done)} done already, " if done else ""
    click.echo(f"{len(plan.jobs) - len(done)} to do, {earlier}{len(plan.rejected)} not")


def say_rows(out: Path, rows: "Sequence[Row]") -> None:
    """The answer on the terminal: every study, or only those not done where there are many."""
    if quiet():
        return
    from rich.table import Table
    from rich.text import Text

    from mmif.batch.results import count

    shown = rows if len(rows) <= SHOWN_ROWS else [row for row in rows if row.state != "done"]
    table = Table("Study", "Task", "State", "Registration", "Error mm", "Seconds", "Why", box=None)
    for row in shown[:SHOWN_ROWS]:
        figures = (row.figures.get(k) for k in ("verdict", "registration_error_mm", "seconds"))
        verdict, error, seconds = figures
        cells = (
            row.study,
            row.task,
            row.state,
            str(verdict or ""),
            _number(error),
            _number(seconds),
            ": ".join(filter(None, (row.cause, row.reason))),
        )
        table.add_row(*map(Text, cells))
    _print(table)
    if len(shown) > SHOWN_ROWS:
        click.echo(f"... and {len(shown) - SHOWN_ROWS} more that are not done")
    states = ", ".join(f"{number} {state}" for state, number in sorted(count(rows).items()))
    click.echo(f"{len(rows)} studies: {states}")
    click.echo(f"{out / 'summary.csv'}, {out / 'index.html'}")


def _below(root: Path, path: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _print(table: "Table") -> None:
    """The table on stdout, as wide as the terminal; unbroken lines into a file."""
    from rich.console import Console

    text = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    with text.capture() as captured:
        text.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
