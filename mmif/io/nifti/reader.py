"""NIfTI-1 and NIfTI-2 files as volumes: a MONAI ImageReader.

The header is believed only as far as the file bears it out: sizes are checked before memory is
taken, the sform wins over a qform that disagrees, and a file without orientation is refused.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmif.errors import InputError
from mmif.geometry import Matrix, spacing_mm
from mmif.io.checks import check_grid, check_values, choose_frame, repair
from mmif.io.files import sibling
from mmif.io.monai_reader import ContentReader, Unread, monai_meta
from mmif.io.nifti.header import Header, NiftiInfo, nifti_errors, nifti_info, read_values
from mmif.io.regrid import SHEAR_MM, shear_mm, unshear
from mmif.io.source import Source
from mmif.roles import unit_of

Volume = npt.NDArray[np.float32]

_VECTOR_INTENTS = {1004, 1005, 1006, 1007, 1009, 2003, 2004}
"""NIfTI-1 intent codes of values with several components: matrices, vectors, RGB, RGBA."""


class NiftiVolumeReader(ContentReader):
    """Reads a NIfTI volume: ``.nii``, ``.nii.gz``, or a ``.hdr``/``.img`` pair."""

    def get_data(self, img: Unread) -> tuple[Volume, dict[str, Any]]:
        """Voxels (X, Y, Z), or (3, X, Y, Z) in 0..1 for RGB24, and MONAI's metadata.

        Raises:
            MmifError: the file is no volume that can be read rightly.
        """
        voxels, affine, source = read_nifti(img.path, self.role, self.frame)
        return voxels, monai_meta(voxels, affine, source)


def read_nifti(path: Path, role: str | None, frame: int | None) -> tuple[Volume, Matrix, Source]:
    """A NIfTI volume.

    Returns:
        Voxels (X, Y, Z) or (3, X, Y, Z), affine RAS, source.

    Raises:
        MmifError: it cannot be read rightly.
    """
    info, where = nifti_info(path), str(path)
    check_grid(info.shape, info.affine_ras, where)
    if info.colour and role is not None:
        raise InputError(f"{where}: RGB24 colours; expected the grey values of the {role} source")
    with nifti_errors(path):
        stored, notes = _stored_values(info, _frame_number(info, frame))
    voxels = _physical(stored, info)
    notes = info.warnings + notes + (() if info.colour else repair(voxels, role, where))
    check_values(voxels, where)
    affine = info.affine_ras
    if not info.colour and shear_mm(affine, info.shape) > SHEAR_MM:
        voxels, affine = unshear(voxels, affine, float(voxels.min()), where)
        notes += ("the affine is sheared: resampled on perpendicular axes (linear interpolation)",)
    source = Source(
        path=path,
        format="nifti",
        modality="",
        shape=info.shape,
        spacing_mm=spacing_mm(affine),
        units=unit_of(role),
        selection="the only volume of its file" if info.frames == 1 else f"frame {frame}",
        warnings=notes,
    )
    return voxels, affine, source


def _frame_number(info: NiftiInfo, frame: int | None) -> int:
    """Which volume to read."""
    if frame is None and int(info.header["intent_code"]) in _VECTOR_INTENTS:
        raise InputError(
            f"{info.path}: {info.frames} channels (components of a vector or colour); "
            "expected grey values"
        )
    return choose_frame(frame, info.frames, str(info.path))


def _stored_values(info: NiftiInfo, frame: int) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Stored values of one volume (X, Y, Z), or (X, Y, Z, 3) for colours; and what was noticed."""
    dtype = info.header.get_data_dtype()
    if info.colour:
        dtype = np.dtype("u1")
    count = math.prod(info.shape) * (3 if info.colour else 1)
    pair = bytes(info.header["magic"].tobytes())[:2] == b"ni"
    start = max(float(info.header["vox_offset"]), 0.0) if pair else _data_offset(info.header)
    image = _image_file(info.path) if pair else info.path
    size = count * dtype.itemsize
    flat, rest = read_values(image, int(start) + frame * size, count, dtype)
    surplus = rest - (info.frames - frame - 1) * size
    notes: tuple[str, ...] = ()
    if surplus > 0:
        notes = (f"{surplus} bytes more than its header says: it may be damaged",)
    if info.colour:
        return flat.reshape((3, *info.shape), order="F").transpose(1, 2, 3, 0), notes
    return flat.reshape(info.shape, order="F"), notes


def _data_offset(header: Header) -> float:
    """Where voxels start in a single file: never inside the header."""
    least = 544 if int(header["sizeof_hdr"]) == 540 else 352
    offset = float(header["vox_offset"])
    return max(offset, least) if math.isfinite(offset) and offset < 1 << 40 else least


def _image_file(path: Path) -> Path:
    """The ``.img`` beside a ``.hdr``; or the file itself, where it is the image."""
    beside = sibling(path, (".img", ".img.gz"))
    if beside is not None:
        return beside
    raise InputError(f"{path}: the .img file of the pair is missing")


def _physical(stored: npt.NDArray[Any], info: NiftiInfo) -> Volume:
    """Stored values with scl_slope and scl_inter applied; colours (3, X, Y, Z) in 0..1."""
    if info.colour:
        return np.moveaxis(stored, -1, 0).astype(np.float32) / np.float32(255)
    slope, inter = float(info.header["scl_slope"]), float(info.header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise InputError(f"{info.path}: scl_inter is {inter}; expected a finite number")
    with np.errstate(over="ignore", invalid="ignore"):
        if (slope, inter) == (1.0, 0.0):
            return stored.astype(np.float32, order="F")
        values = stored.astype(np.float64) if stored.dtype.itemsize > 2 else stored
        return np.asarray(values * slope + inter, dtype=np.float32, order="F")
