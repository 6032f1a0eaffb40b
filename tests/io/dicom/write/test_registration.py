"""Transforms in files: written and read back, in the right direction, or refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from scipy.spatial.transform import Rotation

from mmif.errors import GeometryError, InputError, OutputError
from mmif.geometry import Matrix, apply, rigid
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.registration import read_spatial_registration, write_spatial_registration
from mmif.io.source import Source
from mmif.io.transform_files import read_transform, write_itk_transform

Recipe = Callable[..., DerivedSeries]
Faults = Callable[[Path], list[str]]


def turned(angles_deg: tuple[float, float, float], shift: tuple[float, float, float]) -> Matrix:
    rotation = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    return rigid(rotation, shift, (10, -20, 30))


MATRIX = turned((12.0, -7.0, 31.0), (15.5, -3.25, 40.125))


@pytest.fixture
def pair(sources) -> tuple[Source, Source]:
    return sources.dicom("MR"), sources.dicom("CT")


@pytest.fixture
def written(pair: tuple[Source, Source], recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "registration.dcm"
    assert write_spatial_registration(path, recipe(*pair, fixed_to_moving_lps=MATRIX)) == ()
    return path


def edited(path: Path, change: Callable[[Dataset], object]) -> Path:
    ds = dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def test_known_points_go_where_simpleitk_and_slicer_put_them(
    pair: tuple[Source, Source], written: Path, tmp_path: Path
) -> None:
    """Ten points of the fixed image, and where they lie in the moving one, in LPS mm.

    SimpleITK resamples the moving image at ``transform(fixed point)``. 3D Slicer reads the same
    file as the transform *from parent*: a moving node put under it goes by the inverse, in RAS.
    Slicer's import of a Spatial Registration puts the moving series under the matrix of its item,
    between points in RAS, as the transform *to parent*.
    """
    write_itk_transform(tmp_path / "r.tfm", MATRIX)
    transform = sitk.ReadTransform(str(tmp_path / "r.tfm"))
    item = dcmread(written).RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    to_fixed_lps = np.reshape(item.FrameOfReferenceTransformationMatrix, (4, 4)).astype(float)
    ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_parent = ras @ to_fixed_lps @ ras
    for fixed in np.random.default_rng(2025).uniform(-90, 90, (10, 3)):
        moving = apply(MATRIX, fixed)  # where the same tissue lies in the moving image
        np.testing.assert_allclose(transform.TransformPoint(fixed.tolist()), moving, atol=1e-6)
        inverse = transform.GetInverse().TransformPoint(moving.tolist())
        np.testing.assert_allclose(inverse, fixed, atol=1e-6)
        shown = apply(to_parent, apply(ras, moving))
        np.testing.assert_allclose(shown, apply(ras, fixed), atol=1e-5)


def test_a_bright_voxel_of_the_moving_image_is_resampled_onto_its_fixed_point(
    tmp_path: Path,
) -> None:
    """With SimpleITK alone, as a user would: the transform file and two images."""
    write_itk_transform(tmp_path / "r.tfm", MATRIX)
    fixed = sitk.Image(80, 80, 80, sitk.sitkFloat32)
    fixed.SetOrigin((-40.0, -40.0, -40.0))
    point = (7.0, -5.0, 11.0)
    moving = sitk.Image(40, 40, 40, sitk.sitkFloat32)
    moving.SetOrigin((np.array(apply(MATRIX, point)) - 20).tolist())
    moving[20, 20, 20] = 1.0
    transform = sitk.ReadTransform(str(tmp_path / "r.tfm"))
    found = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform))
    k, j, i = np.unravel_index(found.argmax(), found.shape)
    place = fixed.TransformIndexToPhysicalPoint((int(i), int(j), int(k)))
    np.testing.assert_allclose(place, point, atol=0.01)
    assert found.max() > 0.99


@pytest.mark.parametrize("maker", ["dicom", "anonymised"])
def test_the_object_has_no_error_and_no_warning(
    maker: str, sources, recipe: Recipe, faults: Faults, tmp_path: Path
) -> None:
    made = recipe(getattr(sources, maker)("MR"), getattr(sources, maker)("CT"))
    write_spatial_registration(tmp_path / "r.dcm", made)
    assert faults(tmp_path / "r.dcm") == []


@pytest.mark.parametrize(
    ("alignment", "matrix", "codes", "words"),
    [
        ("searched", MATRIX, ["125021", "125024"], "mutual information"),
        ("headers", np.eye(4), ["125021", "125021"], "pose of the headers"),
        ("given", MATRIX, ["125021", None], "given"),
    ],
)
def test_it_claims_a_search_only_where_there_was_one(
    alignment, matrix, codes, words, pair, recipe: Recipe, faults: Faults, tmp_path: Path
) -> None:
    path = tmp_path / "r.dcm"
    write_spatial_registration(path, recipe(*pair, fixed_to_moving_lps=matrix, alignment=alignment))
    assert faults(path) == []
    ds = dcmread(path)
    assert words in ds.ContentDescription
    found = [
        item.MatrixRegistrationSequence[0].RegistrationTypeCodeSequence
        for item in ds.RegistrationSequence
    ]
    assert [kind[0].CodeValue if kind else None for kind in found] == codes
    np.testing.assert_allclose(read_transform(path, *pair), matrix, atol=1e-6)


def test_it_comes_back_in_both_directions(pair: tuple[Source, Source], written: Path) -> None:
    fixed, moving = pair
    forth, back = read_transform(written, fixed, moving), read_transform(written, moving, fixed)
    points = np.array([[100, 100, 100], [-90, 20, 50.0]])
    np.testing.assert_allclose(apply(forth, points), apply(MATRIX, points), atol=1e-6)
    np.testing.assert_allclose(apply(back, apply(forth, points)), points, atol=1e-6)


def test_the_matrix_carries_the_moving_frame_to_the_registered_one(
    pair: tuple[Source, Source], written: Path
) -> None:
    """PS3.3 C.20.2.1.1, as viewers apply it."""
    ds = dcmread(written)
    assert ds.FrameOfReferenceUID == pair[0].frame_of_reference_uid
    fixed_item, moving_item = ds.RegistrationSequence
    assert moving_item.FrameOfReferenceUID == pair[1].frame_of_reference_uid
    numbers = [
        item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
        for item in (fixed_item, moving_item)
    ]
    np.testing.assert_allclose(np.reshape(numbers[0], (4, 4)).astype(float), np.eye(4))
    moving_point = apply(MATRIX, (10.0, 20.0, 30.0))
    found = apply(np.reshape(numbers[1], (4, 4)).astype(float), moving_point)
    np.testing.assert_allclose(found, (10, 20, 30), atol=1e-6)


def test_frames_alone_decide_where_no_image_is_named(
    pair: tuple[Source, Source], written: Path
) -> None:
    def forget_images(ds: Dataset) -> None:
        for item in ds.RegistrationSequence:
            del item.ReferencedImageSequence

    path = edited(written, forget_images)
    np.testing.assert_allclose(read_transform(path, *pair), MATRIX, atol=1e-6)


def test_images_decide_where_both_share_one_frame(sources, recipe: Recipe, tmp_path: Path) -> None:
    one = {"FrameOfReferenceUID": "1.2.3"}
    pair = sources.dicom("MR", **one), sources.dicom("CT", **one)
    write_spatial_registration(tmp_path / "r.dcm", recipe(*pair, fixed_to_moving_lps=MATRIX))
    np.testing.assert_allclose(read_transform(tmp_path / "r.dcm", *pair), MATRIX, atol=1e-6)


def test_the_registered_frame_needs_no_item(pair: tuple[Source, Source], written: Path) -> None:
    path = edited(written, lambda ds: ds.RegistrationSequence.pop(0))
    np.testing.assert_allclose(read_transform(path, *pair), MATRIX, atol=1e-6)


def test_several_matrices_are_composed_in_order(pair: tuple[Source, Source], written: Path) -> None:
    extra = turned((0, 25.0, 0), (1, 2, 3))

    def add(ds: Dataset) -> None:
        step = Dataset()
        step.FrameOfReferenceTransformationMatrixType = "RIGID"
        step.FrameOfReferenceTransformationMatrix = [f"{v:.10g}"[:16] for v in extra.ravel()]
        ds.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence.append(step)

    found = read_transform(edited(written, add), *pair)
    expected = np.linalg.inv(extra @ np.linalg.inv(MATRIX))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_object_of_other_images_is_refused(sources, written: Path) -> None:
    stranger = sources.dicom("PT")
    with pytest.raises(InputError, match="no matrix"):
        read_spatial_registration(written, sources.dicom("MR"), stranger)


def test_contradicting_items_are_refused(pair: tuple[Source, Source], written: Path) -> None:
    def contradict(ds: Dataset) -> None:
        for item in ds.RegistrationSequence:
            del item.ReferencedImageSequence
            item.FrameOfReferenceUID = pair[1].frame_of_reference_uid

    with pytest.raises(InputError, match="2 different matrices"):
        read_transform(edited(written, contradict), *pair)


def test_a_matrix_that_scales_is_refused(pair: tuple[Source, Source], written: Path) -> None:
    def scale(ds: Dataset) -> None:
        step = ds.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
        step.FrameOfReferenceTransformationMatrix = [*np.diag([2, 1, 1, 1]).ravel().tolist()]

    with pytest.raises(GeometryError, match="scales"):
        read_transform(edited(written, scale), *pair)


def test_an_unreadable_matrix_is_refused(pair: tuple[Source, Source], written: Path) -> None:
    def cut(ds: Dataset) -> None:
        step = ds.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
        step.FrameOfReferenceTransformationMatrix = [1, 0, 0]

    with pytest.raises(InputError, match="16 numbers"):
        read_transform(edited(written, cut), *pair)


def test_another_dicom_object_is_refused_by_name(
    pair: tuple[Source, Source], written: Path
) -> None:
    def rename(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.3"
        ds.RegistrationSequence = Sequence()

    with pytest.raises(InputError, match="Deformable Spatial Registration"):
        read_transform(edited(written, rename), *pair)


def test_a_dicom_transform_needs_both_images(written: Path) -> None:
    with pytest.raises(InputError, match="both images"):
        read_transform(written)


@pytest.mark.parametrize("name", ["t.dcm", "t.tfm", "t.h5"])
def test_rubbish_is_one_line(name: str, pair: tuple[Source, Source], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"rubbish " * 40)
    with pytest.raises(InputError, match="not readable") as refusal:
        read_transform(tmp_path / name, *pair)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "line",
    [
        "Parameters_\\0 -0 0 0",
        "Parameters: 0 0 x 0 0 0",
        "caf\u00e9: 0",
        "Parameters: 0 " * 200_000,
    ],
)
def test_a_damaged_text_is_refused_before_itk_reads_it(line: str, tmp_path: Path) -> None:
    """ITK's parser loops without end over some, and puts the bytes of others in its message."""
    path = write_itk_transform(tmp_path / "t.tfm", MATRIX)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], line, lines[4]]), encoding="latin-1")
    with pytest.raises(InputError, match="not readable"):
        read_transform(path)


