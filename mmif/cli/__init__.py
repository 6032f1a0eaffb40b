"""The command line: one file a command, imported only when that command is called."""

import importlib
import logging
import sys
import warnings
from typing import Any

import click

from mmif.errors import MmifError

COMMANDS = {
    "fuse": "Fuse two volumes (or two registered 2-D images) of one patient.",
    "batch": "Fuse a folder of studies.",
    "train": "Train the fusion network on pairs of slices or on studies.",
    "evaluate": "Score fused images with the eight fusion metrics.",
    "register": "Register two volumes rigidly; write an ITK transform.",
    "info": "List the series and volumes found at a path, and what each is usable for.",
    "weights": "List or verify the shipped weights.",
}


def printable(line: str) -> str:
    """``line`` without what steers a terminal or cannot be shown: file names are others' input."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, not for ``--help``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command ``name`` from ``mmif.cli.NAME``."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"mmif.cli.{name}")
        return getattr(module, name)  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a refusal becomes one line and exit code 1."""
        try:
            return super().invoke(ctx)
        except MmifError as error:
            click.echo(f"Error: {printable(' '.join(str(error).split()))}", err=True)
            ctx.exit(1)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from mmif import __version__

        click.echo(f"mmif {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Say each step and its figures.")
@click.option("-q", "--quiet", is_flag=True, help="Say errors only.")
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True)
def main(verbose: bool, quiet: bool) -> None:
    """Fuse CT, MRI, SPECT and PET volumes of one patient. Research use only."""
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mmif").setLevel(level)
    logging.getLogger("pydicom").disabled = True  # it repeats odd values of headers,
    warnings.filterwarnings("ignore", module="pydicom")  # which can be a patient's
