"""What a study becomes: the records that the steps hand on, and the fusion that comes out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange

from mmif.geometry import Grid
from mmif.io.source import Source
from mmif.registration.loop import LoopClosure
from mmif.registration.result import Registration

STUDY_KEY = "study"
"""Where the dictionary that flows through the steps holds its `StudyRecord`."""

FUSED_KEY = "fused"
"""Where it holds the fused volume."""


SOFT_TISSUE = 0.75
"""Share of 0..1 that soft tissue takes where a window tells bone apart as well."""


@dataclass(frozen=True)
class Window:
    """The physical values that became 0 and 1.

    Attributes:
        low: this and all below is 0.
        high: this and all above is 1; with ``bone`` it is `SOFT_TISSUE`.
        unit: HU, BQML, counts ..., or "" where the source does not say.
        bone: this and all above is 1, and what lies between ``high`` and it is told apart at a
            lower slope; None for a window of one slope.
        by: what the window was chosen by, in words.
    """

    low: float
    high: float
    unit: str = ""
    bone: float | None = None
    by: str = ""

    def scale(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` as 0..1; what lies outside of the window is held at its ends."""
        unit: torch.Tensor = ScaleIntensityRange(self.low, self.high, 0, 1, clip=True)(values)
        if self.bone is not None:
            bone = ScaleIntensityRange(self.high, self.bone, 0, 1, clip=True)(values)
            unit = SOFT_TISSUE * unit + (1 - SOFT_TISSUE) * bone
        return unit.as_subclass(torch.Tensor)

    def __str__(self) -> str:
        words = f"{self.low:.6g}..{self.high:.6g} {self.unit}".rstrip()
        if self.bone is not None:
            words += f" (0..{SOFT_TISSUE:g}), bone to {self.bone:.6g}"
        return words


class MadeWhereAsked:
    """A volume (1, X, Y, Z) that is made where it is indexed; whole for ``np.asarray``."""

    def __getitem__(self, key: Any) -> torch.Tensor:
        raise NotImplementedError

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a volume that is made where it is asked for cannot be shared")
        return np.asarray(self[...].numpy(), dtype=dtype)


@dataclass(frozen=True, eq=False)
class Coverage(MadeWhereAsked):
    """How far a source counts at each voxel of the grid, 0..1: the least of its ``factors``.

    All of it would take a quarter of a gigabyte for a whole body, of which the factors of two
    untilted volumes take kilobytes.

    Attributes:
        factors: float32, each (1, X, Y, Z), or of length 1 where it does not change along an axis.
        shape: (1, X, Y, Z).
    """

    factors: tuple[torch.Tensor, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: tuple[int, int, int]) -> Self:
        """That of a source which counts everywhere on a grid of ``shape``."""
        return cls((torch.ones(1, 1, 1, 1),), (1, *shape))

    def __getitem__(self, key: Any) -> torch.Tensor:
        return reduce(torch.minimum, (one.expand(self.shape)[key] for one in self.factors))

    def part(self, slices: slice) -> Self:
        """That of some slices."""
        cut = (one if one.shape[-1] == 1 else one[..., slices] for one in self.factors)
        return replace(
            self,
            factors=tuple(cut),
            shape=(*self.shape[:-1], len(range(*slices.indices(self.shape[-1])))),
        )

    def above(self, limit: float) -> npt.NDArray[np.bool_]:
        """(X, Y, Z) where the source counts more than ``limit``; as volumes lie in memory."""
        mask = torch.ones(self.shape[:0:-1], dtype=torch.bool)
        for one in self.factors:
            mask &= (one > limit)[0].permute(2, 1, 0)
        return np.asarray(mask.permute(2, 1, 0).numpy())

    def either(self, other: Self) -> Self:
        """How far one of the two counts."""
        for one in (self, other):
            if all(bool((factor == 1).all()) for factor in one.factors):
                return one
        return replace(self, factors=(torch.maximum(self[...], other[...]),))


