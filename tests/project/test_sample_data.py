"""The simulated head is small, simulated, where its truth says, and whole."""

import json
from pathlib import Path

import numpy as np
import pytest

import mmif
from mmif.geometry import apply, check_rigid, ras_lps, rotation_deg

EXPECTED = {
    "ct": ("CT", (256, 256, 44), (0.9375, 0.9375, 3.5)),
    "mri.nii.gz": ("", (224, 240, 52), (1, 1, 3)),
    "spect.dcm": ("NM", (64, 64, 52), (3.9, 3.9, 3.9)),
}


def test_it_is_under_ten_megabytes(sample_data: Path) -> None:
    files = [f for f in sample_data.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) < 10_000_000


@pytest.mark.parametrize("name", EXPECTED)
def test_each_scan_is_read_with_its_modality_and_grid(sample_data: Path, name: str) -> None:
    modality, shape, spacing = EXPECTED[name]
    volume = mmif.load(sample_data / name)
    source = volume.meta["source"]
    assert source.modality == modality
    assert tuple(volume.shape[1:]) == shape
    np.testing.assert_allclose(source.spacing_mm, spacing, rtol=1e-5)


def test_the_scans_lie_about_30_mm_and_10_degrees_apart(sample_data: Path) -> None:
    truth = json.loads((sample_data / "truth.json").read_text())
    points = np.array(truth["brain_points_mri_lps"])
    for name, degrees in (("mri_to_ct", 10), ("mri_to_spect", 9)):
        matrix = check_rigid(truth[name], name)
        assert rotation_deg(matrix) == pytest.approx(degrees, abs=0.01)
        away = np.linalg.norm(apply(matrix, points) - points, axis=1)
        assert 25 < away.mean() < 35


@pytest.mark.parametrize(("name", "low", "high"), [("ct", 0, 60), ("spect.dcm", 250, 9999)])
def test_the_truth_puts_points_of_the_brain_onto_brain(
    sample_data: Path, name: str, low: float, high: float
) -> None:
    truth = json.loads((sample_data / "truth.json").read_text())
    points = np.array(truth["brain_points_mri_lps"])
    volume = mmif.load(sample_data / name)
    matrix = truth["mri_to_ct" if name == "ct" else "mri_to_spect"]
    to_voxel = np.linalg.inv(ras_lps(np.asarray(volume.affine)))
    index = apply(to_voxel, apply(matrix, points)).round().astype(int)
    inside = ((index >= 0) & (index < volume.shape[1:])).all(axis=1)
    i, j, k = index[inside].T
    values = volume[0].numpy()[i, j, k]
    assert inside.mean() > 0.95
    assert ((values > low) & (values < high)).mean() > 0.9
