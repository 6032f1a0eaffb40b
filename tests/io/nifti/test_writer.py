"""NIfTI files: one geometry said twice, millimetres, colour as RGB24."""

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import SaveImage
from scipy.spatial.transform import Rotation

from mmif.errors import GeometryError, OutputError
from mmif.geometry import apply, ras_lps
from mmif.io.nifti.writer import NiftiWriter, nifti_image, write_nifti

Volume = Callable[..., MetaTensor]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_sform_and_qform_are_equal_and_in_millimetres(
    suffix: str, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    image = nibabel.load(write_nifti(volume(oblique), tmp_path / f"v{suffix}"))
    (sform, sform_code), (qform, qform_code) = (
        image.get_sform(coded=True),
        image.get_qform(coded=True),
    )
    assert (sform_code, qform_code) == (1, 1)
    np.testing.assert_allclose(sform, qform, atol=1e-5)
    np.testing.assert_allclose(sform, oblique, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert b"NOT FOR PRIMARY DIAGNOSIS" in bytes(image.header["descrip"])


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
)
def test_corners_stay_within_a_hundredth_of_a_millimetre(order, signs, angles, spacing) -> None:
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.eye(3)[:, list(order)] * signs * spacing
    affine[:3, 3] = (-120.5, 88.25, 301.125)
    image = nifti_image(np.zeros((1, 256, 2, 200), np.float32), affine, "test")
    assert corner_error_mm(image.get_sform(), affine, (256, 2, 200)) < 0.01


def corner_error_mm(found: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance between what two affines say of a corner of the volume."""
    corners = list(itertools.product(*((0, size) for size in shape)))
    return float(np.linalg.norm(apply(found, corners) - apply(affine, corners), axis=1).max())


# nothing, the rounding of a header, half a degree, a tilted head
TILT = st.sampled_from((0.0, 0.002, 0.03, 0.5)) | st.floats(0, 15)


@settings(max_examples=60, deadline=None)
@given(
    tilts=st.tuples(TILT, TILT, TILT),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    spacing=st.sampled_from(((1, 1, 5), (0.5, 0.5, 1))),
)
def test_the_fused_grid_keeps_its_axes_at_any_tilt(
    tilts, signs, spacing, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its axes lie near half a turn about z, where a qform in single precision holds least."""
    affine, shape = np.eye(4), (256, 256, 30)
    turned = Rotation.from_euler("xyz", np.multiply(tilts, signs), degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.diag([-1, -1, 1]) * spacing
    affine[:3, 3] = (120.5, 88.25, -301.125)
    image = nifti_image(np.broadcast_to(np.uint8(0), (1, *shape)), affine, "test")
    assert corner_error_mm(image.get_sform(), affine, shape) < 0.01
    assert corner_error_mm(image.get_qform(), affine, shape) < 0.25
    path = tmp_path_factory.getbasetemp() / "tilted.nii"
    nibabel.save(image, path)
    read = sitk.ReadImage(str(path))
    there = np.eye(4)
    there[:3, :3] = np.reshape(read.GetDirection(), (3, 3)) * read.GetSpacing()
    there[:3, 3] = read.GetOrigin()
    assert corner_error_mm(ras_lps(there), nibabel.load(path).affine, shape) < 0.02


def test_the_voxel_order_is_kept_near_half_a_turn() -> None:
    turn = Rotation.from_euler("z", 0.02, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.9, -0.9, 3.0])
    voxels = np.zeros((1, 256, 256, 40), np.float32)
    voxels[0, 200, 30, 7] = 1
    image = nifti_image(voxels, affine, "test")
    np.testing.assert_array_equal(np.argwhere(np.asarray(image.dataobj)), [[200, 30, 7]])


def test_grey_values_are_kept(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    grey = volume(oblique, low=-1000.0)
    image = nibabel.load(write_nifti(grey, tmp_path / "v.nii.gz"))
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), np.asarray(grey[0]))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (torch.bool, np.uint8),
        (torch.uint8, np.uint8),
        (torch.int16, np.int16),
        (torch.int32, np.int32),
        (torch.int64, np.int32),
        (torch.uint64, np.int32),
        (torch.float16, np.float32),
        (torch.float64, np.float32),
    ],
)
def test_every_kind_of_number_is_stored(
    given: torch.dtype, stored: type, oblique: np.ndarray, tmp_path: Path
) -> None:
    mask = torch.arange(24).reshape(1, 2, 3, 4).remainder(2).to(given)
    image = nibabel.load(write_nifti(MetaTensor(mask, affine=oblique), tmp_path / "v.nii"))
    assert image.get_data_dtype() == stored
    np.testing.assert_array_equal(image.get_fdata(), mask[0].double().numpy())


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_integers_beyond_32_bits_are_refused(
    value: int, oblique: np.ndarray, tmp_path: Path
) -> None:
    labels = MetaTensor(torch.full((1, 2, 2, 2), value), affine=oblique)
    with pytest.raises(OutputError, match=r"v\.nii.gz: found values .* expected 32-bit"):
        write_nifti(labels, tmp_path / "v.nii.gz")


def test_colour_is_rgb24(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    colour = volume(oblique, 3)
    colour[1] = 0
    stored = np.asarray(nibabel.load(write_nifti(colour, tmp_path / "v.nii")).dataobj)
    assert stored.dtype.names == ("R", "G", "B")
    assert np.abs(stored["R"] / 255 - np.asarray(colour[0])).max() < 0.501 / 255
    assert stored["G"].max() == 0


def test_a_sheared_volume_is_refused(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    oblique[0, 2] += 1.0
    with pytest.raises(GeometryError, match="sheared"):
        write_nifti(volume(oblique), tmp_path / "v.nii")


def test_a_full_disk_is_one_line(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "v.nii").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"v\.nii: cannot be written \(No space") as refusal:
        write_nifti(volume(oblique), tmp_path / "v.nii")
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_is_one_line(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        write_nifti(volume(oblique), tmp_path / "nowhere" / "v.nii")


def test_monai_saves_through_the_writer(
    volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    saving = SaveImage(
        output_ext=".nii.gz", writer=NiftiWriter, separate_folder=False, print_log=False
    )
    grey = volume(oblique)
    saving(grey, filename=tmp_path / "v")
    image = nibabel.load(tmp_path / "v.nii.gz")
    np.testing.assert_allclose(image.affine, oblique, atol=1e-4)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), np.asarray(grey[0]))
