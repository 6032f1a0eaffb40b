"""What a reader still sees of findings that one source alone has, through the whole of `mmif fuse`.

    python benchmarks/findings.py --ct CT --mri MRI [--weights NAME ...] [--seeds 0 1 2]
    python benchmarks/findings.py --ct CT --mri MRI --spect SPECT   # or --pet: of three sources
    python benchmarks/findings.py --ct CT --spect SPECT             # one anatomy under colour
    python benchmarks/findings.py --ct CT --mri MRI --spect SPECT --weights NAME --shares 0 0.45
    python benchmarks/findings.py --sample sample_data              # the sample head in all tasks

Findings are drawn into one source at a time: a bleed, a calcification, an infarct into the CT, a
bright and a dark lesion into the MRI, each at several places of the brain that the seed chooses.
*Kept* is the change of the fused volume over the change of that source as it is displayed (CT:
-20..100 HU, MRI: 0 to the brain's 99th percentile at 0.85), in brightness where it is in colour.
A row a set of weights: the worst seed of each figure, as a Markdown table, with the limits; one
anatomy under an activity has 0.6 of the luminance, and 0.6 of the limits; ``--shares`` sets
``fusion.anatomy_share``. *Hot* is the mean brightness of the brain where the activity is above 0.75
and the MRI below 0.3. Of the sample head the
verdicts and the errors against its truth (mean over the points of its brain) are asked as well.
The exit code is 1 where something is missed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

import mmif
from mmif.config import Pipeline, load_pipeline
from mmif.io.transform_files import write_itk_transform
from mmif.report.readability import UNDER_COLOUR
from mmif.result import FusionResult
from mmif.roles import ACTIVITY_ROLES, task_of
from mmif.transforms.brain import brain_by_depth, find_brain
from mmif.transforms.colour import luminance
from mmif.transforms.head import head_mask
from mmif.transforms.readability import BRAIN_TOP, CT_RANGE


@dataclass(frozen=True)
class Kind:
    """A finding: into which source, by how much (HU, or a share of the MRI), mm, how many."""

    role: str
    change: float
    radius: float
    number: int
    mean: float
    worst: float


KINDS = {
    "bleed": Kind("ct", 30.0, 6.0, 4, 0.7, 0.6),
    "calcification": Kind("ct", 150.0, 2.5, 4, 0.8, 0.6),
    "infarct": Kind("ct", -10.0, 12.0, 2, 0.5, 0.3),
    "bright lesion": Kind("mri", 0.20, 5.0, 4, 0.85, 0.7),
    "dark lesion": Kind("mri", -0.25, 5.0, 4, 0.85, 0.7),
}
LIMITS = {"mri_gain": 0.85, "mri_correlation": 0.92, "bone": 0.93, "not_mri": -0.40}
"""At least; below zero: at most."""

ACTIVITY_LIMITS = {"activity_rho": 0.98}
"""And where there is an activity."""

SHARE = 0.6
"""Of the luminance that one anatomy has under an activity, as is wanted (`anatomy_slope`)."""

TRUE_ERROR_MM = {"ct": 2.0, "spect": 3.0}
"""What the sample head's sources may be off, mean over the points of its brain."""

SAMPLE = {"ct": "ct", "mri": "mri.nii.gz", "spect": "spect.dcm"}
TASKS = (("ct", "mri"), ("mri", "spect"), ("ct", "spect"), ("ct", "mri", "spect"))
"""The sample head's files, and what is fused of them."""

HOT, DARK = 0.75, 0.3
"""Of the activity's scale and of the MRI's: cortex at its hottest, sulci and fluid."""

MARGIN_MM, APART_MM = 4.0, 10.0
"""A finding lies this deep in the brain, and this far from the next."""

CORE, SOLID = 0.8, 0.9
"""Kept is measured where a sphere of this share of the radius is at least this full."""


def voxel_places(volume: MetaTensor) -> np.ndarray:
    """(X, Y, Z, 3) RAS mm of each voxel."""
    index = np.stack(np.indices(volume.shape[1:]), axis=-1)
    affine = np.asarray(volume.affine, dtype=np.float64)
    return index @ affine[:3, :3].T + affine[:3, 3]


