"""What every volume must be."""

import numpy as np
import pytest

from mmif.errors import MmifError
from mmif.io.checks import check_grid, check_unpacked


@pytest.mark.parametrize(
    ("shape", "spacing", "named"),
    [
        ((64, 64, 2), 1.0, "at least 3 slices"),
        ((4096, 4096, 4096), 1.0, "a grid of 68719476736 voxels"),
        ((64, 64, 64), 0.004, "spacing 0.004 x 0.004 x 0.004 mm"),
        ((64, 64, 64), 101.0, "spacing 101 x"),
        ((64, 64, 64), 99.0, "6336 x 6336 x 6336 mm large"),
        ((64, 64, 64), np.nan, "no finite number"),
    ],
)
def test_what_no_scanner_makes_is_refused_by_its_number(
    shape: tuple[int, int, int], spacing: float, named: str
) -> None:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    with pytest.raises(MmifError, match=named):
        check_grid(shape, affine, "x.nii")


def test_unpacked_bytes_are_believed_up_to_a_ratio() -> None:
    check_unpacked(60 << 20, 1, "small.nii.gz")
    check_unpacked(1 << 30, 5 << 20, "head.nii.gz")
    with pytest.raises(MmifError, match=r"bomb.nii.gz: 1048576 bytes claim to unpack to 1024 MiB"):
        check_unpacked(1 << 30, 1 << 20, "bomb.nii.gz")
