"""``mmif batch``."""

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmif.cli.batch_terminal import progress, say_plan, say_rows
from mmif.cli.from_options import PATH, add_options, chosen_options
from mmif.errors import ConfigError, MmifError
from mmif.options import FuseOptions, specs
from mmif.roles import VOLUME_TASKS

if TYPE_CHECKING:
    from mmif.batch.executors import Executor
    from mmif.batch.fuse_job import FuseWork
    from mmif.batch.plan import Plan
    from mmif.config import Pipeline

SHARED = [name for name, spec in specs(FuseOptions).items() if spec.shared]
"""The options of a study that all studies of a batch have in common."""


def chosen_tasks(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """The tasks of ``--tasks``: names with commas between them, or the option again, or ``all``."""
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if name not in (*VOLUME_TASKS, "all"):
            known = ", ".join((*VOLUME_TASKS, "all"))
            raise click.BadParameter(f"{name!r} is none; expected some of {known}", context, option)
    chosen = [task for name in names for task in (VOLUME_TASKS if name == "all" else (name,))]
    return tuple(dict.fromkeys(chosen))


@click.command()
@click.argument("studies", required=False, type=PATH)
@click.option("-o", "--output", type=PATH, metavar="OUT", help="Where results and ledger go.")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes. [one a core]")
@click.option(
    "--shard",
    metavar="I/N|auto",
    help="Do the I-th of N parts, I from 0; auto: as SLURM_ARRAY_TASK_ID and _COUNT, or "
    "JOB_COMPLETION_INDEX and JOB_COMPLETIONS say. [everything]",
)
@click.option(
    "--resume/--restart",
    default=None,
    help="Go on where the ledger of OUT ends (the default), or move it and its results aside and "
    "begin anew.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=900,
    show_default=True,
    metavar="S",
    help="Give a study up after S seconds.",
)
@click.option(
    "--memory",
    type=click.IntRange(min=512),
    metavar="MIB",
    help="What a worker may take. [80% of the free memory, shared]",
)
@click.option("--dask", metavar="ADDRESS", help="Work on Dask: tcp://HOST:PORT, or local.")
@click.option(
    "--tasks",
    "--task",
    multiple=True,
    metavar="TASK,...",
    callback=chosen_tasks,
    help=f"Which of {', '.join(VOLUME_TASKS)}; all: whatever a study can make. "
    "[every pair with the MRI, else with the CT]",
)
@click.option(
    "--pipeline",
    "pipelines",
    multiple=True,
    metavar="FILE",
    help="A YAML file in place of the shipped pipeline of its task; may be repeated.",
)
@add_options(SHARED)
@click.option("--save-list", type=PATH, metavar="CSV", help="Write the pairs as a list.")
@click.option(
    "--key",
    type=PATH,
    metavar="CSV",
    help="With --deidentify: write which pseudonym is which study. Keep it elsewhere than OUT.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why the rest not.")
@click.option("--summary", type=PATH, metavar="OUT", help="Merge the ledgers of OUT.")
@click.pass_context
def batch(context: click.Context, /, **options: Any) -> None:
    """Fuse every study of a folder tree, or of a CSV or JSON list.

    \b
    mmif batch STUDIES -o OUT --jobs 4
    mmif batch studies.csv -o OUT --shard 3/10
    mmif batch --summary OUT

    OUT gets studies/STUDY/TASK, ledger.jsonl, summary.csv and index.html. The same command again
    does only what is not done. Exit code 0: all done; 3: some failed; 1: none could be done.
    """
    if options["summary"] is not None:
        context.exit(_summary(options["summary"]))
    if options["studies"] is None:
        raise click.UsageError("expected STUDIES: a folder tree, a CSV or a JSON list")
    if options["output"] is None and not (options["dry_run"] or options["save_list"]):
        raise click.UsageError("expected -o OUT")
    if not options["deidentify"]:
        context.exit(_batch(options))
    from mmif.io.dicom.deidentify import clean_error

    try:
        code = _batch(options)
    except MmifError as error:
        raise clean_error(error, {"STUDIES": options["studies"]}) from None
    context.exit(code)


def _summary(out: Path) -> int:
    """Merge the ledgers of ``out``; the exit code that its rows mean."""
    from mmif.batch.results import missing_shards, write_results

    rows = write_results(out)
    say_rows(out, rows)
    missing = missing_shards(out)
    if missing:
        click.echo(f"no ledger of {', '.join(missing)}: their studies are not in this answer")
    done = sum(row.state == "done" for row in rows)
    return 0 if done == len(rows) and not missing else 3 if done else 1


def _batch(options: Mapping[str, Any]) -> int:
    """Plan, then work; the exit code."""
    from mmif.batch.fuse_job import parameters, pipelines_of
    from mmif.batch.plan import make_plan
    from mmif.batch.run import done_earlier, shard

    part = _shard(options["shard"], os.environ)
    pipelines = pipelines_of(options["tasks"] or VOLUME_TASKS, options["pipelines"])
    if options["reference"] and len(pipelines) > 1:
        raise ConfigError("--reference with several tasks; expected one of --tasks")
    if options["resume"] is False and part:
        raise ConfigError(
            "--restart with a shard; expected a new OUT, or --restart once without shards"
        )
    _refuse_output(options)
    plan = make_plan(options["studies"], options["tasks"], options["fill_gaps"])
    if options["deidentify"]:
        plan = _pseudonymise(plan, None if options["dry_run"] else options["key"])
    if part:
        whole = len(plan.jobs) + len(plan.rejected)
        plan = shard(plan, *part)
        ours = len(plan.jobs) + len(plan.rejected)
        click.echo(f"shard {part[0]}/{part[1]}: {ours} of {whole} studies and tasks")
    if options["save_list"]:
        _save_list(plan, options)
    if options["dry_run"] or options["output"] is None:
        begun = options["output"] is not None and options["resume"] is not False
        said = parameters(pipelines, _shared_options(options))
        done = done_earlier(plan, options["output"], said) if begun else ()
        say_plan(plan, None if options["deidentify"] else options["studies"], done)
        return 0 if plan.jobs else 1
    return _work(plan, part, pipelines, options)


def _refuse_output(options: Mapping[str, Any]) -> None:
    """Refuse, before the work, an OUT in which the studies lie and a list that would be lost.

    Raises:
        OutputError: OUT is the folder of the studies or one above it; the list exists already.
    """
    from mmif.errors import OutputError
    from mmif.io.ownership import refuse_existing

    studies, out = options["studies"].resolve(), options["output"]
    if out is not None and (out.resolve() == studies or out.resolve() in studies.parents):
        raise OutputError(f"{out} holds the studies {studies.name}; expected another OUT")
    if options["key"] and not options["deidentify"]:
        raise ConfigError("--key without --deidentify; expected both")
    if options["key"] and out is not None and out.resolve() in options["key"].resolve().parents:
        raise OutputError(f"{options['key']} lies in {out}; expected the key elsewhere")
    if options["save_list"] and options["deidentify"]:
        raise ConfigError("--save-list names the studies; expected it without --deidentify")
    if options["save_list"]:
        refuse_existing(options["save_list"], overwrite=False, inputs=[studies])


def _pseudonymise(plan: "Plan", path: Path | None) -> "Plan":
    """The plan under pseudonyms; the key to them at ``path``, and nowhere else."""
    from mmif.batch.pseudonyms import pseudonymise, write_key

    plan, key = pseudonymise(plan)
    if path is not None:
        write_key(key, path)
    return plan


def _save_list(plan: "Plan", options: Mapping[str, Any]) -> None:
    """The list of ``--save-list``, whole or not at all."""
    from mmif.io.atomic import staging_path
    from mmif.studies.lists import write_list

    with staging_path(options["save_list"]) as path:
        write_list(plan.studies, path)


def _shared_options(options: Mapping[str, Any]) -> FuseOptions:
    """What all studies have in common."""
    return FuseOptions.of(chosen_options({name: options[name] for name in SHARED}))


def _work(
    plan: "Plan",
    part: tuple[int, int] | None,
    pipelines: Mapping[str, "Pipeline"],
    options: Mapping[str, Any],
) -> int:
    """Do the plan; the exit code."""
    from mmif.batch.fuse_job import FuseWork, parameters
    from mmif.batch.results import read_rows
    from mmif.batch.run import run_batch

    shared, out = _shared_options(options), options["output"]
    tasks = {job.task for job in plan.jobs}
    work = FuseWork(
        {task: one for task, one in pipelines.items() if task in tasks}, shared, options["device"]
    )
    with ExitStack() as stack:
        tally = run_batch(
            plan,
            out,
            parameters(pipelines, shared),
            _executor(work, options, stack),
            ledger_name=f"ledger-{part[0]}-of-{part[1]}.jsonl" if part else "ledger.jsonl",
            restart=options["resume"] is False,
            watch=stack.enter_context(progress()),
        )
    say_rows(out, read_rows(out))
    return tally.exit_code


def _executor(work: "FuseWork", options: Mapping[str, Any], stack: ExitStack) -> "Executor":
    """Where the work is done: workers of this machine, fed to its GPU, or a Dask cluster."""
    from mmif.batch import resources
    from mmif.batch.executors import LocalExecutor
    from mmif.batch.gpu import own_gpu
    from mmif.batch.worker import Limits

    jobs = options["jobs"] or resources.default_jobs()
    limits = Limits(options["timeout"], options["memory"] or 0)
    if options["dask"]:
        return _dask(options["dask"], work, limits, jobs)
    own_gpu(work, stack)
    return LocalExecutor(work, limits, jobs)


def _dask(address: str, work: "FuseWork", limits: Any, jobs: int) -> "Executor":
    try:
        from mmif.batch.cluster import DaskExecutor
    except ImportError as error:
        raise ConfigError(
            f"--dask: {error.name} is not installed; expected pip install 'mmif[cluster]'"
        ) from error
    return DaskExecutor(address, work, limits, jobs)


def _shard(text: str | None, environment: Mapping[str, str]) -> tuple[int, int] | None:
    """(I, N) of ``--shard``; of a Slurm array or Kubernetes indexed job for ``auto``; None for all.

    Raises:
        ConfigError: not I/N, or an index without its count.
    """
    if text is None:
        return None
    if text == "auto" and "SLURM_ARRAY_TASK_ID" in environment:
        first = _number(environment, "SLURM_ARRAY_TASK_MIN", "0")
        step = _number(environment, "SLURM_ARRAY_TASK_STEP", "1")
        index = (_number(environment, "SLURM_ARRAY_TASK_ID") - first) // max(1, step)
        text = f"{index}/{_number(environment, 'SLURM_ARRAY_TASK_COUNT')}"
    elif text == "auto" and "JOB_COMPLETION_INDEX" in environment:
        index = _number(environment, "JOB_COMPLETION_INDEX")
        text = f"{index}/{_number(environment, 'JOB_COMPLETIONS')}"
    elif text == "auto":
        raise ConfigError(
            "--shard auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; expected "
            "a job array, or --shard I/N"
        )
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"shard {text}: expected I/N with I from 0 to N-1")
    return int(match[1]), int(match[2])


def _number(environment: Mapping[str, str], name: str, otherwise: str | None = None) -> int:
    """A number in the environment.

    Raises:
        ConfigError: it is not there, or is none.
    """
    text = environment.get(name, otherwise)
    if text is None:
        known = next(
            key for key in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX") if key in environment
        )
        raise ConfigError(
            f"{known} without {name}; expected both in the environment, or --shard I/N"
        )
    if not text.isdecimal():
        raise ConfigError(f"{name}={text} in the environment; expected a number, or --shard I/N")
    return int(text)
