"""mmif: multi-modal medical image fusion, from DICOM and NIfTI to DICOM and NIfTI.

    >>> import mmif
    >>> sorted(mmif.METRICS)
    ['AG', 'EN', 'MI', 'PSNR', 'Qabf', 'SCD', 'SF', 'SSIM']

The names below are the public face; each is imported when it is first used.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("mmif")
except PackageNotFoundError:  # a source checkout that is not installed
    __version__ = "0+unknown"

_HOMES = {
    "METRICS": "mmif.metrics",
    "MmifError": "mmif.errors",
    "FusionResult": "mmif.result",
    "Grid": "mmif.geometry",
    "Pipeline": "mmif.config",
    "Registration": "mmif.registration",
    "S3IMFusion": "mmif.networks.s3imfusion",
    "Source": "mmif.io.source",
    "fuse": "mmif.study",
    "fusion_transforms": "mmif.fusion",
    "load": "mmif.io",
    "load_pipeline": "mmif.config",
    "load_weights": "mmif.weights",
    "register": "mmif.registration",
    "save": "mmif.io.writing",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """The public name ``name``, from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mmif' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
