"""The shipped weights beside a synthetic skull: ringing held, and black where nothing is."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmif.networks.inference import fuse_slices
from mmif.weights import load_weights

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from reader_needs import ringing

MOST = {"ct-mri": 11.0, "spect-mri": 7.0, "pet-mri": 8.0, "ir-vis": 4.0}
"""Overshoot in % of the CT's step that the weights reach, rounded up; wanted are 3
(docs/training.md says what was tried). Weights that ring more do not ship."""


@pytest.mark.parametrize("task", MOST)
def test_shipped_weights_ring_no_more_than_was_measured(task: str) -> None:
    for figure in ringing(load_weights(task).network):
        assert figure.value < MOST[task], figure


@pytest.mark.parametrize("task", MOST)
def test_where_both_sources_are_empty_the_fused_slice_is_black(task: str) -> None:
    random = np.random.default_rng(4)
    sources = random.uniform(0.1, 1, (2, 1, 128, 128)).astype(np.float32)
    sources[:, :, :, 64:] = 0
    a, b = (torch.from_numpy(source) for source in sources)
    fused, _ = fuse_slices(load_weights(task).network, a, b, device="cpu", precision="fp32")
    assert float(fused[..., 64:].max()) == 0
    assert float(fused[..., :64].mean()) > 0.2
