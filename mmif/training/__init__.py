"""Slices in, weights out: see `mmif.training.loop.train`."""

from mmif.training.loop import Job, Progress, train
from mmif.training.pairs import Pair, PairSet, find_pairs, split_by_case
from mmif.training.ranks import Ranks, join_ranks
from mmif.training.studies import find_training_pairs

__all__ = [
    "Job",
    "Pair",
    "PairSet",
    "Progress",
    "Ranks",
    "find_pairs",
    "find_training_pairs",
    "join_ranks",
    "split_by_case",
    "train",
]
