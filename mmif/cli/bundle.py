"""``mmif bundle``."""

from pathlib import Path

import click

from mmif.cli.from_options import PATH
from mmif.cli.progress import quiet, say
from mmif.roles import VOLUME_TASKS


@click.command()
@click.option("--task", required=True, type=click.Choice(VOLUME_TASKS))
@click.option("-o", "--output", required=True, type=PATH, metavar="DIR")
@click.option("--pipeline", help="Shipped name or YAML file.  [default: the task's]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that stands at DIR.")
def bundle(task: str, output: Path, pipeline: str | None, overwrite: bool) -> None:
    """Write a MONAI bundle of TASK: configuration, weights, licence and README.

    \b
    cd DIR; python -m monai.bundle run --config_file configs/inference.json \\
        --bundle_root . --ct CT --mri MRI --output OUT
    """
    from mmif.bundle import write_bundle
    from mmif.config import load_pipeline
    from mmif.errors import ConfigError

    chosen = load_pipeline(pipeline or task)
    if chosen.task != task:
        raise ConfigError(f"pipeline {pipeline}: of task {chosen.task}, expected {task}")
    write_bundle(chosen, output, overwrite)
    if not quiet():
        say(f"{output}: a MONAI bundle of {task}")
