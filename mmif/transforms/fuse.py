"""The sources become one volume, slice by slice, and the result is measured."""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from torch import nn

from mmif.config import FusionConfig
from mmif.errors import ConfigError
from mmif.metrics import REPORTED, evaluate_stack
from mmif.networks.inference import InferenceInfo, fuse_slices
from mmif.result import FUSED_KEY, STUDY_KEY, Coverage
from mmif.transforms.colour import colour_fused, luminance, shown, shown_brightness
from mmif.transforms.readability import readability, readability_warnings
from mmif.transforms.slices import grid_of, on_grid, slabs, to_slices
from mmif.transforms.step import Data, Step, study_of
from mmif.weights import Weights, load_weights

FUSED_AT_ONCE = 64
"""Slices that go to the network in one call, twice what a GPU takes as a batch: the stacks of a
whole body would take a gigabyte; chosen."""


Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Layer:
    """What goes into one pass of the network: a source, or what several became already.

    Attributes:
        unit: (1, X, Y, Z), 0..1.
        coverage: (1, X, Y, Z), how far it counts.
        colour_map: what it is shown in; None is grey.
    """

    unit: torch.Tensor
    coverage: Coverage
    colour_map: str | None = None

    def part(self, slices: slice) -> Self:
        """Some of its slices."""
        return replace(self, unit=self.unit[..., slices], coverage=self.coverage.part(slices))


class FuseSlicesd(Step):
    """The keys as one volume under ``"fused"``: grey ones first, then the activity over them.

    Where only one of two counts, it stands alone at its own brightness, with a soft transition.

    Args:
        keys: roles in the order of the task; the first two are the network's channels 0 and 1.
        weights: for each pass (one for two keys, two for three) a shipped name, a file, loaded
            `Weights`, or a network: (n, 2, rows, columns) to (n, 1, rows, columns), in 0..1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        colour_map: what an activity is shown in, None where it is grey.
        **fusion: ``precision``, ``slice_batch``, ``activity_floor``, ``anatomy_share`` and
            ``colour_room``, as in `mmif.config.FusionConfig`.

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
        colour_map: str | None = None,
        **fusion: Any,
    ) -> None:
        self.device, self.colour_map = device, colour_map
        self.weights, self.config = tuple(weights), FusionConfig(**fusion)
        super().__init__(
            keys,
            weights=[_name(one) for one in self.weights],
            device=device,
            colour_map=colour_map,
            **asdict(self.config),
        )
        if len(self.weights) != len(self.keys) - 1:
            raise ConfigError(
                f"{len(self.keys)} sources are fused in {len(self.keys) - 1} passes; found "
                f"{len(self.weights)} weights"
            )

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with the fused volume (1 or 3, X, Y, Z) in 0..1."""
        study = study_of(data)
        sources = {role: study.sources[role] for role in self.keys}
        first, *others = (
            Layer(_plain(data[role]), source.coverage, source.colour_map)
            for role, source in sources.items()
        )
        infos, unit = [], first.unit
        for index, second in enumerate(others):
            if index:
                both = first.coverage.either(others[index - 1].coverage)
                first = Layer(unit, both)
            unit, info = self._fuse_two(first, second, index)
            infos.append(info)
        fused = on_grid(unit, grid_of(data[self.keys[0]]))
        study = replace(study, fusion=self._summary(infos, fused))
        study = study.with_warnings(*(line for info in infos for line in info.warnings))
        return {**data, FUSED_KEY: fused, STUDY_KEY: study}

    def _fuse_two(
        self, first: Layer, second: Layer, index: int
    ) -> tuple[torch.Tensor, InferenceInfo]:
        """One pass: (1 or 3, X, Y, Z), with the colour of the second layer if it has any."""
        _, x, y, z = first.unit.shape
        channels = 1 if second.colour_map is None else 3
        whole = torch.empty((z, y, x, channels)).permute(3, 2, 1, 0)  # slices one after the other
        infos: list[InferenceInfo] = []
        for part in slabs(z, FUSED_AT_ONCE):
            a, b = first.part(part), second.part(part)
            stack, info = fuse_slices(
                self._network(index),
                to_slices(a.unit),
                to_slices(shown_brightness(b.unit, b.colour_map)),
                device=infos[-1].device if infos else self.device,
                precision=self.config.precision,
                batch=infos[-1].slice_batch if infos else self.config.slice_batch,
            )
            infos.append(info)
            fused = stack.permute(2, 1, 0)[None]
            for few in slabs(part.stop - part.start):
                bright = self._brightness(fused[..., few], a.part(few), b.part(few))
                whole[..., part][..., few] = merged(
                    bright, a.part(few), b.part(few), self.config.colour_room
                )
        return whole, _joined(infos)

    def _brightness(self, fused: torch.Tensor, first: Layer, second: Layer) -> torch.Tensor:
        """(1, X, Y, Z): ``fused``, under colours with its share of anatomy and room for them."""
        if second.colour_map is None:
            return fused
        mixed = torch.lerp(fused, first.unit, self.config.anatomy_share)
        return torch.maximum(mixed, self.config.activity_floor * second.unit.sqrt())

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
            summary |= {"colour_map": self.colour_map, "colour_room": self.config.colour_room}
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
        study, fused = study_of(data), data[FUSED_KEY]

        maps = {role: study.sources[role].colour_map for role in (self.keys[0], self.keys[-1])}

        def measure(part: slice) -> dict[str, npt.NDArray[np.float64]]:
            """The metrics of the brightness of all, in some slices."""
            stacks = [brightness_stack(data[role], name, part) for role, name in maps.items()]
            return slice_metrics(brightness_stack(fused, None, part), *stacks)

        # two lanes, and whichever is free takes the next slices: small studies have more to be read
        # than to be measured, large ones the other way round
        with ThreadPoolExecutor(torch.get_num_threads()) as lanes:
            spacing = grid_of(fused).spacing_mm
            reading = lanes.submit(readability, fused.numpy(), study.sources, spacing)
            measured = list(lanes.map(measure, slabs(fused.shape[-1])))
        seen = reading.result()
        metrics = {name: np.concatenate([part[name] for part in measured]) for name in REPORTED}
        study = replace(study, metrics_per_slice=metrics, readability=seen)
        study = study.with_warnings(*readability_warnings(seen))
        return {**data, STUDY_KEY: study}

    def figures(self, data: Data) -> dict[str, Any]:
        """The means, and the readability."""
        study = data[STUDY_KEY]
        return mean_metrics(study.metrics_per_slice) | dict(study.readability)


