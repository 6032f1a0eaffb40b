"""What every volume must be before anything is made of it."""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mmif.errors import GeometryError, InputError
from mmif.geometry import MIN_SLICES, Matrix, spacing_mm

MAX_VOXELS = 1 << 30
"""Voxels of one volume (4 GiB as float32); more are refused."""

# Micro-CT to a scout; what lies beyond is a unit mistaken (chosen, not measured)
SPACING_RANGE_MM = (0.01, 100.0)
MAX_EXTENT_MM = 5000.0
"""Length of one side of a volume; scanners reach 2 m, and grids are made over it."""

MAX_RATIO, RATIO_FREE_BYTES = 250, 64 << 20
"""Unpacked bytes per packed byte that are believed, beyond so many that are; images reach about 20,
masked ones 100, and a bomb 1000 (zlib's most)."""

DARK_PERCENT, NO_AIR_HU = 5, -200.0
"""Where a CT's darkest share does not reach down to this, its values are hardly HU."""

BACKGROUND_BELOW, BACKGROUND_SHARE = -500.0, 0.01
"""A lone value below the first, in more than this share, is padding: writers use -1000, -1024,
-2000, -32768; no sequence reaches there by chance while all else is positive."""

# Voxels looked at at once; decides memory, no result
_BLOCK = 1 << 24


def repair(volume: npt.NDArray[np.float32], role: str | None, where: str) -> tuple[str, ...]:
    """Hold the grey values (X, Y, Z) of a file without a modality to its role, in place.

    Returns:
        What was filled, and what is to be warned of.

    Raises:
        InputError: values that are no image, or not of the role.
    """
    notes = fill_unmeasured(volume, where) + check_role(volume, role, where)
    return notes + fill_background(volume, role)


def choose_frame(frame: int | None, frames: int, where: str) -> int:
    """Which of ``frames`` volumes of a file to read.

    Raises:
        InputError: it holds several and none was asked for, or not the one that was.
    """
    if frame is None and frames > 1:
        raise InputError(
            f"{where}: 4-D with {frames} volumes; "
            f"choose one frame, 0 to {frames - 1} (--frame ROLE=N)"
        )
    if not 0 <= (frame or 0) < frames:
        raise InputError(f"{where}: frame {frame} was asked for; it holds 0 to {frames - 1}")
    return frame or 0


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


def fill_unmeasured(volume: npt.NDArray[np.float32], where: str) -> tuple[str, ...]:
    """Set NaN and infinities that reach the volume's border to its lowest value, in place.

    Returns:
        A note, where there were any.

    Raises:
        InputError: such values stand inside of the image, or nowhere else is a finite one.
    """
    if np.isfinite(volume.min()) and np.isfinite(volume.max()):
        return ()
    bad = ~np.isfinite(volume)
    count = int(np.count_nonzero(bad))
    labels, pieces = ndimage.label(bad)
    edges = [labels.take(end, axis=axis) for axis in range(3) for end in (0, -1)]
    outside = np.unique(np.concatenate([edge.ravel() for edge in edges]))
    inside = int(np.count_nonzero(~np.isin(labels, outside)))  # 0, no piece, is outside or absent
    inside -= 0 if 0 in outside else volume.size - count
    if count == volume.size or inside > 0:
        raise InputError(
            f"{where}: {inside or count} values are NaN or infinite inside of the image "
            f"({pieces} pieces); expected finite values"
        )
    low = np.float32(volume[~bad].min())
    volume[bad] = low
    share = 100 * count / volume.size
    return (f"NaN or infinite outside of the image ({share:.1f} %): not measured, set to {low:g}",)


def fill_background(volume: npt.NDArray[np.float32], role: str | None) -> tuple[str, ...]:
    """Set a background far below every other value to the lowest of those, in place.

    Only a negative value that many voxels share, while nothing else is negative, is such one:
    -2000 or -32768 in an MRI, SPECT or PET, whose values begin at 0.

    Returns:
        A note, where there was one.
    """
    low = float(volume.min())
    if role in {None, "ct"} or low > BACKGROUND_BELOW:
        return ()
    background = volume == low
    share = float(np.mean(background))
    if share < BACKGROUND_SHARE or share == 1:
        return ()
    rest = float(volume.min(where=~background, initial=np.inf))
    if rest < 0:
        return ()
    volume[background] = rest
    return (f"a background of {low:g} ({100 * share:.1f} % of the voxels) was set to {rest:g}",)


def check_unpacked(unpacked: int, packed: int, where: str) -> None:
    """Refuse what would unpack to far more than images do.

    Args:
        unpacked: bytes that are claimed.
        packed: bytes that there are.
        where: the file.

    Raises:
        InputError: a bomb, or a header that claims too much.
    """
    if unpacked > RATIO_FREE_BYTES + MAX_RATIO * packed:
        raise InputError(
            f"{where}: {packed} bytes claim to unpack to {unpacked >> 20} MiB; expected at most "
            f"{MAX_RATIO} times as much"
        )


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
    if (voxels := math.prod(map(int, shape))) > MAX_VOXELS:
        raise InputError(f"{where}: a grid of {voxels} voxels; expected at most {MAX_VOXELS}")
    if not np.isfinite(affine).all():
        raise GeometryError(f"{where}: a position that is no finite number; expected millimetres")
    spacing = spacing_mm(affine)
    low, high = SPACING_RANGE_MM
    if not all(low <= step <= high for step in spacing):
        steps = " x ".join(f"{step:g}" for step in spacing)
        raise GeometryError(f"{where}: spacing {steps} mm; expected {low:g} to {high:g} mm")
    sides = [step * count for step, count in zip(spacing, shape, strict=True)]
    if max(sides) > MAX_EXTENT_MM:
        size = " x ".join(f"{side:.0f}" for side in sides)
        raise GeometryError(f"{where}: {size} mm large; expected at most {MAX_EXTENT_MM:.0f} mm")


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
    # the air of a CT, with its noise, and bone: no MRI, SPECT or PET has both by chance
    air = float(np.mean((sample > -1100) & (sample < -850)))
    if air > 0.1 and high > 500:
        raise InputError(
            f"{where}: values {low:g} to {high:g} are Hounsfield units (a CT); "
            f"expected the {role} source"
        )
    return ()
