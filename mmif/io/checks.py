"""What every volume must be before anything is made of it."""

import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError, InputError
from mmif.geometry import Matrix, spacing_mm

MIN_SLICES = 3
MAX_VOXELS = 1 << 30
"""Voxels of one volume (4 GiB as float32); more are refused."""

SPACING_RANGE_MM = (0.01, 100.0)

DARK_PERCENT, NO_AIR_HU = 5, -200.0
"""Where a CT's darkest share does not reach down to this, its values are hardly HU."""

_BLOCK = 1 << 24


def check_values(volume: npt.NDArray[np.float32], where: str) -> tuple[float, float]:
    """The lowest and highest value of a volume that has finite, differing values.

    Raises:
        InputError: NaN, infinity, or the same value everywhere.
    """
    low, high = float(volume.min()), float(volume.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        flat = volume.ravel(order="K")
        bad = sum(
            int(np.count_nonzero(~np.isfinite(flat[start : start + _BLOCK])))
            for start in range(0, flat.size, _BLOCK)
        )
        raise InputError(f"{where}: {bad} values are NaN or infinite; expected finite values")
    if low == high:
        raise InputError(f"{where}: every voxel is {low:g}; expected an image")
    return low, high


def check_grid(shape: tuple[int, ...], affine: Matrix, where: str) -> None:
    """Refuse a grid with fewer than 3 slices or with spacings that no scanner makes.

    Raises:
        InputError: too few slices.
        GeometryError: impossible spacing or position.
    """
    if min(shape) < MIN_SLICES:
        raise InputError(
            f"{where}: {' x '.join(map(str, shape))} voxels; "
            f"expected a volume of at least {MIN_SLICES} slices"
        )
    if not np.isfinite(affine).all():
        raise GeometryError(f"{where}: a position that is no finite number; expected millimetres")
    spacing = spacing_mm(affine)
    low, high = SPACING_RANGE_MM
    if not all(low <= step <= high for step in spacing):
        steps = " x ".join(f"{step:g}" for step in spacing)
        raise GeometryError(f"{where}: spacing {steps} mm; expected {low:g} to {high:g} mm")


def check_role(volume: npt.NDArray[np.float32], role: str | None, where: str) -> tuple[str, ...]:
    """What the values of a file without a modality say about its role.

    Returns:
        Warnings, in words.

    Raises:
        InputError: the values are plainly Hounsfield units and the role is not ct.
    """
    if role is None:
        return ()
    low, high = float(volume.min()), float(volume.max())
    if role == "ct":
        if low >= 0:
            return (f"no negative values ({low:g} to {high:g}); a CT in HU has air at -1000",)
        dark = float(np.percentile(volume[::2, ::2, ::2], DARK_PERCENT))
        if dark > NO_AIR_HU:
            return (
                f"its darkest {DARK_PERCENT:g} % reach up to {dark:.0f}; a CT in HU has air at "
                "-1000: are these HU? Air will look grey",
            )
        return ()
    sample = volume[::2, ::2, ::2]
    air = float(np.mean((sample > -1100) & (sample < -850)))
    if air > 0.1 and high > 500:
        raise InputError(
            f"{where}: values {low:g} to {high:g} are Hounsfield units (a CT); "
            f"expected the {role} source"
        )
    return ()