@dataclass(frozen=True, eq=False)
class UnitVolume(MadeWhereAsked):
    """A source as the network saw it, 0..1: by its window, faded out where its coverage ends.

    Attributes:
        values: (1, X, Y, Z), physical values.
        window: which of them became 0 and 1.
        coverage: how far the source counts.
    """

    values: MetaTensor
    window: Window
    coverage: Coverage

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, X, Y, Z)."""
        return tuple(self.values.shape)

    def __getitem__(self, key: Any) -> torch.Tensor:
        plain: torch.Tensor = self.values.as_subclass(torch.Tensor)
        return self.window.scale(plain[key]) * self.coverage[key]


@dataclass(frozen=True, eq=False)
class RegisteredSource:
    """One source on the fused grid.

    Attributes:
        role: what it is to the fusion.
        values: (1, X, Y, Z), physical values.
        unit: (1, X, Y, Z), 0..1, as the network saw it; ``values`` before there is a window.
            `mmif.transforms.colour.shown` has it in colour.
        coverage: (1, X, Y, Z), its weight; 1 everywhere for the reference.
        covered_fraction: (Z,), share of the patient in each slice of the reference that it covers.
        window: which values became 0 and 1.
        shape: voxels along i, j, k as they were read.
        origin: where it was read from; None for a volume that was made in memory.
        registration: reference to this source; None for the reference itself.
        head: (1, X, Y, Z) bool, the head in ``values`` (`mmif.transforms.head.head_mask`); None
            where it was not sought yet.
        limbs: (1, X, Y, Z) bool, arms and legs beside it (`mmif.transforms.head.outline`); None
            where they were not sought, or are of no use any more.
        colour_map: what it is shown in; None is grey.
    """

    role: str
    values: MetaTensor
    unit: MetaTensor | UnitVolume
    coverage: Coverage
    covered_fraction: npt.NDArray[np.float64]
    shape: tuple[int, int, int]
    window: Window = Window(0.0, 1.0)
    origin: Source | None = None
    registration: Registration | None = None
    head: MetaTensor | None = None
    limbs: MetaTensor | None = None
    colour_map: str | None = None


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """What the steps have found out of the whole study so far; each step hands on a new one.

    Attributes:
        reference: the role whose frame the grid lies in.
        grid: the fused grid.
        registrations: role to the registration of each source that is not the reference.
        loop: whether the registrations of three sources agree; None of two.
        sources: role to the source on the grid, the reference first.
        brain: (X, Y, Z) bool, what lies inside of the skull of the CT beside an MRI; None until it
            is sought, and once the windows are chosen.
        fusion: device, precision, weights, slices, seconds.
        metrics_per_slice: metric to (Z,); NaN where a slice is empty.
        readability: what of each source a reader still sees (`mmif.transforms.readability`).
        warnings: all that a reader of the volume must know, in the order it was found.
    """

    reference: str
    grid: Grid | None = None
    registrations: Mapping[str, Registration] = field(default_factory=dict)
    loop: LoopClosure | None = None
    sources: Mapping[str, RegisteredSource] = field(default_factory=dict)
    brain: npt.NDArray[np.bool_] | None = None
    fusion: Mapping[str, Any] = field(default_factory=dict)
    metrics_per_slice: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    readability: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_warnings(self, *warnings: str) -> Self:
        """A copy with ``warnings`` added."""
        return replace(self, warnings=self.warnings + warnings)

    def with_windows(self, windows: Mapping[str, Window]) -> Self:
        """A copy in which the sources of ``windows`` have them; limbs and brain are let go."""
        chosen = {
            role: replace(source, window=windows.get(role, source.window), limbs=None)
            for role, source in self.sources.items()
        }
        return replace(self, sources=chosen, brain=None)

    def with_units(self, roles: Collection[str]) -> Self:
        """A copy in which the sources of ``roles`` are shown by their windows."""
        shown = {
            role: replace(source, unit=UnitVolume(source.values, source.window, source.coverage))
            if role in roles
            else source
            for role, source in self.sources.items()
        }
        return replace(self, sources=shown)

    def with_colour_map(self, roles: Collection[str], name: str) -> Self:
        """A copy in which the sources of ``roles`` are shown in the colour map ``name``."""
        coloured = {
            role: replace(source, colour_map=name) if role in roles else source
            for role, source in self.sources.items()
        }
        return replace(self, sources=coloured)


@dataclass(frozen=True)
class StepRecord:
    """One step as it ran: a line of the summary.

    Attributes:
        name: the class of the step.
        parameters: what it was made with.
        seconds: how long it took.
        figures: what it found, as plain numbers and words.
    """

    name: str
    parameters: Mapping[str, Any]
    seconds: float
    figures: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class FusionResult:
    """A fused volume, what it was made of, and how.

    All volumes lie on ``grid``; (C, X, Y, Z) with X = columns from the patient's right to left,
    Y = rows from anterior to posterior, Z = slices from inferior to superior.

    Attributes:
        task: one of `mmif.roles.VOLUME_TASKS`.
        reference: the role whose frame the grid lies in.
        grid: the fused grid.
        fused: (1 or 3, X, Y, Z), values in 0..1; three channels are RGB.
        sources: role to the source on the grid, the reference first.
        metrics: the eight fusion metrics and SSIM255, mean over the slices that are not empty. Of
            three sources: the activity over the fused grey ones.
        metrics_per_slice: name to (Z,); NaN where a slice is empty.
        fusion: device, precision, slice batch, weights name and sha256, slices, seconds.
        warnings: all that a reader of the volume must know.
        readability: what of each source a reader still sees (`mmif.transforms.readability`).
        seconds: time by step.
        steps: what ran, step by step.
        loop: whether the registrations of three sources agree; None of two.
    """

    task: str
    reference: str
    grid: Grid
    fused: MetaTensor
    sources: Mapping[str, RegisteredSource]
    metrics: Mapping[str, float]
    metrics_per_slice: Mapping[str, npt.NDArray[np.float64]]
    fusion: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    readability: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    loop: LoopClosure | None = None

    @property
    def colour_map(self) -> str | None:
        """The map that the activity is shown in, None where all is grey."""
        name = self.fusion.get("colour_map")
        return None if name is None else str(name)

    @property
    def colour_room(self) -> float:
        """The brightest that anything is in the map ``activity``; 1 where there is no such map."""
        return float(self.fusion.get("colour_room", 1.0))

    @property
    def moving(self) -> tuple[RegisteredSource, ...]:
        """The sources that were brought to the reference, in the order of the task."""
        return tuple(s for role, s in self.sources.items() if role != self.reference)

    @property
    def windows(self) -> Mapping[str, Window]:
        """Role to the window that became 0..1."""
        return {role: source.window for role, source in self.sources.items()}
