"""What a volume's ``meta`` says of where it came from, for steps that know no files."""

from typing import Any

from monai.data import MetaTensor

ROLE_MODALITIES = {"ct": "CT", "mri": "MR", "spect": "NM", "pet": "PT"}


def origin_of(volume: MetaTensor) -> Any:
    """``meta["source"]`` or None."""
    return volume.meta.get("source")


def modality_of(volume: MetaTensor) -> str:
    """The DICOM modality that the file states, else that of the role it was loaded for, else ""."""
    stated = str(getattr(origin_of(volume), "modality", ""))
    return stated or ROLE_MODALITIES.get(str(volume.meta.get("role", "")), "")
