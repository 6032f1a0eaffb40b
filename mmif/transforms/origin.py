"""What a volume's ``meta`` says of where it came from, for steps that know no files."""

from typing import Any

import numpy as np
from monai.data import MetaTensor

ROLE_MODALITIES = {"ct": "CT", "mri": "MR", "spect": "NM", "pet": "PT"}


def origin_of(volume: MetaTensor) -> Any:
    """``meta["source"]`` or None; MONAI's LoadImage lets it pass only in an array without axes."""
    found = volume.meta.get("source")
    return found.item() if isinstance(found, np.ndarray) and found.ndim == 0 else found


def modality_of(volume: MetaTensor) -> str:
    """The DICOM modality that the file states, else that of the role it was loaded for, else ""."""
    stated = str(getattr(origin_of(volume), "modality", ""))
    return stated or ROLE_MODALITIES.get(str(volume.meta.get("role", "")), "")
