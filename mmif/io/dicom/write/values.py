"""Voxel values as DICOM pixels: what is stored, and the attributes that say how to read it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from mmif.io.dicom.write.planes import decimal
from mmif.io.nifti.writer import to_bytes

Stack = npt.NDArray[Any]
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
    stored = np.rint(np.clip(np.nan_to_num(stack), 0, 1) * FUSED_WHITE).astype(np.uint16)
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
    return StoredValues(to_bytes(np.nan_to_num(stack)), elements)


def hounsfield_values(stack: Stack) -> StoredValues:
    """HU as signed 16 bit, one HU a step; voxels without a value (NaN) become air."""
    filled = np.nan_to_num(stack, nan=AIR_HU)
    stored = np.rint(np.clip(filled, -32768, 32767)).astype(np.int16)
    elements = _grey(stored)
    elements.RescaleIntercept, elements.RescaleSlope = decimal(0), decimal(1)
    elements.RescaleType = "HU"
    _set_windows(elements, CT_WINDOWS_HU)
    return StoredValues(stored, elements)


def scaled_values(stack: Stack, rescale_type: str | None) -> StoredValues:
    """Physical values as signed 16 bit with one slope for the volume and intercept 0."""
    filled = np.nan_to_num(stack)
    slope = _short_slope(float(np.abs(filled).max()) / 32767)
    stored = np.rint(filled / float(slope)).astype(np.int16)
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
    filled = np.nan_to_num(stack)
    peak = float(np.abs(filled).max())
    factor = 1.0 if 1023 <= peak <= 32767 or peak == 0 else 32767 / peak
    stored = np.rint(filled * factor)
    stored = stored.astype(np.int16 if stored.min() < 0 else np.uint16)
    elements = _grey(stored)
    _set_window(elements, *_percentile_window(stored))
    return StoredValues(stored, elements, f"stored value = {factor:.8g} x source value")


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
