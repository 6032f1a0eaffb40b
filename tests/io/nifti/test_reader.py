"""NIfTI volumes: orientation, units and values as the file says, or a refusal that says why."""

import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_corpus import head, landmark_error_mm

from mmif.errors import MmifError
from mmif.geometry import apply
from mmif.io import load

SHAPE = (44, 40, 36)
MM = np.diag([4.0, 4.0, 5.0, 1.0])
RAMP = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 20


def centred(axes: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """An affine with columns ``axes`` (3, 3) mm and the origin in the middle of the volume."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ ((np.array(shape) - 1) / 2)
    return affine


def sampled(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """The head on a grid."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return head(apply(affine, indices) * [-1, -1, 1]).astype(np.float32)


def written(path: Path, values: np.ndarray, affine: np.ndarray | None = MM, **fields: Any) -> Path:
    """A NIfTI-1 file with some header fields set."""
    image = nib.Nifti1Image(values, affine)
    if affine is not None:
        image.set_qform(None, 0)
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


AXES = [
    np.eye(3)[:, order] * signs * [4, 4, 5]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


@pytest.mark.parametrize("number", range(48))
def test_48_orientations_of_either_handedness(tmp_path: Path, number: int) -> None:
    affine = centred(AXES[number])
    path = written(tmp_path / "v.nii", sampled(affine), affine)
    assert landmark_error_mm(load(path)) < 0.1


def test_oblique(tmp_path: Path) -> None:
    turn = np.radians(30)
    about = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = centred(about * [4, 4, 5])
    volume = load(written(tmp_path / "v.nii.gz", sampled(affine), affine))
    assert landmark_error_mm(volume) < 0.1
    assert volume.meta["source"].warnings == ()


def test_shear_is_resampled_and_said(tmp_path: Path) -> None:
    axes = np.diag([4.0, 4.0, 5.0])
    axes[1, 2] = 1.0
    volume = load(written(tmp_path / "v.nii", sampled(centred(axes)), centred(axes)))
    assert landmark_error_mm(volume) < 0.1
    unit = volume.affine.numpy()[:3, :3] / np.linalg.norm(volume.affine.numpy()[:3, :3], axis=0)
    assert np.allclose(unit.T @ unit, np.eye(3), atol=1e-9)
    assert any("sheared" in w for w in volume.meta["source"].warnings)


def test_the_sform_wins_and_it_is_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(RAMP, MM)
    image.set_sform(MM, 2)
    image.set_qform(np.diag([4.0, 4.0, 5.0, 1.0]) + np.eye(4, k=3) * 7, 1)
    image.to_filename(tmp_path / "v.nii")
    volume = load(tmp_path / "v.nii")
    assert np.allclose(volume.affine.numpy(), MM)
    assert "sform and qform disagree by up to 7.0 mm" in volume.meta["source"].warnings[0]


def test_the_qform_is_used_where_the_sform_is_not_valid(tmp_path: Path) -> None:
    image = nib.Nifti1Image(RAMP, MM)
    image.set_qform(MM, 1)
    image.header["sform_code"] = 1
    image.header["srow_x"] = 0
    with (tmp_path / "v.nii").open("wb") as file:
        file.write(image.header.binaryblock + bytes(4) + RAMP.tobytes(order="F"))
    volume = load(tmp_path / "v.nii")
    assert np.allclose(volume.affine.numpy(), MM, atol=1e-5)
    assert "sform is not valid" in volume.meta["source"].warnings[0]


@pytest.mark.parametrize(("stated", "sign"), [(0, 1), (1, 1), (-1, -1), (-3, -1)])
def test_the_handedness_of_a_qform(tmp_path: Path, stated: float, sign: int) -> None:
    """Zero counts as 1 (nifti1.h), and some programs leave it there."""
    image = nib.Nifti1Image(RAMP, None)
    image.set_qform(MM, 1)
    image.to_filename(tmp_path / "v.nii")
    data = bytearray((tmp_path / "v.nii").read_bytes())
    data[76:80] = np.array(stated, "<f4").tobytes()
    data[254:256] = bytes(2)  # no sform
    (tmp_path / "v.nii").write_bytes(data)
    ours = load(tmp_path / "v.nii").affine.numpy()
    assert np.allclose(ours, MM @ np.diag([1, 1, sign, 1]), atol=1e-5)
    theirs = sitk.ReadImage(str(tmp_path / "v.nii"))
    point = np.array(theirs.TransformIndexToPhysicalPoint((1, 2, 3))) * [-1, -1, 1]
    assert np.allclose(apply(ours, np.array([1, 2, 3])), point, atol=1e-4)


def test_no_orientation_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii", RAMP, None)
    with pytest.raises(MmifError, match="no valid orientation"):
        load(path)


@pytest.mark.parametrize(("unit", "scale"), [(1, 1e-3), (3, 1e3), (0, 1.0)])
def test_other_units_become_mm(tmp_path: Path, unit: int, scale: float) -> None:
    affine = MM.copy()
    affine[:3] *= scale
    volume = load(written(tmp_path / "v.nii", RAMP, affine, xyzt_units=unit))
    assert volume.meta["source"].spacing_mm == pytest.approx((4, 4, 5))


def test_spacing_that_no_scanner_makes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MmifError, match=r"spacing 4000 x 4000 x 5000 mm"):
        load(written(tmp_path / "v.nii", RAMP, MM, xyzt_units=1))


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f4"]
)
def test_values_of_every_type(tmp_path: Path, dtype: str) -> None:
    values = np.arange(60).reshape(3, 4, 5).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(values.dtype)
    nib.Nifti1Image(values, MM, header).to_filename(tmp_path / "v.nii")
    assert np.array_equal(load(tmp_path / "v.nii")[0].numpy(), values.astype("f4"))


