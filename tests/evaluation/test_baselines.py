"""The simple fusion rules."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmif.evaluation.baselines import BASELINES, average, laplacian_pyramid, maximum

Image = npt.NDArray[np.uint8]
pairs = hnp.arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 41), st.integers(1, 41)))


def test_maximum_and_average_of_four_pixels() -> None:
    a, b = np.array([[0, 255], [7, 100]], np.uint8), np.array([[9, 255], [4, 200]], np.uint8)
    assert maximum(a, b).tolist() == [[9, 255], [7, 200]]
    assert average(a, b).tolist() == [[4, 255], [6, 150]]  # 4.5 and 5.5 to the even level


@settings(max_examples=30, deadline=None)
@given(pairs, st.sampled_from(sorted(BASELINES)))
def test_every_rule_keeps_a_copy_and_knows_no_order(images: Image, name: str) -> None:
    a, b = images
    rule = BASELINES[name]
    assert (rule(a, a) == a).all()
    assert rule(a, b).shape == a.shape
    if name != "laplacian pyramid":
        assert (rule(a, b) == rule(b, a)).all()


@settings(max_examples=10, deadline=None)
@given(hnp.arrays(np.uint8, (2, 3, 20, 23)))
def test_a_stack_is_fused_slice_by_slice(stacks: Image) -> None:
    for rule in BASELINES.values():
        together = rule(*stacks)
        for index in range(3):
            assert (together[index] == rule(stacks[0, index], stacks[1, index])).all()


def test_the_pyramid_keeps_the_sharper_of_two_details() -> None:
    sharp = np.tile(np.array([0, 200], np.uint8), (64, 32))
    smooth = np.full((64, 64), 100, np.uint8)
    fused = laplacian_pyramid(sharp, smooth).astype(float)
    inside = fused[16:-16, 16:-16]
    assert np.abs(np.diff(inside, axis=1)).mean() == pytest.approx(200, abs=2)


def test_empty_stays_empty() -> None:
    empty = np.zeros((33, 40), np.uint8)
    for rule in BASELINES.values():
        assert not rule(empty, empty).any()


def test_the_rules_score_as_the_printed_tables_say(shared_data: object) -> None:
    """On other pairs than the printed rows: near them, and apart from each other as they are."""
    from pathlib import Path

    from PIL import Image as Pillow

    from mmif.metrics import evaluate_stack

    folder = Path(str(shared_data)) / "harvard" / "CT-MRI"
    names = sorted(path.name for path in (folder / "CT").iterdir())[4::12]
    a, b = (
        np.stack([np.array(Pillow.open(folder / role / name)) for name in names])
        for role in ("MRI", "CT")
    )
    means = {
        name: {key: values.mean() for key, values in evaluate_stack(rule(a, b), a, b).items()}
        for name, rule in BASELINES.items()
    }
    printed = {  # MI, SSIM, PSNR, Qabf, SCD, AG of the 24 held-back pairs
        "maximum": {"SSIM": 1.325, "PSNR": 61.108, "Qabf": 0.583, "SCD": 1.546, "AG": 6.793},
        "average": {"SSIM": 1.282, "PSNR": 64.118, "Qabf": 0.349, "SCD": 1.060, "AG": 4.765},
        "laplacian pyramid": {
            "SSIM": 1.272, "PSNR": 62.527, "Qabf": 0.573, "SCD": 1.195, "AG": 7.965,
        },
    }  # fmt: skip
    for name, row in printed.items():
        for key, value in row.items():
            assert means[name][key] == pytest.approx(value, rel=0.2), (name, key)
            apart = means[name][key] - means["maximum"][key]
            expected = value - printed["maximum"][key]
            assert apart == pytest.approx(expected, abs=0.12 * value), (name, key)
