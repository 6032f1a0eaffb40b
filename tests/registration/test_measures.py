"""Figures of a pose: which side is left shows in the brain where the skull does not tell."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from mmif.io.source import Source
from mmif.registration import measures
from mmif.registration.prepare import Prepared, prepare
from mmif.registration.verdict import CT_MR

STEP_MM = 2.5


def head(modality: str, mirrored: bool = False) -> MetaTensor:
    """A head whose skull is its own mirror image, and whose brain is not."""
    line = [(np.arange(n) - (n - 1) / 2) * STEP_MM for n in (76, 92, 72)]
    x, y, z = np.meshgrid(*line, indexing="ij")
    radius = np.sqrt((x / 72) ** 2 + (y / 92) ** 2 + (z / 80) ** 2)
    folds = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=x.shape), 1.2)
    folds = np.clip(folds / folds.std(), -2, 2)
    ct = modality == "CT"
    brain = 35 + 20 * folds if ct else 100 + 40 * folds
    values = np.select(
        [radius < 0.85, radius < 0.93, radius < 1],
        [brain, np.full_like(x, 900.0 if ct else 10.0), np.full_like(x, 20.0 if ct else 140.0)],
        -1000.0 if ct else 0.0,
    )
    values += np.random.default_rng(int(ct)).normal(0, 5, x.shape)
    values = values[::-1].copy() if mirrored else values
    affine = np.diag([STEP_MM] * 3 + [1.0])
    affine[:3, 3] = [places[0] for places in line]
    volume = MetaTensor(torch.from_numpy(values.astype(np.float32))[None], affine=affine)
    volume.meta["source"] = Source("made", "nifti", modality, (1, 1, 1), (1, 1, 1))
    return volume


def ratio_to(ct: Prepared) -> float:
    """The best mirrored fit of ``ct`` to the MRI as a part of that of the true pose."""
    mri = prepare(head("MR"), "MRI")
    pose = np.eye(4)
    pose[:3, 3] = mri.centre_ras - ct.centre_ras
    return measures.mirror_ratio(mri, ct, pose, 0, lambda: None)


def test_sides_are_told_by_the_brain_where_skulls_are_their_own_mirror_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = CT_MR["mirrored"]
    right, mirrored = (prepare(head("CT", exchanged), "CT") for exchanged in (False, True))
    assert limit.passes(ratio_to(right))
    assert limit.fails(ratio_to(mirrored))
    monkeypatch.setattr(measures, "NEARLY_ALIKE", np.inf)  # by the scores alone
    assert limit.passes(ratio_to(mirrored))
