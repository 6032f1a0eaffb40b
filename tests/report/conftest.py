"""A small synthetic study, made in memory: a head of two sources with known landmarks."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mmif.geometry import Grid, rigid
from mmif.metrics import evaluate_stack
from mmif.registration import Check, Registration
from mmif.result import Coverage, FusionResult, RegisteredSource, Window
from mmif.transforms.colour import palette

sys.path.insert(0, str(Path(__file__).parent))  # makes ``hostile`` importable

SIZE, SLICES = 128, 24
SPACING = (1.8, 1.8, 4.0)


@dataclass(frozen=True)
class Study:
    """A result and the summary that goes with it."""

    result: FusionResult
    summary: dict[str, Any]

    def volumes(self) -> dict[str, np.ndarray]:
        """The arrays of the result, by the names that `replaced` takes."""
        still, moving = self.result.sources["mri"], self.result.moving[0]
        return {
            "fused": self.result.fused.numpy(),
            "reference": still.values.numpy(),
            "moving": moving.values.numpy(),
            "reference_unit": still.unit.numpy(),
            "moving_unit": moving.unit.numpy(),
            "coverage": moving.coverage[...].numpy(),
        }

    def replaced(self, **changes: Any) -> "Study":
        """The study with fields of its result replaced; (C, X, Y, Z) arrays become volumes."""
        affine = changes["grid"].affine_ras if "grid" in changes else self.result.grid.affine_ras
        made = {
            name: volume(value, affine)
            if isinstance(value, np.ndarray) and value.ndim == 4
            else value
            for name, value in changes.items()
        }
        if "coverage" in changes:
            made["coverage"] = covering(changes["coverage"])
        still, moving = self.result.sources["mri"], self.result.moving[0]
        still = replace(still, **_of_source(made, "reference"))
        moving = replace(moving, **_of_source(made, "moving"))
        whole = {
            name: made[name] for name in ("fused", "grid", "metrics_per_slice") if name in made
        }
        sources = {"mri": still, moving.role: moving}
        return Study(replace(self.result, sources=sources, **whole), self.summary)


def _of_source(made: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of one source among the changes of `Study.replaced`."""
    fields = {name: "values", f"{name}_unit": "unit"}
    if name == "moving":
        fields |= {n: n for n in ("coverage", "covered_fraction", "registration")}
    return {field: made[change] for change, field in fields.items() if change in made}


def axial_affine() -> np.ndarray:
    """Columns from right to left, rows from front to back, slices upwards."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = [113.0, 120.0, -40.0]
    return affine


def covering(weights: np.ndarray) -> Coverage:
    """A coverage of these weights, (1, X, Y, Z)."""
    return Coverage((torch.as_tensor(weights, dtype=torch.float32),), weights.shape)


def volume(values: np.ndarray, affine: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.as_tensor(values, dtype=torch.float32), affine=torch.as_tensor(affine))


def head() -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) MRI in its own counts and CT in HU, with smooth texture."""
    i, j, k = np.meshgrid(*(np.arange(n) for n in (SIZE, SIZE, SLICES)), indexing="ij")
    x, y, z = (i - 64) / 46, (j - 64) / 56, (k - 8) / 20
    radius = np.sqrt(x**2 + y**2 + z**2)
    generator = np.random.default_rng(7)
    noise = generator.normal(0, 1, radius.shape)
    folds = np.sin(i / 3.1) * np.cos(j / 3.7) * np.sin(k / 1.9)
    mri = np.select([radius < 0.8, radius < 0.9, radius < 1], [500 + 120 * folds, 60, 800], 0)
    ct = np.select([radius < 0.8, radius < 0.9, radius < 1], [35 + 6 * folds, 1100, 20], -1000)
    lesion = (i - 88) ** 2 + (j - 50) ** 2 < 40
    mri = np.where(lesion & (radius < 0.8), 900, mri) + 8 * noise
    ct = np.where(((i - 40) ** 2 + (j - 80) ** 2 < 30) & (radius < 0.8), 75, ct) + 3 * noise
    return np.maximum(mri, 0).astype(np.float32), ct.astype(np.float32)


def registration() -> Registration:
    angle = np.radians(9.0)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    checks = (
        Check("spread_mm", 0.8, 2.0, True, "the best solutions agree at the corners of the head"),
        Check("head_dice", 0.81, 0.85, False, "the two heads fill the same space"),
    )
    return Registration(
        fixed_to_moving_lps=rigid(turn, [14.0, -9.0, 6.0], [0.0, 0.0, 0.0]),
        verdict="review",
        checks=checks,
        error_estimate_mm=1.4,
        method="Mattes mutual information, 14 starts",
        reasons=("the two head outlines overlap less than expected",),
        seconds=3.2,
    )


