"""Voxel values as DICOM pixels: what is stored, and the attributes that say how to read it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from mmif.io.dicom.write.planes import decimal
from mmif.io.nifti.writer import to_bytes

Stack = npt.NDArray[Any]
SLAB = 32  # slices that are converted at once; chosen
FUSED_WHITE = 32767  # the stored value of a fused 1.0: fits signed and unsigned 16-bit readers
# What CTs write outside of the field of view; -1000 is air itself
AIR_HU = -1024
# Centre and width; the presets of head CT that consoles have. The first is shown first.
CT_WINDOWS_HU = {
    "BRAIN": (40, 80),
    "SUBDURAL": (75, 215),
    "SOFT TISSUE": (40, 400),
    "BONE": (600, 2800),
}


@dataclass(frozen=True, eq=False)
class StoredValues:
    """A stack as it is stored.

    Attributes:
        stack: (slices, rows, columns[, 3]), 8 or 16 bit.
        elements: the Image Pixel module without sizes and data (C.7.6.3), and what turns stored
            values into meaning: modality LUT, window.
        meaning: the relation in words, for DerivationDescription; "" where the elements say it.
    """

    stack: Stack
    elements: Dataset
    meaning: str = ""


def fused_values(stack: Stack) -> StoredValues:
    """Fused grey in 0..1 as unsigned 16 bit, without rescale attributes."""
    stored = convert_slabs(
        stack, np.uint16, lambda slab: np.clip(np.nan_to_num(slab), 0, 1) * FUSED_WHITE
    )
    elements = _grey(stored)
    everything = (FUSED_WHITE / 2, float(FUSED_WHITE))
    _set_windows(elements, {"FUSED": _percentile_window(stored), "EVERYTHING": everything})
    return StoredValues(stored, elements, f"stored value = {FUSED_WHITE} x fused value in 0..1")


def colour_values(stack: Stack) -> StoredValues:
    """Colour in 0..1 as RGB, 8 bit a channel."""
    elements = Dataset()
    elements.SamplesPerPixel = 3
    elements.PhotometricInterpretation = "RGB"
    elements.PlanarConfiguration = 0
    elements.BitsAllocated = elements.BitsStored = 8
    elements.HighBit = 7
    elements.PixelRepresentation = 0
    stored = convert_slabs(stack, np.uint8, lambda slab: to_bytes(np.nan_to_num(slab)))
    return StoredValues(stored, elements)


def hounsfield_values(stack: Stack) -> StoredValues:
    """HU as signed 16 bit, one HU a step; voxels without a value (NaN) become air."""
    stored = convert_slabs(
        stack, np.int16, lambda slab: np.clip(np.nan_to_num(slab, nan=AIR_HU), -32768, 32767)
    )
    elements = _grey(stored)
    elements.RescaleIntercept, elements.RescaleSlope = decimal(0), decimal(1)
    elements.RescaleType = "HU"
    _set_windows(elements, CT_WINDOWS_HU)
    return StoredValues(stored, elements)


def scaled_values(stack: Stack, rescale_type: str | None) -> StoredValues:
    """Physical values as signed 16 bit with one slope for the volume and intercept 0."""
    slope = _short_slope(max(map(abs, extremes(stack))) / 32767)
    stored = convert_slabs(stack, np.int16, lambda slab: np.nan_to_num(slab) / float(slope))
    elements = _grey(stored)
    elements.RescaleIntercept, elements.RescaleSlope = decimal(0), slope
    if rescale_type:
        elements.RescaleType = rescale_type
    centre, width = _percentile_window(stored)
    _set_window(elements, centre * float(slope), width * float(slope))
    return StoredValues(stored, elements)


def arbitrary_values(stack: Stack) -> StoredValues:
    """Values in arbitrary units (MR) as 16 bit integers without rescale attributes.

    They are rounded where that keeps at least 10 bits, otherwise multiplied first.
    """
    lowest, highest = extremes(stack)
    peak = max(abs(lowest), abs(highest))
    factor = 1.0 if 1023 <= peak <= 32767 or peak == 0 else 32767 / peak
    dtype = np.int16 if np.rint(lowest * factor) < 0 else np.uint16
    stored = convert_slabs(stack, dtype, lambda slab: np.nan_to_num(slab) * factor)
    elements = _grey(stored)
    _set_window(elements, *_percentile_window(stored))
    return StoredValues(stored, elements, f"stored value = {factor:.8g} x source value")


def convert_slabs(stack: Stack, dtype: npt.DTypeLike, values: Callable[[Stack], Stack]) -> Stack:
    """``values`` of ``stack`` (slices, ...), rounded to ``dtype``, `SLAB` slices at a time.

    The terms for a whole body at once would take gigabytes.
    """
    stored = np.empty(stack.shape, dtype)
    for start in range(0, len(stack), SLAB):
        part = slice(start, start + SLAB)
        stored[part] = np.rint(values(stack[part]))
    return stored


def extremes(stack: Stack) -> tuple[float, float]:
    """The lowest and the highest value of ``stack`` (slices, ...); NaN counts as 0."""
    ends = np.array([(s.min(), s.max()) for s in map(np.nan_to_num, stack)])
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def _short_slope(value: float) -> DSfloat:
    """``value`` rounded up to four significant digits, so that its text is exact; 1 for zero."""
    if value <= 0:
        return decimal(1)
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return DSfloat(f"{math.ceil(value / unit) * unit:.4g}")


def _grey(stored: Stack) -> Dataset:
    elements = Dataset()
    elements.SamplesPerPixel = 1
    elements.PhotometricInterpretation = "MONOCHROME2"
    elements.BitsAllocated = elements.BitsStored = 16
    elements.HighBit = 15
    elements.PixelRepresentation = int(stored.dtype == np.int16)
    return elements


def _percentile_window(stored: Stack) -> tuple[float, float]:
    """Centre and width from the 1st to the 99.5th percentile of what is not zero."""
    sampled = stored.ravel()[:: 1 + stored.size // 1_000_000]
    shown = sampled[sampled != 0]
    # as the pipelines' percentile window has it (`IntensityConfig`)
    low, high = np.percentile(shown, (1, 99.5)) if shown.size else (0.0, 1.0)
    low = min(low, 0.0) if stored.min() >= 0 else low
    return float(low + high) / 2, float(high - low)


def _set_window(elements: Dataset, centre: float, width: float) -> None:
    _set_windows(elements, {"": (centre, width)})


def _set_windows(elements: Dataset, presets: Mapping[str, tuple[float, float]]) -> None:
    """Centre and width of each preset, with its name (C.11.2.1.2)."""
    elements.WindowCenter = [decimal(round(centre, 3)) for centre, _ in presets.values()]
    widths = [decimal(round(max(width, 1.0), 3)) for _, width in presets.values()]  # at least 1
    elements.WindowWidth = widths
    if all(presets):
        elements.WindowCenterWidthExplanation = list(presets)
