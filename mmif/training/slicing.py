"""One study to its slices, as a transform for MONAI's data sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from mmif.config import Pipeline
from mmif.errors import InputError
from mmif.fusion import prepare
from mmif.io import load
from mmif.registration import register
from mmif.transforms.slices import to_slices

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
        pipeline, reference = self.pipeline, self.pipeline.reference
        moving = next(role for role in pipeline.roles if role != reference)
        volumes = {role: load(path, role=role) for role, path in item["inputs"].items()}
        registration = register(volumes[reference], volumes[moving], pipeline.registration)
        if registration.verdict == "fail":
            raise InputError(f"registration failed ({'; '.join(registration.reasons)})")
        ready = prepare(volumes[reference], volumes[moving], registration, pipeline, reference)
        sides = [to_slices(v) for v in (ready.anatomical_unit, ready.other_brightness)]
        stack = (torch.stack(sides).clamp(0, 1) * 255).round().byte()
        shown = (stack.amax(0) > 12).float().mean((1, 2)) >= CONTENT
        covered = torch.from_numpy(np.asarray(ready.covered_fraction)) >= COVERED
        return stack[:, shown & covered]
