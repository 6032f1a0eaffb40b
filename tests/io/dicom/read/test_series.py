"""Series are found by content, chosen by stated rules, and refused with reasons."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from dicom_corpus import (
    AXIAL,
    CT,
    MR,
    PT,
    SC,
    axis_directions,
    base,
    landmark_error_mm,
    part,
    save,
    scan,
    write_enhanced,
    write_nuclear,
    write_series,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from mmif.cli import main
from mmif.errors import InputError, MmifError
from mmif.io import find_series, load
from mmif.io.inventory import inventory

SMALL = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 22))


def mixed_study(folder: Path) -> str:
    """A study with everything that lies around in hospitals; returns the CT's UID."""
    uid = write_series(folder / "deep" / "er", SMALL, CT)
    write_series(folder / "mr", SMALL, MR, name="m")
    write_series(
        folder, part(SMALL, [3]), CT, name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    screen = base(SC, generate_uid(), generate_uid(), "CT")
    screen.Rows = screen.Columns = 4
    screen.PixelData = bytes(32)
    save(screen, folder / "dose")
    for number, (name, modality) in enumerate(
        [
            ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
            ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
            ("1.2.840.10008.5.1.4.1.1.88.22", "SR"),
            ("1.2.840.10008.5.1.4.1.1.4.2", "MR"),
        ]
    ):
        save(base(name, generate_uid(), generate_uid(), modality), folder / f"object{number}")
    (folder / "junk.dcm").write_bytes(b"not an image at all" * 20)
    (folder / "empty").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(bytes(range(256)) * 4)
    return uid


def test_a_mixed_study_gives_its_ct(tmp_path: Path) -> None:
    uid = mixed_study(tmp_path)
    source = load(tmp_path, role="ct").meta["source"]
    assert source.series_uid == uid
    assert "1 of 8 series usable as ct" in source.selection
    assert load(tmp_path, role="mri").meta["source"].modality == "MR"


def test_every_object_of_a_mixed_study_has_its_reason(tmp_path: Path) -> None:
    mixed_study(tmp_path)
    reasons = {info.object_name: info.reason for info in find_series(tmp_path) if info.reason}
    assert "localizer" in reasons["CT Image Storage"]
    assert "without position" in reasons["Secondary Capture Image Storage"]
    for name in (
        "Segmentation Storage",
        "Grayscale Softcopy Presentation State Storage",
        "Enhanced SR Storage",
        "MR Spectroscopy Storage",
    ):
        assert reasons[name] == f"{name}: not a volume image"
    assert {Path(file.name).name for file in inventory(tmp_path).ignored} == {
        "junk.dcm",
        "empty",
        "Thumbs.db",
    }


@pytest.mark.parametrize("number", range(4))
def test_objects_that_are_no_images_are_refused_by_name(tmp_path: Path, number: int) -> None:
    mixed_study(tmp_path)
    with pytest.raises(InputError, match="Storage: not a volume image"):
        load(tmp_path / f"object{number}")
    with pytest.raises(InputError, match="without position"):
        load(tmp_path / "dose")


def test_a_refusal_names_its_file(tmp_path: Path) -> None:
    write_series(tmp_path, part(SMALL, [3]), CT, NumberOfFrames=11)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"IS\2\x0011", b"IS\2\0.."))
    with pytest.raises(InputError, match=f"{path.name}: NumberOfFrames is no number"):
        load(path)


def test_one_slice_stands_for_its_series_in_its_folder(tmp_path: Path) -> None:
    uid = write_series(tmp_path, SMALL, CT)
    write_series(tmp_path, SMALL, CT, name="b")
    one = sorted(tmp_path.glob("a*"))[4]
    assert load(one, role="ct").meta["source"].series_uid == uid


def test_two_equal_series_are_listed_with_the_way_to_choose(tmp_path: Path) -> None:
    first = write_series(tmp_path, SMALL, CT)
    second = write_series(tmp_path, SMALL, CT, name="b")
    with pytest.raises(InputError, match="--series-uid") as caught:
        load(tmp_path, role="ct")
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert "\n" not in str(caught.value)
    chosen = load(tmp_path, role="ct", series_uid=second).meta["source"]
    assert chosen.series_uid == second
    assert "named by its SeriesInstanceUID" in chosen.selection


