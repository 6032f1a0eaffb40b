"""Progress on a terminal, for each step; nothing where the output is not a terminal."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from mmif.errors import printable


def say(line: str, *, err: bool = False) -> None:
    """Print ``line`` without what would steer a terminal: names of files are others' input."""
    click.echo(printable(line), err=err)


def quiet() -> bool:
    """Whether ``-q`` asked for errors only."""
    return logging.getLogger("mmif").level >= logging.ERROR


@contextmanager
def show_progress() -> Iterator[Callable[[str, float], None]]:
    """A callable for a step's name and the share of it that is done, drawn while inside.

    With ``-v`` each step that ends is logged instead; with ``-q`` nothing is drawn.
    """
    log = logging.getLogger("mmif")
    if log.level == logging.INFO:
        yield _log_progress()
    elif quiet() or not sys.stderr.isatty():
        yield lambda step, share: None
    else:
        with _bars() as progress:
            yield progress


def _log_progress() -> Callable[[str, float], None]:
    """A line for each step when it is first done: its name and its seconds."""
    began: dict[str, float] = {}
    done: set[str] = set()

    def progress(step: str, share: float) -> None:
        start = began.setdefault(step, time.perf_counter())
        if share >= 1 and step not in done:
            done.add(step)
            seconds = time.perf_counter() - start
            logging.getLogger("mmif").info("%s: %.2f s", step, seconds)

    return progress


@contextmanager
def _bars() -> Iterator[Callable[[str, float], None]]:
    """One bar a step, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>12}"), BarColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def progress(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=1.0)
            bars.update(tasks[step], completed=share)

        yield progress
