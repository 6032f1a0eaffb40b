"""The sources become one volume, slice by slice, and the result is measured."""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from torch import nn

from mmif.config import Precision
from mmif.errors import ConfigError
from mmif.metrics import REPORTED, evaluate_stack
from mmif.networks.inference import InferenceInfo, fuse_slices
from mmif.result import FUSED_KEY, STUDY_KEY
from mmif.transforms.colour import colour_fused, luminance
from mmif.transforms.readability import readability, readability_warnings
from mmif.transforms.slices import from_slices, grid_of, on_grid, to_slices
from mmif.transforms.step import Data, Step, study_of
from mmif.weights import Weights, load_weights

SLAB = 32
"""Slices that are put together at once."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What goes into one pass of the network: a source, or what several became already.

    Attributes:
        unit: (1 or 3, X, Y, Z), 0..1.
        coverage: (1, X, Y, Z), how far it counts, 0..1.
        level: (1, X, Y, Z), 0..1, before a colour map; None where there is none.
    """

    unit: MetaTensor
    coverage: MetaTensor
    level: MetaTensor | None = None


class FuseSlicesd(Step):
    """The keys as one volume under ``"fused"``: grey ones first, then the activity over them.

    Where only one of two counts, it stands alone at its own brightness, with a soft transition.

    Args:
        keys: roles in the order of the task; the first two are the network's channels 0 and 1.
        weights: for each pass (one for two keys, two for three) a shipped name, a file, loaded
            `Weights`, or a network: (n, 2, rows, columns) to (n, 1, rows, columns), in 0..1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        slice_batch: slices at once; None leaves it to the device.
        colour_map: what an activity was shown in, None where it was colour from the start.

    Raises:
        ConfigError: not one network a pass.
        WeightsError: weights that cannot be used.
    """

    part = "fuse"

    def __init__(
        self,
        keys: KeysCollection,
        weights: Sequence[str | Path | Weights | nn.Module],
        device: str = "auto",
        precision: Precision = "auto",
        slice_batch: int | None = None,
        colour_map: str | None = None,
    ) -> None:
        self.colour_map = colour_map
        self.weights = tuple(weights)
        self.device, self.precision, self.slice_batch = device, precision, slice_batch
        super().__init__(
            keys,
            weights=[_name(one) for one in self.weights],
            device=device,
            precision=precision,
            slice_batch=slice_batch,
            colour_map=colour_map,
        )
        if len(self.weights) != len(self.keys) - 1:
            raise ConfigError(
                f"{len(self.keys)} sources are fused in {len(self.keys) - 1} passes; found "
                f"{len(self.weights)} weights"
            )

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the fused volume (1 or 3, X, Y, Z) in 0..1."""
        study = study_of(data)
        sources = ((data[role], study.sources[role]) for role in self.keys)
        first, *others = (Layer(unit, source.coverage, source.level) for unit, source in sources)
        infos = []
        for index, second in enumerate(others):
            first, info = self._fuse_two(first, second, index)
            infos.append(info)
        study = replace(study, fusion=self._summary(infos, first.unit))
        study = study.with_warnings(*(line for info in infos for line in info.warnings))
        return {**data, FUSED_KEY: first.unit, STUDY_KEY: study}

    def _fuse_two(self, first: Layer, second: Layer, index: int) -> tuple[Layer, InferenceInfo]:
        """One pass: two layers as one, with the colour of the one that has any."""
        stack, info = fuse_slices(
            self._network(index),
            to_slices(brightness(first.unit)),
            to_slices(brightness(second.unit)),
            device=self.device,
            precision=self.precision,
            batch=self.slice_batch,
        )
        grid = grid_of(first.unit)
        fused = from_slices(stack, first.unit)
        weight = torch.maximum(_plain(first.coverage), _plain(second.coverage))
        return Layer(
            on_grid(self._merge_layers(fused, first, second), grid), on_grid(weight, grid)
        ), info

    def _merge_layers(self, fused: MetaTensor, first: Layer, second: Layer) -> torch.Tensor:
        """(1 or 3, X, Y, Z): ``fused`` in colour where both count, else the one that does.

        A few slices at a time: in one go the terms of a whole body's sum take gigabytes.
        """
        coloured = len(second.unit) == 3
        channels = max(len(first.unit), len(second.unit))
        x, y, z = fused.shape[1:]
        whole = torch.empty((channels, z, y, x)).permute(0, 3, 2, 1)  # slice after slice
        for start in range(0, fused.shape[-1], SLAB):
            part = (..., slice(start, start + SLAB))
            a, w_a = _plain(first.unit)[part], _plain(first.coverage)[part]
            b, w_b = _plain(second.unit)[part], _plain(second.coverage)[part]
            both = _plain(fused)[part]
            if coloured:
                level = None if second.level is None else _plain(second.level)[part]
                both = colour_fused(both, b, level, self.colour_map)
            whole[part] = w_a * w_b * both + w_a * (1 - w_b) * a + (1 - w_a) * w_b * b
        return whole

    def _network(self, index: int) -> Any:
        """The network of a pass; weights that are named are loaded once."""
        one = self.weights[index]
        if isinstance(one, str | Path):
            one = load_weights(one)
            self.weights = (*self.weights[:index], one, *self.weights[index + 1 :])
        return one.network if isinstance(one, Weights) else one

    def _summary(self, infos: Sequence[InferenceInfo], fused: MetaTensor) -> dict[str, Any]:
        """How the network ran; of two passes the last, the first under ``grey_weights``."""
        last, slices = infos[-1], fused.shape[-1]
        seconds = sum(info.seconds for info in infos)
        summary: dict[str, Any] = {
            "device": last.device,
            "precision": last.precision,
            "slice_batch": last.slice_batch,
            "weights": _identity(self.weights[-1]),
            "slices": slices,
            "seconds": seconds,
            "seconds_per_slice": round(seconds / slices, 5),
        }
        if self.colour_map is not None:
            summary["colour_map"] = self.colour_map
        return summary | ({"grey_weights": _identity(self.weights[0])} if len(infos) > 1 else {})

    def figures(self, data: Data) -> dict[str, Any]:
        """Device, precision and slices."""
        fusion = data[STUDY_KEY].fusion
        return {name: fusion[name] for name in ("device", "precision", "slices")}


class MeasureFusiond(Step):
    """The eight fusion metrics of every slice, and what a reader still sees, into the record.

    Args:
        keys: roles in the order of the task. Of three, the activity is image B, and what the
            others are shows in the fused volume alone: A is the first.
    """

    part = "metrics"

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with metrics in its record."""
        a, b = data[self.keys[0]], data[self.keys[-1]]
        study, fused = study_of(data), data[FUSED_KEY]
        with ThreadPoolExecutor(1) as other:
            measured = other.submit(slice_metrics, fused, a, b)
            seen = readability(fused.numpy(), study.sources, grid_of(fused).spacing_mm)
        study = replace(study, metrics_per_slice=measured.result(), readability=seen).with_warnings(
            *readability_warnings(seen)
        )
        return {**data, STUDY_KEY: study}

    def figures(self, data: Data) -> dict[str, Any]:
        """The means, and the readability."""
        study = data[STUDY_KEY]
        return mean_metrics(study.metrics_per_slice) | dict(study.readability)