def test_an_unknown_series_uid_lists_the_known_ones(tmp_path: Path) -> None:
    uid = write_series(tmp_path, SMALL, CT)
    with pytest.raises(InputError, match=uid):
        load(tmp_path, series_uid="1.2.3")


@pytest.mark.parametrize(
    ("rule", "second"),
    [
        ("image type", {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}),
        ("orientation", {"axes": axis_directions()[5]}),
        ("number of slices", {"keep": range(4, 12)}),
        ("volume covered", {"pixel_mm": (4.0, 4.0)}),
    ],
)
def test_each_rule_decides(tmp_path: Path, rule: str, second: dict[str, object]) -> None:
    uid = write_series(tmp_path, SMALL, CT)
    axes = second.pop("axes", AXIAL)
    pixel_mm = second.pop("pixel_mm", (8.0, 8.0))
    keep = second.pop("keep", range(6, 22))
    other = part(scan(axes, size=(20, 22), pixel_mm=pixel_mm), keep)  # type: ignore[arg-type]
    write_series(tmp_path, other, CT, name="b", **second)
    source = load(tmp_path, role="ct").meta["source"]
    assert source.series_uid == uid
    assert rule in source.selection


def test_the_wrong_modality_is_refused(tmp_path: Path) -> None:
    uid = write_series(tmp_path, SMALL, MR)
    with pytest.raises(InputError, match="no CT series usable as ct"):
        load(tmp_path, role="ct")
    with pytest.raises(InputError, match="modality MR; expected CT"):
        load(tmp_path, role="ct", series_uid=uid)


def test_the_source_is_complete(tmp_path: Path) -> None:
    uid = write_series(tmp_path, SMALL, PT, IssuerOfPatientID="ward")
    source = load(tmp_path, role="pet").meta["source"]
    assert (source.format, source.modality, source.units) == ("dicom", "PT", "BQML")
    assert source.shape == (22, 20, 16)
    assert source.spacing_mm == pytest.approx((8.0, 8.0, 5.0))
    assert source.series_uid == uid
    assert len(source.patient_key or "") == 64
    places = [float(ds.ImagePositionPatient[2]) for ds in source.headers]
    assert places == sorted(places)
    assert len(places) == 16
    assert not any("PixelData" in ds for ds in source.headers)
    assert "Secret" not in repr(source)
    assert "ID-4711" not in repr(source)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, on writing them
def test_series_of_invalid_uids_stay_apart(tmp_path: Path) -> None:
    """Some systems write components with leading zeros."""
    write_series(tmp_path, SMALL, CT, name="a", SeriesInstanceUID="1.2.03.4")
    write_series(tmp_path, SMALL, MR, name="b", SeriesInstanceUID="1.2.03.5")
    found = {info.modality: info.uid for info in find_series(tmp_path)}
    assert len(found) == len(set(found.values())) == 2
    for role, modality in (("ct", "CT"), ("mri", "MR")):
        assert load(tmp_path, role=role).meta["source"].modality == modality
        assert load(tmp_path, series_uid=found[modality]).meta["source"].modality == modality


def test_patient_keys_tell_patients_apart(tmp_path: Path) -> None:
    keys = []
    for name, patient in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "")]:
        write_series(tmp_path / name, SMALL, CT, name=name, PatientID=patient)
        keys.append(find_series(tmp_path / name)[0].patient_key)
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] is None


def test_an_issuer_in_one_source_makes_no_second_patient(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", SMALL, CT, IssuerOfPatientID="ward")
    write_series(tmp_path / "mr", SMALL, MR, name="m")
    assert len({info.patient_key for info in find_series(tmp_path)}) == 1


def test_damaged_files_beside_a_series_are_told(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, MR)
    files = sorted(tmp_path.iterdir(), key=lambda path: dcmread(path).ImagePositionPatient[2])
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:400])
    files[-1].write_bytes(files[-1].read_bytes()[:170])
    (tmp_path / "README").write_text("no image")
    said = "3 files beside the series could not be read; slices may be missing at its ends"
    source = load(tmp_path, role="mri").meta["source"]
    assert (source.shape[2], source.warnings) == (13, (said,))
    assert find_series(tmp_path)[0].warnings == (said,)


def test_a_series_with_images_without_pixels_is_refused(tmp_path: Path) -> None:
    def without_pixels(ds: Dataset, k: int) -> None:
        if k > 11:
            del ds.PixelData

    write_series(tmp_path, SMALL, CT, change=without_pixels)
    with pytest.raises(InputError, match="4 of 16 images are without pixel data"):
        load(tmp_path, role="ct")


