"""Volumes into NIfTI files: one geometry, said twice; millimetres; colour as RGB24."""

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from monai.data import ImageWriter, MetaTensor
from monai.data.utils import to_affine_nd

from mmif.errors import GeometryError, OutputError
from mmif.geometry import Matrix, spacing_mm
from mmif.io.nifti.forms import set_forms

NOT_FOR_DIAGNOSIS = "NOT FOR PRIMARY DIAGNOSIS"
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def write_nifti(volume: MetaTensor, path: Path) -> Path:
    """The file ``path`` (``.nii`` or ``.nii.gz``) with ``volume`` in it.

    sform and qform have code 1, in millimetres, and are equal wherever a qform can hold the
    geometry to 0.01 mm; else the sform is the exact one. One channel is stored as float32, or as
    an integer type of at most 32 bits (bool as uint8); three channels are colour in 0..1
    and stored as RGB24.

    Args:
        volume: (1 or 3, X, Y, Z).
        path: an existing file is replaced.

    Raises:
        GeometryError: the affine shears, so that no qform can say it.
        OutputError: another number of channels, integers beyond 32 bits, or the file cannot be
            written.
    """
    voxels = np.asarray(volume.detach().cpu().numpy())
    image = nifti_image(voxels, np.asarray(volume.affine, dtype=np.float64), str(path))
    with disk_errors(path), path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)
    return path


def nifti_image(voxels: npt.NDArray[Any], affine_ras: Matrix, where: str) -> nibabel.Nifti1Image:
    """The NIfTI image of channel-first ``voxels`` (1 or 3, X, Y, Z) on ``affine_ras``.

    Its voxel axes run as those of ``voxels``.
    """
    axes = affine_ras[:3, :3] / spacing_mm(affine_ras)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise GeometryError(f"{where}: the voxel axes are sheared; expected right angles")
    image = nibabel.Nifti1Image(_to_stored(voxels, where), affine_ras)
    set_forms(image, affine_ras)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = f"mmif; {NOT_FOR_DIAGNOSIS}".encode()
    return image


def _to_stored(voxels: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if voxels.ndim != 4 or voxels.shape[0] not in (1, 3):
        raise OutputError(
            f"{where}: found an array of shape {voxels.shape}, expected (1 or 3, X, Y, Z)"
        )
    if voxels.shape[0] == 3:
        colour = np.empty((*voxels.shape[:0:-1], 3), np.uint8)  # slices one after the other
        for k, plane in enumerate(np.transpose(voxels, (3, 2, 1, 0))):
            colour[k] = to_bytes(plane)
        stored: npt.NDArray[Any] = colour.view(RGB24)[..., 0].transpose(2, 1, 0)
        return stored
    grey: npt.NDArray[Any] = voxels[0]
    if grey.dtype.kind == "f":
        return grey.astype(np.float32)
    if grey.dtype == np.bool_:
        return grey.astype(np.uint8)
    return _in_32_bits(grey, where) if grey.dtype in (np.int64, np.uint64) else grey


def _in_32_bits(grey: npt.NDArray[Any], where: str) -> npt.NDArray[np.int32]:
    """``grey`` as int32: 64 bits are what many readers of NIfTI do not know."""
    low, high = int(grey.min(initial=0)), int(grey.max(initial=0))
    limits = np.iinfo(np.int32)
    if low < limits.min or high > limits.max:
        raise OutputError(f"{where}: found values {low}..{high}, expected 32-bit integers")
    return grey.astype(np.int32)


def to_bytes(colour: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Colour in 0..1 as bytes in 0..255; what lies outside 0..1 is clipped."""
    scaled = np.multiply(colour, 255, dtype=np.float32)
    return np.ascontiguousarray(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into one line that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise OutputError(f"{path}: cannot be written ({reason})") from error


class NiftiWriter(ImageWriter):  # type: ignore[misc]
    """MONAI's ``ImageWriter`` onto :func:`write_nifti`, for ``SaveImage(writer=NiftiWriter)``.

    It writes the volume as it lies in memory: it never resamples.
    """

    def __init__(self, output_dtype: npt.DTypeLike | None = None, **kwargs: Any) -> None:
        """``output_dtype`` is what voxels become before they are stored; None leaves them."""
        super().__init__(output_dtype=output_dtype, **kwargs)

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_options: Any) -> None:
        """Takes the voxels, channel first or with the channel at ``channel_dim``."""
        self.data_obj = channel_first(data_array, channel_dim)

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, **_options: Any) -> None:
        """Takes the affine from ``meta_dict["affine"]`` (identity where there is none)."""
        self.affine = affine_of(meta_dict)

    def write(self, filename: str | PathLike[str], verbose: bool = True, **_options: Any) -> None:
        """Writes the file ``filename``."""
        super().write(filename, verbose=verbose)
        voxels = (
            self.data_obj if self.output_dtype is None else self.data_obj.astype(self.output_dtype)
        )
        write_nifti(MetaTensor(voxels, affine=self.affine), Path(filename))


def channel_first(data: Any, channel_dim: int | None) -> npt.NDArray[Any]:
    """``data`` as a (C, X, Y, Z) array; ``channel_dim`` None says that it has no channel yet."""
    detached = data.detach().cpu() if hasattr(data, "detach") else data
    array = np.asarray(detached)
    return array[np.newaxis] if channel_dim is None else np.moveaxis(array, channel_dim, 0)


def affine_of(meta: Mapping[str, Any] | None) -> Matrix:
    """The 4x4 voxel-to-RAS affine in MONAI's ``meta``, or the identity."""
    affine = (meta or {}).get("affine")
    return np.eye(4) if affine is None else np.asarray(to_affine_nd(3, np.asarray(affine)))
