"""Registered pairs of slices for training, and their split by case."""

import logging
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmif.errors import TrainingError
from mmif.images import last_pair
from mmif.studies.slice_files import SliceFiles, find_slice_files, read_slices
from mmif.weights import Weights

log = logging.getLogger(__name__)

# A fifth, by case (docs/training.md)
VALIDATION_SHARE = 0.2

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two registered 8-bit grey slices of one place.

    Attributes:
        anatomical: (rows, columns), network channel 0.
        other: likewise, channel 1.
        clean: ``other`` without noise, where a target is made of it (`mmif.training.targets`).
        parenchyma: value of the brain in ``other``, 0..1.
    """

    name: str
    case: str
    anatomical: Grey
    other: Grey
    clean: Grey | None = None
    parenchyma: float = math.nan


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs for training and for validation; no case is in both."""

    training: tuple[Pair, ...]
    validation: tuple[Pair, ...]

    def cases(self) -> dict[str, dict[str, int]]:
        """How many pairs of which case are on which side, for the card."""
        sides = {"training": self.training, "validation": self.validation}
        return {
            side: dict(sorted(Counter(p.case for p in pairs).items()))
            for side, pairs in sides.items()
        }

    def without_names(self) -> "PairSet":
        """The same pairs under numbers: ``case-1``, ``case-1 slice 2``, in the order of the names.

        The same data gets the same numbers, so that a training can be resumed.
        """
        names = sorted({pair.case for pair in (*self.training, *self.validation)})
        numbers = {case: f"case-{k:0{len(str(len(names)))}}" for k, case in enumerate(names, 1)}
        counts: Counter[str] = Counter()

        def rename(pair: Pair) -> Pair:
            case = numbers[pair.case]
            counts[case] += 1
            return replace(pair, name=f"{case} slice {counts[case]}", case=case)

        return PairSet(tuple(map(rename, self.training)), tuple(map(rename, self.validation)))


def find_pairs(task: str, folder: Path, grey: Weights | None = None) -> list[Pair]:
    """The images of equal name in the folders of ``task`` as pairs, read and checked.

    ``folder`` holds them as ``CT-MRI/{CT,MRI}`` or as ``{CT,MRI}``; for ir-vis as ``{IR,VIS}``.

    Args:
        task: one of `mmif.roles.TASKS`.
        folder: of the images.
        grey: of three sources the weights of the first pass: what they make of the grey ones is
            the anatomical side of the pair.

    Raises:
        InputError: no such folders, unpaired names, different sizes, or an unusable image.
    """
    return [_pair(files, grey) for files in find_slice_files(task, folder)]


def split_by_case(pairs: Sequence[Pair], validation_cases: Iterable[str], seed: int) -> PairSet:
    """The pairs of ``validation_cases``, and the others; without names a fifth, by the seed.

    Data that has none of the named cases is other data than the recipe's, and drawn from as well.

    Raises:
        TrainingError: some of the named cases are not there, or no case is left for one side.
    """
    cases = sorted({pair.case for pair in pairs})
    if len(cases) < 2:
        raise TrainingError(
            f"found one case ({cases[0] if cases else 'none'}), expected at least two: the split is"
            " made by case"
        )
    held = set(validation_cases)
    # the recipe names cases of its own data; elsewhere these names mean nothing
    if held.isdisjoint(cases):
        drawn = _draw(pairs, cases, seed)
        if held:
            log.warning(
                "the data has none of the recipe's validation cases (%s); held out by the seed: %s",
                ", ".join(sorted(held)),
                ", ".join(sorted(drawn)),
            )
        held = drawn
    unknown = sorted(held - set(cases))
    if unknown:
        raise TrainingError(
            f"validation case {unknown[0]} is not in the data, expected one of {', '.join(cases)}"
        )
    if held == set(cases):
        raise TrainingError("all cases are held out for validation, expected some for training")
    return PairSet(
        tuple(p for p in pairs if p.case not in held), tuple(p for p in pairs if p.case in held)
    )


def _draw(pairs: Sequence[Pair], cases: list[str], seed: int) -> set[str]:
    """Cases in random order until they hold a fifth of the pairs, one left at least."""
    order = list(cases)
    random.Random(seed).shuffle(order)
    held: set[str] = set()
    for case in order[:-1]:
        held.add(case)
        if sum(pair.case in held for pair in pairs) >= VALIDATION_SHARE * len(pairs):
            break
    return held


def _pair(files: SliceFiles, grey: Weights | None) -> Pair:
    anatomical, other = last_pair(read_slices(files), grey)
    return Pair(files.name, files.case, anatomical.grey, other.grey)
