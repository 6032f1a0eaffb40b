"""Physical values to the network's 0..1, by one stated window for a whole volume."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scipy import ndimage

from mmif.config import IntensityConfig
from mmif.errors import InputError
from mmif.geometry import spacing_mm
from mmif.transforms.head import COARSE_MM, head_mask
from mmif.transforms.origin import origin_of

AIR_PERCENTILE = 99.5
"""The air's level: what this share of the voxels outside of the head stay below."""

AIR_MARGIN_MM = 8.0
"""Air begins this far from the head, so that neither blur nor ears count as air."""

DARK_SHARE = 0.25
"""The air's level never takes more than this share of the window: dark tissue stays visible."""


@dataclass(frozen=True)
class Window:
    """The physical values that became 0 and 1.

    Attributes:
        low: this and all below is 0.
        high: this and all above is 1.
        unit: HU, BQML, counts ..., or "" where the source does not say.
    """

    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.low:.6g}..{self.high:.6g} {self.unit}".rstrip()


def window_of(
    volume: MetaTensor, config: IntensityConfig, head: MetaTensor | None = None
) -> Window:
    """The window of ``volume`` that ``config`` asks for.

    ``window``: the values of ``config``. ``percentile``: percentiles of the head's voxels; the low
    end is raised to the level of the air outside of the head, so that the noise of an MRI's
    background, or the scatter of a SPECT's, is black and no haze lies over the fused volume.

    Args:
        volume: (1, X, Y, Z), physical values.
        config: the kind of window and its two numbers.
        head: (1, X, Y, Z) bool; found by `head_mask` when left out.

    Raises:
        InputError: the window has no width, or the volume holds NaN or infinite values.
    """
    origin = origin_of(volume)
    unit, name = str(getattr(origin, "units", "")), getattr(origin, "path", "the volume")
    values = volume[0].detach().cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values; expected finite ones")
    if config.kind == "window":
        return Window(config.low, config.high, unit)
    mask = (head_mask(volume) if head is None else head)[0].numpy().astype(bool)
    foreground = values[mask] if mask.any() else values
    low, high = (float(p) for p in np.percentile(foreground, [config.low, config.high]))
    air = _air_level(values, mask, spacing_mm(np.asarray(volume.affine)))
    if air is not None:
        low = max(low, min(air, low + DARK_SHARE * (high - low)))
    if not high > low:
        raise InputError(
            f"{name}: the percentiles {config.low:g} and {config.high:g} of what it shows are both "
            f"{high:.6g}; expected an image"
        )
    return Window(low, high, unit)


def apply_window(volume: MetaTensor, window: Window) -> MetaTensor:
    """``volume`` with ``window`` as 0..1; what lies outside is held at the ends."""
    return ((volume - window.low) / (window.high - window.low)).clamp(0, 1)


def scale_to_unit(
    volume: MetaTensor, config: IntensityConfig, head: MetaTensor | None = None
) -> tuple[MetaTensor, Window]:
    """``volume`` in 0..1 and the window that did it; see `window_of`."""
    window = window_of(volume, config, head)
    return apply_window(volume, window), window


class ScaleToUnit(Transform):  # type: ignore[misc]
    """A volume in 0..1 by its own window, which is kept in ``meta["window"]``."""

    def __init__(self, config: IntensityConfig) -> None:
        self.config = config

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """``volume`` in 0..1."""
        unit, window = scale_to_unit(volume, self.config)
        unit.meta["window"] = window
        return unit


class ScaleToUnitd(MapTransform):  # type: ignore[misc]
    """Dictionary twin of `ScaleToUnit`."""

    def __init__(
        self, keys: KeysCollection, config: IntensityConfig, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ScaleToUnit(config)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the volumes of the keys in 0..1."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.transform(result[key])
        return result


def _air_level(
    values: np.ndarray[Any, Any], head: np.ndarray[Any, Any], spacing: tuple[float, float, float]
) -> float | None:
    """The value that the air outside of the head stays below, or None where there is no air."""
    strides = [max(1, int(COARSE_MM / step)) for step in spacing]
    every = tuple(slice(None, None, stride) for stride in strides)
    steps = zip(spacing, strides, strict=True)
    reach = [2 * round(AIR_MARGIN_MM / (step * stride)) + 1 for step, stride in steps]
    outside = values[every][~ndimage.maximum_filter(head[every], size=reach)]
    if outside.size < 1000:
        return None
    return float(np.percentile(outside, AIR_PERCENTILE))
