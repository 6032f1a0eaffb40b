"""Fused images scored by the fusion metrics: `choose_pairs`, methods, `score`, tables."""

from mmif.evaluation.methods import (
    Method,
    baseline_methods,
    folder_method,
    weights_method,
)
from mmif.evaluation.scores import Evaluation, published_rows, ranks, score
from mmif.evaluation.selection import Selection, choose_pairs

__all__ = [
    "Evaluation",
    "Method",
    "Selection",
    "baseline_methods",
    "choose_pairs",
    "folder_method",
    "published_rows",
    "ranks",
    "score",
    "weights_method",
]
