"""One study to its slices, as a transform for MONAI's data sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from mmif.config import Pipeline
from mmif.fusion import fusion_transforms, run_steps
from mmif.options import FuseOptions
from mmif.transforms.colour import shown_brightness
from mmif.transforms.fuse import FuseSlicesd
from mmif.transforms.slices import to_slices
from mmif.transforms.step import study_of

CONTENT = 0.02
"""A slice that shows less than this share of head is left out: it is air and rest."""
COVERED = 0.95
"""A slice of whose head another source covers less than this share is left out."""
SHOWN = 12
"""Grey level of 255 from which a pixel shows something: above the noise of air."""


class StudySlicer(Transform):  # type: ignore[misc]
    """A transform for MONAI's data sets: the paths of one study to its slices.

    The result is ``stack``, uint8 (roles, slices, rows, columns), each role by one window; and
    ``warnings``, what must be said of the study as `mmif fuse` says it.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Load, register, resample and window the study ``item["inputs"]``.

        Raises:
            MmifError: the study cannot be read, is of two patients, or its registration failed.
        """
        pipeline = self.pipeline
        options = FuseOptions(series_uid=item.get("series_uid", {}))
        steps = fusion_transforms(pipeline, options=options).up_to(FuseSlicesd)
        data, _ = run_steps(steps, item["inputs"])
        sources = study_of(data).sources
        sides = [
            to_slices(shown_brightness(data[role], sources[role].colour_map))
            for role in pipeline.roles
        ]
        stack = (torch.stack(sides).clamp(0, 1) * 255).round().byte()
        shown = (stack.amax(0) > SHOWN).float().mean((1, 2)) >= CONTENT
        study = study_of(data)
        covered = np.min([s.covered_fraction for s in study.sources.values()], axis=0) >= COVERED
        kept = stack[:, shown & torch.from_numpy(covered)]
        return {"stack": kept, "warnings": list(study.warnings)}
