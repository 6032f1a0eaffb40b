"""b-values, where each vendor keeps them."""

import struct
from pathlib import Path

import pytest
from dicom_corpus import MR, part, scan, write_series
from pydicom.dataset import Dataset

from mmif.errors import MmifError
from mmif.io import load

SMALL = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 22))

VENDORS = {
    "SIEMENS": (0x19, "SIEMENS MR HEADER", 0x0C, "IS", int),
    "GE MEDICAL SYSTEMS": (0x43, "GEMS_PARM_01", 0x39, "IS", lambda b: [10**9 + b, 8, 0, 0]),
    "Philips": (0x2001, "Philips Imaging DD 001", 0x03, "FL", float),
    "UIH": (0x65, "Image Private Header", 0x09, "FD", float),
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("implicit", [False, True])
def test_b_0_is_read_by_the_private_elements_of_each_vendor(
    tmp_path: Path, vendor: str, implicit: bool
) -> None:
    group, creator, element, vr, stored = VENDORS[vendor]

    def weighted(b: int):
        def change(ds: Dataset, k: int) -> None:
            ds.Manufacturer = vendor
            block = ds.private_block(group, creator, create=True)
            block.add_new(element, vr, stored(b))
            if implicit:
                ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"

        return change

    uid = write_series(tmp_path, SMALL, MR, name="weighted", change=weighted(1000))
    write_series(tmp_path, SMALL, MR, name="b0", SeriesInstanceUID=uid, change=weighted(0))
    source = load(tmp_path, role="mri").meta["source"]
    assert {ds.SOPInstanceUID for ds in source.headers}.isdisjoint(
        {ds.SOPInstanceUID for ds in load(tmp_path, frame=1).meta["source"].headers}
    )
    assert any(w.startswith("diffusion: b = 0") for w in source.warnings)


def csa_header(b: int) -> bytes:
    """A CSA header of the second kind with one tag, B_value (nibabel.nicom.csareader)."""
    value = str(b).encode().ljust(8, b"\0")
    item = struct.pack("<4i", 0, len(value), 77, 0) + value
    tag = b"B_value".ljust(64, b"\0") + struct.pack("<i4sii", 1, b"IS\0\0", 6, 1)
    return b"SV10\4\3\2\1" + struct.pack("<2I", 1, 77) + tag + struct.pack("<i", 77) + item


@pytest.mark.parametrize("where", ["csa", "sequence"])
def test_b_0_is_read_by_the_csa_header_of_old_siemens_scanners(tmp_path: Path, where: str) -> None:
    def weighted(b: int):
        def change(ds: Dataset, k: int) -> None:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
            if where == "csa":
                block = ds.private_block(0x29, "SIEMENS CSA HEADER", create=True)
                block.add_new(0x10, "OB", csa_header(b))
            else:
                ds.SequenceName = f"*ep_b{b}t"

        return change

    uid = write_series(tmp_path, SMALL, MR, name="weighted", change=weighted(1000))
    write_series(tmp_path, SMALL, MR, name="b0", SeriesInstanceUID=uid, change=weighted(0))
    source = load(tmp_path, role="mri").meta["source"]
    assert any(w.startswith("diffusion: b = 0") for w in source.warnings)
    with pytest.raises(MmifError, match=r"DiffusionBValue 0.*DiffusionBValue 1000"):
        load(tmp_path, role="mri", frame=7)


def test_an_mri_in_two_packages_is_one_volume(tmp_path: Path) -> None:
    def package(ds: Dataset, k: int) -> None:
        ds.AcquisitionNumber, ds.RepetitionTime = 1 + k % 2, 3000

    write_series(tmp_path / "one", SMALL, MR, change=package)
    source = load(tmp_path / "one", role="mri").meta["source"]
    assert source.shape[2] == 16
    assert "slices of 2 acquisitions in turn are read as one volume" in source.warnings
    write_series(tmp_path / "two", SMALL, MR, change=package, SliceThickness=10.0)
    with pytest.raises(MmifError, match="AcquisitionNumber 1"):
        load(tmp_path / "two", role="mri")
