"""What is no volume is named as what it is, and headers reach only their own folder."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mmif.errors import GeometryError, InputError
from mmif.io.images import read_image
from mmif.io.loading import load

META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = 3 3 3\nDimSize = 8 7 6\n"
)
GREY = np.arange(6 * 7 * 8, dtype="<i2").reshape(6, 7, 8)


def tar(member: bytes = b"x" * 600) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.size = len(member)
        archive.addfile(info, io.BytesIO(member))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("a.nii.gz", b"<!DOCTYPE html><html>404</html>", "HTML"),
        ("a.nii.gz", gzip.compress(b"<html>404</html>"), "HTML"),
        ("a.tar", tar(), "tar archive"),
        ("a.nii.gz", gzip.compress(tar()), "tar archive"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z archive"),
        ("a.nii", b"%!PS-Adobe", "PostScript"),
    ],
)
def test_what_is_no_volume_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["../else.raw", "/etc/hostname", "pipe.raw", "link.raw", "LIST"])
def test_a_detached_header_reaches_only_regular_files_of_its_folder(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "else.raw").write_bytes(GREY.tobytes())
    os.mkfifo(folder / "pipe.raw")
    (folder / "link.raw").symlink_to(tmp_path / "else.raw")
    text = META + f"Offset = 0 0 0\nElementType = MET_SHORT\nElementDataFile = {name}\n"
    (folder / "m.mhd").write_text(text)
    with pytest.raises(InputError, match=r"m\.mhd"):
        load(folder / "m.mhd")


def test_a_metaimage_without_offset_is_read_and_said(tmp_path: Path) -> None:
    text = META + "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "m.mha").write_bytes(text.encode() + GREY.tobytes())
    volume = load(tmp_path / "m.mha", role="mri")
    assert np.array_equal(np.asarray(volume)[0], GREY.T)
    assert any("Offset" in warning for warning in volume.meta["source"].warnings)


@pytest.mark.parametrize("line", ['space units: "cm" "cm" "cm"', "kinds: space space complex"])
def test_nrrd_axes_that_itk_ignores_are_refused(tmp_path: Path, line: str) -> None:
    head = (
        "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 7 6\n"
        f"space directions: (3,0,0) (0,3,0) (0,0,3)\nspace origin: (0,0,0)\n{line}\n"
        "endian: little\nencoding: raw\n\n"
    )
    (tmp_path / "v.nrrd").write_bytes(head.encode() + GREY.tobytes())
    with pytest.raises(InputError, match="expected"):
        load(tmp_path / "v.nrrd")


def test_a_freesurfer_volume_is_read_and_one_cut_short_is_refused(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 2, 5], [-1, 0, 0, 6], [0, -1, 0, 7], [0, 0, 0, 1.0]])
    nib.save(nib.MGHImage(GREY.T.astype(np.float32), affine), tmp_path / "m.mgz")
    volume = load(tmp_path / "m.mgz", role="mri")
    assert np.array_equal(np.asarray(volume)[0], GREY.T)
    assert np.allclose(volume.affine, affine)
    (tmp_path / "m.mgz").write_bytes((tmp_path / "m.mgz").read_bytes()[:-40])
    with pytest.raises(InputError, match="truncated"):
        load(tmp_path / "m.mgz")


def image(values: np.ndarray, path: Path, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(values, np.eye(4) * 3 if affine is None else affine), path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_outside_of_the_image_was_not_measured(
    tmp_path: Path, bad: float
) -> None:
    values = np.full((9, 9, 9), bad, dtype=np.float32)
    values[2:7, 2:7, 2:7] = np.arange(125).reshape(5, 5, 5) + 3
    image(values, tmp_path / "m.nii")
    volume = load(tmp_path / "m.nii", role="mri")
    assert float(volume.min()) == 3
    assert any("NaN" in warning for warning in volume.meta["source"].warnings)
    values[4, 4, 4] = bad
    image(values, tmp_path / "m.nii")
    with pytest.raises(InputError, match="1 values are NaN or infinite inside"):
        load(tmp_path / "m.nii")


@pytest.mark.parametrize("background", [-2000, -32768])
def test_a_background_far_below_an_mri_becomes_its_lowest_value(
    tmp_path: Path, background: int
) -> None:
    values = np.full((9, 9, 9), background, dtype=np.int16)
    values[2:7, 2:7, 2:7] = np.arange(125).reshape(5, 5, 5)
    image(values, tmp_path / "m.nii")
    volume = load(tmp_path / "m.nii", role="mri")
    assert (float(volume.min()), float(volume.max())) == (0, 124)
    assert any("background" in warning for warning in volume.meta["source"].warnings)


def test_an_identity_against_pixdim_was_never_set(tmp_path: Path) -> None:
    made = nib.Nifti1Image(GREY.T, None)
    made.set_qform(np.diag([2.0, 2, 3, 1]), code=1)
    made.set_sform(np.eye(4), code=1)
    made.header["pixdim"][1:4] = (2, 2, 3)
    nib.save(made, tmp_path / "m.nii")
    volume = load(tmp_path / "m.nii")
    assert np.allclose(volume.affine, np.diag([2.0, 2, 3, 1]))
    assert any("sform" in warning for warning in volume.meta["source"].warnings)
    made.header["qform_code"] = 0
    nib.save(made, tmp_path / "m.nii")
    with pytest.raises(GeometryError, match="identity"):
        load(tmp_path / "m.nii")


def test_a_pair_in_capitals_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(GREY.T, np.eye(4) * 3), tmp_path / "a.img")
    (tmp_path / "a.img").rename(tmp_path / "A.IMG")
    (tmp_path / "a.hdr").rename(tmp_path / "A.HDR")
    for name in ("A.IMG", "A.HDR"):
        assert np.array_equal(np.asarray(load(tmp_path / name))[0], GREY.T)


def test_a_picture_of_another_format_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(InputError, match="expected PNG, JPEG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("sides", ["93", "11", "-3", "0", "3x", "99999999999999999999"])
def test_more_axes_than_itk_has_room_for_never_reach_it(tmp_path: Path, sides: str) -> None:
    """It writes beyond its arrays then: the process ends, or worse."""
    text = META.replace("NDims = 3", f"NDims = {sides}")
    text += "Offset = 0 0 0\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(text.encode() + GREY.tobytes())
    with pytest.raises(InputError, match=f"NDims {sides[:20]}; expected 3"):
        load(tmp_path / "a.mha")


@pytest.mark.parametrize("field", ["Offset", "ElementSpacing", "TransformMatrix"])
def test_a_field_that_itk_leaves_out_is_no_default(tmp_path: Path, field: str) -> None:
    """Behind a line without ``=`` it reads the next field as part of it."""
    turned = META.replace("1 0 0 0 1 0 0 0 1", "0 1 0 1 0 0 0 0 1")
    text = turned + "Offset = -30 -40 20\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path = tmp_path / "a.mha"
    path.write_bytes(text.encode() + GREY.tobytes())
    assert load(path).shape == (1, 8, 7, 6)
    text = text.replace(f"{field} =", f"Lost 0 1\n{field} =")
    path.write_bytes(text.encode() + GREY.tobytes())
    with pytest.raises(InputError, match=f"{field} .* is not read as such"):
        load(path)
