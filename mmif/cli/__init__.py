"""The command line: one file a command, imported only when that command is called."""

import importlib
import io
import logging
import os
import signal
import sys
import warnings
from types import FrameType
from typing import Any

import click

from mmif.errors import MmifError, on_one_line, printable
from mmif.startup import end_quickly, start_quickly

COMMANDS = {
    "fuse": "Fuse two or three volumes (or registered 2-D images) of one patient.",
    "batch": "Fuse a folder of studies.",
    "train": "Train the fusion network on pairs of slices or on studies.",
    "evaluate": "Score fused images with the eight fusion metrics.",
    "register": "Register two volumes rigidly; write an ITK transform.",
    "info": "List the series and volumes found at a path, and what each is usable for.",
    "node": "Receive studies by C-STORE, fuse them, send the results on.",
    "send": "Send a result's DICOM files to an archive.",
    "bundle": "Write a MONAI bundle: configuration, weights, licence.",
    "slicer": "Fuse two volumes as a module inside 3D Slicer.",
    "weights": "List or verify the shipped weights.",
}


class _PlainFormatter(logging.Formatter):
    """The message alone, on one line: what it quotes of files forges no other line of a journal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The message, printable."""
        return printable(record.message)


def _say(level: int) -> None:
    logging.getLogger().setLevel(level)
    logging.getLogger("mmif").setLevel(level)


def _verbosity(_: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        _say(logging.INFO if option.name == "verbose" else logging.ERROR)


def _verbosity_option(*names: str, words: str) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, callback=_verbosity, help=words)


VERBOSITY = (
    _verbosity_option("-v", "--verbose", words="Say each step and its figures."),
    _verbosity_option("-q", "--quiet", words="Say errors only."),
)


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, not for ``--help``.

    ``-v`` and ``-q`` stand before the command or among its own options.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Warnings and errors are said, until an option asks for more or less."""
        _say(logging.WARNING)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command ``name`` from ``mmif.cli.NAME``."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"mmif.cli.{name}"), name)
        command.params.extend(option for option in VERBOSITY if option not in command.params)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a refusal becomes one line and exit code 1."""
        try:
            return super().invoke(ctx)
        except MmifError as error:
            click.echo(f"Error: {on_one_line(str(error))}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing unfinished was left", err=True)
            ctx.exit(128 + signal.SIGINT)
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            click.echo("Error: out of memory; expected more, or smaller volumes", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            raise  # click's own: who reads the output has enough of it
        except OSError as error:
            if error.errno is None:  # not the system's, so a bug: it keeps its traceback
                raise
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"Error: {printable(place + os.strerror(error.errno))}", err=True)
            ctx.exit(1)


def _is_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that memory ran out (torch's too)."""
    cause = error.__cause__
    said = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    said = said or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    return said or (cause is not None and _is_memory(cause))


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end_cleanly() -> None:
    """Let a scheduler's SIGTERM and a closed terminal's SIGHUP end as an interrupt does.

    So nothing is left at the output. One that is ignored, as under nohup, stays so.
    """
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has one
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from mmif import __version__

        click.echo(f"mmif {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    params=list(VERBOSITY),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Say the version and exit.",
)
def main() -> None:
    """Fuse CT, MRI, SPECT and PET volumes of one patient. Research use only."""
    _end_cleanly()
    start_quickly()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("pydicom").disabled = True  # it repeats odd values of headers,
    warnings.filterwarnings("ignore", module="pydicom")  # which can be a patient's


def run() -> None:
    """The command as a process of its own."""
    try:
        main(prog_name="mmif")
    except SystemExit as end:
        if isinstance(end.code, int):
            end_quickly(end.code)
        raise
