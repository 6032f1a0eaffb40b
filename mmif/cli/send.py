"""``mmif send``."""

from pathlib import Path

import click

from mmif.cli.from_options import PATH
from mmif.cli.progress import quiet, say, show_progress
from mmif.errors import ConfigError, OutputError


@click.command()
@click.argument("path", type=PATH)
@click.option("--to", metavar="AET@HOST:PORT", help="By C-STORE, to this application entity.")
@click.option("--stow", metavar="URL", help="By STOW-RS, to this DICOMweb service.")
@click.option("--ae-title", default="MMIF", show_default=True, help="Ours.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Further tries for what was not taken, after 1, 2, 4 ... seconds.",
)
def send(path: Path, to: str | None, stow: str | None, ae_title: str, retries: int) -> None:
    """Send the DICOM files of a result folder to an archive.

    \b
    mmif send fused --to PACS@archive.example:104
    mmif send fused --stow https://archive.example/dicom-web

    Each instance that was taken is listed. Exit code 1: some were not.
    """
    if (to is None) == (stow is None):
        raise click.UsageError("expected one of --to AET@HOST:PORT and --stow URL")
    try:
        from mmif.node import send as sending
        from mmif.node.peers import Peer, check_ae_title
    except ImportError as error:
        raise ConfigError(
            f"send: {error.name} is not installed; expected pip install 'mmif[node]'"
        ) from error
    from mmif.node.logs import hide_identity

    hide_identity()
    calling = check_ae_title(ae_title)
    instances = sending.dicom_instances(path)
    with show_progress() as progress:
        if to is not None:
            replies = sending.store(
                instances, Peer.parse(to), calling=calling, retries=retries, progress=progress
            )
        else:
            replies = sending.stow(instances, str(stow), retries=retries, progress=progress)
    there = to or sending.shown_url(str(stow))
    taken = [reply for reply in replies if reply.taken]
    if not quiet():
        for reply in taken:
            name = reply.instance.path.relative_to(path) if path.is_dir() else path
            say(f"{name}: {reply.instance.sop_instance_uid} taken ({reply.words})")
        say(f"{there}: took {len(taken)} of {len(replies)}")
    if len(taken) < len(replies):
        first = next(reply for reply in replies if not reply.taken)
        raise OutputError(
            f"{there} took {len(taken)} of {len(replies)} instances; expected all; "
            f"{first.instance.path}: {first.words}"
        )
