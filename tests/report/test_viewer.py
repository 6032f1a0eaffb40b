"""The viewer's volumes are as fine as the page may be large."""

import numpy as np
import pytest
from conftest import Study, make_study

from mmif.geometry import Grid, apply
from mmif.report.document import PAGE_BYTES, report_page
from mmif.report.study_view import StudyView
from mmif.report.viewer import average_voxels, details, reduced_grid, viewer_data


@pytest.mark.parametrize(("budget", "coarsest"), [(10**9, 1), (150_000, 4), (60_000, 8)])
def test_volumes_fit_the_budget_by_coarser_steps_and_then_by_means_of_pixels(
    study: Study, budget: int, coarsest: int
) -> None:
    data = viewer_data(StudyView(study.result), budget)
    assert sum(map(len, data.volumes.values())) <= budget
    assert data.study["factors"][0] <= coarsest
    assert bool(data.reduced) == (coarsest > 1)


def test_of_three_sources_the_third_is_there_in_its_colours(three_sources: Study) -> None:
    """The activity was missing, and the CT lay in its colours."""
    data = viewer_data(StudyView(three_sources.result), 10**9)
    volumes = data.study["volumes"]
    assert set(data.volumes) == set(volumes)
    assert (volumes["moving"]["label"], volumes["third"]["label"]) == ("CT", "SPECT")
    assert "palette" in volumes["third"]
    assert "palette" not in volumes["moving"]


@pytest.fixture(scope="module")
def noisy_body() -> Study:
    """800 slices of noise, which nothing packs."""
    study, slices = make_study(), 800
    random = np.random.default_rng(0)
    grid = Grid((40, 40, slices), np.diag([-8.0, -8.0, 1.5, 1.0]))
    noise = {
        name: random.random((1, *grid.shape), dtype=np.float32)
        for name in ("fused", "reference_unit", "moving_unit", "coverage")
    }
    values = {name: 3000 * noise[f"{name}_unit"] - 1000 for name in ("reference", "moving")}
    metrics = {name: random.random(slices) for name in study.result.metrics_per_slice}
    return study.replaced(
        grid=grid,
        metrics_per_slice=metrics,
        covered_fraction=np.ones(slices),
        **noise,
        **values,
    )


def test_the_page_of_a_body_stays_below_8_mb_and_says_how(noisy_body: Study) -> None:
    page = report_page(noisy_body.result, noisy_body.summary)
    assert 4_000_000 < len(page.encode()) < PAGE_BYTES
    assert "The study is large: the viewer shows means of" in page
    assert "in steps of" in page or "voxels (" in page


def test_slices_are_drawn_together_while_they_stay_no_thicker_than_pixels_are_wide() -> None:
    assert list(details((1.0, 1.0, 4.0)))[:5] == [(1, 1), (2, 1), (3, 1), (4, 1), (6, 1)]
    assert list(details((2.0, 2.0, 1.5)))[:4] == [(1, 1), (2, 1), (2, 2), (3, 2)]
    pixels, slices = list(details((2.0, 2.0, 1.5)))[-1]
    assert slices * 1.5 <= pixels * 2.0


def test_a_reduced_voxel_is_the_mean_of_its_block_and_lies_in_its_middle() -> None:
    volume = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    small = average_voxels(volume, (2, 2, 3))
    assert small.shape == (2, 2, 3, 1)
    assert small[1, 0, 1, 0] == pytest.approx(volume[1, :2, 2:4].mean())
    grid = Grid((4, 4, 6), np.diag([1.0, 1.0, 2.0, 1.0]))
    reduced = reduced_grid(grid, (2, 2, 3))
    assert reduced.shape == (2, 2, 2)
    assert apply(reduced.affine_ras, np.zeros(3)) == pytest.approx([0.5, 0.5, 2.0])