def make_study(colour: bool = False) -> Study:
    """CT and MRI (or, in colour, SPECT and MRI) of the synthetic head."""
    mri, ct = head()
    affine = axial_affine()
    mri_unit = np.clip(mri / 900, 0, 1)
    window = Window(0.0, 60.0, "counts") if colour else Window(-20.0, 100.0, "HU")
    other = np.clip(ct, 0, 60) if colour else ct
    other_unit = np.clip((other - window.low) / (window.high - window.low), 0, 1)
    coverage = np.ones_like(mri)
    coverage[:, :, -4:] = 0
    unit = (other_unit * (coverage > 0))[None]
    shown = unit
    if colour:
        entries = np.round(unit[0] * 255).astype(np.uint8)
        shown = np.moveaxis(palette("hot-iron")[entries], -1, 0) / 255.0
    fused = np.clip(0.6 * mri_unit[None] + 0.5 * shown, 0, 1)
    bright = [
        np.round(255 * v.mean(axis=0)).astype(np.uint8) for v in (fused, mri_unit[None], shown)
    ]
    per_slice = evaluate_stack(*(np.ascontiguousarray(v.transpose(2, 1, 0)) for v in bright))
    per_slice = {name: np.asarray(values, dtype=np.float64) for name, values in per_slice.items()}
    role, task = ("spect", "spect-mri") if colour else ("ct", "ct-mri")
    found = registration()
    result = FusionResult(
        task=task,
        reference="mri",
        grid=Grid((SIZE, SIZE, SLICES), affine),
        fused=volume(fused, affine),
        sources={
            "mri": RegisteredSource(
                role="mri",
                values=volume(mri[None], affine),
                unit=volume(mri_unit[None], affine),
                coverage=Coverage.whole(mri.shape),
                covered_fraction=np.ones(SLICES),
                window=Window(0.0, 900.0),
                shape=(SIZE, SIZE, SLICES),
            ),
            role: RegisteredSource(
                role=role,
                values=volume(np.where(coverage > 0, other, other.min())[None], affine),
                unit=volume(unit, affine),
                colour_map="hot-iron" if colour else None,
                coverage=covering(coverage[None]),
                covered_fraction=coverage.mean(axis=(0, 1)).astype(np.float64),
                window=window,
                shape=(SIZE, SIZE, SLICES),
                registration=found,
            ),
        },
        metrics={name: float(np.nanmean(values)) for name, values in per_slice.items()},
        metrics_per_slice=per_slice,
        fusion={},
        warnings=(),
        seconds={},
    )
    return Study(result, make_summary(role, task, found, colour))


def make_three() -> Study:
    """MRI, CT and SPECT: the study of two, with the SPECT of the other in its colours."""
    two, coloured = make_study(), make_study(colour=True)
    spect = coloured.result.sources["spect"]
    turned = replace(
        spect.registration, fixed_to_moving_lps=rigid(np.eye(3), [0, 25.0, 0], [0, 0, 0])
    )
    turned = replace(turned, verdict="pass", reasons=(), error_estimate_mm=0.9)
    sources = {**two.result.sources, "spect": replace(spect, registration=turned)}
    found = two.summary["registration"]
    summary = {
        **two.summary,
        "task": "ct-mri-spect",
        "inputs": [*two.summary["inputs"], coloured.summary["inputs"][1]],
        "registrations": {"ct": found, "spect": {**found, "verdict": "pass", "checks": {}}},
        "loop_closure": {
            "path": ["ct", "mri", "spect", "ct"],
            "residue_mm": 1.2,
            "expected_mm": 3.1,
            "closed": True,
            "directly": "images",
        },
        "fusion": {**two.summary["fusion"], "grey_weights": {"name": "ct-mri", "sha256": "f" * 64}},
    }
    result = replace(two.result, sources=sources, fused=coloured.result.fused, task="ct-mri-spect")
    return Study(result, summary)