def test_scl_slope(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii", RAMP)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([2.5, -7], "<f4").tobytes()
    path.write_bytes(data)
    assert np.array_equal(load(path)[0].numpy(), RAMP * 2.5 - 7)


def test_rgb24_is_colour_and_no_source(tmp_path: Path) -> None:
    rgb = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"], rgb["B"] = RAMP + 20, 255
    path = written(tmp_path / "v.nii", rgb)
    volume = load(path)
    assert volume.shape == (3, 3, 4, 5)
    assert np.allclose(volume[0].numpy() * 255, RAMP + 20)
    assert float(volume[2].min()) == 1
    with pytest.raises(MmifError, match="RGB24"):
        load(path, role="mri")


def test_4d_needs_a_choice(tmp_path: Path) -> None:
    values = np.stack([RAMP, RAMP + 5, RAMP * 2], axis=-1)
    path = written(tmp_path / "v.nii.gz", values)
    with pytest.raises(MmifError, match="4-D with 3 volumes; choose one frame, 0 to 2"):
        load(path)
    assert np.array_equal(load(path, frame=2)[0].numpy(), RAMP * 2)
    with pytest.raises(MmifError, match="frame 3 was asked for"):
        load(path, frame=3)


def test_a_trailing_dimension_of_one_is_no_4d(tmp_path: Path) -> None:
    assert load(written(tmp_path / "v.nii", RAMP[..., None])).shape == (1, 3, 4, 5)


def test_nifti2_and_pairs(tmp_path: Path) -> None:
    nib.Nifti2Image(RAMP, MM).to_filename(tmp_path / "v.nii")
    nib.Nifti1Pair(RAMP, MM).to_filename(tmp_path / "p.hdr")
    for name in ("v.nii", "p.hdr", "p.img"):
        assert np.array_equal(load(tmp_path / name)[0].numpy(), RAMP)


@pytest.mark.parametrize("name", ["v.hdr", "v.img"])
def test_analyze_is_refused(tmp_path: Path, name: str) -> None:
    nib.AnalyzeImage(RAMP, MM).to_filename(tmp_path / "v.hdr")
    with pytest.raises(MmifError, match="Analyze"):
        load(tmp_path / name)


def test_names_that_lie_about_gzip(tmp_path: Path) -> None:
    plain = written(tmp_path / "v.nii", RAMP).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(plain)
    (tmp_path / "b.nii").write_bytes(gzip.compress(plain))
    for name in ("a.nii.gz", "b.nii"):
        volume = load(tmp_path / name)
        assert np.array_equal(volume[0].numpy(), RAMP)
        assert "gzip" in volume.meta["source"].warnings[0]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.97])
def test_truncated_files_are_one_line(tmp_path: Path, name: str, kept: float) -> None:
    random = np.random.default_rng(1).integers(-99, 99, (9, 9, 9), dtype=np.int16)
    path = written(tmp_path / name, random)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(MmifError, match="truncated"):
        load(path)


def test_a_huge_claim_takes_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii", RAMP)
    for dims in ([3, 32767, 32767, 32767], [3, 1000, 1000, 1000]):
        data = bytearray(path.read_bytes())
        data[40:48] = np.array(dims, "<i2").tobytes()
        path.write_bytes(data)
        with pytest.raises(MmifError, match="expected"):
            load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    values = RAMP.astype("f4")
    values[1, 2, 3] = bad
    with pytest.raises(MmifError, match="1 values are NaN or infinite"):
        load(written(tmp_path / "v.nii", values))


def test_a_constant_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MmifError, match="every voxel is 0"):
        load(written(tmp_path / "v.nii", RAMP * 0))


@pytest.mark.parametrize("shape", [(3, 20), (4, 15, 1), (6, 5, 2)])
def test_fewer_than_three_slices_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(MmifError, match="at least 3 slices"):
        load(written(tmp_path / "v.nii", RAMP.reshape(shape)))


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MmifError, match="data type code 32"):
        load(written(tmp_path / "v.nii", RAMP.astype(np.complex64)))


def test_a_file_that_is_no_nifti_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "v.nii").write_bytes(b"\0" * 2000)
    (tmp_path / "v.nii.gz").write_bytes(b"\x1f\x8b" + b"junk" * 100)
    for name in ("v.nii", "v.nii.gz"):
        with pytest.raises(MmifError):
            load(tmp_path / name)


def test_hounsfield_units_are_no_mri_and_a_ct_has_negative_values(tmp_path: Path) -> None:
    ct = np.full((9, 9, 9), -1000, dtype=np.int16)
    ct[3:6, 3:6, 3:6], ct[4, 4, 4] = 40, 1200
    with pytest.raises(MmifError, match="are Hounsfield units"):
        load(written(tmp_path / "ct.nii", ct), role="mri")
    assert load(tmp_path / "ct.nii", role="ct").meta["source"].warnings == ()
    warnings = load(written(tmp_path / "t1.nii", RAMP + 20), role="ct").meta["source"].warnings
    assert "no negative values" in warnings[0]


def test_the_source_of_a_nifti(tmp_path: Path) -> None:
    source = load(written(tmp_path / "v.nii", RAMP), role="ct").meta["source"]
    assert (source.format, source.modality, source.units) == ("nifti", "", "HU")
    assert (source.shape, source.series_uid, source.headers) == ((3, 4, 5), None, ())
