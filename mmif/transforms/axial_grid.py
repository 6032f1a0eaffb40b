"""Registered volumes onto the axial grid of the reference, one interpolation each."""

import math
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.data import MetaTensor

from mmif.config import GridConfig
from mmif.errors import GeometryError, RegistrationError
from mmif.geometry import Grid, axial_grid
from mmif.io.source import source_of
from mmif.options import Fov
from mmif.pair import name_inputs, reader_warnings
from mmif.result import STUDY_KEY, Coverage, RegisteredSource, StudyRecord
from mmif.roles import ROLES, label
from mmif.transforms.brain import COVERED, brain_in_skull
from mmif.transforms.head import head_box_ras, head_mask, outline
from mmif.transforms.slices import coverage, covered_fraction, grid_of, to_grid
from mmif.transforms.step import Data, Step, study_of

MAX_GRID_VOXELS = 1 << 28
"""Voxels of a fused volume: 4096 slices of 256 x 256; its arrays take some 10 GB then."""

PARTLY = 0.99
"""A slice of which less than this share is covered is named in a warning."""


def fused_grid(reference: MetaTensor, config: GridConfig) -> Grid:
    """The axial grid over the field of view, or the head, of ``reference``.

    Raises:
        GeometryError: it would have more than MAX_GRID_VOXELS voxels.
    """
    box = head_box_ras(reference) if config.fov == "head" else None
    grid = axial_grid(grid_of(reference), config.size, box)
    if (voxels := math.prod(grid.shape)) > MAX_GRID_VOXELS:
        size = " x ".join(map(str, grid.shape))
        raise GeometryError(
            f"the fused grid would have {size} = {voxels} voxels, slices {grid.spacing_mm[2]:.3g} "
            f"mm apart; expected at most {MAX_GRID_VOXELS}"
        )
    return grid


class ResampleToAxialGridd(Step):
    """Each key on the axial grid of the reference, by one interpolation through its registration.

    The record then holds the grid and, for each role, values and coverage (`RegisteredSource`);
    what the readers noticed comes first among its warnings. The volumes as they were read are not
    held any longer.

    Args:
        keys: roles, the reference among them.
        reference: the role whose frame and field of view the grid has.
        size: rows and columns.
        fov: what they cover: the reference's field of view, or its head.
        transition_mm: width of the soft step where the coverage of a source ends.

    Raises:
        RegistrationError: a source and the reference do not overlap.
    """

    part = "resample"

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        size: int = 256,
        fov: Fov = "reference",
        transition_mm: float = 6.0,
    ) -> None:
        self.reference, self.transition_mm = reference, transition_mm
        self.config = GridConfig(size=size, fov=fov)
        super().__init__(keys, reference=reference, size=size, fov=fov, transition_mm=transition_mm)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with volumes (1, size, size, Z) and the sources in its record."""
        study, reference = study_of(data), data[self.reference]
        grid = fused_grid(reference, self.config)
        with ThreadPoolExecutor() as cores:
            moved = {
                role: cores.submit(self._move_source, data, role, grid, study)
                for role in self.keys
                if role != self.reference
            }
            still = to_grid(reference, grid)
        sources = {
            self.reference: RegisteredSource(
                self.reference,
                still,
                still,
                Coverage.whole(grid.shape),
                np.ones(grid.shape[2]),
                grid_of(reference).shape,
                origin=source_of(reference),
            )
        }
        sources |= {role: found.result() for role, found in moved.items()}
        # only here: what the readers noticed may quote a path, and is de-identified by now
        noticed = reader_warnings({role: data[role] for role in self.keys})
        warnings = (*noticed, *study.warnings)
        study = replace(study, grid=grid, sources=sources, warnings=warnings)
        return {**data, **{role: s.values for role, s in sources.items()}, STUDY_KEY: study}

    def _move_source(
        self, data: Data, role: str, grid: Grid, study: StudyRecord
    ) -> RegisteredSource:
        """One source through its registration; covered as a whole, as if all of the grid counted.

        Raises:
            RegistrationError: it does not overlap with the reference.
        """
        registration = study.registrations[role]
        transform = registration.fixed_to_moving_lps
        weight = coverage(data[role], grid, transform, self.transition_mm)
        if not weight.above(0).any():
            found = f"the {label(role)} and the {label(self.reference)} do not overlap"
            volumes = {one: data[one] for one in self.keys}
            raise RegistrationError(name_inputs(f"{found}; expected volumes of one head", volumes))
        values = to_grid(data[role], grid, transform, reference=data[self.reference])
        return RegisteredSource(
            role,
            values,
            values,
            weight,
            covered_fraction(weight),
            grid_of(data[role]).shape,
            origin=source_of(data[role]),
            registration=registration,
        )

    def figures(self, data: Data) -> dict[str, Any]:
        """Shape and spacing of the grid."""
        grid = data[STUDY_KEY].grid
        return {
            "shape": list(grid.shape),
            "spacing_mm": [round(s, 6) for s in grid.spacing_mm],
        }


class OutlinePatientd(Step):
    """The outline of the patient in the reference, and how far each source covers it.

    Beside an MRI the brain is sought in the skull of the CT meanwhile: each keeps a core busy.

    Args:
        keys: roles, the reference among them. Below an activity limbs are sought too.
        reference: the role whose frame the grid has.
    """

    part = "resample"

    def __init__(self, keys: KeysCollection, reference: str) -> None:
        self.reference = reference
        super().__init__(keys, reference=reference)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with outline and covered fractions in its record."""
        study = study_of(data)
        with ThreadPoolExecutor(1) as other:
            brain = other.submit(_brain_in_ct, study) if {"ct", "mri"} <= set(self.keys) else None
            still = self._outlined(study.sources[self.reference])
        if brain is not None:
            study = replace(study, brain=brain.result())
        sources = dict(study.sources) | {self.reference: still}
        for role, source in study.sources.items():
            if role != self.reference:
                covered = covered_fraction(source.coverage, still.head)
                sources[role] = replace(source, covered_fraction=covered)
        said = [line for source in sources.values() for line in coverage_warnings(source)]
        return {**data, STUDY_KEY: replace(study, sources=sources).with_warnings(*said)}

    def _outlined(self, still: RegisteredSource) -> RegisteredSource:
        """The reference with its head, and its limbs below an activity."""
        if not any(ROLES[role].kind == "activity" for role in self.keys):
            return replace(still, head=head_mask(still.values))
        found = outline(still.values)
        return replace(still, head=found.head, limbs=found.limbs)

    def figures(self, data: Data) -> dict[str, Any]:
        """How far each source covers the patient."""
        sources = data[STUDY_KEY].sources
        return {"coverage": {r: float(s.covered_fraction.mean()) for r, s in sources.items()}}


def _brain_in_ct(study: StudyRecord) -> npt.NDArray[np.bool_]:
    """(X, Y, Z), what lies inside of the skull of the study's CT."""
    ct, grid = study.sources["ct"], grid_of(study.sources["ct"].values)
    return brain_in_skull(ct.values[0].numpy(), ct.coverage.above(COVERED), grid.spacing_mm)


def coverage_warnings(source: RegisteredSource) -> tuple[str, ...]:
    """One line where ``source`` does not cover all that the reference shows of the patient."""
    covered = source.covered_fraction
    partly = np.flatnonzero(covered < PARTLY)
    if not partly.size:
        return ()
    return (
        f"the {label(source.role)} does not cover the patient in {partly.size} of {covered.size} "
        f"slices (mean coverage {covered.mean():.0%}); the reference stands alone there",
    )