def make_summary(role: str, task: str, found: Registration, colour: bool) -> dict[str, Any]:
    return {
        "mmif_version": "0.1.0",
        "task": task,
        "command": f"mmif fuse --{role} moving --mri mri.nii.gz -o fused",
        "inputs": [
            {
                "role": "mri",
                "path": "study/mri.nii.gz",
                "format": "nifti",
                "modality": "MR",
                "shape": [256, 256, 26],
                "spacing_mm": [1.25, 1.25, 4.0],
                "units": "",
                "series_uid": None,
                "selection": "",
            },
            {
                "role": role,
                "path": "study/moving",
                "format": "dicom",
                "modality": "NM" if colour else "CT",
                "shape": [512, 512, 28],
                "spacing_mm": [0.65, 0.65, 4.0],
                "units": "counts" if colour else "HU",
                "series_uid": "1.2.826.0.1.3680043.8.498.1",
                "selection": "the only series",
            },
        ],
        "reference": "mri",
        "registration": {
            "verdict": found.verdict,
            "error_estimate_mm": found.error_estimate_mm,
            "method": found.method,
            "reasons": list(found.reasons),
            "checks": {
                c.name: {
                    "value": c.value,
                    "limit": c.limit,
                    "passed": c.passed,
                    "meaning": c.meaning,
                }
                for c in found.checks
            },
        },
        "fusion": {
            "device": "cpu",
            "precision": "bf16",
            "weights": {"name": task, "sha256": "0123456789abcdef" * 4},
            "slices": SLICES,
        },
        "metrics": {},
        "outputs": ["fused/fused.nii.gz"],
        "warnings": ["the moving volume does not cover the top 4 slices"],
        "seconds": {"read": 0.4, "register": 3.2, "fuse": 1.1, "total": 4.7},
        "pipeline": {"task": task, "colour_map": "hot-iron" if colour else None},
    }


def one_slice(study: Study) -> Study:
    result = study.result
    return study.replaced(
        **{name: values[..., 10:11] for name, values in study.volumes().items()},
        grid=Grid((*result.grid.shape[:2], 1), result.grid.affine_ras),
        covered_fraction=result.moving[0].covered_fraction[10:11],
        metrics_per_slice={n: v[10:11] for n, v in result.metrics_per_slice.items()},
    )


def constant_slice(study: Study) -> Study:
    result = study.result
    fused = result.fused.numpy().copy()
    fused[..., 5] = 0.25
    per_slice = {n: v.copy() for n, v in result.metrics_per_slice.items()}
    for values in per_slice.values():
        values[5] = np.nan
    return study.replaced(fused=fused, metrics_per_slice=per_slice)


def no_metrics(study: Study) -> Study:
    nothing = {n: np.full_like(v, np.nan) for n, v in study.result.metrics_per_slice.items()}
    return study.replaced(metrics_per_slice=nothing, metrics={n: float("nan") for n in nothing})


def black(study: Study) -> Study:
    return no_metrics(study.replaced(fused=np.zeros(study.result.fused.shape)))


def no_coverage(study: Study) -> Study:
    result = study.result
    moving = result.moving[0]
    undefined = np.full_like(moving.covered_fraction, np.nan)
    return study.replaced(coverage=np.zeros(moving.coverage.shape), covered_fraction=undefined)


ODD = (one_slice, constant_slice, no_metrics, black, no_coverage)


@pytest.fixture(scope="session")
def study() -> Study:
    """CT and MRI; verdict review."""
    return make_study()


@pytest.fixture
def odd(study: Study) -> Callable[[str], Study]:
    """The study with something out of the ordinary, by name."""
    changes = {change.__name__: change for change in ODD}
    return lambda name: changes[name](study)


@pytest.fixture(scope="session")
def colour_study() -> Study:
    """SPECT and MRI in colour."""
    return make_study(colour=True)


@pytest.fixture(scope="session")
def three_sources() -> Study:
    """MRI, CT and SPECT, in the SPECT's colours."""
    return make_three()


@pytest.fixture(scope="session")
def report_file(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``report.html`` of the CT and MRI study."""
    from mmif.report import write_report

    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(study.result, study.summary, path)
    return path


@pytest.fixture(scope="session")
def fuse_texts(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The output folder of DICOM files with a text in every field that takes text."""
    from hostile import write_hostile_series

    import mmif
    from mmif.config import GridConfig

    def fused(long: str, short: str, folder: str, moving: str = "ct", **options: Any) -> Path:
        root = tmp_path_factory.mktemp("headers")
        mri, ct = (values[::2, ::2, 8:14] for values in head())
        values = ct if moving == "ct" else np.clip(ct, 0, 60)
        texts = (2 * SPACING[0], long, short)
        pair = {
            "mri": write_hostile_series(root / folder / "mri", "MR", mri, *texts),
            moving: write_hostile_series(
                root / folder / moving, {"ct": "CT", "pet": "PT"}[moving], values, *texts
            ),
        }
        pipeline = replace(mmif.load_pipeline(f"{moving}-mri"), grid=GridConfig(size=64))
        mmif.fuse(**pair, pipeline=pipeline, output=root / "out", register=False, **options)
        return root / "out"

    return fused
