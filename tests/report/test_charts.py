import numpy as np
import pytest

from mmif.report.charts import HEIGHT, MOST_DOTS, WIDTH, chart, worst_slices


def test_a_slice_without_a_value_breaks_the_line() -> None:
    drawn = chart("EN", [1.0, 2.0, np.nan, 4.0])
    assert len(drawn.lines) == 2
    assert [dot.index for dot in drawn.dots] == [0, 1, 3]
    assert drawn.missing == 1
    assert drawn.mean == pytest.approx(7 / 3)


@pytest.mark.parametrize("values", [[np.nan, np.inf], [], [3.0], [2.0, 2.0], [0.0], [1e-12, 0]])
def test_odd_series_stay_inside_the_picture(values) -> None:
    drawn = chart("SF", values)
    assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= HEIGHT for dot in drawn.dots)
    assert 2 <= len(drawn.ticks) <= 7


def test_larger_values_stand_higher() -> None:
    low, high = chart("SF", [10.0, 31.0]).dots
    assert high.y < low.y


def test_the_worst_slices_have_the_lowest_ranks() -> None:
    per_slice = {
        "Qabf": np.array([0.5, 0.1, 0.6, np.nan, 0.2]),
        "SSIM": np.array([1.0, 0.2, 1.1, 0.0, 0.3]),
        "SCD": np.array([1.0, 0.1, 1.2, 0.0, 0.3]),
        "EN": np.array([9.0, 9.0, 0.0, 0.0, 9.0]),
    }
    assert worst_slices(per_slice, 2) == (1, 4)
    assert worst_slices({}, 2) == ()
    assert worst_slices({"Qabf": np.array([np.nan])}, 2) == ()


def test_slices_that_are_not_judged_are_never_the_worst() -> None:
    per_slice = {"Qabf": np.array([0.1, 0.2, 0.3])}
    assert worst_slices(per_slice, 2, np.array([False, True, True])) == (1, 2)


def test_of_many_slices_only_those_without_a_neighbour_are_dots() -> None:
    values = np.ones(MOST_DOTS + 1)
    values[[3, 5]] = np.nan
    assert [dot.index for dot in chart("SF", values).marked] == [4]
    assert len(chart("SF", values[1:]).marked) == MOST_DOTS - 2
