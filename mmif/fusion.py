"""Two volumes in, a FusionResult out; no files.

The whole job reads top to bottom in :func:`fuse_volumes`: register, resample both onto the fused
grid, bring intensities to 0..1, fuse slice by slice, put the colour back.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from mmif.config import GridConfig, Pipeline
from mmif.errors import RegistrationError
from mmif.geometry import Grid, axial_grid
from mmif.metrics import REPORTED, evaluate_stack
from mmif.networks.inference import InferenceInfo, fuse_slices
from mmif.registration import Registration
from mmif.transforms.colour import apply_colour_map, luminance, restore_colour, rgb_to_yuv
from mmif.transforms.head import head_box_ras, head_mask
from mmif.transforms.intensity import Window, apply_window, window_of
from mmif.transforms.slices import (
    coverage,
    covered_fraction,
    from_slices,
    grid_of,
    on_grid,
    to_grid,
    to_slices,
)
from mmif.weights import Weights

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Told a step's name and the share of it that is done."""

PARTLY = 0.99
"""A slice of which less than this share is covered is named in a warning."""


def silent(step: str, share: float) -> None:
    """The progress of nobody watching."""


@dataclass(frozen=True, eq=False)
class FusionResult:
    """A fused volume, what it was made of, and how.

    All volumes lie on ``grid``; (C, X, Y, Z) with X = columns from the patient's right to left,
    Y = rows from anterior to posterior, Z = slices from inferior to superior.

    Attributes:
        task: ``ct-mri``, ``spect-mri`` or ``pet-mri``.
        reference_role: the role whose frame the grid lies in.
        moving_role: the other one.
        fused: (1 or 3, X, Y, Z), values in 0..1; three channels are RGB.
        reference: (1, X, Y, Z), the reference on the grid, in its own units.
        moving: (1, X, Y, Z), the registered moving volume on the grid, in its own units.
        reference_unit: (1, X, Y, Z), the reference as the network saw it, 0..1.
        moving_unit: (1 or 3, X, Y, Z), the moving volume as it is shown, 0..1 (RGB with a colour
            map).
        coverage: (1, X, Y, Z), weight of the moving volume, 0..1.
        covered_fraction: (Z,), share of the reference's head in each slice that the moving
            volume covers.
        registration: the transform and its verdict.
        windows: role to the window that became 0..1.
        metrics: the eight fusion metrics and SSIM255, mean over the slices that are not empty.
        metrics_per_slice: name to (Z,); NaN where a slice is empty.
        fusion: device, precision, slice batch, weights name and sha256, slices, seconds.
        warnings: all that a reader of the volume must know.
        seconds: time by step.
    """

    task: str
    reference_role: str
    moving_role: str
    grid: Grid
    fused: MetaTensor
    reference: MetaTensor
    moving: MetaTensor
    reference_unit: MetaTensor
    moving_unit: MetaTensor
    coverage: MetaTensor
    covered_fraction: npt.NDArray[np.float64]
    registration: Registration
    windows: Mapping[str, Window]
    metrics: Mapping[str, float]
    metrics_per_slice: Mapping[str, npt.NDArray[np.float64]]
    fusion: Mapping[str, Any]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Two registered sources on one grid, in their own units and in 0..1.

    Attributes:
        grid: the fused grid.
        reference: (1, X, Y, Z), physical values.
        moving: (1, X, Y, Z), physical values.
        anatomical_unit: (1, X, Y, Z), 0..1: MRI; faded out where it moves and its coverage ends.
        other_unit: (1 or 3, X, Y, Z), 0..1: CT, or SPECT or PET in colour; faded likewise.
        moving_is_other: which of the two moved.
        coverage: (1, X, Y, Z), weight of the moving volume.
        covered_fraction: (Z,), share of the reference's head that the moving volume covers.
        windows: role to window.
    """

    grid: Grid
    reference: MetaTensor
    moving: MetaTensor
    anatomical_unit: MetaTensor
    other_unit: MetaTensor
    moving_is_other: bool
    coverage: MetaTensor
    covered_fraction: npt.NDArray[np.float64]
    windows: Mapping[str, Window]

    @property
    def reference_unit(self) -> MetaTensor:
        """The reference as it is shown."""
        return self.anatomical_unit if self.moving_is_other else self.other_unit

    @property
    def moving_unit(self) -> MetaTensor:
        """The moving volume as it is shown."""
        return self.other_unit if self.moving_is_other else self.anatomical_unit

    @property
    def other_brightness(self) -> MetaTensor:
        """(1, X, Y, Z): the brightness of the other source, as the network sees it."""
        return brightness(self.other_unit)


def fuse_volumes(
    reference: MetaTensor,
    moving: MetaTensor,
    pipeline: Pipeline,
    weights: Weights,
    *,
    reference_role: str,
    registering: Callable[[], Registration],
    device: str = "auto",
    progress: Progress = silent,
) -> FusionResult:
    """The fusion of two volumes on the axial grid of the reference.

    Args:
        reference: (1, X, Y, Z), physical values; its frame is the fused volume's.
        moving: (1, X, Y, Z), physical values.
        pipeline: windows, grid, colour map, slice batch.
        weights: the network.
        reference_role: which role of the pipeline ``reference`` plays.
        registering: gives the reference-to-moving registration, or refuses.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: told each step and its share done.

    Raises:
        MmifError: the registration is refused, or a volume cannot be windowed or fused.
    """
    clock = Clock(progress)
    with clock("register"):
        registration = registering()
    for check in registration.checks:
        log.info("  %s %.3g (limit %.3g)", check.name, check.value, check.limit)
    with clock("resample"):
        prepared = prepare(reference, moving, registration, pipeline, reference_role)
    with clock("fuse"):
        fused, info = fuse_prepared(prepared, pipeline, weights, device, progress)
    log.info("  %s slices on %s in %s", prepared.grid.shape[2], info.device, info.precision)
    with clock("metrics"):
        per_slice = slice_metrics(fused, prepared)
    metrics = {name: _mean(values) for name, values in per_slice.items()}
    log.info("  %s", ", ".join(f"{name} {value:.3g}" for name, value in metrics.items()))
    first, second = pipeline.roles
    moving_role = second if reference_role == first else first
    return FusionResult(
        task=pipeline.task,
        reference_role=reference_role,
        moving_role=moving_role,
        grid=prepared.grid,
        fused=fused,
        reference=prepared.reference,
        moving=prepared.moving,
        reference_unit=prepared.reference_unit,
        moving_unit=prepared.moving_unit,
        coverage=prepared.coverage,
        covered_fraction=prepared.covered_fraction,
        registration=registration,
        windows=prepared.windows,
        metrics=metrics,
        metrics_per_slice=per_slice,
        fusion=_fusion_summary(info, weights, prepared.grid),
        warnings=(
            *_registration_warnings(registration),
            *_coverage_warnings(prepared.covered_fraction, moving_role),
            *info.warnings,
        ),
        seconds=clock.seconds,
    )


def fused_grid(reference: MetaTensor, config: GridConfig) -> Grid:
    """The axial grid over the field of view, or the head, of ``reference``."""
    box = head_box_ras(reference) if config.fov == "head" else None
    return axial_grid(grid_of(reference), config.size, box)


def prepare(
    reference: MetaTensor,
    moving: MetaTensor,
    registration: Registration,
    pipeline: Pipeline,
    reference_role: str,
) -> Prepared:
    """Both sources on the fused grid, one interpolation each, and in 0..1 by one window each.

    Raises:
        RegistrationError: the two do not overlap under the registration.
        InputError: a volume cannot be windowed.
        ConfigError: the pipeline has no window for one of them.
    """
    anatomical_role, other_role = pipeline.roles
    moving_is_other = reference_role == anatomical_role
    moving_role = other_role if moving_is_other else anatomical_role
    to_moving = registration.fixed_to_moving_lps
    grid = fused_grid(reference, pipeline.grid)
    reference_there = to_grid(reference, grid)
    moving_there = to_grid(moving, grid, to_moving, reference=reference)
    weight = coverage(moving, grid, to_moving, pipeline.fusion.transition_mm)
    if not bool(weight.any()):
        raise RegistrationError(
            f"the {moving_role.upper()} and the {reference_role.upper()} do not overlap; "
            "expected two volumes of one head"
        )
    windows = {
        reference_role: window_of(reference, pipeline.intensity_of(reference_role)),
        moving_role: window_of(moving, pipeline.intensity_of(moving_role)),
    }
    still = apply_window(reference_there, windows[reference_role])
    moved = on_grid(apply_window(moving_there, windows[moving_role]) * weight, grid)
    anatomical, other = (still, moved) if moving_is_other else (moved, still)
    return Prepared(
        grid=grid,
        reference=reference_there,
        moving=moving_there,
        anatomical_unit=anatomical,
        other_unit=_coloured(other, pipeline.colour_map),
        moving_is_other=moving_is_other,
        coverage=weight,
        covered_fraction=covered_fraction(weight, head_mask(reference_there)),
        windows=windows,
    )


def fuse_prepared(
    prepared: Prepared,
    pipeline: Pipeline,
    weights: Weights,
    device: str = "auto",
    progress: Progress = silent,
) -> tuple[MetaTensor, InferenceInfo]:
    """The fused volume (1 or 3, X, Y, Z) in 0..1, and how the network ran.

    Where the coverage of the moving volume ends, the fused volume goes over softly into the
    reference alone at its own brightness.
    """
    stack, info = fuse_slices(
        weights.network,
        to_slices(prepared.anatomical_unit),
        to_slices(prepared.other_brightness),
        device=device,
        precision=pipeline.fusion.precision,
        batch=pipeline.fusion.slice_batch,
        progress=lambda done, total: progress("fuse", done / total),
    )
    fused: torch.Tensor = from_slices(stack, prepared.anatomical_unit).as_subclass(torch.Tensor)
    if prepared.other_unit.shape[0] == 3:
        chroma = rgb_to_yuv(prepared.other_unit.as_subclass(torch.Tensor))
        fused = restore_colour(fused, chroma[1:2], chroma[2:3])
    weight = prepared.coverage.as_subclass(torch.Tensor)
    alone = prepared.reference_unit.as_subclass(torch.Tensor)
    return on_grid(weight * fused + (1 - weight) * alone, prepared.grid), info


def slice_metrics(fused: MetaTensor, prepared: Prepared) -> dict[str, npt.NDArray[np.float64]]:
    """Each metric of `mmif.metrics.REPORTED` for each slice (Z,); NaN where a source is empty."""
    stacks = [
        to_slices(volume).mul(255).round().to(torch.uint8).numpy()
        for volume in (brightness(fused), prepared.anatomical_unit, prepared.other_brightness)
    ]
    filled = np.all([stack.any(axis=(1, 2)) for stack in stacks[1:]], axis=0)
    result = {name: np.full(len(filled), np.nan) for name in REPORTED}
    if filled.any():
        values = evaluate_stack(*(stack[filled] for stack in stacks))
        for name in REPORTED:
            result[name][filled] = values[name]
    return result


def brightness(volume: MetaTensor) -> MetaTensor:
    """(1, X, Y, Z): the volume itself if it is grey, its luminance Y if it is RGB."""
    if volume.shape[0] == 1:
        return volume
    return on_grid(luminance(volume.as_subclass(torch.Tensor)), grid_of(volume))


class Clock:
    """Seconds by step, told to a progress as they pass."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Count what runs inside as ``step``."""
        self.progress(step, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start
        self.progress(step, 1.0)


def _coloured(unit: MetaTensor, colour_map: str | None) -> MetaTensor:
    if colour_map is None:
        return unit
    return on_grid(apply_colour_map(unit.as_subclass(torch.Tensor), colour_map), grid_of(unit))


def _mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _fusion_summary(info: InferenceInfo, weights: Weights, grid: Grid) -> dict[str, Any]:
    return {
        "device": info.device,
        "precision": info.precision,
        "slice_batch": info.slice_batch,
        "weights": {"name": weights.name, "sha256": weights.sha256},
        "slices": grid.shape[2],
        "seconds": info.seconds,
        "seconds_per_slice": round(info.seconds / grid.shape[2], 5),
    }


def _registration_warnings(registration: Registration) -> tuple[str, ...]:
    reasons = "; ".join(registration.reasons) or registration.method
    return {
        "pass": (),
        "review": (f"registration to be reviewed: {reasons}",),
        "fail": (f"registration failed, accepted by option: {reasons}",),
        "skipped": (reasons,),
    }[registration.verdict]


def _coverage_warnings(covered: npt.NDArray[np.float64], moving_role: str) -> tuple[str, ...]:
    partly = np.flatnonzero(covered < PARTLY)
    if not partly.size:
        return ()
    return (
        f"the {moving_role.upper()} does not cover the head in {partly.size} of {covered.size} "
        f"slices (mean coverage {covered.mean():.0%}); the reference stands alone there",
    )
