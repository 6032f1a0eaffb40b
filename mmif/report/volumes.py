"""Volumes small enough to live in a page: stepped integers, predicted, packed, base64.

The browser undoes it with ``DecompressionStream`` and one short loop (``static/volumes.js``).
Prediction is LOCO-I's median edge detector (ISO/IEC 14495-1, A.4.2), slice by slice; what is left
is folded to unsigned, split into high and low bytes and gzipped. Nothing is lost but the step.
"""

import base64
import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]
Codes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class PackedVolume:
    """A volume for the page; value = offset + step * code.

    Attributes:
        data: base64 text.
        channels: 1 or 3 (RGB).
        bits: 8 or 16 to a code.
        offset: the value of code 0.
        step: the difference of neighbouring codes, in the volume's unit.
        largest: the largest code.
    """

    data: str
    channels: int
    bits: int
    offset: float
    step: float
    largest: int

    def description(self) -> dict[str, Any]:
        """All but the data, JSON-ready."""
        return {
            "channels": self.channels,
            "bits": self.bits,
            "offset": self.offset,
            "step": self.step,
            "largest": self.largest,
        }


def pack_values(volume: Voxels, *, step: float | None = None, levels: int = 4096) -> PackedVolume:
    """``volume`` (X, Y, Z) in physical units, in even steps.

    Args:
        volume: (X, Y, Z); values that are not finite count as the lowest.
        step: the step, codes beginning at a whole number; by default what ``levels`` give.
        levels: how many codes the range of the volume is divided into, at most 65536.
    """
    finite = np.isfinite(volume)
    low, high = (volume[finite].min(), volume[finite].max()) if finite.any() else (0.0, 0.0)
    low, high = float(low), float(high)
    if step is None:
        step = (high - low) / (levels - 1) or 1.0
    else:
        low = float(np.floor(low))
    codes = np.round((np.where(finite, volume, low) - low) / step)
    return _pack(np.clip(codes, 0, 65535).astype(np.uint16)[None], 16, low, step)


def pack_unit(volume: Voxels) -> PackedVolume:
    """``volume`` (C, X, Y, Z) of 0..1 in 255 steps; three channels are RGB."""
    codes = np.round(np.nan_to_num(np.clip(volume, 0, 1)) * 255).astype(np.uint8)
    return _pack(codes, 8, 0.0, 1 / 255)


def _pack(codes: Codes, bits: int, offset: float, step: float) -> PackedVolume:
    planes = [_predict(_slices_first(channel), bits) for channel in _decorrelate(codes)]
    split = [(r >> shift).astype(np.uint8) for r in planes for shift in range(bits - 8, -1, -8)]
    packed = gzip.compress(b"".join(part.tobytes() for part in split), compresslevel=6, mtime=0)
    data = base64.b64encode(packed).decode("ascii")
    return PackedVolume(data, len(codes), bits, offset, step, int(codes.max(initial=0)))


def _decorrelate(codes: Codes) -> list[Codes]:
    """Green, red less green and blue less green (modulo 256) of RGB; grey as it is."""
    if len(codes) == 1:
        return [codes[0]]
    red, green, blue = codes
    return [green, red - green, blue - green]


def _slices_first(volume: Codes) -> Codes:
    """(Z, Y, X): slices, rows, columns."""
    return np.ascontiguousarray(volume.transpose(2, 1, 0))


def _predict(codes: Codes, bits: int) -> Codes:
    """What each code of (Z, Y, X) differs from its prediction by, folded to 0, -1, 1, -2 ..."""
    own = codes.astype(np.int32)
    left, up, corner = np.zeros_like(own), np.zeros_like(own), np.zeros_like(own)
    left[:, :, 1:], up[:, 1:], corner[:, 1:, 1:] = own[:, :, :-1], own[:, :-1], own[:, :-1, :-1]
    low, high = np.minimum(left, up), np.maximum(left, up)
    prediction = np.where(corner >= high, low, np.where(corner <= low, high, left + up - corner))
    half = 1 << (bits - 1)
    residual = (own - prediction + half) % (2 * half) - half
    folded: Codes = ((residual << 1) ^ (residual >> 31)).astype(np.uint16)
    return folded