def _plain(volume: MetaTensor) -> torch.Tensor:
    """``volume`` without its place: MONAI keeps track of that at every operation."""
    voxels: torch.Tensor = volume.as_subclass(torch.Tensor)
    return voxels


def brightness(volume: MetaTensor) -> MetaTensor:
    """(1, X, Y, Z): the volume itself if it is grey, its luminance Y if it is RGB."""
    if volume.shape[0] == 1:
        return volume
    return on_grid(luminance(volume.as_subclass(torch.Tensor)), grid_of(volume))


def slice_metrics(
    fused: MetaTensor, first: MetaTensor, second: MetaTensor
) -> dict[str, npt.NDArray[np.float64]]:
    """Each metric of `mmif.metrics.REPORTED` for each slice (Z,); NaN where a source is empty.

    Args:
        fused, first, second: (1 or 3, X, Y, Z), 0..1; their brightness is measured in 8 bits.
    """
    stacks = [
        to_slices(brightness(volume)).mul(255).round().to(torch.uint8).numpy()
        for volume in (fused, first, second)
    ]
    filled = np.all([stack.any(axis=(1, 2)) for stack in stacks[1:]], axis=0)
    result = {name: np.full(len(filled), np.nan) for name in REPORTED}
    if filled.any():
        values = evaluate_stack(*(stack[filled] for stack in stacks))
        for name in REPORTED:
            result[name][filled] = values[name]
    return result


def mean_metrics(per_slice: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """The mean of each metric over the slices where it is defined; NaN if there are none."""
    known = {name: values[~np.isnan(values)] for name, values in per_slice.items()}
    return {n: float(values.mean()) if values.size else float("nan") for n, values in known.items()}


def _name(one: str | Path | Weights | nn.Module) -> str:
    """How weights or a network are called in what is printed."""
    if isinstance(one, Weights):
        return one.name
    return str(one) if isinstance(one, str | Path) else type(one).__name__


def _identity(one: str | Path | Weights | nn.Module) -> dict[str, str]:
    """Name and sha256 of weights; a network that was handed over has none."""
    return {"name": _name(one), "sha256": one.sha256 if isinstance(one, Weights) else ""}
