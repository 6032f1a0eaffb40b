"""Volumes small enough to live in a page: stepped integers, predicted, packed, base64.

The browser undoes it with ``DecompressionStream`` and one short loop (``static/volumes.js``).
Prediction is LOCO-I's median edge detector (ISO/IEC 14495-1, A.4.2), slice by slice; what is left
is folded to unsigned, split into high and low bytes and gzipped. Nothing is lost but the step.
"""

import base64
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]
Codes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Parts:
    """A volume as its slices, few at a time, made anew each time that they are gone through.

    Attributes:
        make: some slices of the volume, (C, X, Y, few).
        places: which, one after the other.
    """

    make: Callable[[npt.NDArray[np.int_]], Voxels]
    places: Sequence[npt.NDArray[np.int_]]

    def __iter__(self) -> Iterator[Voxels]:
        return (self.make(places) for places in self.places)


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


def pack_values(
    parts: Sequence[Voxels] | Parts, *, step: float | None = None, levels: int = 4096
) -> PackedVolume:
    """A volume in physical units, in even steps.

    Args:
        parts: slices one after the other, (1, X, Y, few); they are gone through twice. Values that
            are not finite count as the lowest.
        step: the step, codes beginning at a whole number; by default what ``levels`` give.
        levels: how many codes the range of the volume is divided into, at most 65536.
    """
    ends = [(part[known].min(), part[known].max()) for part, known in _finite(parts) if known.any()]
    low, high = (float(np.min(ends)), float(np.max(ends))) if ends else (0.0, 0.0)
    if step is None:
        step = (high - low) / (levels - 1) or 1.0
    else:
        low = float(np.floor(low))
    codes = (
        np.clip(np.round((np.where(known, part, low) - low) / step), 0, 65535).astype(np.uint16)
        for part, known in _finite(parts)
    )
    return _pack(codes, 16, low, step)


def _finite(parts: Iterable[Voxels]) -> Iterator[tuple[Voxels, npt.NDArray[np.bool_]]]:
    """Each part, and where it is finite."""
    return ((part, np.isfinite(part)) for part in parts)


def pack_unit(parts: Iterable[Voxels]) -> PackedVolume:
    """A volume of 0..1 in 255 steps, from its slices (C, X, Y, few); three channels are RGB."""
    codes = (np.round(np.nan_to_num(np.clip(part, 0, 1)) * 255).astype(np.uint8) for part in parts)
    return _pack(codes, 8, 0.0, 1 / 255)


def _pack(parts: Iterable[Codes], bits: int, offset: float, step: float) -> PackedVolume:
    """``parts`` packed: slices are predicted each by itself, so few of them are held at once."""
    channels: list[list[Codes]] = []
    largest = 0
    for codes in parts:
        largest = max(largest, int(codes.max(initial=0)))
        left = [_predict(_slices_first(channel), bits) for channel in _decorrelate(codes)]
        channels = channels or [[] for _ in left]
        for whole, part in zip(channels, left, strict=True):
            whole.append(part)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        for channel in channels:
            for shift in range(bits - 8, -1, -8):
                for part in channel:
                    file.write((part >> shift).astype(np.uint8).tobytes())
    data = base64.b64encode(packed.getbuffer()).decode("ascii")
    return PackedVolume(data, len(channels), bits, offset, step, largest)


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
    folded: Codes = ((residual << 1) ^ (residual >> 31)).astype(codes.dtype)
    return folded