def test_a_damaged_hdf5_ends_no_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ITK dies of this one, and tells a page about others."""
    path = tmp_path / "t.h5"
    sitk.WriteTransform(sitk.Euler3DTransform(), str(path))
    damaged = bytearray(path.read_bytes())
    damaged[6222:6230] = b"\xff" * 8
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="not readable"):
        read_transform(path)
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such transform file"):
        read_transform(tmp_path / "t.tfm")


@settings(max_examples=60, deadline=None)
@given(angles=st.tuples(*[st.floats(-180, 180)] * 3), shift=st.tuples(*[st.floats(-200, 200)] * 3))
def test_itk_files_come_back(angles, shift, tmp_path_factory: pytest.TempPathFactory) -> None:
    matrix = turned(angles, shift)
    path = write_itk_transform(tmp_path_factory.getbasetemp() / "t.tfm", matrix)
    points = np.array([[100, 100, 100], [-90, 20, 50.0]])
    np.testing.assert_allclose(
        apply(read_transform(path), points), apply(matrix, points), atol=1e-3
    )


def test_simpleitk_carries_a_fixed_point_to_the_moving_one(tmp_path: Path) -> None:
    path = write_itk_transform(tmp_path / "t.tfm", MATRIX)
    found = sitk.ReadTransform(str(path)).TransformPoint((10.0, 20.0, 30.0))
    np.testing.assert_allclose(found, apply(MATRIX, (10, 20, 30)), atol=1e-9)


@pytest.mark.parametrize("name", ["t.txt", "t.h5"])
def test_composed_itk_transforms_are_read(name: str, tmp_path: Path) -> None:
    first, second = sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), sitk.Euler3DTransform()
    second.SetRotation(0.1, 0.2, 0.3)
    sitk.WriteTransform(sitk.CompositeTransform([first, second]), str(tmp_path / name))
    point = (4.0, 5.0, 6.0)
    expected = first.TransformPoint(second.TransformPoint(point))
    np.testing.assert_allclose(apply(read_transform(tmp_path / name), point), expected, atol=1e-9)


@pytest.mark.parametrize(
    "transform", [sitk.ScaleTransform(3, (1.1, 1.0, 1.0)), sitk.Euler2DTransform()]
)
def test_transforms_that_are_not_rigid_in_3d_are_refused(
    transform: sitk.Transform, tmp_path: Path
) -> None:
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    with pytest.raises(GeometryError):
        read_transform(tmp_path / "t.tfm")


def test_a_matrix_that_is_not_rigid_is_not_written(
    pair: tuple[Source, Source], recipe: Recipe, tmp_path: Path
) -> None:
    sheared = MATRIX.copy()
    sheared[0, 1] += 0.5
    with pytest.raises(GeometryError):
        write_itk_transform(tmp_path / "t.tfm", sheared)
    made = recipe(*pair, fixed_to_moving_lps=sheared)
    with pytest.raises(GeometryError):
        write_spatial_registration(tmp_path / "t.dcm", made)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.tfm").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space"):
        write_itk_transform(tmp_path / "t.tfm", MATRIX)


def test_an_odd_value_of_an_object_is_not_repeated(
    written: Path, pair: tuple[Source, Source], tmp_path: Path
) -> None:
    """pydicom warns of it in full, and a warning is an error here; it can be a patient's."""
    data = written.read_bytes()
    at = data.index(b"\x08\x00\x16\x00UI") + 8  # SOPClassUID
    (tmp_path / "odd.dcm").write_bytes(data[:at] + b"Muster" + data[at + 6 :])
    with pytest.raises(InputError, match="expected a Spatial Registration object"):
        read_transform(tmp_path / "odd.dcm", *pair)