@pytest.mark.parametrize(
    ("keyword", "said"),
    [("PatientID", "2 PatientIDs"), ("FrameOfReferenceUID", "2 frames of reference")],
)
def test_a_series_of_two_patients_or_places_is_refused(
    tmp_path: Path, keyword: str, said: str
) -> None:
    def second_half(ds: Dataset, k: int) -> None:
        if k > 7:
            setattr(ds, keyword, "1.2.3.4711")

    write_series(tmp_path, SMALL, CT, change=second_half)
    with pytest.raises(InputError, match=f"{said} in one series") as caught:
        load(tmp_path, role="ct")
    assert "1.2.3.4711" not in str(caught.value)


def test_a_zip_is_read_like_a_folder(tmp_path: Path) -> None:
    mixed_study(tmp_path / "study")
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for file in (tmp_path / "study").rglob("*"):
            target.write(file, file.relative_to(tmp_path))
    from_zip, from_folder = load(archive, role="ct"), load(tmp_path / "study", role="ct")
    assert np.array_equal(from_zip.numpy(), from_folder.numpy())
    assert len(find_series(archive)) == 8


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../out", "..\\out", "C:\\out"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(name, b"data")
    with pytest.raises(InputError, match="leaves the archive's folder"):
        load(archive)
    assert not (tmp_path.parent / "out").exists()


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        target.writestr("zeros", bytes(192 << 20))
    with pytest.raises(InputError, match="claim to unpack to"):
        load(archive)


def test_a_broken_zip_is_one_line(tmp_path: Path) -> None:
    archive = tmp_path / "broken.zip"
    archive.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="not readable as a zip"):
        load(archive)


def test_a_broken_member_of_any_compression_is_one_line(tmp_path: Path) -> None:
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = tmp_path / f"{kind}.zip"
        with zipfile.ZipFile(archive, "w", kind) as members:
            members.writestr("a", bytes(range(256)) * 50)
        damaged = bytearray(archive.read_bytes())
        third = len(damaged) // 3  # in the compressed bytes: neither header nor directory
        damaged[third : 2 * third] = b"\xff" * third
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match="not readable as a zip archive"):
            load(archive)


def test_a_member_without_a_name_is_a_file_like_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as members:
        members.writestr(".", b"junk")
    assert len(inventory(tmp_path / "a.zip").ignored) == 1


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "in", SMALL, MR, StudyDate="20260101", StudyTime="10", StudyID="1")
    files = FileSet()
    for path in sorted((tmp_path / "in").iterdir()):
        files.add(path)
    files.write(tmp_path / "cd")
    files._stage["t"].cleanup()
    for path in (tmp_path / "cd" / "DICOMDIR", tmp_path / "cd"):
        assert load(path, role="mri").shape == (1, 22, 20, 16)
    assert inventory(tmp_path / "cd").ignored[0].reason.startswith("a DICOMDIR")


def test_files_without_preamble_are_found(tmp_path: Path) -> None:
    write_series(tmp_path / "in", SMALL, MR)
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert load(tmp_path, role="mri").shape == (1, 22, 20, 16)


def test_nuclear_and_enhanced_files_have_their_roles(tmp_path: Path) -> None:
    write_nuclear(tmp_path / "nm", SMALL)
    write_enhanced(tmp_path / "ct", SMALL, "CT")
    roles = {info.modality: info.roles for info in find_series(tmp_path)}
    assert roles == {"NM": ("spect",), "CT": ("ct",)}


def test_a_folder_with_one_nifti_and_no_dicom_gives_it(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2, 2, 2, 1]))
    image.to_filename(tmp_path / "t1.nii.gz")
    assert load(tmp_path, role="mri").shape == (1, 3, 4, 5)
    image.to_filename(tmp_path / "t2.nii.gz")
    with pytest.raises(InputError, match="2 volumes"):
        load(tmp_path, role="mri")


@pytest.mark.parametrize("name", ["nothing", "here/nor/there"])
def test_a_missing_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load(tmp_path / name)