def sphere(places: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """0..1, with an edge of one millimetre."""
    return np.clip(radius - np.linalg.norm(places - centre, axis=-1) + 0.5, 0, 1)


def choose(brain: np.ndarray, spacing: np.ndarray, seed: int) -> dict[str, list[np.ndarray]]:
    """Voxels for the findings of each kind, far enough from the brain's rim and one another."""
    depth = [
        ndimage.distance_transform_edt(s, sampling=spacing[:2]) for s in np.moveaxis(brain, 2, 0)
    ]
    deep = np.moveaxis(np.array(depth), 0, 2)
    taken: list[tuple[np.ndarray, float]] = []
    chosen: dict[str, list[np.ndarray]] = {}
    for name, kind in KINDS.items():
        chosen[name] = []
        candidates = np.argwhere(deep > kind.radius + MARGIN_MM)
        random = np.random.default_rng([seed, len(chosen)])
        for place in random.permutation(candidates):
            far = [
                np.linalg.norm((place - o) * spacing) > kind.radius + r + APART_MM for o, r in taken
            ]
            if all(far):
                chosen[name].append(place)
                taken.append((place, kind.radius))
            if len(chosen[name]) == kind.number:
                break
        else:
            raise SystemExit(f"seed {seed}: no room for {kind.number} of {name} in this brain")
    return chosen


def drawn(volume: MetaTensor, spots: Sequence[tuple[Kind, np.ndarray]]) -> MetaTensor:
    """``volume`` with a finding at each of ``spots`` (RAS mm in its own frame)."""
    values, places = np.asarray(volume[0], dtype=np.float64).copy(), voxel_places(volume)
    for kind, centre in spots:
        full = sphere(places, centre, kind.radius)
        values += kind.change * full * (1 if kind.role == "ct" else values)
    return MetaTensor(torch.as_tensor(values[None], dtype=torch.float32), meta=volume.meta)


def shown(result: FusionResult, brain_top: float) -> dict[str, np.ndarray]:
    """Each grey source as it is displayed, and the fused volume, (X, Y, Z)."""
    fused = result.fused if len(result.fused) == 1 else luminance(result.fused)
    displayed = {"fused": np.asarray(fused[0], dtype=np.float64)}
    for role, (low, high) in (("ct", CT_RANGE), ("mri", (0.0, brain_top))):
        if role in result.sources:
            values = np.asarray(result.sources[role].values[0], dtype=np.float64)
            displayed[role] = np.clip((values - low) / (high - low), 0, 1)
    return displayed


def brain_of(result: FusionResult) -> np.ndarray:
    """(X, Y, Z) bool: where findings may lie."""
    sources = result.sources
    covered = np.all([np.asarray(s.coverage[0]) > 0.99 for s in sources.values()], axis=0)
    head = np.asarray(head_mask(sources[result.reference].values)[0], dtype=bool) & covered
    spacing = result.grid.spacing_mm
    if "ct" not in sources:
        return brain_by_depth(head, spacing)
    values = np.asarray(sources["ct"].values[0], dtype=np.float64)
    return find_brain(values, head, covered, spacing)


def measure(
    sources: Mapping[str, MetaTensor],
    base: FusionResult,
    seeds: Sequence[int],
    options: Mapping[str, Any],
) -> dict[str, float]:
    """The worst of each figure over the seeds.

    Args:
        sources: CT, MRI or both, and an activity.
        base: what they became.
        seeds: of the places.
        options: of that fusion.
    """
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    moved = {s.role: np.asarray(s.registration.fixed_to_moving_lps) for s in base.moving}
    wanted = [name for name in limits_of(sources) if name in base.readability]
    figures: dict[str, list[float]] = {name: [base.readability[name]] for name in wanted}
    brain, grid = brain_of(base), voxel_places(base.fused)
    top = 1.0
    if "mri" in sources:
        top = float(np.percentile(base.sources["mri"].values[0].numpy()[brain], 99)) / BRAIN_TOP
    plain = shown(base, top)
    with tempfile.TemporaryDirectory() as folder:
        known = {role: Path(folder) / f"{role}.tfm" for role in moved}
        for role, transform in known.items():
            write_itk_transform(transform, moved[role])
        for seed in seeds:
            chosen = choose(brain, np.asarray(base.grid.spacing_mm), seed)
            for role in [role for role in ("ct", "mri") if role in sources]:
                places = {
                    name: [grid[tuple(place)] for place in found]
                    for name, found in chosen.items()
                    if KINDS[name].role == role
                }
                carry = flip @ moved.get(role, np.eye(4)) @ flip
                spots = [
                    (KINDS[name], (carry @ [*centre, 1])[:3])
                    for name, centres in places.items()
                    for centre in centres
                ]
                changed = {**sources, role: drawn(sources[role], spots)}
                after = shown(mmif.fuse(**changed, **{**options, "transform": known}), top)
                for name, kept in kept_of(places, grid, plain, after, role).items():
                    figures.setdefault(name, []).append(float(np.mean(kept)))
                    figures.setdefault(f"{name}, worst", []).append(float(np.min(kept)))
    return {k: max(v) if k == "not_mri" else min(v) for k, v in figures.items()}


def kept_of(
    places: Mapping[str, Sequence[np.ndarray]],
    grid: np.ndarray,
    plain: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    role: str,
) -> dict[str, list[float]]:
    """How much of each finding in ``role`` stands in the fused volume."""
    source, fused = (after[key] - plain[key] for key in (role, "fused"))
    kept = {}
    for name, centres in places.items():
        cores = [sphere(grid, c, CORE * KINDS[name].radius) > SOLID for c in centres]
        kept[name] = [float(fused[core].mean() / source[core].mean()) for core in cores]
    return kept


def limits_of(sources: Collection[str]) -> dict[str, float]:
    """What is wanted of each figure where ``sources`` are fused; below zero: at most."""
    grey = {"ct", "mri"} & set(sources)
    limits = dict(LIMITS)
    for name, kind in KINDS.items():
        if kind.role in grey:
            limits |= {name: kind.mean, f"{name}, worst": kind.worst}
    if len(grey) == 1:
        kept = {name: SHARE * limit for name, limit in limits.items() if name not in LIMITS}
        own = {"mri": ("mri_gain", "mri_correlation", "not_mri"), "ct": ("ct_gain", "bone")}
        of_pair = dict(LIMITS) | UNDER_COLOUR
        limits = {name: of_pair[name] for name in own[next(iter(grey))]} | kept
    return limits | (ACTIVITY_LIMITS if len(sources) > len(grey) else {})


def is_met(value: float, limit: float) -> bool:
    """Whether a figure is what is wanted of it."""
    return value <= -limit if limit < 0 else value >= limit


def table(rows: Mapping[str, Mapping[str, float]], limits: Mapping[str, float]) -> bool:
    """Print figures beside their limits; whether all are met."""
    print("| weights | " + " | ".join(limits) + " |\n|" + "---|" * (len(limits) + 1))
    wanted = (f"{'at most' if v < 0 else 'at least'} {abs(v):.3g}" for v in limits.values())
    print("| wanted | " + " | ".join(wanted) + " |")
    for name, figures in rows.items():
        cells = (
            f"{figures[k]:.3f}" if is_met(figures[k], v) else f"**{figures[k]:.3f}**"
            for k, v in limits.items()
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return all(is_met(figures[k], v) for figures in rows.values() for k, v in limits.items())


def with_share(task: str, share: float) -> Pipeline:
    """The task's pipeline with another `fusion.anatomy_share`."""
    pipeline = load_pipeline(task)
    return replace(pipeline, fusion=replace(pipeline.fusion, anatomy_share=share))


def hot_over_dark(result: FusionResult) -> float:
    """Mean brightness of the brain where a hot activity lies over a dark MRI; NaN without both."""
    units = {role: source.unit[0].numpy() for role, source in result.sources.items()}
    activity = next((units[role] for role in ACTIVITY_ROLES if role in units), None)
    if activity is None or "mri" not in units:
        return float("nan")
    places = brain_of(result) & (activity > HOT) & (units["mri"] < DARK)
    return float(luminance(result.fused)[0].numpy()[places].mean())


def against_truth(result: FusionResult, truth: Mapping[str, Any]) -> bool:
    """Print verdict and true error of each registration; whether they pass within their limits."""
    points = np.array(truth["brain_points_mri_lps"])
    of_mri = {role: np.array(truth[f"mri_to_{role}"]) for role in TRUE_ERROR_MM} | {
        "mri": np.eye(4)
    }
    to_reference = of_mri[result.reference]
    passed = True
    for source in result.moving:
        true = of_mri[source.role] @ np.linalg.inv(to_reference)
        seen = points @ to_reference[:3, :3].T + to_reference[:3, 3]
        carried = [
            seen @ m[:3, :3].T + m[:3, 3]
            for m in (true, np.asarray(source.registration.fixed_to_moving_lps))
        ]
        error = float(np.linalg.norm(carried[0] - carried[1], axis=1).mean())
        limit, verdict = TRUE_ERROR_MM[source.role], source.registration.verdict
        passed &= verdict == "pass" and error <= limit
        pair = f"{source.role} to {result.reference}"
        print(f"{pair}: {verdict}, {error:.2f} mm off (at most {limit:g})")
    return passed


def sample_head(folder: Path, seeds: Sequence[int]) -> bool:
    """Print all that is asked of the sample head; whether it is met."""
    truth = json.loads((folder / "truth.json").read_text())
    volumes = {role: mmif.load(folder / name, role=role) for role, name in SAMPLE.items()}
    met = True
    for task in TASKS:
        sources = {role: volumes[role] for role in task}
        base = mmif.fuse(**sources)
        print(f"\n{' + '.join(task)}")
        met &= against_truth(base, truth)
        met &= table({"shipped": measure(sources, base, seeds, {})}, limits_of(sources))
    return met


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ct")
    parser.add_argument("--mri")
    activity = parser.add_mutually_exclusive_group()
    activity.add_argument("--spect")
    activity.add_argument("--pet")
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--weights", nargs="+", default=[None])
    parser.add_argument("--shares", nargs="+", type=float, default=[None])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.sample:
        return int(not sample_head(arguments.sample, arguments.seeds))
    given = {role: getattr(arguments, role) for role in ("ct", "mri", "spect", "pet")}
    sources = {role: mmif.load(path, role=role) for role, path in given.items() if path}
    rows = {}
    for weights, share in product(arguments.weights, arguments.shares):
        options = {} if weights is None else {"weights": weights}
        if share is not None:
            options["pipeline"] = with_share(task_of(sources), share)
        base = mmif.fuse(**sources, **options)
        name = f"{weights or 'shipped'}{'' if share is None else f', share {share:g}'}"
        rows[name] = measure(sources, base, arguments.seeds, options)
        print(f"{name}: hot over dark {hot_over_dark(base):.3f}", file=sys.stderr)
    return int(not table(rows, limits_of(sources)))


if __name__ == "__main__":
    sys.exit(main())
