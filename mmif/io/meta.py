"""From a reader's result to MONAI's metadata and to the volume that flows through mmif."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys

from mmif.geometry import Matrix
from mmif.io.source import SOURCE_KEY, Source


def monai_meta(
    voxels: npt.NDArray[np.float32], affine_ras: Matrix, source: Source
) -> dict[str, Any]:
    """The metadata that MONAI's ``LoadImage`` expects of an ImageReader.

    Args:
        voxels: (X, Y, Z), or (3, X, Y, Z) for colours.
        affine_ras: voxel to RAS mm.
        source: where they come from.
    """
    return {
        MetaKeys.AFFINE: affine_ras.copy(),
        MetaKeys.ORIGINAL_AFFINE: affine_ras.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(voxels.shape[-3:]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if voxels.ndim == 4 else float("nan"),
        MetaKeys.SPACE: SpaceKeys.RAS,
        "modality": source.modality,
        "units": source.units,
        "series_uid": source.series_uid or "",
        SOURCE_KEY: source,
    }


def to_volume(voxels: npt.NDArray[np.float32], meta: dict[str, Any]) -> MetaTensor:
    """A reader's result as a volume (C, X, Y, Z) with its `Source` in the metadata."""
    meta = {**meta, MetaKeys.ORIGINAL_CHANNEL_DIM: 0}
    affine = torch.from_numpy(meta.pop(MetaKeys.AFFINE))
    return MetaTensor(
        torch.from_numpy(voxels if voxels.ndim == 4 else voxels[None]), affine=affine, meta=meta
    )
