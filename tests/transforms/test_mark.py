"""Fused slices that hold interpolated anatomy can be told by their picture."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mmif.geometry import rigid
from mmif.io.source import Slab, Source
from mmif.result import FUSED_KEY, STUDY_KEY, StudyRecord
from mmif.transforms.mark import MARK_COLUMNS, MarkUnseend
from mmif.transforms.slices import grid_of

FUSED = MetaTensor(
    torch.full((1, 32, 32, 10), 0.5), affine=torch.diag(torch.tensor([2.0, 2, 4, 1]))
)
LOST = (Slab((0.0, 0.0, 1.0), 13.0, 19.0),)


def study(unseen: tuple[Slab, ...], moved_mm: float | None = None) -> StudyRecord:
    """A record of one source, moved by some mm along z, or the reference."""
    matrix = rigid(np.eye(3), [0.0, 0.0, moved_mm or 0.0], [0, 0, 0])
    registration = None if moved_mm is None else SimpleNamespace(fixed_to_moving_lps=matrix)
    origin = replace(Source("a", "dicom", "CT", (3, 3, 3), (1, 1, 1)), unseen=unseen)
    source = SimpleNamespace(origin=origin, registration=registration)
    return StudyRecord("ct", grid_of(FUSED), sources={"ct": source})  # type: ignore[dict-item]


@pytest.mark.parametrize(("moved_mm", "slices"), [(None, [4]), (4.0, [3]), (-2.0, [4, 5])])
def test_slices_that_touch_what_was_not_seen_are_marked(
    moved_mm: float | None, slices: list[int]
) -> None:
    data = {FUSED_KEY: FUSED, STUDY_KEY: study(LOST, moved_mm)}
    done = MarkUnseend(("ct",))(data)
    marked = done[FUSED_KEY].numpy()
    changed = np.flatnonzero((marked != 0.5).any(axis=(0, 1, 2)))
    assert changed.tolist() == slices
    assert set(np.unique(marked[:, :MARK_COLUMNS, :, slices])) == {0.0, 1.0}
    assert (marked[:, MARK_COLUMNS:] == 0.5).all()
    assert done[STUDY_KEY].fusion["interpolated_slices"] == {"ct": slices}
    assert any("slices were lost" in warning for warning in done[STUDY_KEY].warnings)


def test_nothing_is_marked_where_all_was_seen() -> None:
    done = MarkUnseend(("ct",))({FUSED_KEY: FUSED, STUDY_KEY: study(())})
    assert done[FUSED_KEY] is FUSED
    assert "interpolated_slices" not in done[STUDY_KEY].fusion
