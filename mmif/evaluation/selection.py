"""Which pairs are scored: the held-out ones, where weights say which those are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmif.errors import InputError
from mmif.studies.slice_files import SliceFiles


@dataclass(frozen=True)
class Selection:
    """The pairs to score, and a sentence that says why these."""

    pairs: tuple[SliceFiles, ...]
    reason: str

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases of the pairs, each once, in order."""
        return tuple(dict.fromkeys(pair.case for pair in self.pairs))


def choose_pairs(
    pairs: Sequence[SliceFiles],
    cases: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
) -> Selection:
    """The pairs of the named ``cases``; without names those that the weights never saw.

    The card of weights names the cases that were held out. Where the data has all of these, they
    alone are scored; data without them is other data, and all of it is scored.

    Args:
        pairs: what there is.
        cases: cases to score; ``all`` for every pair.
        card: of the weights that are scored, if any.

    Raises:
        InputError: a named case is not in the data.
    """
    there = dict.fromkeys(pair.case for pair in pairs)
    if list(cases) == ["all"]:
        return Selection(tuple(pairs), f"all {len(pairs)} pairs, as asked for")
    unknown = [case for case in cases if case not in there]
    if unknown:
        raise InputError(
            f"case {unknown[0]} is not in the data; expected some of {', '.join(there)}, or all"
        )
    if cases:
        return _of_cases(pairs, cases, "as asked for")
    held_out = _cases(card, "validation")
    if held_out and all(case in there for case in held_out):
        return _of_cases(pairs, held_out, "the validation cases of the weights' card")
    seen = [case for case in _cases(card, "training") if case in there]
    warning = f"; case {', '.join(seen)} has the name of a training case" if seen else ""
    return Selection(tuple(pairs), f"all {len(pairs)} pairs{warning}")


def _of_cases(pairs: Sequence[SliceFiles], cases: Sequence[str], why: str) -> Selection:
    chosen = tuple(pair for pair in pairs if pair.case in cases)
    names = f"case{'s' if len(cases) > 1 else ''} {', '.join(cases)}"
    return Selection(chosen, f"{len(chosen)} of {len(pairs)} pairs: {names}, {why}")


def _cases(card: Mapping[str, Any] | None, side: str) -> list[str]:
    """The cases on one ``side`` of the split, as ``card["data"]["cases"]`` names them."""
    return [str(case) for case in (card or {}).get("data", {}).get("cases", {}).get(side, ())]
