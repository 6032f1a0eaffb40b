"""The summary of one study: everything that was done, as plain data for ``summary.json``."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from monai.data import MetaTensor

import mmif
from mmif.config import Pipeline
from mmif.fusion import FusionResult
from mmif.geometry import Grid
from mmif.io.source import source_of
from mmif.registration import Registration

NOTICE = "Research use only. Not for primary diagnosis."


def summarise(
    result: FusionResult,
    volumes: Mapping[str, MetaTensor],
    pipeline: Pipeline,
    command: str = "",
) -> dict[str, Any]:
    """What was done, in the form that ``docs/summary.md`` describes; JSON-ready, NaN as None.

    Args:
        result: the fusion.
        volumes: role to the volume as it was read.
        pipeline: with all options applied.
        command: the command line to repeat it.
    """
    whole: dict[str, Any] = plain(
        {
            "mmif_version": mmif.__version__,
            "notice": NOTICE,
            "task": result.task,
            "command": command,
            "inputs": [input_summary(role, volumes[role]) for role in pipeline.roles],
            "reference": result.reference_role,
            "grid": grid_summary(result.grid),
            "registration": registration_summary(result.registration),
            "coverage": {
                "mean": result.covered_fraction.mean(),
                "per_slice": result.covered_fraction,
            },
            "windows": {role: asdict(window) for role, window in result.windows.items()},
            "fusion": dict(result.fusion),
            "metrics": dict(result.metrics),
            "outputs": [],
            "warnings": list(result.warnings),
            "seconds": {step: round(s, 3) for step, s in result.seconds.items()},
            "pipeline": asdict(pipeline),
        }
    )
    return whole


def input_summary(role: str, volume: MetaTensor) -> dict[str, Any]:
    """What is said of one input."""
    source = source_of(volume)
    if source is None:
        return {"role": role, "path": None, "format": "memory", "shape": list(volume.shape[1:])}
    return {
        "role": role,
        "path": str(source.path),
        "format": source.format,
        "modality": source.modality,
        "shape": list(source.shape),
        "spacing_mm": [round(s, 6) for s in source.spacing_mm],
        "units": source.units,
        "suvbw_per_unit": source.suv_factor,
        "series_uid": source.series_uid,
        "selection": source.selection,
    }


def grid_summary(grid: Grid) -> dict[str, Any]:
    """What is said of the fused grid."""
    return {
        "shape": list(grid.shape),
        "spacing_mm": [round(s, 6) for s in grid.spacing_mm],
        "affine_ras": grid.affine_ras.tolist(),
    }


def registration_summary(registration: Registration) -> dict[str, Any]:
    """What is said of the registration; ``checks`` by name."""
    checks = {check.name: asdict(check) for check in registration.checks}
    return {
        "verdict": registration.verdict,
        "fixed_to_moving_lps": registration.fixed_to_moving_lps.tolist(),
        "error_estimate_mm": registration.error_estimate_mm,
        "method": registration.method,
        "reasons": list(registration.reasons),
        "checks": {
            name: {key: value for key, value in check.items() if key != "name"}
            for name, check in checks.items()
        },
        "seconds": round(registration.seconds, 3),
    }


def plain(value: Any) -> Any:
    """``value`` as what JSON holds: numbers of Python, lists, dicts; not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