def merged(fused: torch.Tensor, first: Layer, second: Layer, colour_room: float) -> torch.Tensor:
    """(1 or 3, X, Y, Z): ``fused`` (1, X, Y, Z) where both count, else the one that does.

    In the colours of the second, if it has any, with ``colour_room`` for them.
    """
    a, w_a, b, w_b = first.unit, first.coverage[...], second.unit, second.coverage[...]
    both = fused
    if second.colour_map is not None:
        both = colour_fused(fused, b, second.colour_map, colour_room)
        b = shown(b, second.colour_map)
    return w_a * w_b * both + w_a * (1 - w_b) * a + (1 - w_a) * w_b * b


def _joined(infos: Sequence[InferenceInfo]) -> InferenceInfo:
    """How all parts of a stack were fused: as the last one, in the time of all."""
    warnings = dict.fromkeys(line for info in infos for line in info.warnings)
    seconds = round(sum(info.seconds for info in infos), 3)
    return replace(infos[-1], warnings=tuple(warnings), seconds=seconds)


def _plain(volume: MetaTensor) -> torch.Tensor:
    """``volume`` without its place: MONAI keeps track of that at every operation."""
    voxels: torch.Tensor = volume.as_subclass(torch.Tensor)
    return voxels


def brightness_stack(
    volume: MetaTensor, colour_map: str | None = None, slices: slice = slice(None)
) -> Bytes:
    """(Z, Y, X) slices of the brightness of ``volume`` (1 or 3, X, Y, Z), 0..1 as 8 bits.

    Args:
        volume: grey or RGB.
        colour_map: what a grey one is shown in.
        slices: some of its slices alone.
    """
    plain = _plain(volume)[..., slices]
    stack = np.empty(plain.shape[:0:-1], np.uint8)
    for part in slabs(plain.shape[-1]):
        seen = shown(plain, colour_map, part)
        bright = seen if len(seen) == 1 else luminance(seen)
        stack[part] = to_slices(bright).mul(255).round().to(torch.uint8).numpy()
    return stack


def slice_metrics(fused: Bytes, first: Bytes, second: Bytes) -> dict[str, npt.NDArray[np.float64]]:
    """Each metric of `mmif.metrics.REPORTED` for each slice (Z,); NaN where a source is empty.

    Args:
        fused, first, second: (Z, Y, X), what `brightness_stack` gives.
    """
    stacks = (fused, first, second)
    filled = np.all([stack.any(axis=(1, 2)) for stack in stacks[1:]], axis=0)
    result = {name: np.full(len(filled), np.nan) for name in REPORTED}
    if filled.any():
        values = evaluate_stack(*(stack[filled] for stack in stacks), threads=1)
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
