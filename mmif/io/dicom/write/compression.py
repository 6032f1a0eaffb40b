"""Pixels in the lossless transfer syntaxes that written DICOM may have."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from mmif.errors import OutputError
from mmif.options import TransferSyntax

SYNTAXES: Mapping[TransferSyntax, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "jpeg2000": JPEG2000Lossless,
    "jpeg-ls": JPEGLSLossless,
    "rle": RLELossless,
}
# What must be known of pixels to encode them, and may change with it (PS3.3 C.7.6.3, PS3.5 8.2)
IMAGE_PIXEL = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames"),
)


def pixel_elements(pixels: npt.NDArray[Any], image: Dataset, syntax: TransferSyntax) -> Dataset:
    """The PixelData of ``pixels``, and the Image Pixel attributes that go with it.

    Args:
        pixels: ([frames,] rows, columns[, 3]), 8 or 16 bit.
        image: has the attributes of the Image Pixel module.
        syntax: how to encode; every one is lossless.

    Raises:
        OutputError: the library cannot encode them.
    """
    ds = Dataset()
    for keyword in IMAGE_PIXEL:
        if keyword in image:
            ds[keyword] = image[keyword]
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    if syntax != "explicit":
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax == "jpeg2000" and ds.SamplesPerPixel == 3:
            ds.PhotometricInterpretation = "YBR_RCT"  # reversible; PS3.5 8.2.4
        try:
            ds.compress(SYNTAXES[syntax], generate_instance_uid=False)
        except RuntimeError as error:
            size = f"{image.Rows} x {image.Columns}"
            raise OutputError(
                f"slices of {size} pixels cannot be encoded as {syntax}; expected 32 x 32 and more"
            ) from error
    return ds
