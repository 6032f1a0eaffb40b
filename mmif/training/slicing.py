"""One study to its slices, as a transform for MONAI's data sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from mmif.config import Pipeline
from mmif.fusion import fusion_transforms, run_steps
from mmif.transforms.fuse import FuseSlicesd, brightness
from mmif.transforms.slices import to_slices
from mmif.transforms.step import study_of

#: Slices that show less than this share of head, or are covered less than that, are left out.
CONTENT = 0.02
COVERED = 0.95


class StudySlicer(Transform):  # type: ignore[misc]
    """A transform for MONAI's data sets: the paths of one study to its slices.

    The result is uint8 (2, slices, rows, columns): anatomical and other, each by one window.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def __call__(self, item: Mapping[str, Any]) -> torch.Tensor:
        """Load, register, resample and window the study ``item["inputs"]``.

        Raises:
            MmifError: the study cannot be read, or its registration failed.
        """
        pipeline = self.pipeline
        steps = fusion_transforms(pipeline).up_to(FuseSlicesd)
        data, _ = run_steps(steps, item["inputs"])
        sides = [to_slices(brightness(data[role])) for role in pipeline.roles]
        stack = (torch.stack(sides).clamp(0, 1) * 255).round().byte()
        shown = (stack.amax(0) > 12).float().mean((1, 2)) >= CONTENT
        study = study_of(data)
        covered = np.min([s.covered_fraction for s in study.sources.values()], axis=0) >= COVERED
        return stack[:, shown & torch.from_numpy(covered)]
