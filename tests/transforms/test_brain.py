"""The brain is what soft tissue a closed skull holds, slice by slice."""

import numpy as np
from scipy import ndimage

from mmif.transforms.brain import brain_in_skull

SPACING = (1.0, 1.0, 4.0)


def skull(gap: int = 0) -> np.ndarray:
    """(X, Y, Z) HU: rings of bone around tissue in air; ``gap`` voxels are open at one side."""
    x, y = np.ogrid[-60:60, -60:60]
    radius = np.sqrt(x**2 + y**2)
    plane = np.where(radius < 50, 40.0, -1000.0)
    plane[(radius >= 42) & (radius < 50)] = 1200.0
    plane[60 - gap // 2 : 60 + gap // 2, :60][plane[60 - gap // 2 : 60 + gap // 2, :60] > 500] = (
        40.0
    )
    return np.repeat(plane[..., None], 5, axis=2)


def test_tissue_inside_of_a_closed_skull_is_brain_and_none_outside() -> None:
    found = brain_in_skull(skull(), np.ones((120, 120, 5), bool), SPACING)
    x, y = np.ogrid[-60:60, -60:60]
    radius = np.sqrt(x**2 + y**2)
    assert found[radius < 37].all()
    assert not found[radius > 42].any()


def test_a_suture_is_closed_and_an_open_side_is_not() -> None:
    everywhere = np.ones((120, 120, 5), bool)
    assert brain_in_skull(skull(gap=6), everywhere, SPACING).any()
    assert not brain_in_skull(skull(gap=40), everywhere, SPACING).any()


def test_the_cavity_is_the_largest_hole_of_the_slice() -> None:
    """As SciPy's hole filling has it, which the search of the open parts replaces."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (160, 150, 6)), (7, 7, 0))
    ct = np.where(noise > 0.02, 800.0, 40.0)
    ct[20:100, 20:100][:, :, :3] = 40.0
    ct[20:100, [20, 100]] = ct[[20, 100], 20:100] = 800.0
    found = brain_in_skull(ct, np.ones(ct.shape, bool), SPACING)
    expected = np.zeros(ct.shape, bool)
    for k in range(ct.shape[2]):
        shell = ndimage.binary_closing(ct[..., k] > 250, iterations=5)
        holes, count = ndimage.label(ndimage.binary_fill_holes(shell) & ~shell)
        sizes = np.bincount(holes.ravel(), minlength=count + 1)[1:]
        if count and sizes.max() > 3000:
            expected[..., k] = holes == 1 + np.argmax(sizes)
    near = ndimage.maximum_filter(ct > 250, size=(7, 7, 3))
    assert expected.any()
    np.testing.assert_array_equal(found, expected & ~near & (ct < 80) & (ct > 0))
