"""Writing volumes: one door for every format."""

from pathlib import Path

from monai.data import MetaTensor

from mmif.errors import OutputError
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.series import (
    DicomSeriesWriter,
    own_recipe,
    write_aloud,
    write_dicom_series,
)
from mmif.io.images import SUFFIXES, write_image
from mmif.io.itk.writer import ITK_SUFFIXES, write_itk_image
from mmif.io.nifti.writer import NiftiWriter, to_bytes, write_nifti
from mmif.io.transform_files import write_itk_transform

__all__ = [
    "DerivedSeries",
    "DicomSeriesWriter",
    "NiftiWriter",
    "save",
    "write_dicom_series",
    "write_itk_image",
    "write_itk_transform",
    "write_nifti",
]


def save(volume: MetaTensor, path: str | Path) -> Path:
    """Writes ``volume`` to ``path`` in the format that its name says; the path.

    ``.nii`` and ``.nii.gz`` are NIfTI, ``.mha``, ``.mhd`` and ``.nrrd`` go through SimpleITK, the
    endings of images (``.png``) take one slice, and a name without an ending is a folder for a
    DICOM series; what must be said of its patient and study is logged as a warning.

    Args:
        volume: (1 or 3, X, Y, Z); three channels are RGB in 0..1. For an image (1 or 3, X, Y) or
            one slice, 0..1, with X along the columns.
        path: an existing file is replaced, an existing folder refused.

    Raises:
        OutputError: an unknown ending, a folder that exists, or the disk refuses.
        GeometryError: the axes of the volume are not at right angles.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return write_nifti(volume, path)
    if suffix in ITK_SUFFIXES:
        return write_itk_image(volume, path)
    if suffix in SUFFIXES:
        return _save_image(volume, path)
    if suffix:
        known = ", ".join((".nii", ".nii.gz", *ITK_SUFFIXES, *SUFFIXES))
        raise OutputError(f"{path}: unknown format; expected {known}, or a folder for DICOM")
    if path.exists():
        raise OutputError(f"{path} exists; expected a new folder for the DICOM series")
    write_aloud(volume, path, own_recipe(volume))
    return path


def _save_image(volume: MetaTensor, path: Path) -> Path:
    """One slice (1 or 3, X, Y[, 1]) in 0..1 as an 8-bit image."""
    pixels = volume.detach().cpu().numpy()
    pixels = pixels[..., 0] if pixels.ndim == 4 and pixels.shape[-1] == 1 else pixels
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        shape = tuple(volume.shape)
        raise OutputError(f"{path}: found shape {shape}, expected one slice (1 or 3, X, Y)")
    stored = to_bytes(pixels.transpose(2, 1, 0))
    write_image(stored[..., 0] if len(pixels) == 1 else stored, path, overwrite=True)
    return path
