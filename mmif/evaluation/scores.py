"""Scores of methods on pairs: per image, mean, rank."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import yaml

from mmif.evaluation.methods import LoadedPair, Method, load_pair
from mmif.io.images import grey_of, save_pixels
from mmif.metrics import METRICS, REPORTED, evaluate_each
from mmif.studies.slice_files import SliceFiles
from mmif.weights import Weights

# Pairs in memory at once: 8 MB of 256 x 256 slices; more gain nothing, for they are read one by one
CHUNK = 16
PUBLISHED = Path(__file__).parent / "published.yaml"

Floats = npt.NDArray[np.float64]
Means = Mapping[str, Mapping[str, float]]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of some methods on the same pairs.

    Attributes:
        pairs: what was scored, n of them.
        values: method to metric of ``REPORTED`` to (n,).
        baselines: the names of the methods that are simple rules.
    """

    pairs: tuple[SliceFiles, ...]
    values: Mapping[str, Mapping[str, Floats]]
    baselines: tuple[str, ...]

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Method to metric to its arithmetic mean over the pairs."""
        return {
            method: {name: float(column.mean()) for name, column in columns.items()}
            for method, columns in self.values.items()
        }

    @property
    def others(self) -> dict[str, dict[str, float]]:
        """The means of all methods but the baselines."""
        return {name: row for name, row in self.means.items() if name not in self.baselines}


def score(
    pairs: Sequence[SliceFiles],
    methods: Sequence[Method],
    *,
    grey: Weights | None = None,
    saved: Path | None = None,
    progress: Progress = lambda step, share: None,
) -> Evaluation:
    """The scores of ``methods`` on ``pairs``; the pairs are read a few at a time.

    Args:
        pairs: at least one.
        methods: at least one; their names differ.
        grey: of three images, the weights of the first pass: what they make of the grey ones is
            image A of every method, the activity image B.
        saved: a folder that gets the fused images of the first method, as PNG.
        progress: called with the step's name and the share that is done.

    Raises:
        InputError: an image that cannot be used.
    """
    parts: dict[str, list[dict[str, Floats]]] = {method.name: [] for method in methods}
    done = 0
    for chunk in _chunks(pairs, CHUNK):
        loaded = [load_pair(files, grey) for files in chunk]
        for method in methods:
            fused = method.fuse(loaded)
            if saved is not None and method is methods[0]:
                for pair, pixels in zip(loaded, fused, strict=True):
                    save_pixels(pixels, saved / f"{Path(pair.files.name).stem}.png")
            parts[method.name].append(_measure(fused, loaded))
        done += len(chunk)
        progress("score", done / len(pairs))
    values = {
        method: {name: np.concatenate([part[name] for part in some]) for name in REPORTED}
        for method, some in parts.items()
    }
    rules = tuple(method.name for method in methods if method.is_baseline)
    return Evaluation(tuple(pairs), values, rules)


def ranks(means: Means) -> dict[str, dict[str, int]]:
    """Method to metric (of the eight) to its rank among the methods: 1 is best, ties share it.

    >>> ranks({"a": dict.fromkeys(METRICS, 2.0), "b": dict.fromkeys(METRICS, 1.0)})["b"]["EN"]
    2
    """
    return {
        method: {
            name: 1 + sum(other[name] > row[name] for other in means.values()) for name in METRICS
        }
        for method, row in means.items()
    }


def mean_ranks(means: Means) -> dict[str, float]:
    """Method to the mean of its eight ranks."""
    return {method: sum(row.values()) / len(row) for method, row in ranks(means).items()}


def published_rows(task: str) -> dict[str, dict[str, float]]:
    """The printed rows of other methods: method to metric to mean; empty where none are known."""
    rows = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).get(task, {})
    return {name: dict(zip(METRICS, row, strict=True)) for name, row in rows.items()}


def _measure(
    fused: Sequence[npt.NDArray[np.uint8]], pairs: Sequence[LoadedPair]
) -> dict[str, Floats]:
    triples = (
        (grey_of(pixels), pair.images[0].grey, pair.images[1].grey)
        for pixels, pair in zip(fused, pairs, strict=True)
    )
    return evaluate_each(triples, threads=os.cpu_count() or 1)


T = TypeVar("T")


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
