"""PET and CT of one scanner, of any part of the body: headers, grid, window, coverage, refusals."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from mmif import fusion_transforms
from mmif.config import GridConfig, load_pipeline
from mmif.errors import RegistrationError
from mmif.fusion import fuse_volumes
from mmif.io import load
from mmif.io.transform_files import write_itk_transform
from mmif.registration import check_headers, check_transform
from mmif.result import STUDY_KEY, FusionResult
from mmif.transforms.fuse import FuseSlicesd

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from body import PRONE, SUPINE, Scan, draw, places

SIZE = 64
"""Pixels of the fused slices: the steps are the same for any, the network is a stand-in."""

VERTEX_MM, CHEST_MM, ABDOMEN_MM = 0.0, 330.0, 570.0
"""Of the first slice, below the vertex."""


class Mean(nn.Module):
    """(n, 2, rows, columns) to (n, 1, rows, columns)."""

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        return both.mean(dim=1, keepdim=True)


def fused(folder: Path, **options: object) -> FusionResult:
    pipeline = replace(load_pipeline("pet-ct"), grid=GridConfig(size=SIZE))
    steps = fusion_transforms(pipeline, weights=Mean(), **options)
    return fuse_volumes({"ct": folder / "ct", "pet": folder / "pt"}, steps, "pet-ct")


def part(start_mm: float, length_mm: float, fov_mm: float = 500.0) -> tuple[Scan, Scan]:
    """A part of the body in a CT of that field of view, and in a PET of 640 mm."""
    ct = Scan(96, fov_mm / 96, places(round(length_mm / 10), 10.0, start_mm))
    return ct, Scan(80, 8.0, places(round(length_mm / 8), 8.0, start_mm))


def level(result: FusionResult, role: str, at_mm: tuple[float, float, float]) -> float:
    """The mean of 3 x 3 pixels of a source in 0..1 at a place: left, back, below the vertex."""
    x, y, below = at_mm
    i, j, k = np.linalg.solve(result.grid.affine_ras, [-x, -y, -below, 1])[:3].round().astype(int)
    return float(result.sources[role].unit[0, i - 1 : i + 2, j - 1 : j + 2, k].mean())


@pytest.mark.parametrize(
    ("start_mm", "length_mm", "hot"),
    [
        pytest.param(VERTEX_MM, 1490.0, (0, 0, 105), id="whole body"),
        pytest.param(CHEST_MM, 200.0, (20, -30, 435), id="chest"),
        pytest.param(ABDOMEN_MM, 320.0, (0, -30, 830), id="abdomen"),
    ],
)
def test_one_frame_of_any_part_is_fused_by_its_headers(
    tmp_path: Path, start_mm: float, length_mm: float, hot: tuple[float, float, float]
) -> None:
    draw(tmp_path, *part(start_mm, length_mm))
    result = fused(tmp_path)
    found = result.sources["pet"].registration
    assert (found.alignment, found.verdict) == ("headers", "pass"), found.reasons
    np.testing.assert_array_equal(found.fixed_to_moving_lps, np.eye(4))
    # the grid is the CT's field of view, in which the PET is wider
    assert result.grid.spacing_mm[0] == pytest.approx(500.0 / SIZE)
    assert result.grid.shape[2] == round(length_mm / 10)
    assert result.windows["pet"].by == "the patient"
    # soft tissue shows, air and table do not, and what is hot is not all the same
    middle = start_mm + length_mm / 2
    soft, table = level(result, "pet", (120, 0, 600)), level(result, "pet", (0, 175, middle))
    if start_mm in (VERTEX_MM, ABDOMEN_MM):
        assert 0.02 < soft < 0.4
    assert table < 0.02
    assert level(result, "pet", hot) > 0.3
    assert level(result, "ct", (0, 175, middle)) < 0.05


def test_arms_and_a_wide_patient_beyond_the_ct_leave_the_headers_and_the_window_alone(
    tmp_path: Path,
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    draw(whole, *part(CHEST_MM, 150.0))
    draw(cut, *part(CHEST_MM, 150.0, fov_mm=330.0))  # the trunk has 340 mm, and arms beside it
    found = fused(cut)
    assert found.sources["pet"].registration.verdict == "pass"
    assert found.grid.spacing_mm[0] == pytest.approx(330.0 / SIZE)
    assert found.windows["pet"].high == pytest.approx(fused(whole).windows["pet"].high, rel=0.2)


def test_a_few_slices_of_a_belly_are_windowed_as_a_body_from_the_air_on(tmp_path: Path) -> None:
    draw(tmp_path, *part(630.0, 40.0))  # some 3 litres, less than a head
    window = fused(tmp_path).windows["pet"]
    assert window.low < 0.1  # SUV; soft tissue has 1
    assert window.high > 2


def test_where_a_pet_ends_within_the_ct_the_ct_stands_alone_and_it_is_said(tmp_path: Path) -> None:
    ct, pet = part(ABDOMEN_MM, 200.0)
    draw(tmp_path, ct, replace(pet, places_mm=pet.places_mm[:14]))  # 112 of 200 mm
    result = fused(tmp_path)
    said = [line for line in result.warnings if "does not cover" in line]
    assert said[0].startswith("the PET does not cover the patient in 9 of 20 slices")
    alone = result.fused[..., :7]  # slices lie from the feet upwards
    grey = result.sources["ct"].unit[..., :7]
    assert torch.allclose(alone.as_tensor(), grey.expand(3, -1, -1, -1), atol=1e-6)
    assert result.sources["pet"].registration.verdict == "pass"


def test_the_record_makes_anew_what_the_network_saw(tmp_path: Path) -> None:
    ct, pet = part(ABDOMEN_MM, 100.0)
    draw(tmp_path, ct, replace(pet, size=60))  # the PET ends within the CT
    pipeline = replace(load_pipeline("pet-ct"), grid=GridConfig(size=SIZE))
    steps = fusion_transforms(pipeline, weights=Mean()).up_to(FuseSlicesd)
    data = steps({"ct": tmp_path / "ct", "pet": tmp_path / "pt"})
    for role, source in data[STUDY_KEY].sources.items():
        assert torch.equal(source.unit[...], data[role].as_tensor())
    weight = data[STUDY_KEY].sources["pet"].coverage[...]
    assert 0.5 < float((weight == 1).float().mean()) < 1.0


@pytest.mark.parametrize(
    ("start_mm", "axis", "told"),
    [
        (CHEST_MM, 1, "left and right"),
        (ABDOMEN_MM, 1, "left and right"),
        (ABDOMEN_MM, 2, "front and back"),
        (ABDOMEN_MM, 3, "head and feet"),
    ],
)
def test_a_body_whose_sides_or_ends_are_exchanged_is_told(
    tmp_path: Path, start_mm: float, axis: int, told: str
) -> None:
    draw(tmp_path, *part(start_mm, 320.0))
    ct, pet = load(tmp_path / "ct", role="ct"), load(tmp_path / "pt", role="pet")
    exchanged = MetaTensor(pet.as_tensor().flip(axis), meta=pet.meta)
    found = check_headers(ct, exchanged)
    assert found.verdict == "review"
    assert any(told in reason for reason in found.reasons), found.reasons


def test_two_frames_of_a_body_are_refused_as_no_head(tmp_path: Path) -> None:
    draw(tmp_path, *part(ABDOMEN_MM, 200.0), frames=("1.2.3", "1.2.4"))
    with pytest.raises(RegistrationError, match=r"its sections have \d+ cm2, a head's"):
        fused(tmp_path)


@pytest.mark.parametrize("frames", [("1.2.3", "1.2.4"), ("1.2.3", "1.2.3")])
def test_a_given_transform_of_a_body_is_judged_by_what_a_body_shows(
    tmp_path: Path, frames: tuple[str, str]
) -> None:
    """It was judged as a head's, whose parts are looked at more strictly: `review` at best."""
    ct, pet = part(ABDOMEN_MM, 200.0)
    draw(tmp_path, ct, replace(pet, off_mm=30.0), frames=frames)
    given = np.eye(4)
    given[0, 3] = 30.0
    write_itk_transform(tmp_path / "given.tfm", given)
    found = fused(tmp_path, transform=tmp_path / "given.tfm").sources["pet"].registration
    assert (found.verdict, found.alignment) == ("pass", "given"), found.reasons
    np.testing.assert_allclose(found.fixed_to_moving_lps, given)


