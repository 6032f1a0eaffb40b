import base64
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmif.report.volumes import PackedVolume, pack_unit, pack_values


def slabs_of(volume: np.ndarray) -> list[np.ndarray]:
    """(C, X, Y, Z) two slices at a time."""
    return [volume[..., k : k + 2] for k in range(0, volume.shape[-1], 2)]


def unpacked(packed: PackedVolume, shape: tuple[int, int, int]) -> np.ndarray:
    """(C, X, Y, Z) values, one code after the other, as the browser does it."""
    x, y, z = shape
    size, wide = x * y * z, packed.bits == 16
    raw = np.frombuffer(gzip.decompress(base64.b64decode(packed.data)), np.uint8).astype(int)
    channels = []
    for channel in raw.reshape(packed.channels, -1):
        folded = (channel[:size] << 8 | channel[size:] if wide else channel).reshape(z, y, x)
        channels.append(_unpredicted(folded, (1 << packed.bits) - 1))
    if packed.channels == 3:
        green, red, blue = channels
        channels = [(red + green) & 255, green, (blue + green) & 255]
    codes = np.stack(channels).transpose(0, 3, 2, 1)
    return packed.offset + packed.step * codes


def _unpredicted(folded: np.ndarray, mask: int) -> np.ndarray:
    codes = np.zeros_like(folded)
    for k, j, i in np.ndindex(folded.shape):
        left = codes[k, j, i - 1] if i else 0
        up = codes[k, j - 1, i] if j else 0
        corner = codes[k, j - 1, i - 1] if i and j else 0
        low, high = min(left, up), max(left, up)
        guess = low if corner >= high else high if corner <= low else left + up - corner
        value = folded[k, j, i]
        codes[k, j, i] = (guess + ((value >> 1) ^ -(value & 1))) & mask
    return codes


shapes = st.tuples(*[st.integers(1, 5)] * 3)


@settings(max_examples=40, deadline=None)
@given(st.data(), shapes, st.sampled_from([256, 4096, 65536]))
def test_values_come_back_within_half_a_step(data, shape, levels) -> None:
    values = data.draw(arrays(np.float32, shape, elements=st.floats(-3000, 60000, width=32)))
    packed = pack_values([values[None]], levels=levels)
    error = np.abs(unpacked(packed, shape)[0] - values).max()
    assert error <= packed.step / 2 + 1e-2


@settings(max_examples=20, deadline=None)
@given(st.data(), shapes, st.sampled_from([1, 3]))
def test_unit_volumes_come_back_as_8_bits(data, shape, channels) -> None:
    whole = (channels, *shape)
    values = data.draw(arrays(np.float32, whole, elements=st.floats(0, 1, width=32)))
    back = unpacked(pack_unit(slabs_of(values)), shape)
    assert np.array_equal(np.round(back * 255), np.round(values * 255))


def test_hounsfield_units_are_kept_whole() -> None:
    hu = np.arange(-1024, 3071, dtype=np.float32).reshape(15, 13, 21)
    packed = pack_values(slabs_of(hu[None]), step=1.0)
    assert packed.step == 1
    assert np.array_equal(unpacked(packed, hu.shape)[0], hu)


@pytest.mark.parametrize("values", [np.full((2, 3, 4), 7.0), np.full((2, 3, 4), np.nan)])
def test_constant_and_undefined_volumes_pack(values) -> None:
    back = unpacked(pack_values([values[None]], levels=256), values.shape)
    assert np.array_equal(back[0], np.nan_to_num(values))
