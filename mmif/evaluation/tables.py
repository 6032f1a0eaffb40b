"""An evaluation as CSV, JSON and LaTeX text."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmif.errors import on_one_line
from mmif.evaluation.scores import Evaluation, Means, mean_ranks, ranks
from mmif.io.cells import plain_cell
from mmif.io.seals import seal_lines, sealed_json
from mmif.metrics import METRICS, REPORTED
from mmif.summary import plain

MEAN = "mean"
HEAD = ["method", "case", "image", *REPORTED]


def csv_text(evaluation: Evaluation) -> str:
    """One line a method and image, then one a method with its means, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    for method, columns in evaluation.values.items():
        for index, pair in enumerate(evaluation.pairs):
            row = [repr(float(columns[name][index])) for name in REPORTED]
            writer.writerow([*map(plain_cell, (method, pair.case, pair.name)), *row])
    for method, means in evaluation.means.items():
        writer.writerow([plain_cell(method), "", MEAN, *(repr(means[name]) for name in REPORTED)])
    return text.getvalue()


def is_own_csv(text: str) -> bool:
    """Whether a table is one of `csv_text`: its means, which have no other seal, fit its images."""
    try:
        head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        numbers = [[float(cell) for cell in row[3:]] for row in rows]
    except (ValueError, csv.Error):
        return False
    if head != HEAD or any(len(row) != len(HEAD) for row in rows):
        return False
    exact = all([*map(repr, found)] == row[3:] for row, found in zip(rows, numbers, strict=True))
    images: dict[str, list[list[float]]] = {}
    for row, found in zip(rows, numbers, strict=True):
        if row[2] != MEAN:
            images.setdefault(row[0], []).append(found)
            continue
        own = images.pop(row[0], None)
        if own is None or not np.allclose(np.mean(own, axis=0), found, equal_nan=True):
            return False
    return exact and not images


def json_text(
    evaluation: Evaluation, facts: Mapping[str, Any], printed: Means | None = None
) -> str:
    """Means, ranks and the values of each image; what is not finite is null.

    Args:
        evaluation: the scores.
        facts: what else is said, at the top: task, data, selection ...
        printed: rows of other methods to rank against.
    """
    own, own_ranks = mean_ranks(evaluation.means), ranks(evaluation.means)
    methods = {
        method: {
            "baseline": method in evaluation.baselines,
            "mean": evaluation.means[method],
            "rank": own_ranks[method],
            "mean_rank": own[method],
            "images": {
                pair.name: {name: float(columns[name][index]) for name in REPORTED}
                for index, pair in enumerate(evaluation.pairs)
            },
        }
        for method, columns in evaluation.values.items()
    }
    whole: dict[str, Any] = {**facts, "pairs": len(evaluation.pairs), "methods": methods}
    if printed:
        together = {**evaluation.others, **printed}
        whole["published"] = {
            "rows": dict(printed),
            "rank": ranks(together),
            "mean_rank": mean_ranks(together),
        }
    return sealed_json(plain(whole))


def latex_text(means: Means, caption: str) -> str:
    """A booktabs table of ``means`` with the best of each column in bold, and the mean rank."""
    places, average = ranks(means), mean_ranks(means)
    best = min(average.values())
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape_latex(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(METRICS) + 1)}}}",
        r"    \toprule",
        "    Method & " + " & ".join(METRICS) + r" & Mean rank \\",
        r"    \midrule",
    ]
    for method, row in means.items():
        cells = [_cell(row[name], 3, places[method][name] == 1) for name in METRICS]
        cells.append(_cell(average[method], 1, average[method] == best))
        lines.append(f"    {_escape_latex(method)} & {' & '.join(cells)} " + r"\\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(seal_lines(lines, "%")) + "\n"


def _cell(value: float, digits: int, bold: bool) -> str:
    text = f"{value:.{digits}f}" if math.isfinite(value) else r"$\infty$"
    return rf"\textbf{{{text}}}" if bold else text


def _escape_latex(text: str) -> str:
    """``text`` letter by letter: TeX reads ``^^5c`` as a backslash, and a command behind it."""
    plain = {"\\": "/", "^": r"\^{}", "~": r"\~{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
    return "".join(plain.get(letter, letter) for letter in on_one_line(text))
