"""Three registrations are held against each other: a wrong leg leaves the loop open."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from mmif.errors import RegistrationError
from mmif.io import load
from mmif.registration import LoopClosure, Registration, close_loop
from mmif.result import STUDY_KEY
from mmif.transforms import register as step
from mmif.transforms.register import RegisterToReferenced

WAY = ("ct", "mri", "spect", "ct")


def leg(fixed_to_moving_lps: np.ndarray, verdict: str = "pass") -> Registration:
    return Registration(fixed_to_moving_lps, verdict, (), 1.0, "made", (), 0.0)


@pytest.fixture(scope="module")
def volumes(sample_data: Path) -> dict[str, MetaTensor]:
    files = {"ct": "ct", "mri": "mri.nii.gz", "spect": "spect.dcm"}
    return {role: load(sample_data / file, role=role) for role, file in files.items()}


@pytest.fixture(scope="module")
def truth(sample_data: Path) -> dict[str, np.ndarray]:
    """Role to the true transform of an MRI point, LPS mm."""
    found = json.loads((sample_data / "truth.json").read_text())
    return {role: np.array(found[f"mri_to_{role}"]) for role in ("ct", "spect")}


def off(matrix: np.ndarray, mm: float) -> np.ndarray:
    """``matrix`` with a shift of ``mm`` to the left."""
    moved = matrix.copy()
    moved[0, 3] += mm
    return moved


def test_true_registrations_close_the_loop_and_a_wrong_leg_opens_it(
    volumes: dict[str, MetaTensor], truth: dict[str, np.ndarray]
) -> None:
    ct, spect = volumes["ct"], volumes["spect"]
    closed = close_loop(ct, spect, (leg(truth["ct"]), leg(truth["spect"])), WAY)
    assert closed.is_closed
    assert closed.residue_mm < 2.0
    opened = close_loop(ct, spect, (leg(truth["ct"]), leg(off(truth["spect"], 12.0))), WAY)
    assert not opened.is_closed
    assert opened.residue_mm == pytest.approx(12.0, abs=2.0)


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch, volumes: dict[str, MetaTensor]):
    """The step on CT, MRI and SPECT with given results, without a search."""

    def run(found: dict[str, Registration], residue_mm: float, **options: bool):
        by_volume = {str(volumes[role].meta["source"]): one for role, one in found.items()}
        monkeypatch.setattr(
            step, "register", lambda _, moving, *a, **k: by_volume[str(moving.meta["source"])]
        )
        loop = LoopClosure(WAY, residue_mm, 3.0, "images")
        monkeypatch.setattr(step, "close_loop", lambda *_: loop)
        return RegisterToReferenced(["ct", "mri", "spect"], "mri", **options)(volumes)[STUDY_KEY]

    return run


def test_where_the_loop_is_open_no_registration_passes(bring) -> None:
    found = {"ct": leg(np.eye(4)), "spect": leg(np.eye(4))}
    assert not bring(found, 2.9).warnings
    study = bring(found, 7.2)
    assert [one.verdict for one in study.registrations.values()] == ["review", "review"]
    assert all("do not agree" in one.reasons[-1] for one in study.registrations.values())
    assert sum("7.2 mm, expected at most 3.0 mm" in line for line in study.warnings) == 2


def test_one_of_three_that_fails_refuses_all_unless_it_is_accepted(
    bring, volumes: dict[str, MetaTensor]
) -> None:
    lost = replace(leg(np.eye(4), "fail"), reasons=("the best solutions disagree",))
    found = {"ct": leg(np.eye(4)), "spect": lost}
    with pytest.raises(RegistrationError, match="the best solutions disagree") as refused:
        bring(found, 0.0)
    assert str(volumes["spect"].meta["source"]) in str(refused.value)
    assert str(volumes["ct"].meta["source"]) not in str(refused.value)
    study = bring(found, 7.2, accept_registration=True)
    assert [one.verdict for one in study.registrations.values()] == ["review", "fail"]
