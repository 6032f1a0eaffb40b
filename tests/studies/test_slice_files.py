"""Images of one place by their names."""

from pathlib import Path

import pytest

from mmif.errors import InputError
from mmif.studies.slice_files import find_slice_files


def make(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("inner", ["", "CT-MRI"])
def test_pairs_are_found_in_both_layouts(tmp_path: Path, inner: str) -> None:
    for role in ("MRI", "CT"):
        make(tmp_path / inner / role, "16002.png", "16001.png", "2003.png", ".hidden.png", "a.txt")
    pairs = find_slice_files("ct-mri", tmp_path)
    assert [pair.name for pair in pairs] == ["16001.png", "16002.png", "2003.png"]
    assert [pair.case for pair in pairs] == ["16", "16", "2"]
    assert pairs[0].paths[0] == tmp_path / inner / "MRI" / "16001.png"
    assert pairs[0].paths[1] == tmp_path / inner / "CT" / "16001.png"


def test_a_name_without_its_twin_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "VIS", "1.jpg", "2.jpg", "3.jpg")
    make(tmp_path / "IR", "1.jpg")
    with pytest.raises(InputError, match=r"VIS/2\.jpg.*2 stand alone"):
        find_slice_files("ir-vis", tmp_path)


@pytest.mark.parametrize("inner", ["", "CT-MRI-SPECT"])
def test_three_folders_give_three_files_a_place(tmp_path: Path, inner: str) -> None:
    for role in ("MRI", "CT", "SPECT"):
        make(tmp_path / inner / role, "16001.png", "16002.png")
    places = find_slice_files("ct-mri-spect", tmp_path)
    assert [place.name for place in places] == ["16001.png", "16002.png"]
    assert [path.parent.name for path in places[0].paths] == ["MRI", "CT", "SPECT"]
    (tmp_path / inner / "CT" / "16002.png").unlink()
    with pytest.raises(InputError, match=r"MRI/16002\.png.*in .*CT, expected equal names"):
        find_slice_files("ct-mri-spect", tmp_path)


def test_folders_that_are_empty_or_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_slice_files("ct-mri", tmp_path / "none")
    with pytest.raises(InputError, match="no folders PET and MRI"):
        find_slice_files("pet-mri", tmp_path)
    make(tmp_path / "MRI")
    make(tmp_path / "PET")
    with pytest.raises(InputError, match="found no images"):
        find_slice_files("pet-mri", tmp_path)
