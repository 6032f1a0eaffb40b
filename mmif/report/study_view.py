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
from mmif.transforms.colour import shown, shown_brightness

if TYPE_CHECKING:
    from mmif.registration.result import Registration
    from mmif.result import FusionResult, RegisteredSource

FOREGROUND, FAINT = 0.1, 0.06
"""Brightness above which a voxel belongs to the head, or is worth a place in a picture."""

MARGIN = 8
"""Pixels around what the viewer frames."""


@dataclass(frozen=True)
class StudyView:
    """The arrays of one `FusionResult`, each made once."""

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
    def registration(self) -> "Registration":
        """How the moving source was brought there."""
        registration = self.moving.registration
        if registration is None:
            raise ConfigError(f"the {self.moving.role} has no registration; expected one")
        return registration

    @property
    def reference_label(self) -> str:
        """What the reference is called."""
        return label(self.result.reference)

    @property
    def moving_label(self) -> str:
        """What the moving volume is called."""
        return label(self.moving.role)

    @cached_property
    def fused(self) -> Floats:
        """(1 or 3, X, Y, Z), 0..1."""
        return array(self.result.fused)

    @cached_property
    def reference_bright(self) -> Floats:
        """(X, Y, Z) brightness of the reference, 0..1."""
        return _bright(self.reference)

    @cached_property
    def moving_bright(self) -> Floats:
        """(X, Y, Z) brightness of the registered moving volume as it is shown, 0..1."""
        return _bright(self.moving)

    @cached_property
    def fused_bright(self) -> Floats:
        """(X, Y, Z) brightness of the fused volume, 0..1."""
        return luminance(self.fused)

    @cached_property
    def coverage(self) -> Floats:
        """(X, Y, Z) weight of the moving volume, 0..1."""
        weight: Floats = array(self.moving.coverage)[0]
        return weight

    @cached_property
    def share(self) -> SourceShare:
        """Where each fused pixel comes from."""
        return source_share(self.fused_bright, self.reference_bright, self.moving_bright)

    @cached_property
    def filled_slices(self) -> npt.NDArray[np.bool_]:
        """(Z,) the slices with at least a quarter of the bright area of the fullest one."""
        area = (self.fused_bright > FOREGROUND).sum(axis=(0, 1))
        return np.asarray(area >= max(1, area.max(initial=0) / 4))

    @cached_property
    def frame(self) -> tuple[slice, slice]:
        """Columns and rows that hold what is bright in any volume, and a margin; all if none."""
        volumes = (self.fused_bright, self.reference_bright, self.moving_bright)
        shadow = np.max([volume.max(axis=2) for volume in volumes], axis=0) > FAINT
        return _span(shadow.any(axis=1)), _span(shadow.any(axis=0))

    @cached_property
    def cut(self) -> Cut:
        """The voxel to look at first: the middle of what is bright, or of the grid."""
        x, y, z = self.fused_bright.shape
        bright = np.nonzero(self.fused_bright > FOREGROUND)
        if not len(bright[0]):
            return Cut(x // 2, y // 2, z // 2)
        return Cut(*(round(float(axis.mean())) for axis in bright))


def _span(used: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(used)
    if not len(places):
        return slice(0, len(used))
    return slice(max(0, int(places[0]) - MARGIN), min(len(used), int(places[-1]) + 1 + MARGIN))


def is_blurred(role: str) -> bool:
    """Whether a source has no sharp edges: lines of equal brightness are drawn in their place."""
    return role in ACTIVITY_ROLES


def _bright(source: "RegisteredSource") -> Floats:
    """(X, Y, Z) brightness of a source as it is shown."""
    return luminance(array(shown_brightness(source.unit, source.colour_map)))


def axial_slice(source: "RegisteredSource", k: int) -> Floats:
    """(1 or 3, X, Y): axial slice ``k`` (from 0) of a source as it is shown."""
    return array(shown(source.unit, source.colour_map, k))


def array(volume: Any) -> Floats:
    """A MetaTensor's voxels as a float32 array."""
    values: npt.NDArray[np.float32] = np.asarray(volume.detach().cpu().numpy(), dtype=np.float32)
    return values
