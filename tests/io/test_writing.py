"""One door for every format; and what mmif writes, mmif reads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from PIL import Image
from pydicom import dcmread

from mmif.errors import OutputError
from mmif.geometry import axial_grid, ras_lps, rigid
from mmif.io import load
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.series import write_dicom_series
from mmif.io.source import source_of
from mmif.io.writing import save
from mmif.transforms.slices import grid_of, to_grid

Recipe = Callable[..., DerivedSeries]
Volume = Callable[..., MetaTensor]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mha", "v.nrrd"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_save_writes_load_reads(
    name: str, channels: int, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    before = volume(oblique, channels)
    after = load(save(before, str(tmp_path / name)))
    np.testing.assert_allclose(after.affine, oblique, atol=1e-4)
    np.testing.assert_allclose(np.asarray(after), np.asarray(before), atol=0.501 / 255)


@pytest.mark.parametrize("name", ["v.nii", "v.mha", "v.nrrd"])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float16])
def test_masks_labels_and_half_precision_are_saved(
    name: str, kind: torch.dtype, oblique: np.ndarray, tmp_path: Path
) -> None:
    values = torch.arange(24).reshape(1, 2, 3, 4).remainder(2).to(kind)
    read = sitk.ReadImage(str(save(MetaTensor(values, affine=oblique), tmp_path / name)))
    found = sitk.GetArrayFromImage(read).transpose(2, 1, 0)
    np.testing.assert_array_equal(found, values[0].double().numpy())


def test_simpleitk_images_lie_in_lps(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    image = sitk.ReadImage(str(save(volume(oblique), tmp_path / "v.nrrd")))
    found = image.TransformIndexToPhysicalPoint((3, 5, 1))
    np.testing.assert_allclose(found, (ras_lps(oblique) @ (3, 5, 1, 1))[:3], atol=1e-6)


def test_a_folder_is_a_dicom_series_and_is_not_replaced(
    volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    before = volume(oblique) * 1000
    folder = save(before, tmp_path / "series")
    after = load(folder)
    np.testing.assert_allclose(after.affine, oblique, atol=1e-6)
    np.testing.assert_allclose(np.asarray(after), np.asarray(before), atol=0.1)
    with pytest.raises(OutputError, match="exists"):
        save(before, folder)


def test_what_the_dicom_writer_warns_of_is_logged_without_identity(
    sources, volume: Volume, oblique: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nameless = volume(oblique)
    nameless.meta["source"] = sources.dicom("MR", PatientID=None)
    with caplog.at_level("WARNING", logger="mmif"):
        save(nameless, tmp_path / "series")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no PatientID" in caplog.text
    assert "Muster" not in caplog.text


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_loaded_series_is_saved_with_its_patient_and_its_units(
    modality: str, sources, recipe: Recipe, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    first = recipe(sources.dicom("MR"), sources.dicom(modality), kind="registered")
    write_dicom_series(volume(oblique) * 2000, tmp_path / "first", first)
    before = load(tmp_path / "first")
    after = load(save(before, tmp_path / "second"))
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)
    np.testing.assert_allclose(np.asarray(after), np.asarray(before), atol=0.05)
    old, new = source_of(before), source_of(after)
    assert old is not None
    assert new is not None
    assert (new.modality, new.units, new.patient_key) == (old.modality, old.units, old.patient_key)
    assert new.frame_of_reference_uid == old.frame_of_reference_uid


@pytest.mark.parametrize("reference_frame", ["1.2.3.4", None])
def test_a_volume_that_a_transform_moved_leaves_its_scanners_frame(
    reference_frame: str | None, sources, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    moving, reference = volume(oblique) * 1000, volume(oblique)
    moving.meta["source"] = sources.dicom("CT", PositionReferenceIndicator="NASION")
    if reference_frame:
        reference.meta["source"] = sources.dicom("MR", FrameOfReferenceUID=reference_frame)
    shift = rigid(np.eye(3), [5.0, 0, 0], [0, 0, 0])
    data = {"pose": shift, "other pose": shift @ shift}
    found = []
    for pose in ("pose", "other pose"):
        grid = axial_grid(grid_of(reference), 32)
        moved = to_grid(moving, grid, data[pose], reference=reference)
        for path in sorted(save(moved, tmp_path / pose).iterdir()):
            ds = dcmread(path)
            assert ds.PatientID == "4711"
            assert not ds.PositionReferenceIndicator
            assert len(ds.SourceImageSequence) == 9
        found.append(ds.FrameOfReferenceUID)
    own = source_of(moving)
    assert own is not None
    assert own.frame_of_reference_uid not in found
    if reference_frame:
        assert found == [reference_frame] * 2
    else:
        assert found[0] != found[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_ending_takes_one_slice(
    channels: int, volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    one = volume(oblique, channels)[..., 4]
    pixels = np.asarray(Image.open(save(one, tmp_path / "v.png")))
    assert pixels.shape == ((20, 24) if channels == 1 else (20, 24, 3))
    first = pixels if channels == 1 else pixels[..., 0]
    assert np.abs(first.T / 255 - np.asarray(one[0])).max() < 0.501 / 255


def test_an_image_of_many_slices_is_refused(
    volume: Volume, oblique: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="expected one slice"):
        save(volume(oblique), tmp_path / "v.png")


def test_an_unknown_ending_is_refused(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="unknown format"):
        save(volume(oblique), tmp_path / "v.docx")


def test_a_missing_folder_is_one_line(volume: Volume, oblique: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as refusal:
        save(volume(oblique), tmp_path / "nowhere" / "v.mha")
    assert "\n" not in str(refusal.value)
