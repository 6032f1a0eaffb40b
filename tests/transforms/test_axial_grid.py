"""The fused grid, and where it ends."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mmif.config import GridConfig
from mmif.errors import GeometryError
from mmif.transforms.axial_grid import fused_grid


def test_a_grid_of_far_more_voxels_than_its_file_is_refused_by_its_number() -> None:
    """Coronal slices 0.02 mm apart are few bytes, and 9600 axial slices."""
    affine = np.array([[3.0, 0, 0, 0], [0, 0, 0.02, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    volume = MetaTensor(torch.zeros(1, 64, 64, 16), affine=affine)
    with pytest.raises(GeometryError, match=r"256 x 256 x 9600 = 629145600 voxels, slices 0\.02"):
        fused_grid(volume, GridConfig())
