"""What our readers have in common as MONAI ImageReaders: from paths to metadata and volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import ImageReader, MetaTensor
from monai.utils import MetaKeys, SpaceKeys

from mmif.errors import InputError
from mmif.geometry import Matrix
from mmif.io.source import SOURCE_KEY, Source


@dataclass(frozen=True)
class Unread:
    """What our readers' ``read`` hands to ``get_data``: what was named, not yet looked at."""

    named: Sequence[str | Path] | str | Path

    @property
    def path(self) -> Path:
        """The one path.

        Raises:
            InputError: several paths; one names one volume.
        """
        paths = [self.named] if isinstance(self.named, str | Path) else list(self.named)
        if len(paths) != 1:
            raise InputError(f"{len(paths)} paths given; expected one file or folder a volume")
        return Path(paths[0])


class ContentReader(ImageReader):  # type: ignore[misc]
    """A reader that judges by content, never by name.

    Nothing is opened before ``get_data``, so that a refusal reaches the caller instead of making
    MONAI try its next reader.

    Args:
        role: ct, mri, spect or pet: what the values are checked for; None for any.
        frame: which volume of a 4-D file or of a series that holds several.
    """

    def __init__(self, role: str | None = None, frame: int | None = None) -> None:
        super().__init__()
        self.role, self.frame = role, frame

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """True: a name tells nothing."""
        return True

    def read(self, data: Sequence[str | Path] | str | Path, **kwargs: Any) -> Unread:
        """The path to read, unopened."""
        return Unread(data)


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
