"""``mmif weights``: list or verify weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mmif.cli.progress import say

if TYPE_CHECKING:
    from mmif.weights import WeightsStatus


@click.group()
def weights() -> None:
    """List or verify the shipped weights."""


@weights.command("list")
def list_() -> None:
    """List the shipped weights: task, size, sha256 and whether they are intact."""
    from mmif.weights import list_weights

    for status in list_weights():
        say(_line(status))


@weights.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Verify the sha256 of weights (NAMES: shipped names, folders or files; default: all shipped).

    Exit code 1 where one differs from its card.
    """
    from mmif.errors import WeightsError
    from mmif.weights import list_weights, verify_weights

    wanted = names or [status.path for status in list_weights()]
    found = [verify_weights(name) for name in wanted]
    for status in found:
        say(_line(status))
    broken = [status for status in found if not status.intact]
    if broken:
        raise WeightsError("; ".join(status.reason for status in broken))
    if not found:
        raise WeightsError("no weights are shipped with this installation")


def _line(status: WeightsStatus) -> str:
    state = "intact" if status.intact else "BROKEN"
    return (
        f"{status.name:12} {status.task:10} {status.size_bytes:9,} bytes  {state}  {status.sha256}"
    )
