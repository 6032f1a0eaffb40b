"""Files in, files out. Names are imported when they are first used: torch and MONAI are heavy."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmif.io.dicom.read.reader import DicomSeriesReader
    from mmif.io.dicom.read.series import SeriesInfo, find_series
    from mmif.io.dicom.write.derived import DerivedSeries
    from mmif.io.dicom.write.series import DicomSeriesWriter, write_dicom_series
    from mmif.io.itk.reader import SimpleItkReader
    from mmif.io.loading import load
    from mmif.io.nifti.reader import NiftiVolumeReader
    from mmif.io.nifti.writer import NiftiWriter, write_nifti
    from mmif.io.source import Source, source_of
    from mmif.io.writing import save

_HOMES = {
    "DerivedSeries": "dicom.write.derived",
    "DicomSeriesReader": "dicom.read.reader",
    "DicomSeriesWriter": "dicom.write.series",
    "NiftiVolumeReader": "nifti.reader",
    "NiftiWriter": "nifti.writer",
    "SeriesInfo": "dicom.read.series",
    "SimpleItkReader": "itk.reader",
    "Source": "source",
    "find_series": "dicom.read.series",
    "load": "loading",
    "save": "writing",
    "source_of": "source",
    "write_dicom_series": "dicom.write.series",
    "write_nifti": "nifti.writer",
}

__all__ = [
    "DerivedSeries",
    "DicomSeriesReader",
    "DicomSeriesWriter",
    "NiftiVolumeReader",
    "NiftiWriter",
    "SeriesInfo",
    "SimpleItkReader",
    "Source",
    "find_series",
    "load",
    "save",
    "source_of",
    "write_dicom_series",
    "write_nifti",
]


def __getattr__(name: str) -> Any:
    """The public name ``name``, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
