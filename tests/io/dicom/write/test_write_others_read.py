"""What others make of mmif's outputs: a landmark must lie within 0.01 mm of where it was put."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from monai.data import MetaTensor
from PIL import Image
from pydicom import dcmread
from scipy.spatial.transform import Rotation

from mmif.geometry import Matrix, apply, ras_lps
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.series import write_dicom_series
from mmif.io.nifti.writer import write_nifti

Recipe = Callable[..., DerivedSeries]
Volume = Callable[..., MetaTensor]
Places = tuple[tuple[int, int, int], ...]
Read = Callable[[Path], tuple[np.ndarray, Matrix]]


def by_simpleitk(folder: Path) -> tuple[np.ndarray, Matrix]:
    """(X, Y, Z[, C]) and voxel-to-RAS mm."""
    files = sorted(map(str, folder.iterdir()))
    if len(files) > 1:
        reader = sitk.ImageSeriesReader()
        files = list(reader.GetGDCMSeriesFileNames(str(folder)))
        reader.SetFileNames(files)
        image = reader.Execute()
    else:
        image = sitk.ReadImage(files[0])
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image)
    return np.swapaxes(voxels, 0, 2), ras_lps(affine)


def by_highdicom(folder: Path) -> tuple[np.ndarray, Matrix]:
    datasets = [dcmread(path) for path in sorted(folder.iterdir())]
    if len(datasets) > 1:
        volume = highdicom.get_volume_from_series(datasets)
    else:
        volume = highdicom.Image.from_dataset(datasets[0]).get_volume()
    return np.asarray(volume.array), ras_lps(volume.affine)  # its axes are slices, rows, columns


def program(name: str) -> str:
    """The program ``name``: beside this Python, or on the path."""
    here = str(Path(sys.executable).parent)
    return shutil.which(name, path=here) or name


def by_dcm2niix(folder: Path) -> tuple[np.ndarray, Matrix]:
    out = folder.parent / f"{folder.name}_nifti"
    out.mkdir()
    subprocess.run(
        [program("dcm2niix"), "-b", "n", "-o", str(out), str(folder)],
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.nii")
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    voxels = np.stack([voxels[c] for c in "RGB"], axis=-1) if voxels.dtype.names else voxels
    return voxels, np.asarray(image.affine)


READERS: dict[str, Read] = {
    "SimpleITK": by_simpleitk,
    "highdicom": by_highdicom,
    "dcm2niix": by_dcm2niix,
}
# reference and others, channels, changes to the recipe
KINDS = {
    "grey MR": (("MR", "CT"), 1, {}),
    "grey SC": (("CT", "NM"), 1, {}),
    "colour": (("MR", "NM"), 3, {}),
    "colour multi-frame": (("MR", "NM"), 3, {"encoding": "multiframe"}),
    "CT": (("MR", "CT"), 1, {"kind": "registered"}),
    "MR": (("CT", "MR"), 1, {"kind": "registered"}),
    "PET": (("MR", "PT"), 1, {"kind": "registered"}),
    "SPECT": (("MR", "NM"), 1, {"kind": "registered"}),
}


def axial() -> Matrix:
    affine = np.diag([-0.9, -0.9, 3.0, 1.0])
    affine[:3, 3] = (110.25, 98.5, -41.75)
    return affine


def sagittal_left_handed() -> Matrix:
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", (5, -4, 9), degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.array([[0, 0, 2.5], [1.1, 0, 0], [0, -1.3, 0]])
    affine[:3, 3] = (-30.5, -110.0, 140.0)
    return affine


def landmark_errors_mm(
    voxels: np.ndarray, affine: Matrix, truth: Matrix, places: Places
) -> Iterator[float]:
    """Distances between the brightest voxels as a reader places them, and where they were put.

    The landmarks are the brightest voxels, ever brighter from the first to the last.
    """
    grey = voxels.astype(float)
    grey = grey.mean(axis=-1) if grey.ndim == 4 else grey
    brightest = np.argsort(grey, axis=None)[-len(places) :]
    for flat, place in zip(brightest, places, strict=True):
        found = apply(affine, np.unravel_index(flat, grey.shape))
        yield float(np.linalg.norm(found - apply(truth, place)))


def check(read: Read, folder: Path, truth: Matrix, places: Places) -> None:
    voxels, affine = read(folder)
    errors = list(landmark_errors_mm(voxels, affine, truth, places))
    assert len(errors) == len(places)
    assert max(errors) < 0.01


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_oblique_volume_is_placed_right(
    kind: str,
    reader: str,
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: Matrix,
    landmarks: Places,
    tmp_path: Path,
) -> None:
    modalities, channels, changes = KINDS[kind]
    made = recipe(*map(sources.dicom, modalities), **changes)
    values = volume(oblique, channels) * (1000 if made.kind == "registered" else 1)
    write_dicom_series(values, tmp_path / "s", made)
    check(READERS[reader], tmp_path / "s", oblique, landmarks)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("affine", [axial(), sagittal_left_handed()], ids=["axial", "sagittal"])
def test_other_orientations_are_placed_right(
    affine: Matrix,
    reader: str,
    sources,
    recipe: Recipe,
    volume: Volume,
    landmarks: Places,
    tmp_path: Path,
) -> None:
    write_dicom_series(volume(affine), tmp_path / "s", recipe(sources.dicom("MR")))
    check(READERS[reader], tmp_path / "s", affine, landmarks)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["grey MR", "colour", "PET"])
def test_anonymised_sources_make_readable_series(
    kind: str,
    reader: str,
    sources,
    recipe: Recipe,
    volume: Volume,
    oblique: Matrix,
    landmarks: Places,
    tmp_path: Path,
) -> None:
    modalities, channels, changes = KINDS[kind]
    made = recipe(*map(sources.anonymised, modalities), **changes)
    write_dicom_series(volume(oblique, channels), tmp_path / "s", made)
    check(READERS[reader], tmp_path / "s", oblique, landmarks)


@pytest.mark.parametrize("channels", [1, 3])
def test_nifti_is_placed_right_by_simpleitk_and_nibabel(
    channels: int, volume: Volume, oblique: Matrix, landmarks: Places, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    path = write_nifti(volume(oblique, channels), tmp_path / "s" / "v.nii.gz")
    image = nibabel.load(path)
    stored = np.asarray(image.dataobj)
    grey = stored["R"] if stored.dtype.names else stored
    assert max(landmark_errors_mm(grey, image.affine, oblique, landmarks)) < 0.01
    check(by_simpleitk, tmp_path / "s", oblique, landmarks)


@pytest.mark.parametrize("channels", [1, 3])
def test_dcmtk_draws_the_same_picture(
    channels: int, sources, recipe: Recipe, volume: Volume, tmp_path: Path
) -> None:
    program = shutil.which("dcm2pnm", path="/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("dcm2pnm of dcmtk is not installed")
    made = recipe(sources.dicom("MR"), sources.dicom("NM"))
    drawn = volume(np.eye(4), channels)
    write_dicom_series(drawn, tmp_path / "s", made)
    for path in sorted((tmp_path / "s").iterdir()):
        ds = dcmread(path)
        window = [] if channels == 3 else ["+Ww", "16384", "32768"]  # all that is stored
        picture = tmp_path / "picture.ppm"
        subprocess.run([program, *window, str(path), str(picture)], check=True)
        found = np.asarray(Image.open(picture)).astype(float)
        stored = ds.pixel_array.astype(float)
        expected = stored if channels == 3 else stored / 32768 * 255
        np.testing.assert_allclose(found, expected, atol=0 if channels == 3 else 1.0)
