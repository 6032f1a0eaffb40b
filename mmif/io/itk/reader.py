"""Other volumes that SimpleITK reads (MetaImage, NRRD): a MONAI ImageReader."""

from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from mmif.errors import InputError
from mmif.geometry import spacing_mm
from mmif.io.checks import check_grid, check_values, choose_frame, repair
from mmif.io.itk.header import ItkHeader, read_itk_header
from mmif.io.monai_reader import ContentReader, Unread, monai_meta
from mmif.io.source import Source
from mmif.roles import unit_of

Volume = npt.NDArray[np.float32]


class SimpleItkReader(ContentReader):
    """Reads a volume through SimpleITK, with its affine in RAS."""

    def get_data(self, img: Unread) -> tuple[Volume, dict[str, Any]]:
        """Voxels (X, Y, Z), or (3, X, Y, Z) for colours, and MONAI's metadata.

        Raises:
            MmifError: the file is no volume that can be read rightly.
        """
        path, where = img.path, str(img.path)
        header = read_itk_header(path)
        channels = header.reader.GetNumberOfComponents()
        if channels > 1 and self.role is not None:
            raise InputError(
                f"{where}: {channels} channels (colour); expected the grey {self.role} source"
            )
        image = _choose_image(header, self.frame, where)
        voxels, affine = _voxels(image), header.affine_ras
        check_grid(voxels.shape[-3:], affine, where)
        warnings = header.warnings
        if voxels.ndim == 3:
            warnings += repair(voxels, self.role, where)
        check_values(voxels, where)
        shape = voxels.shape[-3:]
        source = Source(
            path=path,
            format="other",
            modality="",
            shape=(shape[0], shape[1], shape[2]),
            spacing_mm=spacing_mm(affine),
            units=unit_of(self.role),
            selection="the only volume of its file",
            warnings=warnings,
        )
        return voxels, monai_meta(voxels, affine, source)


def _choose_image(header: ItkHeader, frame: int | None, where: str) -> sitk.Image:
    """The 3-D image that is meant, float32 or a vector of components."""
    frame = choose_frame(frame, header.frames, where)
    try:
        if len(header.size) == 4:
            header.reader.SetExtractSize([*header.size[:3], 0])
            header.reader.SetExtractIndex([0, 0, 0, frame])
        return header.reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{where}: pixels not readable (truncated or broken)") from error


def _voxels(image: sitk.Image) -> Volume:
    """(X, Y, Z) values, or (3, X, Y, Z) colours in 0..1."""
    array = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        return np.array(array.transpose(2, 1, 0), dtype=np.float32, order="F")
    top = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    return np.asarray(array.transpose(3, 2, 1, 0), dtype=np.float32) / np.float32(top)
