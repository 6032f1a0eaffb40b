"""Every lossless transfer syntax reads back bit for bit, by whatever program reads it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import gdcm
import highdicom
import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom import dcmread

from mmif.io.dicom.write.compression import SYNTAXES
from mmif.io.dicom.write.series import write_dicom_series
from mmif.options import TransferSyntax

COMPRESSED: tuple[TransferSyntax, ...] = ("jpeg2000", "jpeg-ls", "rle")
# What the pixels are: 16-bit unsigned, 16-bit signed, RGB, RGB in one multi-frame file
PIXELS = {
    "fused grey": (("MR", "CT"), 1, {}),
    "registered CT, signed": (("MR", "CT"), 1, {"kind": "registered"}),
    "registered PET, signed": (("MR", "PT"), 1, {"kind": "registered"}),
    "fused colour": (("MR", "NM"), 3, {}),
    "fused colour, multi-frame": (("MR", "PT"), 3, {"encoding": "multiframe"}),
}
# The free dcmtk decodes no JPEG 2000
DCMTK = {"jpeg-ls": "/usr/bin/dcmdjpls", "rle": "/usr/bin/dcmdrle"}


@pytest.fixture(params=PIXELS)
def two_series(
    request: pytest.FixtureRequest, sources, recipe, volume, oblique: np.ndarray, tmp_path: Path
) -> Callable[[TransferSyntax], tuple[Path, Path]]:
    """The same slice twice: explicit, and in the syntax that is asked for."""
    modalities, channels, changes = PIXELS[request.param]
    made = [sources.dicom(modality) for modality in modalities]

    small = volume(oblique, channels)
    # OpenJPEG's six resolutions want 32 pixels and more
    large = MetaTensor(small.as_tensor().tile(1, 2, 2, 1), affine=small.affine)

    def write(syntax: TransferSyntax) -> tuple[Path, Path]:
        for one in ("explicit", syntax):
            recipe_ = recipe(*made, transfer_syntax=one, **changes)
            write_dicom_series(large, tmp_path / one, recipe_)
        return tmp_path / "explicit" / "0001.dcm", tmp_path / syntax / "0001.dcm"

    return write


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_pydicom_and_highdicom_read_the_same_bits(syntax: TransferSyntax, two_series) -> None:
    plain, compressed = two_series(syntax)
    expected, ds = dcmread(plain), dcmread(compressed)
    assert ds.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert np.array_equal(ds.pixel_array, expected.pixel_array)
    assert ds.SOPInstanceUID == expected.SOPInstanceUID  # lossless: the same image
    frames = expected.pixel_array if "NumberOfFrames" in ds else expected.pixel_array[np.newaxis]
    image = highdicom.imread(compressed)
    for number, frame in enumerate(frames, 1):
        assert np.array_equal(image.get_stored_frame(number), frame)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_gdcm_reads_the_same_bits(syntax: TransferSyntax, two_series) -> None:
    plain, compressed = two_series(syntax)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(compressed))
    assert reader.Read()
    change = gdcm.ImageChangePlanarConfiguration()
    change.SetPlanarConfiguration(0)
    change.SetInput(reader.GetImage())
    assert change.Change()
    raw = change.GetOutput().GetBuffer().encode("utf-8", errors="surrogateescape")
    assert raw == dcmread(plain).PixelData


@pytest.mark.parametrize("syntax", DCMTK)
def test_dcmtk_reads_the_same_bits(syntax: TransferSyntax, two_series, tmp_path: Path) -> None:
    program = DCMTK[syntax]
    if not Path(program).exists():
        pytest.skip(f"{program} of Debian's dcmtk is not installed")
    plain, compressed = two_series(syntax)
    subprocess.run([program, str(compressed), str(tmp_path / "out.dcm")], check=True)
    found, expected = dcmread(tmp_path / "out.dcm"), dcmread(plain)
    assert np.array_equal(found.pixel_array, expected.pixel_array)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_objects_have_no_error(
    syntax: TransferSyntax, two_series, faults: Callable[[Path], list[str]]
) -> None:
    _, compressed = two_series(syntax)
    assert faults(compressed) == []
