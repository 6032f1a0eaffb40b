"""The PET in standardised uptake values, where its headers allow it."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor

from mmif.io.source import SOURCE_KEY, source_of
from mmif.transforms.slices import grid_of, on_grid
from mmif.transforms.step import Data, Step

SUVBW = "SUVBW"
"""The unit of a value in SUV by body weight (PS3.3 C.8.9.1: Units GML, SUVType BW)."""


class ConvertToSuvd(Step):
    """Each key in SUV by body weight, where its headers allow it; else as it was read.

    The factor is that of `mmif.io.dicom.suv.suv_scale`, one for the volume.

    Args:
        keys: roles, PET.
    """

    part = "read"

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with volumes (1, X, Y, Z) in SUVbw whose sources say so."""
        return {**data, **{role: to_suv(data[role]) for role in self.keys}}

    def figures(self, data: Data) -> dict[str, Any]:
        """The unit of each volume."""
        sources = {role: source_of(data[role]) for role in self.keys}
        return {f"{role}_unit": s.units for role, s in sources.items() if s is not None}


def to_suv(volume: MetaTensor) -> MetaTensor:
    """``volume`` (1, X, Y, Z) in SUVbw where its headers allow it, else as it is."""
    source = source_of(volume)
    if source is None or source.suv is None or source.units == SUVBW:
        return volume
    converted = on_grid(volume.as_tensor() * source.suv.factor, grid_of(volume), like=volume)
    converted.meta[SOURCE_KEY] = replace(source, units=SUVBW)
    return converted
