"""``mmif train``: weights from pairs of slices, or from studies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmif.cli.progress import quiet, say
from mmif.roles import TASKS

if TYPE_CHECKING:
    from mmif.config import Pipeline
    from mmif.training import PairSet
    from mmif.training.card import Origin
    from mmif.training.loop import Progress
    from mmif.weights import Weights


@click.command()
@click.option("--task", required=True, type=click.Choice(list(TASKS)))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Images, or studies.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--pipeline", help="Recipe: a shipped name or a YAML file.  [default: the task's]")
@click.option("--epochs", type=click.IntRange(1), help="In place of the recipe's.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop early; the schedule stays.")
@click.option("--seed", type=click.IntRange(0), help="In place of the recipe's.")
@click.option("--init", help="Start from these weights: a shipped name, a folder or a file.")
@click.option("--resume", is_flag=True, help="Go on from OUTPUT/checkpoint.pt.")
@click.option("--overwrite", is_flag=True, help="Replace an OUTPUT that exists.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--compile", "compiled", is_flag=True, help="Through torch.compile.")
@click.option(
    "--deidentify",
    is_flag=True,
    help="Name no case and no path in the card, the checkpoint and the record.",
)
def train(task: str, data: Path, output: Path, **options: Any) -> None:
    """Train the fusion network of TASK on DATA; weights, card and record go to OUTPUT.

    DATA is a folder of registered images (CT-MRI/{CT,MRI} or {CT,MRI}) or of studies.
    Under torchrun every process takes its share of each batch.
    """
    import torch

    from mmif.errors import OutputError
    from mmif.io.ownership import foreign_names, refuse_existing, refuse_links
    from mmif.startup import keep_memory
    from mmif.training import Job, join_ranks
    from mmif.training import train as run
    from mmif.training.loop import WRITTEN

    keep_memory()
    init, resume = options["init"], options["resume"]
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    if resume:
        refuse_links(output)
    else:
        refuse_existing(
            output,
            overwrite=options["overwrite"],
            inputs=[data, *([Path(init)] if init else [])],
            foreign=lambda output: foreign_names(output, WRITTEN),
        )
    recipe = _recipe(task, options["pipeline"], options["epochs"], options["seed"])
    start = _start(init, recipe) if init else None
    slices = output.absolute().with_name(f"{output.absolute().name}.slices")
    with join_ranks(options["device"]) as ranks:
        with ranks.one_after_the_first():
            find = _find_nameless if options["deidentify"] else _find
            pairs, recipe = find(recipe, data, slices)
        origin = _origin(start, options["deidentify"])
        tensors = start.network.state_dict() if start else None
        steps = options["max_steps"] or 0
        job = Job(recipe, output, origin, steps, resume, tensors, options["compiled"])
        teller = _Teller() if ranks.first and not quiet() else _silent
        try:
            best = run(job, pairs, ranks, teller)
        except OSError as error:
            raise OutputError(
                f"{output}: cannot be written ({error.strerror}); what was saved before is kept"
            ) from error
    if best is not None and not quiet():
        say(f"best mean rank among the baselines: {best.mean_rank:.3f}  {output / 'weights'}")


def _start(init: str, recipe: Pipeline) -> Weights:
    """The weights to begin with.

    Raises:
        ConfigError: of another network than the recipe's; some fit it, and mean something else.
    """
    from dataclasses import asdict

    from mmif.errors import ConfigError
    from mmif.weights import load_weights

    weights = load_weights(init)
    wanted, found = asdict(recipe.network), asdict(weights.network.config)
    other = [name for name, value in wanted.items() if found[name] != value]
    if other:
        has, expected = (
            ", ".join(f"{name} {one[name]}" for name in other) for one in (found, wanted)
        )
        raise ConfigError(f"--init {init}: a network with {has}; expected {expected}")
    return weights


def _find(recipe: Pipeline, data: Path, slices: Path) -> tuple[PairSet, Pipeline]:
    """The pairs, and the recipe as it was."""
    from mmif.training import find_training_pairs, split_by_case

    plan = recipe.training
    found = find_training_pairs(recipe, data, slices)
    return split_by_case(found, plan.validation_cases, plan.seed), recipe


def _find_nameless(recipe: Pipeline, data: Path, slices: Path) -> tuple[PairSet, Pipeline]:
    """As `_find`, with numbers in place of the names of cases, and nothing said that has one.

    Raises:
        InputError: the data cannot be used; why is not said.
    """
    from dataclasses import replace

    from mmif.errors import InputError, MmifError

    log = logging.getLogger("mmif")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        pairs, _ = _find(recipe, data, slices)
    except MmifError as error:
        raise InputError(
            "the data cannot be used, and the reason may name somebody; mmif train without "
            "--deidentify says it"
        ) from error
    finally:
        log.setLevel(level)
    plan = replace(recipe.training, validation_cases=())
    return pairs.without_names(), replace(recipe, training=plan)


def _origin(start: Weights | None, deidentify: bool) -> Origin:
    """Where the training begins; without the command and names of folders to ``deidentify``."""
    from mmif.io.dicom.deidentify import WITHHELD
    from mmif.training.card import Origin

    name = "" if start is None or deidentify else f"{start.name} "
    started_from = f"{name}{start.sha256}" if start else None
    return Origin(WITHHELD if deidentify else _command(), _commit(), started_from)


def _recipe(task: str, name: str | None, epochs: int | None, seed: int | None) -> Pipeline:
    """The pipeline, with what the command line says in place of the recipe's."""
    from dataclasses import replace

    from mmif.config import load_pipeline
    from mmif.errors import ConfigError

    recipe = load_pipeline(name or task)
    if recipe.task != task:
        raise ConfigError(f"pipeline {name}: of task {recipe.task}, expected {task}")
    plan = recipe.training
    plan = replace(plan, epochs=epochs or plan.epochs, seed=plan.seed if seed is None else seed)
    return replace(recipe, training=plan)


def _command() -> str:
    """The command line, with the program's name in place of its path."""
    import shlex
    import sys

    return shlex.join(["mmif", *sys.argv[1:]])


def _commit() -> str:
    """The commit of the checkout this runs from, or ``unknown``."""
    import subprocess

    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


class _Teller:
    """Says the losses and the time left every few seconds, and each validation."""

    EVERY_S = 10.0  # six lines a minute into a log

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, progress: Progress) -> None:
        import time

        now = time.monotonic()
        if progress.validation is not None:
            means = "  ".join(
                f"{name} {value:.3f}" for name, value in progress.validation.means.items()
            )
            say(f"validation  mean rank {progress.validation.mean_rank:.3f}  {means}", err=True)
        elif now - self.last < self.EVERY_S:
            return
        self.last = now
        losses = "  ".join(f"{name} {value:.4f}" for name, value in progress.losses.items())
        say(
            f"step {progress.step}/{progress.steps}  {losses}  {progress.seconds_left:.0f} s left",
            err=True,
        )


def _silent(progress: Progress) -> None:
    """What the other ranks say, and all with ``-q``."""
