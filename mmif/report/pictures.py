"""Arrays as pictures: planes of a volume at their true aspect, overlays, data URIs."""

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Voxels = npt.NDArray[Any]
PlaneName = Literal["axial", "coronal", "sagittal"]

# Orange, which no grey picture has; chosen
EDGE_RGB = (255, 150, 50)
# Of brightness: the outline of what takes up the tracer, and of what takes up much; chosen
CONTOUR_LEVELS = (0.12, 0.35)
SHARE_KNOTS = ((64, 140, 232), (158, 158, 158), (240, 134, 40))
"""All from the reference (blue), both alike (grey), all from the moving volume (orange)."""
LOST_RGB = ((236, 72, 208), (250, 236, 90))
"""Where a strong structure of the reference (magenta) or the moving volume (yellow) is lost."""


@dataclass(frozen=True)
class Cut:
    """One voxel (i, j, k) through which the three planes are cut."""

    i: int
    j: int
    k: int


def cut_plane(volume: Voxels, plane: PlaneName, at: Cut) -> Voxels:
    """One plane of ``volume`` as a reader sees it: patient's right at the left, front or top up.

    Args:
        volume: (X, Y, Z) or (X, Y, Z, channels) on the fused grid.
        plane: the plane.
        at: the voxel it goes through.

    Returns:
        (rows, columns) or (rows, columns, channels).
    """
    if plane == "axial":
        return volume[:, :, at.k].swapaxes(0, 1)
    cut = volume[:, at.j] if plane == "coronal" else volume[at.i]
    return cut[:, ::-1].swapaxes(0, 1)


def plane_spacing(spacing_mm: tuple[float, float, float], plane: PlaneName) -> tuple[float, float]:
    """Distance of rows and of columns in mm in ``plane``."""
    x, y, z = spacing_mm
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def to_aspect(pixels: Pixels, row_mm: float, column_mm: float, width: int) -> Pixels:
    """``pixels`` resized to ``width`` columns at the patient's own aspect ratio."""
    rows, columns = pixels.shape[:2]
    height = max(1, round(width * rows * row_mm / (columns * column_mm)))
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def square_pixels(values: Floats, row_mm: float, column_mm: float) -> Floats:
    """(rows, columns) in square pixels of the finer spacing, so that edges are thin both ways."""
    rows, columns = values.shape
    fine = min(row_mm, column_mm)
    size = (round(columns * column_mm / fine), round(rows * row_mm / fine))
    picture = Image.fromarray(np.asarray(values, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def grey(values: Floats) -> Pixels:
    """0..1 as 8-bit grey or RGB; NaN is black."""
    pixels: Pixels = np.round(np.nan_to_num(np.clip(values, 0, 1)) * 255).astype(np.uint8)
    return pixels


def rgb(pixels: Pixels) -> Pixels:
    """(rows, columns, 3) of a grey or colour picture."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def edges(values: Floats) -> npt.NDArray[np.bool_]:
    """The thin strong edges of a (rows, columns) picture in 0..1.

    A pixel is an edge where the slope of the smoothed picture is at least 0.06 a pixel and is
    the largest of its neighbours along the steeper axis.
    """
    smooth = ndimage.gaussian_filter(np.nan_to_num(values).astype(np.float32), 0.8)
    rows = ndimage.sobel(smooth, axis=0) / 8
    columns = ndimage.sobel(smooth, axis=1) / 8
    slope = np.hypot(rows, columns)
    along_rows = slope >= ndimage.maximum_filter1d(slope, 3, axis=0)
    along_columns = slope >= ndimage.maximum_filter1d(slope, 3, axis=1)
    ridge = np.where(np.abs(rows) > np.abs(columns), along_rows, along_columns)
    # 15 grey levels a pixel: skull, skin and ventricles; at half of it noise draws lines (by eye)
    return np.asarray(ridge & (slope >= 0.06))


def contours(values: Floats) -> npt.NDArray[np.bool_]:
    """Lines of equal brightness in a (rows, columns) picture in 0..1, at `CONTOUR_LEVELS`.

    What a blurred picture (SPECT, PET) has in place of edges.
    """
    marked = np.zeros(values.shape, dtype=bool)
    for level in CONTOUR_LEVELS:
        inside = np.nan_to_num(values) >= level
        marked |= inside & ~ndimage.binary_erosion(inside, border_value=1)
    return marked


def with_edges(under: Pixels, marked: npt.NDArray[np.bool_]) -> Pixels:
    """``under`` as RGB with the ``marked`` pixels in orange; shapes (rows, columns)."""
    picture = rgb(under).copy()
    picture[marked] = EDGE_RGB
    return picture


def share_colours(share: Floats, strength: Floats, lost: Pixels) -> Pixels:
    """The share of the moving volume (0..1) as blue to orange, dark where ``strength`` is 0.

    ``lost`` is 1 or 2 where a strong structure of the reference or the moving volume is lost.
    """
    knots = np.asarray(SHARE_KNOTS, dtype=np.float64)
    colour = [np.interp(np.nan_to_num(share, nan=0.5), (0, 0.5, 1), knots[:, c]) for c in range(3)]
    lit = np.stack(colour, axis=-1) * np.nan_to_num(strength)[..., None]
    pixels: Pixels = np.round(lit).astype(np.uint8)
    for code, colour_of_lost in enumerate(LOST_RGB, start=1):
        pixels[lost == code] = colour_of_lost
    return pixels


def data_uri(pixels: Pixels, *, lossless: bool = False) -> str:
    """A picture that lives in the page: JPEG (quality 85), or PNG where each pixel counts."""
    buffer = io.BytesIO()
    if lossless:
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
