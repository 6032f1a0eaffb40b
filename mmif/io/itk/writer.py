"""Volumes into the other formats that SimpleITK writes."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from mmif.errors import InputError, OutputError
from mmif.geometry import ras_lps, spacing_mm
from mmif.io.files import text_of

ITK_SUFFIXES = (".mha", ".mhd", ".nrrd")


def write_itk_image(volume: MetaTensor, path: Path) -> Path:
    """The file ``path`` (MetaImage or NRRD) with ``volume`` (1 or 3, X, Y, Z); LPS mm inside.

    Raises:
        OutputError: the file cannot be written.
    """
    voxels = volume.detach().cpu().numpy().transpose(3, 2, 1, 0)
    # ITK has neither bool nor half precision
    wider = {"bool": np.uint8, "float16": np.float32}.get(voxels.dtype.name, voxels.dtype)
    voxels = voxels.astype(wider, copy=False)
    colour = voxels.shape[-1] > 1
    image = sitk.GetImageFromArray(voxels if colour else voxels[..., 0], isVector=colour)
    affine_lps, spacing = ras_lps(volume.affine), spacing_mm(volume.affine)
    image.SetOrigin(affine_lps[:3, 3].tolist())
    image.SetSpacing(spacing)
    image.SetDirection((affine_lps[:3, :3] / np.asarray(spacing)).ravel().tolist())
    try:
        sitk.WriteImage(image, text_of(path), useCompression=path.suffix.lower() != ".mhd")
    except (RuntimeError, InputError) as error:
        raise OutputError(f"{path}: cannot be written by SimpleITK") from error
    return path
