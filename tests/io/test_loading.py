"""Readers inside MONAI's own loader, and volumes of other formats."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_corpus import landmark_error_mm, oblique, part, scan, write_nuclear, write_series
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import LoadImage, LoadImaged, SaveImaged
from pydicom import dcmread

from mmif.errors import GeometryError, InputError, MmifError
from mmif.io import (
    DicomSeriesReader,
    DicomSeriesWriter,
    NiftiVolumeReader,
    SimpleItkReader,
    load,
    source_of,
)
from mmif.io.checks import check_grid
from mmif.io.monai_reader import to_volume

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")


@pytest.fixture
def image() -> sitk.Image:
    """A small oblique image."""
    found = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(5, 4, 3) - 20)
    found.SetSpacing((2.0, 3.0, 4.0))
    found.SetOrigin((10.0, -20.0, 30.0))
    found.SetDirection((0, 1, 0, 0.6, 0, -0.8, -0.8, 0, -0.6))
    return found


def test_dicom_through_monais_loader(tmp_path: Path) -> None:
    """The affine comes out in RAS, and the Source with it."""
    write_series(tmp_path, scan(oblique()))
    volume = LoadImage(reader=DicomSeriesReader(role="ct"), ensure_channel_first=True)(tmp_path)
    assert landmark_error_mm(volume) < 0.1
    own = load(tmp_path, role="ct")
    assert np.array_equal(volume.numpy(), own.numpy())
    assert np.allclose(volume.affine, own.affine)
    assert source_of(volume).modality == "CT"
    assert volume.meta["space"] == "RAS"


def test_every_reader_in_load_imaged(tmp_path: Path, image: sitk.Image) -> None:
    write_nuclear(tmp_path / "nm", part(scan(), range(9)))
    nib.Nifti1Image(np.arange(60, dtype="i2").reshape(3, 4, 5), np.eye(4)).to_filename(
        tmp_path / "v.nii"
    )
    sitk.WriteImage(image, str(tmp_path / "v.mha"))
    for name, reader in [
        ("nm", DicomSeriesReader),
        ("v.nii", NiftiVolumeReader),
        ("v.mha", SimpleItkReader),
    ]:
        loader = LoadImaged("x", reader=reader, ensure_channel_first=True)
        loaded = loader({"x": tmp_path / name})["x"]
        assert np.array_equal(loaded.numpy(), load(tmp_path / name).numpy())
        assert np.allclose(loaded.affine, load(tmp_path / name).affine)


def test_a_refusal_is_not_hidden_by_monais_other_readers(tmp_path: Path) -> None:
    write_series(tmp_path, part(scan(), [k for k in range(28) if k != 9]))
    with pytest.raises(MmifError, match="slice missing"):
        LoadImage(reader=DicomSeriesReader())(tmp_path)


def test_a_volume_is_float32_channel_first_with_a_float64_affine(tmp_path: Path) -> None:
    write_series(tmp_path, part(scan(), range(9)))
    volume = load(tmp_path)
    assert (volume.dtype, volume.affine.dtype) == (torch.float32, torch.float64)
    assert volume.shape == (1, 44, 40, 9)
    assert volume.numpy().base is not None


@pytest.mark.parametrize("name", ["v.mha", "v.mhd"])
@pytest.mark.parametrize("dictionary", [b"\x78\x20", b"\x78\xff", None])
def test_compressed_pixels_that_do_not_unpack_are_refused(
    tmp_path: Path, name: str, dictionary: bytes | None
) -> None:
    """ITK unpacks the first of them for ever, and makes up the voxels of the others."""
    voxels = np.random.default_rng(1).integers(0, 99, (6, 7, 8), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name), True)
    assert np.array_equal(load(tmp_path / name)[0].numpy().T, voxels)
    packed = tmp_path / name.replace("mhd", "zraw")
    data = packed.read_bytes()
    start = data.index(b"\x78\x5e")
    changed = dictionary + data[start + 2 :] if dictionary else data[start : start + 200]
    packed.write_bytes(data[:start] + changed)
    with pytest.raises(MmifError, match=r"v\.mh[ad]: compressed pixels"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"CompressedDataSize = ", b"CompressedDataSize = 99999999999"),
        (b"CompressedDataSize = ", b"CompressedDataSize = -"),
        (b"CompressedDataSize = ", b"CompressedDataSize = " + b"9" * 5000),
        (b"ElementDataFile = v.zraw", b"ElementDataFile = LIST"),
        (b"ElementDataFile = v.zraw", b"ElementDataFile = " + b"z" * 5000),
        (b"ElementDataFile = v.zraw", b"HeaderSize = 8\nElementDataFile = v.zraw"),
    ],
)
def test_compressed_pixels_that_are_not_where_the_header_says(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = tmp_path / "v.mhd"
    sitk.WriteImage(sitk.Image(8, 7, 6, sitk.sitkInt16), str(path), True)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(MmifError, match=r"v\.mhd: "):
        load(path)


@pytest.mark.parametrize("name", ["v.mha", "v.nrrd", "v.mhd", "v.nhdr"])
def test_simpleitk_volumes_lie_where_simpleitk_puts_them(
    tmp_path: Path, image: sitk.Image, name: str
) -> None:
    sitk.WriteImage(image, str(tmp_path / name))
    seen = sitk.ReadImage(str(tmp_path / name))
    volume = load(tmp_path / name)
    for index in [(0, 0, 0), (2, 3, 4), (1, 0, 3)]:
        point = np.array(seen.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert np.allclose(volume.affine.numpy() @ [*index, 1], [*point, 1])
        assert float(volume[(0, *index)]) == seen[index]
    assert volume.meta["source"].format == "other"


@pytest.mark.parametrize("name", ["v.tif", "v.gipl", "v.vtk"])
def test_a_format_without_geometry_is_refused(tmp_path: Path, image: sitk.Image, name: str) -> None:
    sitk.WriteImage(sitk.Cast(image + 20, sitk.sitkUInt8), str(tmp_path / name))
    with pytest.raises(InputError, match="may lack spacing or orientation") as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "field", "instead", "said"),
    [
        ("v.mha", "ElementSpacing", "", "no ElementSpacing or ElementSize"),
        ("v.mha", "TransformMatrix", "", "no TransformMatrix or Orientation"),
        ("v.nrrd", "space", "space dimension: 3\n", "no space;"),
        ("v.nrrd", "space", "space: scanner-xyz\n", "expected RAS, LAS or LPS"),
        ("v.nrrd", "space directions", "", "no space directions"),
    ],
)
def test_a_header_without_geometry_is_refused(
    tmp_path: Path, image: sitk.Image, name: str, field: str, instead: str, said: str
) -> None:
    path = tmp_path / name
    sitk.WriteImage(image, str(path))
    line = re.compile(rb"(?m)^%s *[=:].*\n" % field.encode())
    assert line.search(path.read_bytes())
    path.write_bytes(line.sub(instead.encode(), path.read_bytes(), count=1))
    with pytest.raises(InputError, match=said):
        load(path)


def test_a_4d_metaimage_needs_a_choice(tmp_path: Path, image: sitk.Image) -> None:
    sitk.WriteImage(sitk.JoinSeries([image, image + 7]), str(tmp_path / "v.mha"))
    with pytest.raises(InputError, match="4-D with 2 volumes"):
        load(tmp_path / "v.mha")
    assert np.array_equal(
        load(tmp_path / "v.mha", frame=1)[0].numpy(), sitk.GetArrayFromImage(image).T + 7
    )


def test_a_colour_metaimage_is_colour(tmp_path: Path) -> None:
    rgb = np.zeros((4, 5, 6, 3), dtype=np.uint8)
    rgb[..., 1] = np.arange(6) * 51
    sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(tmp_path / "v.mha"))
    volume = load(tmp_path / "v.mha")
    assert volume.shape == (3, 6, 5, 4)
    assert np.allclose(volume[1, :, 0, 0].numpy(), np.arange(6) / 5)


def test_a_place_that_is_no_number_is_named() -> None:
    affine = np.eye(4)
    affine[0, 3] = np.nan
    with pytest.raises(GeometryError, match="no finite number"):
        check_grid((5, 5, 5), affine, "v.mha")


def test_minc_is_refused_before_its_library_speaks(
    shared_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="MINC"):
        load(shared_data / "nifti" / "nifti_nibabel" / "minc2_baddim.mnc")
    assert capfd.readouterr().err == ""


def test_a_picture_is_no_volume(tmp_path: Path) -> None:
    flat = sitk.GetImageFromArray(np.arange(60, dtype=np.uint8).reshape(6, 10))
    sitk.WriteImage(flat, str(tmp_path / "p.png"))
    with pytest.raises(InputError, match="a PNG picture"):
        load(tmp_path / "p.png")


@pytest.mark.parametrize("text", ["hello", "ObjectType = Image\nNDims = 3\n", "NRRD0004\n"])
def test_files_that_are_no_volumes_are_one_line(tmp_path: Path, text: str) -> None:
    for name in ("v.mha", "v.nrrd", "v.txt", "v"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_metaimage_that_claims_more_than_it_holds(tmp_path: Path, image: sitk.Image) -> None:
    path = tmp_path / "v.mha"
    sitk.WriteImage(image, str(path))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"DimSize = 3 4 5", b"DimSize = 999 999 999"))
    with pytest.raises(InputError, match="claims 1994005998 bytes"):
        load(path)
    path.write_bytes(data[:-30])
    with pytest.raises(InputError, match="truncated"):
        load(path)


def test_a_wrong_role_and_a_needless_uid_are_refused(tmp_path: Path) -> None:
    nib.Nifti1Image(np.arange(60, dtype="i2").reshape(3, 4, 5), np.eye(4)).to_filename(
        tmp_path / "v.nii"
    )
    with pytest.raises(InputError, match="expected one of ct, mri, spect, pet"):
        load(tmp_path / "v.nii", role="xray")
    with pytest.raises(InputError, match="no series to choose"):
        load(tmp_path / "v.nii", series_uid="1.2.3")


def test_several_paths_are_refused_before_monai_stacks_them(tmp_path: Path) -> None:
    """One path names one volume; MONAI would read the slices as channels."""
    write_series(tmp_path, part(scan(), range(9)))
    slices = sorted(tmp_path.iterdir())[:2]
    for reader in (DicomSeriesReader, NiftiVolumeReader, SimpleItkReader):
        with pytest.raises(InputError, match="2 paths given"):
            LoadImage(reader=reader())(slices)


@pytest.mark.parametrize("workers", [0, 2])
def test_volumes_go_through_batches_and_back(tmp_path: Path, workers: int) -> None:
    """Load, batch, take apart, save: the series is written with its own patient."""
    for name in "ab":
        write_series(tmp_path / name, part(scan(), range(9)), name=name, PatientID=name)
    items = [{"x": str(tmp_path / name)} for name in "ab"]
    loading = LoadImaged("x", reader=DicomSeriesReader, ensure_channel_first=True)
    (batch,) = DataLoader(Dataset(items, loading), batch_size=2, num_workers=workers)
    assert batch["x"].shape == (2, 1, 44, 40, 9)
    saving = SaveImaged(
        "x", output_dir=tmp_path, output_ext="", writer=DicomSeriesWriter, print_log=False
    )
    for name, item in zip("ab", decollate_batch(batch), strict=True):
        saving(item)
        written = dcmread(tmp_path / name / f"{name}_trans" / "0001.dcm")
        assert (written.PatientID, written.Modality) == (name, "CT")


def test_loaded_volumes_can_be_batched(tmp_path: Path) -> None:
    write_series(tmp_path, part(scan(), range(9)))
    (batch,) = DataLoader([load(tmp_path), load(tmp_path)], batch_size=2)
    assert [source_of(one).modality for one in decollate_batch(batch)] == ["CT", "CT"]


def test_colours_keep_their_channels() -> None:
    reader_result = np.zeros((3, 2, 4, 5), dtype=np.float32)
    from mmif.io.monai_reader import monai_meta
    from mmif.io.source import Source

    source = Source(Path("x"), "dicom", "MR", (2, 4, 5), (1.0, 1.0, 1.0))
    volume = to_volume(reader_result, monai_meta(reader_result, np.eye(4), source))
    assert volume.shape == (3, 2, 4, 5)
    assert source_of(volume) is source


@pytest.mark.parametrize("name", ["v.nii.gz", "v.mgz", "v.nrrd", "v.mha"])
def test_damage_inside_of_packed_values_is_refused_by_their_checksum(
    tmp_path: Path, name: str
) -> None:
    grey = np.random.default_rng(1).integers(0, 999, (10, 9, 8), dtype=np.int16)
    path = tmp_path / name
    if name.endswith("gz"):
        kind = nib.Nifti1Image if "nii" in name else nib.MGHImage
        kind(grey if "nii" in name else grey.astype(np.float32), np.eye(4)).to_filename(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(path), True)
    good = load(path).numpy()
    whole = path.read_bytes()
    for at in range(len(whole) - 400, len(whole) - 8, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            found = load(path)
        except MmifError:
            continue
        assert np.array_equal(found.numpy(), good)  # a bit that packs nothing


@pytest.mark.parametrize("name", ["v.nii", "v.nrrd", "v.mha"])
def test_more_bytes_than_a_header_says_are_told(tmp_path: Path, name: str) -> None:
    grey = np.random.default_rng(1).integers(0, 999, (10, 9, 8), dtype=np.int16)
    path = tmp_path / name
    if name == "v.nii":
        nib.Nifti1Image(grey, np.eye(4)).to_filename(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(path))
    assert not load(path).meta["source"].warnings
    path.write_bytes(path.read_bytes() + b"1234")
    assert "4 bytes more than its header says" in " ".join(load(path).meta["source"].warnings)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(MmifError):
        load(path)
