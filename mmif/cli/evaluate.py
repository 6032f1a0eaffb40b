"""``mmif evaluate``."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmif.cli.progress import quiet
from mmif.roles import TASKS

if TYPE_CHECKING:
    from rich.table import Table

    from mmif.evaluation import Evaluation, Method, Selection
    from mmif.evaluation.scores import Means
    from mmif.weights import Weights

PATH = click.Path(path_type=Path)
# Columns of a redirected table; nine metrics and a name fit
WIDTH = 150
# Columns below which the ranks are left out of the table
ROOM_FOR_RANKS = 130


def _folders_by_name(values: tuple[str, ...]) -> dict[str, Path]:
    """``NAME=DIR`` options as a mapping."""
    folders: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals or not name or not folder or name in folders:
            raise click.UsageError(f"--compare {value}: expected NAME=DIR, each NAME once")
        folders[name] = Path(folder)
    return folders


@click.command()
@click.option("--task", type=click.Choice(list(TASKS)), required=True, help="Which sources.")
@click.option(
    "--data",
    type=PATH,
    required=True,
    help="Registered images: CT-MRI/{CT,MRI}, {CT,MRI}, {CT,MRI,SPECT}, {VIS,IR} ...",
)
@click.option("--fused", type=PATH, help="Score this folder of fused images.")
@click.option("--weights", help="Score weights: shipped name or file. [the task's]")
@click.option(
    "--compare", multiple=True, metavar="NAME=DIR", help="Rank against a folder of fused images."
)
@click.option("--published", is_flag=True, help="Rank against the printed rows of other methods.")
@click.option(
    "--cases",
    metavar="CASE,...",
    help="Score these cases, or all. [the validation cases of the weights, else all]",
)
@click.option("--per-image", is_flag=True, help="Show each image of the first method.")
@click.option("--save-fused", type=PATH, metavar="DIR", help="Keep the fused images, as PNG.")
@click.option("--csv", type=PATH, help="Each image and the means.")
@click.option("--json", type=PATH, help="The same with ranks.")
@click.option("--latex", type=PATH, help="The table of means.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
def evaluate(**options: Any) -> None:
    """Score fused images with the eight fusion metrics, baselines beside them.

    \b
    mmif evaluate --task ct-mri --data harvard
    mmif evaluate --task ct-mri --data harvard --fused mine --compare theirs=other --csv all.csv
    """
    if options["fused"] is not None and options["weights"] is not None:
        raise click.UsageError("expected --fused or --weights, found both")
    compared = _folders_by_name(options["compare"])
    from mmif.evaluation import choose_pairs, published_rows, score
    from mmif.io.atomic import staging_path
    from mmif.io.ownership import refuse_existing
    from mmif.studies.slice_files import find_slice_files, image_files

    outputs = [options[name] for name in ("save_fused", "csv", "json", "latex") if options[name]]
    twice = {str(path) for path in outputs if outputs.count(path) > 1}
    if twice:
        raise click.UsageError(f"two outputs are named {twice.pop()}; expected different ones")
    found = find_slice_files(options["task"], options["data"])
    fused = [*[options["fused"]] * bool(options["fused"]), *compared.values()]
    images = [path for files in found for path in files.paths]
    images += [path for folder in fused for path in image_files(folder).values()]
    read = [options["data"], *fused, *images]
    refuse_existing(*outputs, overwrite=options["overwrite"], inputs=read, foreign=_foreign)
    weights = None if options["fused"] else _weights(options)
    grey = _grey_weights(options["task"])
    cases = tuple(filter(None, (options["cases"] or "").split(",")))
    selection = choose_pairs(found, cases, weights.card if weights else None)
    methods = _methods(options, weights, compared, selection)
    from mmif.cli.progress import show_progress

    saved = options["save_fused"]
    with show_progress() as progress, staging_path(saved) if saved else nullcontext() as folder:
        if folder:
            folder.mkdir()
        evaluation = score(selection.pairs, methods, grey=grey, saved=folder, progress=progress)
        first = _score_first_pass(selection, grey) if grey else None
    printed = published_rows(options["task"]) if options["published"] else {}
    _write(options, evaluation, _facts(options, selection, weights, grey, first), printed)
    if not quiet():
        _show(options, evaluation, selection, printed, first)


def _foreign(output: Path) -> str:
    """What at an output is not of an earlier evaluation."""
    from mmif.evaluation.tables import is_own_csv
    from mmif.io.ownership import CHANGED, foreign_file, foreign_pictures, text_at

    if output.is_dir():
        return foreign_pictures(output)
    if output.suffix.lower() == ".csv":
        return "" if is_own_csv(text_at(output)) else CHANGED
    return foreign_file(output)


def _weights(options: dict[str, Any]) -> "Weights":
    from mmif.config import load_pipeline
    from mmif.weights import load_weights

    task = options["task"]
    return load_weights(options["weights"] or load_pipeline(task).weights, TASKS[task].passes[-1])


def _grey_weights(task: str) -> "Weights | None":
    """Of three sources the weights that fuse the grey ones, else None."""
    from mmif.config import load_pipeline
    from mmif.images import load_grey

    name = load_pipeline(task).grey_weights
    return None if name is None else load_grey(name, task)


def _score_first_pass(selection: "Selection", grey: "Weights") -> "Evaluation":
    """The scores of what the grey images of three became, with these as images A and B."""
    from dataclasses import replace

    from mmif.evaluation import baseline_methods, score, weights_method

    pairs = [replace(files, paths=files.paths[:-1]) for files in selection.pairs]
    return score(pairs, [weights_method(grey), *baseline_methods()])


def _methods(
    options: dict[str, Any],
    weights: "Weights | None",
    compared: dict[str, Path],
    selection: "Selection",
) -> "list[Method]":
    """What is scored, first; then what it is ranked against."""
    from mmif.evaluation import baseline_methods, folder_method, weights_method

    if weights is not None:
        first = weights_method(weights, options["device"])
    else:
        first = folder_method(options["fused"].name, options["fused"], selection.pairs)
    others = [folder_method(*named, selection.pairs) for named in compared.items()]
    methods = [first, *others, *baseline_methods()]
    names = [method.name for method in methods]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise click.UsageError(f"two methods are named {twice.pop()}; expected --compare NAME=DIR")
    return methods


def _facts(
    options: dict[str, Any],
    selection: "Selection",
    weights: "Weights | None",
    grey: "Weights | None",
    first: "Evaluation | None",
) -> dict[str, Any]:
    """What is said at the top of the JSON file."""
    from mmif import __version__

    facts: dict[str, Any] = {
        "mmif_version": __version__,
        "task": options["task"],
        "data": str(options["data"]),
        "selection": selection.reason,
        "cases": list(selection.cases),
        "weights": {"name": weights.name, "sha256": weights.sha256} if weights else None,
    }
    if grey is not None and first is not None:
        facts["grey_weights"] = {"name": grey.name, "sha256": grey.sha256}
        facts["first_pass"] = first.means
    return facts


def _write(
    options: dict[str, Any], evaluation: "Evaluation", facts: dict[str, Any], printed: "Means"
) -> None:
    """The files that were asked for."""
    from mmif.evaluation.tables import csv_text, json_text, latex_text
    from mmif.io.atomic import staging_path

    texts = {
        "csv": csv_text(evaluation),
        "json": json_text(evaluation, facts, printed),
        "latex": latex_text(evaluation.means, f"{facts['task']}, {facts['selection']}"),
    }
    for name, text in texts.items():
        if options[name]:
            with staging_path(options[name]) as path:
                path.write_text(text, encoding="utf-8")


def _show(
    options: dict[str, Any],
    evaluation: "Evaluation",
    selection: "Selection",
    printed: "Means",
    first: "Evaluation | None",
) -> None:
    """The tables on the terminal."""
    from rich.console import Console

    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH)
    console.print(_plain(f"{options['task']}: {selection.reason}"))
    if options["per_image"]:
        console.print(_image_table(evaluation))
    ranked = console.width >= ROOM_FOR_RANKS
    title = "Mean over the pairs (rank)"
    if first is not None:
        console.print(_mean_table(first.means, "First pass, MRI and CT: mean (rank)", ranked))
        title = "Second pass, the activity over what the first made of them: mean (rank)"
    console.print(_mean_table(evaluation.means, title, ranked))
    if options["published"] and not printed:
        console.print(f"no printed rows are known for {options['task']}")
    if printed:
        title = "Among the printed rows, which were measured on other pairs"
        console.print(_mean_table({**evaluation.others, **printed}, title, ranked))


def _mean_table(means: "Means", title: str, ranked: bool) -> "Table":
    """Means, with the ranks if ``ranked``, of the methods; the best mean rank first."""
    from mmif.evaluation.scores import mean_ranks, ranks
    from mmif.metrics import REPORTED

    shown = [name for name in REPORTED if all(name in row for row in means.values())]
    places, average = ranks(means), mean_ranks(means)
    table = _table(title, "method", *shown, "mean rank")
    for method in sorted(means, key=average.__getitem__):
        cells = [_cell(means[method][name], places[method].get(name), ranked) for name in shown]
        table.add_row(_plain(method), *cells, f"{average[method]:.2f}")
    return table


def _image_table(evaluation: "Evaluation") -> "Table":
    """Each image of the first method."""
    from mmif.metrics import REPORTED

    method, columns = next(iter(evaluation.values.items()))
    table = _table(f"Each image of {_plain(method)}", "image", *REPORTED)
    for index, pair in enumerate(evaluation.pairs):
        table.add_row(_plain(pair.name), *(f"{columns[name][index]:.3f}" for name in REPORTED))
    return table


def _table(title: str, first: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _plain(text: str) -> str:
    """``text`` with a name of the user's in it, as rich shows it letter by letter."""
    from rich.markup import escape

    from mmif.errors import on_one_line

    return escape(on_one_line(text))


def _cell(value: float, rank: int | None, ranked: bool) -> str:
    text = f"{value:.3f}" if rank is None or not ranked else f"{value:.3f} ({rank})"
    return f"[bold]{text}[/bold]" if rank == 1 else text
