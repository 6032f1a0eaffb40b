"""The main job on the simulated head: registered, fused, and at the right place in every format."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from scipy import ndimage

import mmif
from mmif.cli import main
from mmif.config import load_pipeline
from mmif.errors import InputError
from mmif.result import FusionResult
from mmif.study import fuse
from mmif.summary import summarise

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def fused_ct(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the README's main command, in both formats."""
    out = tmp_path_factory.mktemp("sample") / "fused"
    fuse(
        ct=sample_data / "ct",
        mri=sample_data / "mri.nii.gz",
        output=out,
        format="both",
        save_registered=True,
    )
    return out


def mean_error_mm(summary: dict[str, Any], sample_data: Path, role: str) -> float:
    truth = json.loads((sample_data / "truth.json").read_text())
    points = np.array(truth["brain_points_mri_lps"])
    true, found = (
        points @ np.array(m)[:3, :3].T + np.array(m)[:3, 3]
        for m in (truth[f"mri_to_{role}"], summary["registration"]["fixed_to_moving_lps"])
    )
    return float(np.linalg.norm(true - found, axis=1).mean())


def test_the_ct_is_registered_within_1_mm_and_trusted(fused_ct: Path, sample_data: Path) -> None:
    summary = json.loads((fused_ct / "summary.json").read_text())
    assert mean_error_mm(summary, sample_data, "ct") < 1.0
    assert summary["registration"]["verdict"] == "pass"


