"""The Gaussian before a coarser grid is SciPy's, to the ends of the volume."""

import numpy as np
import pytest
from scipy import ndimage

from mmif.transforms.smooth import TRUNCATE, smoothed


@pytest.mark.parametrize("sigma", [(0.8, 0.0, 0.4), (0.0, 1.3, 2.1), (6.0, 0.7, 9.0)])
def test_smoothing_is_scipys(sigma: tuple[float, float, float]) -> None:
    voxels = np.random.default_rng(0).normal(0, 100, (23, 14, 11)).astype(np.float32)
    whole = ndimage.gaussian_filter(
        voxels.astype(np.float64), sigma[::-1], mode="nearest", truncate=TRUNCATE
    )
    found = smoothed(voxels, sigma)
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_a_constant_stays_what_it_is() -> None:
    air = np.full((5, 6, 7), -1000, np.float32)
    found = smoothed(air, (0.7, 0.7, 0.6))
    np.testing.assert_allclose(found, air, atol=1e-3)
