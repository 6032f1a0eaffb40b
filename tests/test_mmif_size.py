"""More pixels on the fused grid: voxels, files and report follow ``--size``."""

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

import mmif
from mmif import fusion_transforms
from mmif.geometry import apply
from mmif.io import load
from mmif.transforms.axial_grid import OutlinePatientd

FEW = 4
"""Slices of the sample's CT that are fused."""


@pytest.fixture
def few(sample_data: Path, tmp_path: Path) -> Path:
    """The middle slices of the sample's CT."""
    folder = tmp_path / "ct"
    folder.mkdir()
    every = (sample_data / "ct").glob("*.dcm")
    files = {float(pydicom.dcmread(path).ImagePositionPatient[2]): path for path in every}
    slices = [files[z] for z in sorted(files)]
    for path in slices[20 : 20 + FEW]:
        shutil.copy(path, folder)
    return folder


def test_384_pixels_reach_dicom_nifti_and_the_report(
    few: Path, sample_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    spect = sample_data / "spect.dcm"
    summary = mmif.fuse(ct=few, spect=spect, output=out, size=384, format="both", register=False)
    ct = load(few, role="ct")
    field_mm = ct.shape[1] * float(np.linalg.norm(np.asarray(ct.affine)[:3, 0]))
    assert summary.grid.shape == (384, 384, FEW)
    assert summary.grid.spacing_mm[:2] == pytest.approx((field_mm / 384,) * 2, abs=1e-5)
    for path in (out / "fused").glob("*.dcm"):
        ds = pydicom.dcmread(path)
        assert ds.pixel_array.shape == (384, 384, 3)
        assert [float(mm) for mm in ds.PixelSpacing] == pytest.approx([field_mm / 384] * 2)
    written = nibabel.load(out / "fused.nii.gz")
    assert written.shape[:3] == (384, 384, FEW)
    np.testing.assert_allclose(
        np.abs(written.affine[:3, :3]).max(axis=0)[:2], field_mm / 384, rtol=1e-5
    )
    page = (out / "report.html").read_text()
    study = json.loads(re.search(r'id="study">(.*?)</script>', page, re.DOTALL)[1])
    assert study["spacing"][0] == pytest.approx(field_mm / 384 * study["factors"][0])
    assert study["first"][0] + study["shape"][0] * study["factors"][0] <= 384 + study["factors"][0]
    assert "384 × 384 × 4" in page


@pytest.mark.parametrize("size", [256, 512])
def test_the_grid_covers_the_same_field_of_view_in_any_size(
    few: Path, sample_data: Path, size: int
) -> None:
    steps = fusion_transforms("spect-ct", size=size, register=False).up_to(OutlinePatientd)
    data = steps({"ct": few, "spect": sample_data / "spect.dcm"})
    for role in ("ct", "spect"):
        assert data[role].shape == (1, size, size, FEW)
    grid, ct = data["study"].grid, load(few, role="ct")
    field_mm = ct.shape[1] * float(np.linalg.norm(np.asarray(ct.affine)[:3, 0]))
    assert grid.spacing_mm[0] * size == pytest.approx(field_mm)
    middle = (np.array(ct.shape[1:]) - 1) / 2
    assert grid.centre_ras == pytest.approx(apply(np.asarray(ct.affine), middle), abs=1e-3)
