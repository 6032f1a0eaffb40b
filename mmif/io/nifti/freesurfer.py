"""FreeSurfer volumes (.mgh, .mgz) as volumes: a MONAI ImageReader."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError, InputError
from mmif.geometry import Matrix, spacing_mm
from mmif.io.checks import MAX_VOXELS, check_grid, check_values, choose_frame, repair
from mmif.io.monai_reader import ContentReader, Unread, monai_meta
from mmif.io.nifti.header import nifti_errors, open_nifti, read_values
from mmif.io.source import Source
from mmif.roles import unit_of

_HEADER_BYTES = 284  # FreeSurfer's MGH format: voxels start there


@dataclass(frozen=True)
class MghInfo:
    """What an MGH header says, checked.

    Attributes:
        shape: voxels along i, j, k.
        frames: volumes in the file.
        affine_ras: voxel to scanner RAS mm.
        dtype: of a stored value, big-endian.
    """

    shape: tuple[int, int, int]
    frames: int
    affine_ras: Matrix
    dtype: np.dtype[Any]


class FreesurferReader(ContentReader):
    """Reads a FreeSurfer volume, with its affine to scanner RAS."""

    def get_data(self, img: Unread) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Voxels (X, Y, Z) and MONAI's metadata.

        Raises:
            MmifError: the file is no volume that can be read rightly.
        """
        path, where = img.path, str(img.path)
        info = mgh_info(path)
        check_grid(info.shape, info.affine_ras, where)
        frame = choose_frame(self.frame, info.frames, where)
        voxels = _voxels(path, info, frame)
        notes = repair(voxels, self.role, where)
        check_values(voxels, where)
        source = Source(
            path=path,
            format="other",
            modality="",
            shape=info.shape,
            spacing_mm=spacing_mm(info.affine_ras),
            units=unit_of(self.role),
            selection="the only volume of its file" if info.frames == 1 else f"frame {frame}",
            warnings=notes,
        )
        return voxels, monai_meta(voxels, info.affine_ras, source)


def mgh_info(path: Path) -> MghInfo:
    """What the header of a FreeSurfer volume says.

    Raises:
        MmifError: it is cut short, says impossible things, or has no orientation.
    """
    with nifti_errors(path), open_nifti(path) as file:
        block = file.read(_HEADER_BYTES)
        if len(block) < _HEADER_BYTES:
            raise InputError(f"{path}: FreeSurfer volume cut short in its header (truncated)")
        header = nib.freesurfer.mghformat.MGHHeader(block, check=False)
        sizes = [int(size) for size in header["dims"]]
        if int(header["version"]) != 1 or min(sizes) < 1:
            raise InputError(f"{path}: sizes {sizes}; expected a FreeSurfer volume")
        if math.prod(sizes[:3]) > MAX_VOXELS:
            raise InputError(f"{path}: claims {math.prod(sizes[:3])} voxels; expected up to 2^30")
        if int(header["goodRASFlag"]) != 1:
            raise GeometryError(f"{path}: goodRASFlag is not set; expected an orientation")
        affine = np.asarray(header.get_affine(), dtype=np.float64)
        dtype = np.dtype(header.get_data_dtype()).newbyteorder(">")
    return MghInfo((sizes[0], sizes[1], sizes[2]), sizes[3], affine, dtype)


def _voxels(path: Path, info: MghInfo, frame: int) -> npt.NDArray[np.float32]:
    """Values (X, Y, Z) of one volume."""
    count = math.prod(info.shape)
    start = _HEADER_BYTES + frame * count * info.dtype.itemsize
    with nifti_errors(path):
        flat, _ = read_values(path, start, count, info.dtype)
    return flat.reshape(info.shape, order="F").astype(np.float32, order="F")
