"""Physical values to the network's 0..1, by one stated window for a whole volume."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from scipy import ndimage

from mmif.config import IntensityConfig, build
from mmif.errors import ConfigError, InputError
from mmif.geometry import spacing_mm
from mmif.io.source import source_of
from mmif.result import STUDY_KEY, Window
from mmif.transforms.head import COARSE_MM, head_mask
from mmif.transforms.slices import grid_of, on_grid
from mmif.transforms.step import Data, Step, study_of

AIR_PERCENTILE = 99.5
"""The air's level: what this share of the voxels outside of the head stay below."""

AIR_MARGIN_MM = 8.0
"""Air begins this far from the head, so that neither blur nor ears count as air."""

DARK_SHARE = 0.25
"""The air's level never takes more than this share of the window: dark tissue stays visible."""


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
    origin = source_of(volume)
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


class ChooseWindowsd(Step):
    """One window for each key, of the volume as it was read; `window_of` for each role.

    Args:
        keys: roles.
        intensity: role to the kind of window and its two numbers (`IntensityConfig`, or its
            plain form).

    Raises:
        InputError: a volume cannot be windowed.
        ConfigError: a role of the keys has no window.
    """

    part = "resample"

    def __init__(
        self, keys: KeysCollection, intensity: Mapping[str, IntensityConfig | Mapping[str, Any]]
    ) -> None:
        self.intensity = {
            role: given
            if isinstance(given, IntensityConfig)
            else build(IntensityConfig, given, role)
            for role, given in intensity.items()
        }
        super().__init__(keys, intensity={r: asdict(i) for r, i in self.intensity.items()})
        for role in self.keys:
            if role not in self.intensity:
                raise ConfigError(f"no intensity for {role}; volumes need one")

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the windows in its record."""
        windows = {role: window_of(data[role], self.intensity[role]) for role in self.keys}
        return {**data, STUDY_KEY: replace(study_of(data), windows=windows)}

    def figures(self, data: Data) -> dict[str, Any]:
        """The windows, in words."""
        return {role: str(window) for role, window in data[STUDY_KEY].windows.items()}


class ScaleToUnitd(Step):
    """Each key in 0..1 by its window, faded out softly where its coverage ends."""

    part = "resample"

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with volumes (1, X, Y, Z) in 0..1, also in its record."""
        study = study_of(data)
        units = {}
        for role in self.keys:
            source = study.sources[role]
            unit = apply_window(data[role], source.window)
            units[role] = (
                unit if role == study.reference else on_grid(unit * source.coverage, grid_of(unit))
            )
        return {**data, **units, STUDY_KEY: study.with_units(units)}


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
