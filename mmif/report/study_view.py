"""A fusion result as the report sees it: plain arrays, labels, and where to look first."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmif.errors import ConfigError
from mmif.report.contributions import SourceShare, luminance, source_share
from mmif.report.pictures import Cut, Floats
from mmif.roles import ACTIVITY_ROLES, label
from mmif.transforms.colour import shown

if TYPE_CHECKING:
    from mmif.registration.result import Registration
    from mmif.result import FusionResult, RegisteredSource

FOREGROUND, FAINT = 0.1, 0.06
"""Brightness above which a voxel belongs to the head, or is worth a place in a picture."""

MARGIN = 8
"""Pixels around what the viewer frames."""

NAMES = ("reference", "moving", "third")
"""What the page calls the sources: the reference, and those that were brought to it."""

Part = tuple[slice | int, slice | int, slice | int]
"""Some voxels of a volume, by i, j and k."""


@dataclass(frozen=True)
class StudyView:
    """One `FusionResult`: what is small is made once, a whole volume never."""

    result: "FusionResult"

    @property
    def reference(self) -> "RegisteredSource":
        """The source whose frame the grid lies in."""
        return self.result.sources[self.result.reference]

    @property
    def moving(self) -> "RegisteredSource":
        """The source that was brought to it; of several the first."""
        return self.result.moving[0]

    @property
    def registered(self) -> "dict[str, RegisteredSource]":
        """By its name in the page each source that was brought to the reference."""
        return dict(zip(NAMES[1:], self.result.moving, strict=False))

    @property
    def sources(self) -> "dict[str, RegisteredSource]":
        """By its name in the page each source."""
        return {NAMES[0]: self.reference, **self.registered}

    @property
    def reference_label(self) -> str:
        """What the reference is called."""
        return label(self.result.reference)

    @property
    def moving_label(self) -> str:
        """What the moving volume is called."""
        return label(self.moving.role)

    @property
    def shape(self) -> tuple[int, int, int]:
        """X, Y and Z of the fused grid."""
        return self.result.grid.shape

    @cached_property
    def fused(self) -> Floats:
        """(1 or 3, X, Y, Z), 0..1."""
        return array(self.result.fused)

    def fused_bright(self, part: Part) -> Floats:
        """Brightness of the fused volume in some of its voxels, 0..1."""
        return luminance(self.fused[(slice(None), *part)])

    def reference_bright(self, part: Part) -> Floats:
        """The same of the reference."""
        return bright_of(self.reference, part)

    def moving_bright(self, part: Part) -> Floats:
        """The same of the registered moving volume as it is shown."""
        return bright_of(self.moving, part)

    @cached_property
    def covered(self) -> npt.NDArray[np.float64]:
        """(Z,) the share of the patient that every source covers at least; NaN where unknown."""
        fractions = [source.covered_fraction for source in self.result.moving]
        return np.asarray(np.min(fractions, axis=0), dtype=np.float64)

    @cached_property
    def share(self) -> SourceShare:
        """Where each fused pixel comes from."""

        def slices(k: int) -> tuple[Floats, Floats, Floats]:
            """The brightness of all in one slice."""
            at = axial(k)
            return self.fused_bright(at), self.reference_bright(at), self.moving_bright(at)

        return source_share(slices, self.shape)

    @cached_property
    def survey(self) -> "Survey":
        """What is bright where; slice by slice, as whole volumes of brightness take a gigabyte."""
        return survey(self)

    @cached_property
    def filled_slices(self) -> npt.NDArray[np.bool_]:
        """(Z,) the slices with at least a quarter of the bright area of the fullest one."""
        area = self.survey.area
        return np.asarray(area >= max(1, area.max(initial=0) / 4))

    @cached_property
    def frame(self) -> tuple[slice, slice]:
        """Columns and rows that hold what is bright in any volume, and a margin; all if none."""
        shadow: npt.NDArray[np.bool_] = np.asarray(self.survey.shadow > FAINT)
        return _span(np.any(shadow, axis=1)), _span(np.any(shadow, axis=0))

    @property
    def cut(self) -> Cut:
        """The voxel to look at first: the middle of what is bright, or of the grid."""
        return self.survey.middle


@dataclass(frozen=True, eq=False)
class Survey:
    """What is bright where in the volumes of a study.

    Attributes:
        area: (Z,) pixels of the fused volume that belong to the patient.
        contrast: (Z,) its brightest pixel less its darkest.
        fused_shadow: (X, Y) the brightest of its slices.
        shadow: (X, Y) the brightest of the slices of all volumes.
        middle: of what is bright in the fused volume, or of the grid.
    """

    area: npt.NDArray[np.int64]
    contrast: Floats
    fused_shadow: Floats
    shadow: Floats
    middle: Cut


def survey(view: StudyView) -> Survey:
    """What is bright where, slice by slice."""
    x, y, z = view.shape
    area, contrast = np.zeros(z, np.int64), np.zeros(z, np.float32)
    fused_shadow, sources_shadow = np.zeros((x, y), np.float32), np.zeros((x, y), np.float32)
    by_column, by_row = np.zeros(x, np.int64), np.zeros(y, np.int64)
    for k in range(z):
        fused = view.fused_bright(axial(k))
        bright = fused > FOREGROUND
        area[k], contrast[k] = bright.sum(), np.ptp(fused)
        by_column += bright.sum(axis=1)
        by_row += bright.sum(axis=0)
        np.maximum(fused_shadow, fused, out=fused_shadow)
        for source in view.sources.values():
            np.maximum(sources_shadow, bright_of(source, axial(k)), out=sources_shadow)
    middle = (x // 2, y // 2, z // 2)
    if area.any():
        i, j, k = (
            round(float(np.average(np.arange(len(n)), weights=n)))
            for n in (by_column, by_row, area)
        )
        middle = (i, j, k)
    shadow = np.maximum(fused_shadow, sources_shadow)
    return Survey(area, contrast, fused_shadow, shadow, Cut(*middle))


def axial(k: int) -> Part:
    """Slice ``k`` (from 0)."""
    return slice(None), slice(None), k


def _span(used: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(used)
    if not len(places):
        return slice(0, len(used))
    return slice(max(0, int(places[0]) - MARGIN), min(len(used), int(places[-1]) + 1 + MARGIN))


def is_blurred(role: str) -> bool:
    """Whether a source has no sharp edges: lines of equal brightness are drawn in their place."""
    return role in ACTIVITY_ROLES


def registration_of(source: "RegisteredSource") -> "Registration":
    """How ``source`` was brought to the reference.

    Raises:
        ConfigError: it is the reference itself, or was never brought there.
    """
    if source.registration is None:
        raise ConfigError(f"the {source.role} has no registration; expected one")
    return source.registration


def bright_of(source: "RegisteredSource", part: Part) -> Floats:
    """Brightness of a source as it is shown, in some of its voxels."""
    return luminance(array(shown(source.unit[(slice(None), *part)], source.colour_map)))


def axial_slice(source: "RegisteredSource", k: int) -> Floats:
    """(1 or 3, X, Y): axial slice ``k`` (from 0) of a source as it is shown."""
    return array(shown(source.unit[..., k], source.colour_map))


def array(volume: Any) -> Floats:
    """A MetaTensor's voxels as a float32 array."""
    values: npt.NDArray[np.float32] = np.asarray(volume.detach().cpu().numpy(), dtype=np.float32)
    return values