def test_a_pipe_is_refused_by_name_and_passed_over_in_a_folder(tmp_path: Path) -> None:
    """Opening one waits for a writer that never comes."""
    write_series(tmp_path, SMALL, CT)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        load(tmp_path / "pipe")
    assert load(tmp_path).shape[-1] == len(SMALL.first_pixels)


def test_folders_in_folders_without_end_are_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deeper than Python's stack."""
    top = tmp_path / "top"
    write_series(top / "z", SMALL, CT)
    monkeypatch.chdir(top)
    for _ in range(1_200):
        Path("a").mkdir()
        os.chdir("a")
    os.chdir(top)
    try:
        assert load(top).shape[-1] == len(SMALL.first_pixels)
    finally:  # shutil.rmtree, with which pytest tidies up, recurses
        subprocess.run(["rm", "-rf", str(top)], check=True)


def test_a_folder_that_cannot_be_looked_into_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, SMALL, CT)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(folder: Path) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    found = inventory(tmp_path)
    assert [Path(file.name).name for file in found.ignored] == ["closed"]
    assert "cannot be read" in found.ignored[0].reason
    assert "could not be read" in found.series[0].warnings[-1]


def test_file_names_steer_no_terminal_and_break_no_json(tmp_path: Path) -> None:
    for name in (b"red \x1b[31m\nnext", b"latin \xe9"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("junk")
    shown = CliRunner().invoke(main, ["info", str(tmp_path)]).output
    assert len(shown.splitlines()) == 3
    assert "\x1b" not in shown
    listed = json.loads(CliRunner().invoke(main, ["info", "--json", str(tmp_path)]).stdout_bytes)
    assert len(listed["ignored"]) == 2
    refused = CliRunner().invoke(main, ["info", str(tmp_path / "no\x1b[31m")])
    assert refused.exit_code == 1
    assert "\x1b" not in refused.output


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no DICOM series"):
        load(tmp_path)
    with pytest.raises(InputError, match="empty folder"):
        inventory(tmp_path)


def test_two_slices_are_no_volume(tmp_path: Path) -> None:
    write_series(tmp_path, part(SMALL, [3, 4]))
    with pytest.raises(MmifError, match="2 slices; expected at least 3"):
        load(tmp_path, role="ct")


def test_info_lists_everything_and_imports_neither_torch_nor_monai(tmp_path: Path) -> None:
    mixed_study(tmp_path)
    code = (
        "import sys; from mmif.cli.info import info; info([sys.argv[1], '--json'],"
        " standalone_mode=False); assert not {'torch', 'monai'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    by_role = {role: series["uid"] for series in found["series"] for role in series["roles"]}
    assert set(by_role) == {"ct", "mri"}
    assert len(found["series"]) == 8
    assert len(found["ignored"]) == 3
    assert {series["patient"] for series in found["series"]} == {1}
    assert "patient_key" not in done.stdout
    assert "Secret" not in done.stdout
    assert "ID-4711" not in done.stdout


def test_nothing_of_an_odd_header_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom's log repeats values that break their representation."""
    write_series(tmp_path, SMALL, CT)
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        at = data.index(b"\x20\x00\x0d\x00UI") + 8  # StudyInstanceUID
        path.write_bytes(data[:at] + b"1.2.Muster" + data[at + 10 :])
    command = [sys.executable, "-c", "from mmif.cli import main; main()", "info", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert load(tmp_path, role="ct").meta["source"].modality == "CT"
    assert "Muster" not in done.stdout + caplog.text


def test_landmarks_survive_a_mixed_study(tmp_path: Path) -> None:
    write_series(tmp_path, scan(), CT)
    mixed_study(tmp_path / "more" / "study")
    assert landmark_error_mm(load(tmp_path / sorted(p.name for p in tmp_path.glob("a*"))[0])) < 0.1


def contrast(keyword: str, *values: object):
    """Gives slice k one of ``values`` in turn."""
    return lambda ds, k: setattr(ds, keyword, values[k % len(values)])


@pytest.mark.parametrize(
    ("sop_class", "keyword", "values"),
    [
        (MR, "EchoTime", (12, 90)),
        (MR, "InversionTime", (100, 900)),
        (MR, "RepetitionTime", (600, 4000)),
        (MR, "DiffusionBValue", (500.0, 1000.0)),
        (CT, "KVP", (80, 140)),
        (CT, "ConvolutionKernel", ("B30f", "B70f")),
    ],
)
def test_slices_of_alternating_contrast_are_no_volume(
    tmp_path: Path, sop_class: str, keyword: str, values: tuple[object, ...]
) -> None:
    write_series(tmp_path, SMALL, sop_class, change=contrast(keyword, *values))
    with pytest.raises(InputError, match=f"holds 2 volumes and no clear choice.*{keyword}"):
        load(tmp_path)


def test_a_slice_of_another_modality_is_refused_by_its_place(tmp_path: Path) -> None:
    write_series(
        tmp_path, SMALL, PT, change=lambda ds, k: setattr(ds, "Modality", "CT" if k == 3 else "PT")
    )
    with pytest.raises(InputError, match=r"Modality CT at .* among PT images"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["P", "R", "ADC", "T1 MAP", "MIP"])
def test_an_auxiliary_series_is_refused_alone_and_never_chosen(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path / "a", SMALL, MR, ImageType=["ORIGINAL", "PRIMARY", kind])
    with pytest.raises(InputError, match="not the image itself"):
        load(tmp_path / "a", role="mri")
    uid = write_series(tmp_path / "b", SMALL, MR, name="b", ImageType=["DERIVED", "PRIMARY", "M"])
    assert load(tmp_path, role="mri").meta["source"].series_uid == uid


def test_activity_corrected_for_attenuation_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, PT, CorrectedImage=["DECY"])
    uid = write_series(tmp_path, SMALL, PT, name="b", CorrectedImage=["DECY", "ATTN"])
    source = load(tmp_path, role="pet").meta["source"]
    assert source.series_uid == uid
    assert "attenuation correction left 1" in source.selection


def test_nothing_is_chosen_across_patients_or_days(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SMALL, MR, StudyDate="20200102")
    later = write_series(
        tmp_path / "b", SMALL, MR, name="b", StudyDate="20250102", StudyInstanceUID="1.2.3"
    )
    with pytest.raises(InputError, match=r"2 studies of several days"):
        load(tmp_path, role="mri")
    assert load(tmp_path, role="mri", series_uid=later).shape[3] == 16
    write_series(tmp_path / "c", SMALL, MR, name="c", PatientID="other")
    with pytest.raises(InputError, match="2 patients") as refusal:
        load(tmp_path, role="mri")
    assert "other" not in str(refusal.value)


def test_dead_links_count_as_missing_slices(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT)
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="1 dead links beside the slices"):
        load(tmp_path)


def test_one_frame_of_reference_a_slice_is_read_with_a_warning_and_two_are_refused(
    tmp_path: Path,
) -> None:
    write_series(
        tmp_path / "a",
        SMALL,
        CT,
        change=lambda ds, k: setattr(ds, "FrameOfReferenceUID", f"1.2.{k + 1}"),
    )
    assert any("of its own" in w for w in load(tmp_path / "a").meta["source"].warnings)
    write_series(tmp_path / "b", SMALL, CT, change=contrast("FrameOfReferenceUID", "1.2", "1.3"))
    with pytest.raises(InputError, match="2 frames of reference"):
        load(tmp_path / "b")


def test_magnitude_is_read_before_phase_and_b_0_before_other_b_values(tmp_path: Path) -> None:
    uid = write_series(tmp_path / "a", SMALL, MR, ImageType=["ORIGINAL", "PRIMARY", "M"])
    phase = {"SeriesInstanceUID": uid, "ImageType": ["ORIGINAL", "PRIMARY", "P"]}
    write_series(tmp_path / "a", SMALL, MR, name="p", **phase)
    volume = load(tmp_path / "a", role="mri")
    assert volume.meta["source"].headers[0].ImageType[2] == "M"
    uid = write_series(tmp_path / "b", SMALL, MR, DiffusionBValue=0.0)
    weighted = {"SeriesInstanceUID": uid, "DiffusionBValue": 1000.0}
    write_series(tmp_path / "b", SMALL, MR, name="d", **weighted)
    source = load(tmp_path / "b", role="mri").meta["source"]
    assert source.headers[0].DiffusionBValue == 0
    assert any("b = 0" in warning for warning in source.warnings)


def test_a_volume_file_is_read_beside_a_stray_localizer(tmp_path: Path) -> None:
    write_series(tmp_path, part(SMALL, [3]), MR, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    data = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "v.nii")
    assert load(tmp_path, role="mri").shape == (1, 8, 8, 8)
