"""``mmif node``."""

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import click

from mmif.cli.from_options import PATH
from mmif.cli.progress import quiet
from mmif.errors import ConfigError


@click.command()
@click.argument("config", required=False, type=PATH)
@click.option("--port", type=int, help="To listen at. [11112]")
@click.option("--ae-title", help="Ours. [MMIF]")
@click.option("-o", "--output", metavar="OUT", help="Spool, results and records.")
@click.option("--accept", multiple=True, metavar="AET", help="Who may send; may be repeated.")
@click.option(
    "--send-to", multiple=True, metavar="AET@HOST:PORT", help="Where results go; may be repeated."
)
@click.option(
    "--quiet-s", type=float, metavar="S", help="A study is complete after S seconds. [60]"
)
def node(config: Path | None, **options: Any) -> None:
    """Receive studies by C-STORE, fuse them, send the results on.

    \b
    mmif node /etc/mmif/node.yaml
    mmif node --accept SCANNER --send-to PACS@archive.example:104 -o /var/lib/mmif

    CONFIG is a YAML file (docs/hospital.md); options stand in place of its keys. Runs until SIGTERM
    or SIGINT; after any end, a kill too, the same command goes on where it was.
    """
    try:
        from mmif.node.config import NodeConfig
        from mmif.node.logs import hide_identity
        from mmif.node.service import serve
    except ImportError as error:
        raise ConfigError(
            f"node: {error.name} is not installed; expected pip install 'mmif[node]'"
        ) from error

    hide_identity()
    lists = {name: list(value) for name, value in options.items() if isinstance(value, tuple)}
    given = {name: value for name, value in {**options, **lists}.items() if value}
    read = NodeConfig.read(config, given)
    if not quiet():
        logging.getLogger("mmif.node").setLevel(logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(read, stop)
