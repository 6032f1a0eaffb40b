"""Fused slices that show what was interpolated over lost slices are marked in the picture."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection

from mmif.geometry import FLIP_XY, Grid, apply
from mmif.io.source import Slab
from mmif.result import FUSED_KEY, STUDY_KEY, RegisteredSource
from mmif.roles import label
from mmif.transforms.slices import grid_of, on_grid
from mmif.transforms.step import Data, Step, study_of

MARK_COLUMNS, MARK_ROWS = 3, 8
"""Columns of the mark at a slice's edge, and rows of one dash: no anatomy looks so."""


class MarkUnseend(Step):
    """A dashed line at the left edge of each fused slice that touches interpolated slices.

    Args:
        keys: roles, whose sources may have such parts (`mmif.io.source.Source.unseen`).
    """

    part = "metrics"

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the marks in the fused volume, and their slices in its record."""
        study, fused = study_of(data), data[FUSED_KEY]
        grid = grid_of(fused)
        found = {role: unseen_slices(study.sources[role], grid) for role in self.keys}
        found = {role: slices for role, slices in found.items() if slices}
        if not found:
            return dict(data)
        voxels = fused.as_subclass(torch.Tensor).clone()
        dashes = (torch.arange(voxels.shape[2]) // MARK_ROWS % 2).to(voxels.dtype)
        for k in sorted({k for slices in found.values() for k in slices}):
            voxels[:, :MARK_COLUMNS, :, k] = dashes
        said = (
            f"{label(role)}: slices were lost; what lies between is interpolated in the fused "
            f"slices {', '.join(str(k + 1) for k in slices)} (dashed line at their left edge)"
            for role, slices in found.items()
        )
        study = replace(study, fusion={**study.fusion, "interpolated_slices": found})
        return {
            **data,
            FUSED_KEY: on_grid(voxels, grid, fused),
            STUDY_KEY: study.with_warnings(*said),
        }

    def figures(self, data: Data) -> dict[str, Any]:
        """Role to the marked slices, counted from 0."""
        return dict(data[STUDY_KEY].fusion.get("interpolated_slices", {}))


def unseen_slices(source: RegisteredSource, grid: Grid) -> list[int]:
    """The slices of ``grid`` that touch a part of the patient which ``source`` did not see."""
    slabs: tuple[Slab, ...] = source.origin.unseen if source.origin is not None else ()
    if not slabs:
        return []
    columns, rows, slices = grid.shape
    corners = [(i, j, k) for k in range(slices) for j in (0, rows - 1) for i in (0, columns - 1)]
    points = apply(grid.affine_ras, np.array(corners, dtype=float))
    if source.registration is not None:
        matrix = FLIP_XY @ np.asarray(source.registration.fixed_to_moving_lps) @ FLIP_XY
        points = apply(matrix, points)
    touched = np.zeros(slices, dtype=bool)
    for slab in slabs:
        depths = (points @ np.array(slab.normal)).reshape(slices, 4)
        touched |= (depths.min(axis=1) < slab.high_mm) & (depths.max(axis=1) > slab.low_mm)
    return [int(k) for k in np.flatnonzero(touched)]
