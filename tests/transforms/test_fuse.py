"""Two sources become one volume, in slabs and in colour."""

import numpy as np
import pytest
import torch
from torch import nn

from mmif.geometry import Grid
from mmif.result import FUSED_KEY, STUDY_KEY, Coverage, RegisteredSource, StudyRecord
from mmif.transforms import fuse
from mmif.transforms.colour import luminance
from mmif.transforms.fuse import FuseSlicesd
from mmif.transforms.slices import on_grid

GRID = Grid((16, 12, 70), np.diag([2.0, 2.0, 2.0, 1.0]))


class First(nn.Module):
    """A network that shows channel 0 alone."""

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        return pair[:, :1]


class Black(nn.Module):
    """A network that shows nothing."""

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(pair[:, :1])


def fused(
    anatomy: torch.Tensor,
    activity: torch.Tensor,
    network: nn.Module | None = None,
    **fusion: float,
) -> torch.Tensor:
    """RGB of two volumes (1, X, Y, Z), by the network `First` if none is given."""
    whole = Coverage.whole(GRID.shape)
    units = {"ct": on_grid(anatomy, GRID), "pet": on_grid(activity, GRID)}
    sources = {
        role: RegisteredSource(role, unit, unit, whole, np.ones(GRID.shape[2]), GRID.shape)
        for role, unit in units.items()
    }
    study = StudyRecord("ct", GRID, sources=sources).with_colour_map(["pet"], "activity")
    step = FuseSlicesd(["ct", "pet"], [network or First()], colour_map="activity", **fusion)
    return step({**units, STUDY_KEY: study})[FUSED_KEY]


def test_over_black_anatomy_there_is_room_for_the_colour_of_an_activity() -> None:
    lungs = torch.zeros(1, *GRID.shape)
    low, high = (torch.full((1, *GRID.shape), level) for level in (0.04, 0.64))
    assert fused(lungs, high).max() < 0.01
    coloured = fused(lungs, high, activity_floor=0.5)
    assert float(luminance(coloured).mean()) == pytest.approx(0.75 * 0.5 * 0.8, abs=0.02)
    assert float(coloured.amax(0).mean()) > float(coloured.amin(0).mean()) + 0.3
    assert (
        luminance(coloured).mean() > luminance(fused(lungs, low, activity_floor=0.5)).mean() + 0.1
    )
    assert fused(lungs, lungs, activity_floor=0.5).max() < 0.01


def test_the_brightness_under_the_colours_has_its_share_of_the_anatomy() -> None:
    """Whatever the network does: 0.6 of an anatomy of 0.5, and up to the room there is."""
    grey, some = (torch.full((1, *GRID.shape), level) for level in (0.5, 0.3))
    assert fused(grey, some, Black()).max() < 0.01
    for room in (0.75, 1.0):
        shown = fused(grey, some, Black(), anatomy_share=0.6, colour_room=room)
        assert float(luminance(shown).mean()) == pytest.approx(room * 0.6 * 0.5, abs=0.01)


def test_a_tall_stack_is_fused_in_parts_to_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy, activity = torch.rand(2, 1, *GRID.shape)
    whole = fused(anatomy, activity)
    monkeypatch.setattr(fuse, "FUSED_AT_ONCE", 33)
    assert torch.equal(fused(anatomy, activity), whole)
    assert whole.shape == (3, *GRID.shape)
