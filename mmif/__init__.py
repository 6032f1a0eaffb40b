"""mmif: multi-modal medical image fusion, from DICOM and NIfTI to DICOM and NIfTI.

    >>> import mmif
    >>> sorted(mmif.METRICS)
    ['AG', 'EN', 'MI', 'PSNR', 'Qabf', 'SCD', 'SF', 'SSIM']

The names below are the public face; each is imported when it is first used.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOMES, for type checkers
    from mmif.config import Pipeline as Pipeline
    from mmif.config import load_pipeline as load_pipeline
    from mmif.errors import MmifError as MmifError
    from mmif.fusion import fusion_transforms as fusion_transforms
    from mmif.geometry import Grid as Grid
    from mmif.io import load as load
    from mmif.io.source import Source as Source
    from mmif.io.writing import save as save
    from mmif.metrics import METRICS as METRICS
    from mmif.networks.s3imfusion import S3IMFusion as S3IMFusion
    from mmif.registration import Registration as Registration
    from mmif.registration import register as register
    from mmif.result import FusionResult as FusionResult
    from mmif.study import fuse as fuse
    from mmif.weights import load_weights as load_weights

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