@pytest.mark.parametrize("start_mm", [VERTEX_MM, CHEST_MM, ABDOMEN_MM])
@pytest.mark.parametrize("way", [(12.0, 0.0, 0.0), (0.0, 0.0, -12.0)])
def test_a_given_transform_that_is_12_mm_off_is_to_be_reviewed(
    tmp_path: Path, start_mm: float, way: tuple[float, float, float]
) -> None:
    draw(tmp_path, *part(start_mm, 400.0), frames=("1.2.3", "1.2.4"))
    ct, pet = load(tmp_path / "ct", role="ct"), load(tmp_path / "pt", role="pet")
    assert check_transform(np.eye(4), ct, pet).verdict == "pass"
    off = np.eye(4)
    off[:3, 3] = way
    found = check_transform(off, ct, pet)
    assert found.verdict == "review"
    assert found.checks[0].value == pytest.approx(12.0, abs=3.0)
    assert "from the given transform matches better" in found.reasons[0]


def test_two_frames_of_a_body_are_searched_where_that_is_accepted_and_never_pass(
    tmp_path: Path,
) -> None:
    draw(tmp_path, *part(ABDOMEN_MM, 200.0), frames=("1.2.3", "1.2.4"))
    accepted = {"accept_other_anatomy": True, "accept_registration": True}
    found = fused(tmp_path, **accepted).sources["pet"].registration
    assert found.alignment == "searched"
    assert found.verdict != "pass"
    assert "look like a head" in found.reasons[0]
    assert "limits that were measured on heads" in found.reasons[0]
    assert not found.of_heads
    assert np.linalg.norm(found.fixed_to_moving_lps[:3, 3]) < 8.0  # and it lies there already


@pytest.mark.parametrize(
    ("orientation", "position"),
    [
        (SUPINE, "FFS"),
        ((-1, 0, 0, 0, 1, 0), "FFS"),
        (PRONE, "HFP"),
        ((0, 1, 0, -1, 0, 0), "HFDR"),
    ],
)
def test_however_the_patient_lies_the_fused_slices_are_the_same(
    tmp_path: Path, orientation: tuple[int, ...], position: str
) -> None:
    ct, pet = part(ABDOMEN_MM, 100.0)
    draw(tmp_path / "plain", ct, pet)
    other = {"orientation": orientation, "position": position}
    draw(tmp_path / "other", replace(ct, **other), replace(pet, places_mm=pet.places_mm[::-1]))
    plain, turned = fused(tmp_path / "plain"), fused(tmp_path / "other")
    assert turned.sources["pet"].registration.verdict == "pass"
    np.testing.assert_allclose(turned.grid.affine_ras, plain.grid.affine_ras, atol=1e-3)
    apart = (turned.sources["ct"].unit[...] - plain.sources["ct"].unit[...]).abs()
    assert float(apart.mean()) < 0.02  # the noise alone
