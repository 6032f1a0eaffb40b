"""How good weights are on the held-out pairs: the eight metrics, and their rank."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from mmif.evaluation.baselines import BASELINES
from mmif.metrics import METRICS, REPORTED, evaluate_each, to_uint8
from mmif.training.pairs import Grey, Pair

OURS = "mmif"
# Pairs in a sample picture; a choice of layout
SHOWN = 4
Means = dict[str, float]


@dataclass(frozen=True)
class Validation:
    """The figures of one validation.

    Attributes:
        means: the metrics of the network, mean over the pairs.
        baselines: the same of each baseline.
        mean_rank: mean over the eight metrics of the network's rank among the baselines; 1 best.
        margin: mean over the eight metrics of the lead over the mean baseline, relative to the
            spread of the baselines; decides between equal ranks.
        pairs: how many were measured.
    """

    means: Means
    baselines: Mapping[str, Means]
    mean_rank: float
    margin: float
    pairs: int

    @property
    def order(self) -> tuple[float, float]:
        """Smaller is better."""
        return self.mean_rank, -self.margin


class Validator:
    """Validates networks on the same pairs; the baselines are measured once."""

    def __init__(self, pairs: Sequence[Pair], count: int) -> None:
        chosen = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
        self.pairs = [pairs[i] for i in chosen]
        self.baselines = {
            name: self.measure([rule(p.anatomical, p.other) for p in self.pairs])
            for name, rule in BASELINES.items()
        }

    def __call__(self, network: nn.Module, device: torch.device) -> Validation:
        """The figures of ``network``, which is left in the mode that it was in."""
        means = self.measure(fuse_pairs(network, self.pairs, device))
        ranks, margins = [], []
        for name in METRICS:
            peers = np.array([row[name] for row in self.baselines.values()])
            ranks.append(1 + int((peers > means[name]).sum()))
            margins.append((means[name] - peers.mean()) / (np.ptp(peers) + 1e-9))
        return Validation(
            means, self.baselines, float(np.mean(ranks)), float(np.mean(margins)), len(self.pairs)
        )

    def measure(self, fused: Sequence[Grey]) -> Means:
        """The mean of each metric over the pairs."""
        triples = zip(
            fused,
            [p.anatomical for p in self.pairs],
            [p.other for p in self.pairs],
            strict=True,
        )
        values = evaluate_each(triples, threads=1)
        return {name: round(float(values[name].mean()), 4) for name in REPORTED}

    def picture(self, network: nn.Module, device: torch.device, path: Path) -> None:
        """A PNG of a few validation pairs: anatomical, other, fused side by side."""
        step = max(1, len(self.pairs) // SHOWN)
        shown = self.pairs[step // 2 :: step][:SHOWN]
        rows = [
            np.hstack([pair.anatomical, pair.other, fused])
            for pair, fused in zip(shown, fuse_pairs(network, shown, device), strict=True)
        ]
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.vstack(rows)).save(path)


def fuse_pairs(network: nn.Module, pairs: Sequence[Pair], device: torch.device) -> list[Grey]:
    """The fused 8-bit slice of each pair, one at a time: they may differ in size."""
    training = network.training
    network.eval()
    with torch.inference_mode():
        fused = [_fuse(network, pair, device) for pair in pairs]
    network.train(training)
    return fused


def _fuse(
    network: Callable[[torch.Tensor], torch.Tensor], pair: Pair, device: torch.device
) -> Grey:
    sources = torch.from_numpy(np.stack([pair.anatomical, pair.other])[None]).to(device)
    sources = (sources.float() / 255).contiguous(memory_format=torch.channels_last)
    return to_uint8(network(sources)[0, 0].float().cpu().numpy())