def test_the_spect_is_registered_within_3_mm_and_fused_in_colour(
    sample_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fused.nii.gz"
    summary = fuse(spect=sample_data / "spect.dcm", mri=sample_data / "mri.nii.gz", output=out)
    assert mean_error_mm(summary, sample_data, "spect") < 3.0
    assert summary["registration"]["verdict"] == "pass"
    assert nibabel.load(out).get_data_dtype().names == ("R", "G", "B")


def test_the_terminal_says_what_was_chosen_of_each_input(sample_data: Path, tmp_path: Path) -> None:
    inputs = ["--ct", str(sample_data / "ct"), "--mri", str(sample_data / "mri.nii.gz")]
    options = ["-o", str(tmp_path / "fused"), "--no-report", "--no-register"]
    said = CliRunner().invoke(main, ["fuse", *inputs, *options, "--accept-registration"])
    assert said.exit_code == 0, said.output
    (chosen,) = [line for line in said.output.splitlines() if line.startswith("ct: ")]
    assert "1 of 1 series usable as ct" in chosen
    assert "Head CT 3.5 mm (simulated)" in chosen
    assert "256 x 256, 0.9375 x 0.9375 x 3.5 mm" in chosen
    assert "mri: the only volume of its file" in said.output


def corners_lps(affine_lps: Array, shape: tuple[int, ...]) -> Array:
    indices = np.array([[i * (n - 1) for i, n in zip(bits, shape, strict=True)] for bits in BITS])
    return np.asarray(indices @ affine_lps[:3, :3].T + affine_lps[:3, 3])


def head_error_mm(found: Any, true: Array, points: Array) -> float:
    """Mean distance of ``points`` carried by two transforms of one direction (LPS mm)."""
    carried = [points @ np.array(m)[:3, :3].T + np.array(m)[:3, 3] for m in (found, true)]
    return float(np.linalg.norm(carried[0] - carried[1], axis=1).mean())


def test_ct_and_spect_are_fused_without_an_mri(sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = fuse(ct=sample_data / "ct", spect=sample_data / "spect.dcm", output=out)
    truth = json.loads((sample_data / "truth.json").read_text())
    points = np.array(truth["brain_points_mri_lps"])
    to_ct, to_spect = (np.array(truth[f"mri_to_{role}"]) for role in ("ct", "spect"))
    in_ct = points @ to_ct[:3, :3].T + to_ct[:3, 3]
    found = summary.registrations["spect"]
    assert (summary.task, summary.reference) == ("spect-ct", "ct")
    assert found.verdict == "pass", found.reasons
    true = to_spect @ np.linalg.inv(to_ct)
    assert head_error_mm(found.fixed_to_moving_lps, true, in_ct) < 3.0
    assert (out / "registration.dcm").is_file()
    assert pydicom.dcmread(next((out / "fused").iterdir())).SamplesPerPixel == 3
    seen = summary.readability  # by the limits over an MRI
    assert seen["activity_rho"] > 0.985
    assert seen["activity_error"] < 0.025
    assert seen["anatomy_slope"] > 0.6
    assert seen["activity_slope"] > 0.25
    assert seen["ct_gain"] > 0.45
    assert seen["bone"] > 0.6


@pytest.fixture(scope="module")
def fused_three(sample_data: Path) -> FusionResult:
    """CT, MRI and SPECT in one volume."""
    result = fuse(
        ct=sample_data / "ct",
        mri=sample_data / "mri.nii.gz",
        spect=sample_data / "spect.dcm",
    )
    assert isinstance(result, FusionResult)
    return result


def test_three_sources_are_registered_each_with_a_verdict(
    fused_three: FusionResult, sample_data: Path
) -> None:
    truth = json.loads((sample_data / "truth.json").read_text())
    points = np.array(truth["brain_points_mri_lps"])
    assert [source.role for source in fused_three.moving] == ["ct", "spect"]
    for source, limit_mm in zip(fused_three.moving, (2.0, 3.0), strict=True):
        assert source.registration is not None
        assert source.registration.verdict == "pass"
        found, true = source.registration.fixed_to_moving_lps, truth[f"mri_to_{source.role}"]
        assert head_error_mm(found, true, points) < limit_mm


def test_the_verdict_of_three_is_the_worst(fused_three: FusionResult) -> None:
    spect = fused_three.sources["spect"]
    assert spect.registration is not None
    doubted = replace(spect, registration=replace(spect.registration, verdict="review"))
    sources = {**fused_three.sources, "spect": doubted}
    summary = summarise(replace(fused_three, sources=sources), load_pipeline("ct-mri-spect"))
    assert summary.registrations["ct"].verdict == "pass"
    assert summary.registration.verdict == "review"


def test_of_three_the_grey_ones_are_fused_first(fused_three: FusionResult) -> None:
    """Where the SPECT has nothing at all, the volume is that of CT and MRI, without colour."""
    ct, mri, spect = (fused_three.sources[role] for role in ("ct", "mri", "spect"))
    assert fused_three.fused.shape == (3, *fused_three.grid.shape)
    assert spect.colour_map == "activity"
    assert fused_three.fusion["grey_weights"]["name"] == "ct-mri"
    outside = ~spect.coverage.above(0)
    assert np.ptp(fused_three.fused.numpy()[:, outside], axis=0).max() < 1e-6
    bone = (ct.values[0] > 500) & (mri.unit[0] < 0.3)
    assert float(fused_three.fused.mean(dim=0)[bone].mean()) > 0.5


def test_of_three_each_is_read_as_of_two(fused_three: FusionResult) -> None:
    """The grey ones by the limits of CT with MRI, and the activity by its colours."""
    seen = fused_three.readability
    assert seen["mri_gain"] > 0.85
    assert seen["mri_correlation"] > 0.92
    assert seen["bone"] > 0.93
    assert seen["not_mri"] < 0.4
    assert seen["activity_rho"] > 0.98


BITS = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]


def sitk_affine(image: sitk.Image) -> Array:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def pydicom_affine(files: list[Path]) -> Array:
    """PS3.3 C.7.6.2.1.1, the slices in the order of the files."""
    first, last = (pydicom.dcmread(f, stop_before_pixels=True) for f in (files[0], files[-1]))
    along_row, along_column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    positions = [np.array(ds.ImagePositionPatient, float) for ds in (first, last)]
    affine = np.eye(4)
    affine[:3, 0] = along_row * float(first.PixelSpacing[1])
    affine[:3, 1] = along_column * float(first.PixelSpacing[0])
    affine[:3, 2] = (positions[1] - positions[0]) / (len(files) - 1)
    affine[:3, 3] = positions[0]
    return affine


@pytest.mark.parametrize("kind", ["fused", "registered"])
def test_every_reader_finds_the_volume_at_the_same_place(fused_ct: Path, kind: str) -> None:
    grid = json.loads((fused_ct / "summary.json").read_text())["grid"]
    expected = corners_lps(np.diag([-1.0, -1, 1, 1]) @ np.array(grid["affine_ras"]), grid["shape"])
    nifti = nibabel.load(fused_ct / f"{kind}.nii.gz")
    files = sorted((fused_ct / kind).glob("*.dcm"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(fused_ct / kind)))
    series = reader.Execute()
    for affine, shape in (
        (np.diag([-1.0, -1, 1, 1]) @ nifti.affine, nifti.shape),
        (sitk_affine(sitk.ReadImage(str(fused_ct / f"{kind}.nii.gz"))), nifti.shape),
        (sitk_affine(series), series.GetSize()),
        (pydicom_affine(files), (*nifti.shape[:2], len(files))),
    ):
        assert np.abs(corners_lps(affine, shape) - expected).max() < 0.01


def test_dicom_and_nifti_hold_the_same_fused_values(fused_ct: Path) -> None:
    nifti = np.asarray(nibabel.load(fused_ct / "fused.nii.gz").dataobj)
    dicom = mmif.load(fused_ct / "fused")
    assert np.corrcoef(nifti.ravel(), dicom[0].numpy().ravel())[0, 1] > 0.9999


def test_the_registered_ct_keeps_its_hounsfield_units(fused_ct: Path) -> None:
    dicom, nifti = mmif.load(fused_ct / "registered"), nibabel.load(fused_ct / "registered.nii.gz")
    assert np.abs(dicom[0].numpy() - np.asarray(nifti.dataobj)).max() <= 0.51
    assert dicom.min() < -900
    assert dicom.max() > 900


@pytest.fixture(scope="module")
def half_ct(sample_data: Path) -> FusionResult:
    """The head with the anterior half of the CT alone, where the truth puts it."""
    ct = mmif.load(sample_data / "ct")
    truth = json.loads((sample_data / "truth.json").read_text())
    half = ct[:, :, : ct.shape[2] // 2]
    matrix = np.array(truth["mri_to_ct"])
    moved = half.clone()
    moved.affine = (
        np.diag([-1.0, -1, 1, 1])
        @ np.linalg.inv(matrix)
        @ np.diag([-1.0, -1, 1, 1])
        @ np.asarray(half.affine)
    )
    return fuse(ct=moved, mri=mmif.load(sample_data / "mri.nii.gz"), register=False)


def test_no_edge_stands_where_half_a_ct_ends(half_ct: FusionResult) -> None:
    """Steps of the fused volume in the soft zone are no larger than those of the sources.

    White bone has to end within the zone: its steps may be steeper than the fading of its source.
    """
    weight = half_ct.moving[0].coverage[0].numpy()
    zone = (weight[:, 1:] > 0) & (weight[:, 1:] < 1)
    steps = np.abs(np.diff(half_ct.fused[0].numpy(), axis=1))
    sources = np.maximum(
        np.abs(np.diff(half_ct.sources["mri"].unit[0].numpy(), axis=1)),
        np.abs(np.diff(half_ct.moving[0].unit[0].numpy(), axis=1)),
    )
    bone = ndimage.binary_dilation(half_ct.moving[0].values[0].numpy() > 200, iterations=2)[:, 1:]
    for where, most in ((zone & ~bone, 1.1), (zone & bone, 1.5)):
        assert where.sum() > 1000
        for percentile in (90, 99):
            limit = most * np.percentile(sources[where], percentile) + 0.01
            assert np.percentile(steps[where], percentile) < limit


def test_beyond_half_a_ct_the_mri_stands_alone(half_ct: FusionResult) -> None:
    outside = half_ct.moving[0].coverage[...] == 0
    assert outside.float().mean() > 0.2
    assert half_ct.fused[outside].equal(half_ct.sources["mri"].unit[outside])


def test_air_is_black_and_bone_is_bright(fused_ct: Path) -> None:
    """Where the CT, as shown, is above 90 % and covers the head, at least 85 % of it stays."""
    fused = np.asarray(nibabel.load(fused_ct / "fused.nii.gz").dataobj)
    ct = np.asarray(nibabel.load(fused_ct / "registered.nii.gz").dataobj)
    summary = json.loads((fused_ct / "summary.json").read_text())
    window, covered = summary["windows"]["ct"], np.array(summary["coverage"]["per_slice"]) == 1
    shown = np.clip((ct - window["low"]) / (window["high"] - window["low"]), 0, 1)
    bone = (shown > 0.9) & covered
    assert 255 * fused[:16, :16].mean() < 0.1
    assert fused[bone].mean() / shown[bone].mean() >= 0.85


def test_two_patients_are_refused_unless_accepted(sample_data: Path, tmp_path: Path) -> None:
    volume = mmif.load(sample_data / "mri.nii.gz")[:, ::4, ::4, ::4]
    mmif.save(volume, tmp_path / "mr")
    for file in (tmp_path / "mr").iterdir():
        ds = pydicom.dcmread(file)
        ds.PatientID, ds.PatientName = "Somebody", "Else^Somebody"
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        ds.Modality = "MR"
        ds.save_as(file)
    options = {"ct": sample_data / "ct", "mri": tmp_path / "mr", "register": False}
    with pytest.raises(InputError, match="two different PatientIDs") as caught:
        fuse(**options, output=tmp_path / "refused")
    assert "Somebody" not in str(caught.value)
    assert not (tmp_path / "refused").exists()
    summary = fuse(**options, output=tmp_path / "out", report=False, accept_different_patients=True)
    assert any("different PatientIDs" in warning for warning in summary["warnings"])
