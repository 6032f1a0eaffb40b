"""What a reader still sees of findings that one source alone has, through the whole of `mmif fuse`.

    python benchmarks/findings.py --ct CT --mri MRI [--weights NAME ...] [--seeds 0 1 2]
    python benchmarks/findings.py --ct CT --mri MRI --spect SPECT       # or --pet: of three sources

Findings are drawn into one source at a time: a bleed, a calcification, an infarct into the CT, a
bright and a dark lesion into the MRI, each at several places of the brain that the seed chooses.
*Kept* is the change of the fused volume over the change of that source as it is displayed (CT:
-20..100 HU, MRI: 0 to the brain's 99th percentile at 0.85), in brightness where it is in colour.
A row a set of weights: the worst seed of each figure, as a Markdown table, with the limits; the
exit code is 1 where one is missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

import mmif
from mmif.io.transform_files import write_itk_transform
from mmif.result import FusionResult
from mmif.transforms.brain import find_brain
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
"""And of three sources."""

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
    """Each source as it is displayed, and the fused volume, (X, Y, Z)."""
    ct, mri = (
        np.asarray(result.sources[role].values[0], dtype=np.float64) for role in ("ct", "mri")
    )
    low, high = CT_RANGE
    fused = result.fused if len(result.fused) == 1 else luminance(result.fused)
    return {
        "ct": np.clip((ct - low) / (high - low), 0, 1),
        "mri": np.clip(mri / brain_top, 0, 1),
        "fused": np.asarray(fused[0], dtype=np.float64),
    }


def measure(
    sources: Mapping[str, MetaTensor], weights: str | None, seeds: Sequence[int]
) -> dict[str, float]:
    """The worst of each figure over the seeds.

    Args:
        sources: CT and MRI, and of three an activity.
        weights: in place of the pipeline's.
        seeds: of the places.
    """
    ct, mri = sources["ct"], sources["mri"]
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {} if weights is None else {"weights": weights}
        base = mmif.fuse(**sources, **options)
        options["transform"] = {}
        for source in base.moving:
            options["transform"][source.role] = transform = Path(folder) / f"{source.role}.tfm"
            write_itk_transform(transform, source.registration.fixed_to_moving_lps)
        figures: dict[str, list[float]] = {
            k: [base.readability[k]] for k in limits_of(sources) if k in base.readability
        }
        to_ct = np.asarray(base.sources["ct"].registration.fixed_to_moving_lps)
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        values = np.asarray(base.sources["ct"].values[0], dtype=np.float64)
        covered = np.asarray(base.sources["ct"].coverage[0]) > 0.99
        spacing = np.asarray(base.grid.spacing_mm)
        head = np.asarray(head_mask(base.sources["mri"].values)[0], dtype=bool) & covered
        brain = find_brain(values, head, covered, tuple(spacing))
        top = float(np.percentile(np.asarray(base.sources["mri"].values[0])[brain], 99)) / BRAIN_TOP
        plain, grid = shown(base, top), voxel_places(base.fused)
        for seed in seeds:
            spots = [
                (name, grid[tuple(place)])
                for name, places in choose(brain, spacing, seed).items()
                for place in places
            ]
            changed = {
                "ct": drawn(
                    ct,
                    [
                        (KINDS[n], (flip @ to_ct @ flip @ [*c, 1])[:3])
                        for n, c in spots
                        if KINDS[n].role == "ct"
                    ],
                ),
                "mri": drawn(mri, [(KINDS[n], c) for n, c in spots if KINDS[n].role == "mri"]),
            }
            for role, volume in changed.items():
                after = shown(mmif.fuse(**{**sources, role: volume}, **options), top)
                delta = {key: after[key] - plain[key] for key in (role, "fused")}
                for name, kind in KINDS.items():
                    if kind.role != role:
                        continue
                    cores = [
                        sphere(grid, c, CORE * kind.radius) > SOLID for n, c in spots if n == name
                    ]
                    kept = [
                        delta["fused"][core].mean() / delta[role][core].mean() for core in cores
                    ]
                    figures.setdefault(name, []).append(float(np.mean(kept)))
                    figures.setdefault(f"{name}, worst", []).append(float(np.min(kept)))
    return {k: max(v) if k == "not_mri" else min(v) for k, v in figures.items()}


def limits_of(sources: Collection[str]) -> dict[str, float]:
    """What is wanted of each figure where ``sources`` are fused; below zero: at most."""
    limits = dict(LIMITS) | (ACTIVITY_LIMITS if len(sources) > 2 else {})
    for name, kind in KINDS.items():
        limits |= {name: kind.mean, f"{name}, worst": kind.worst}
    return limits


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ct", required=True)
    parser.add_argument("--mri", required=True)
    activity = parser.add_mutually_exclusive_group()
    activity.add_argument("--spect")
    activity.add_argument("--pet")
    parser.add_argument("--weights", nargs="+", default=[None])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    given = {role: getattr(arguments, role) for role in ("ct", "mri", "spect", "pet")}
    sources = {role: mmif.load(path, role=role) for role, path in given.items() if path}
    limits = limits_of(sources)
    print("| weights | " + " | ".join(limits) + " |\n|" + "---|" * (len(limits) + 1))
    wanted = (f"{'at most' if v < 0 else 'at least'} {abs(v):g}" for v in limits.values())
    print("| wanted | " + " | ".join(wanted) + " |")
    missed = False
    for weights in arguments.weights:
        figures = measure(sources, weights, arguments.seeds)
        met = {k: figures[k] <= -v if v < 0 else figures[k] >= v for k, v in limits.items()}
        missed |= not all(met.values())
        cells = (f"{figures[k]:.3f}" if met[k] else f"**{figures[k]:.3f}**" for k in limits)
        print(f"| {weights or 'shipped'} | " + " | ".join(cells) + " |", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
