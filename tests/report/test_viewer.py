"""The viewer's volumes are as fine as the page may be large."""

import pytest
from conftest import Study

from mmif.report import viewer
from mmif.report.study_view import StudyView


@pytest.mark.parametrize(("budget", "coarsest"), [(10**9, 1), (150_000, 4), (60_000, 8)])
def test_volumes_fit_the_budget_by_coarser_steps_and_then_by_means_of_pixels(
    study: Study, monkeypatch: pytest.MonkeyPatch, budget: int, coarsest: int
) -> None:
    monkeypatch.setattr(viewer, "BUDGET_BYTES", budget)
    data = viewer.viewer_data(StudyView(study.result))
    assert sum(map(len, data.volumes.values())) < 1.3 * budget
    assert data.study["factors"][0] <= coarsest
    assert bool(data.reduced) == (coarsest > 1)


def test_of_three_sources_the_third_is_there_in_its_colours(three_sources: Study) -> None:
    """The activity was missing, and the CT lay in its colours."""
    data = viewer.viewer_data(StudyView(three_sources.result))
    volumes = data.study["volumes"]
    assert set(data.volumes) == set(volumes)
    assert (volumes["moving"]["label"], volumes["third"]["label"]) == ("CT", "SPECT")
    assert "palette" in volumes["third"]
    assert "palette" not in volumes["moving"]
