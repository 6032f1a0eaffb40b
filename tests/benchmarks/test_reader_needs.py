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

MOST = {"ct-mri": 3.0, "spect-mri": 7.0, "pet-mri": 8.0, "ir-vis": 4.0}
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


@pytest.mark.parametrize(
    ("change", "radius", "least"),
    [(0.1875, 6, 0.6), (-0.0625, 12, 0.5)],
    ids=["bleed of 30 HU", "infarct of -10 HU"],
)
def test_the_shipped_weights_show_what_the_ct_alone_shows_of_tissue_that_is_flat_in_both(
    change: float, radius: int, least: float
) -> None:
    """On a head that no training has seen: a circle of one grey, a skull, fine noise."""
    rows, columns = np.mgrid[:192, :192]
    depth = 70 - np.hypot(rows - 96, columns - 96)
    mri = np.where(depth > 0, 0.45, 0).astype(np.float32)
    noise = np.random.default_rng(2).normal(0, 0.02, mri.shape)
    ct = np.where(depth > 0, 0.34 + noise, 0) + ((depth > -9) & (depth <= 0))
    finding = np.clip(radius + 0.5 - np.hypot(rows - 80, columns - 110), 0, 1)
    plain, changed = (
        fuse_slices(
            load_weights("ct-mri").network,
            torch.from_numpy(mri)[None],
            torch.from_numpy(np.clip(ct + shown, 0, 1).astype(np.float32))[None],
            device="cpu",
            precision="fp32",
        )[0][0].numpy()
        for shown in (0 * finding, change * finding)
    )
    core = finding > 0.9
    assert float((changed - plain)[core].mean()) / change > least
