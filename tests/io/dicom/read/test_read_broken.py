"""Broken files cost one line: mutated headers and cut bytes of small valid files."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_corpus import CT, MR, part, scan, write_enhanced, write_nuclear, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmif.errors import MmifError
from mmif.io import load
from mmif.io.inventory import inventory

TINY = part(scan(size=(5, 6), pixel_mm=(30.0, 30.0)), range(8, 20, 3))
KINDS = ("ct", "mr", "nm", "enhanced", "nifti")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small valid file of each kind."""
    folder = tmp_path_factory.mktemp("valid")
    write_series(folder / "ct", TINY, CT)
    write_series(folder / "mr", TINY, MR, EchoTime=12.0, PixelPaddingValue=0)
    write_nuclear(folder / "nm", TINY)
    write_enhanced(folder / "enhanced", TINY)
    grey = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.Nifti1Image(grey, np.eye(4)).to_filename(folder / "v.nii")
    load(folder / "v.nii")  # the first use imports MONAI, which is not to be timed
    load(folder / "nm")
    return {
        "ct": min((folder / "ct").iterdir()).read_bytes(),
        "mr": min((folder / "mr").iterdir()).read_bytes(),
        "nm": (folder / "nm").read_bytes(),
        "enhanced": (folder / "enhanced").read_bytes(),
        "nifti": (folder / "v.nii").read_bytes(),
    }


@st.composite
def damage(draw: st.DrawFn) -> tuple[list[tuple[float, int]], float]:
    """Bytes to overwrite (place as a share of the file, value), and how much of it to keep."""
    byte = st.sampled_from([0, 1, 0x30, 0x39, 0x5C, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
    changes = draw(st.lists(st.tuples(st.floats(0, 1), byte), max_size=12))
    return changes, draw(st.just(1.0) | st.floats(0, 1))


def damaged(data: bytes, changes: list[tuple[float, int]], kept: float) -> bytes:
    """``data`` with that damage."""
    broken = bytearray(data)
    for place, value in changes:
        broken[min(int(place * len(broken)), len(broken) - 1)] = value
    return bytes(broken[: int(kept * len(broken))])


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=60,
    deadline=20_000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(harm=damage())
def test_damage_is_read_or_refused_in_one_line(
    kind: str,
    harm: tuple[list[tuple[float, int]], float],
    valid: dict[str, bytes],
    tmp_path: Path,
) -> None:
    path = tmp_path / ("v.nii" if kind == "nifti" else "image")
    path.write_bytes(damaged(valid[kind], *harm))
    for read in (load, inventory):
        try:
            read(path)
            said = ""
        except MmifError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.parametrize("kind", ["ct", "enhanced"])
def test_nesting_without_end_is_refused(kind: str, valid: dict[str, bytes], tmp_path: Path) -> None:
    """Sequences of undefined length, ten thousand deep."""
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    at = valid[kind].index(b"\x10\x00\x10\x00PN")
    (tmp_path / "deep").write_bytes(valid[kind][:at] + sequence * 10_000)
    with pytest.raises(MmifError):
        load(tmp_path / "deep")


@pytest.mark.parametrize("kind", ["nm", "enhanced"])
def test_a_number_of_no_known_kind_is_one_line(
    kind: str, valid: dict[str, bytes], tmp_path: Path
) -> None:
    """pydicom decodes such an element as soon as it is asked for, and fails."""
    frames = b"\x28\x00\x08\x00IS"
    assert frames in valid[kind]
    (tmp_path / "odd").write_bytes(valid[kind].replace(frames, frames[:4] + b"I>", 1))
    with pytest.raises(MmifError, match="NumberOfFrames is not readable"):
        load(tmp_path / "odd")


def test_a_whole_series_with_one_broken_slice_says_which(tmp_path: Path) -> None:
    write_series(tmp_path, part(scan(size=(5, 6)), range(6)), CT)
    broken = sorted(tmp_path.iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-10])
    with pytest.raises(MmifError, match=broken.name):
        load(tmp_path)
