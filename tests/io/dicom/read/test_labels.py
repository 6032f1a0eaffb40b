"""b-values, where each vendor keeps them."""

from pathlib import Path

import pytest
from dicom_corpus import MR, part, scan, write_series
from pydicom.dataset import Dataset

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
