"""The fusion metrics: golden numbers, properties, and parity with a plain implementation.

The golden numbers were worked out by hand from the definitions, in the comment beside each. The
plain implementation at the end of this file is written straight from the definitions, in loops,
and shares nothing with ``mmif.metrics``.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmif.errors import InputError
from mmif.metrics import (
    METRICS,
    REPORTED,
    STRIP,
    average_gradient,
    correlation_of_differences,
    edge_preservation,
    entropy,
    evaluate,
    evaluate_each,
    evaluate_stack,
    luminance,
    mutual_information,
    psnr,
    spatial_frequency,
    ssim,
    ssim255,
    to_uint8,
)

Image = npt.NDArray[np.uint8]
FEW = settings(max_examples=25, deadline=None)


def grey(*rows: object) -> Image:
    return np.array(rows, dtype=np.uint8)


def flat(value: int, size: int = 11) -> Image:
    return np.full((size, size), value, dtype=np.uint8)


def dot(value: int, size: int = 11) -> Image:
    image = flat(0, size)
    image[size // 2, size // 2] = value
    return image


pixels = hnp.arrays(np.uint8, st.tuples(st.just(3), st.integers(11, 15), st.integers(11, 15)))
levels = hnp.arrays(np.uint8, (3, 12, 11), elements=st.sampled_from([0, 1, 128, 255]))
triples = st.one_of(pixels, levels)


# --- golden numbers


def test_entropy_of_shares_a_half_a_quarter_and_two_eighths_is_1_75_bits() -> None:
    # 1/2 * 1 + 1/4 * 2 + 2 * 1/8 * 3
    assert entropy(grey([0, 0, 0, 0], [9, 9, 77, 255])) == pytest.approx(1.75, abs=1e-12)


def test_entropy_of_one_level_is_zero() -> None:
    assert entropy(flat(77)) == 0.0
    assert math.copysign(1, entropy(flat(77))) == 1.0


def test_average_gradient_of_a_ramp() -> None:
    # gx = 10 in all 12 pixels: 12 * sqrt(100 / 2) / (2 * 3)
    ramp = grey(*[[0, 10, 20, 30]] * 3)
    assert average_gradient(ramp) == pytest.approx(14.142135623731, abs=1e-9)


def test_average_gradient_of_a_dot() -> None:
    # one-sided differences of 8 at 4 neighbours, 0 in the dot: 4 * sqrt(64 / 2) / (2 * 2)
    assert average_gradient(dot(8, 3)) == pytest.approx(math.sqrt(32), abs=1e-12)


def test_mutual_information_of_four_pixels() -> None:
    # H(F) = 0.811278, H(A) = 1, H(F, A) = 1.5; the constant B shares nothing
    F, A, B = grey([0, 0], [0, 9]), grey([3, 3], [7, 7]), grey([5, 5], [5, 5])
    assert mutual_information(F, A, B) == pytest.approx(0.311278124459, abs=1e-9)


def test_mutual_information_of_independent_images_is_zero() -> None:
    F, A = grey([0, 0], [1, 1]), grey([0, 1], [0, 1])
    assert mutual_information(F, A, A) == pytest.approx(0.0, abs=1e-12)


def test_ssim_of_flat_images_is_their_luminance_term() -> None:
    # (2 * 100 * 50 + c1) / (100^2 + 50^2 + c1), and the same for 200: 0.8 each, c1 = 1e-4
    expected = (10000 + 1e-4) / (12500 + 1e-4) + (40000 + 1e-4) / (50000 + 1e-4)
    assert ssim(flat(100), flat(50), flat(200)) == pytest.approx(expected, abs=1e-12)


def test_ssim255_of_a_dot_in_one_window() -> None:
    # The centre weighs w = (1 / (1 + 2 (0.800737 + 0.411112 + 0.135335 + 0.028566 + 0.003866)))^2
    # = 0.0707624. F has mean 100 w = 7.07624 and variance 10^4 w (1 - w) = 657.551; A is 0:
    # S(A, F) = 6.5025 * 58.5225 / ((50.0732 + 6.5025) (657.551 + 58.5225)) = 0.0093934; S(B, F) = 1
    assert ssim255(dot(100), flat(0), dot(100)) == pytest.approx(1.0093934, abs=2e-7)


def test_ssim_with_l_of_1_punishes_haze_in_an_empty_background() -> None:
    # S = c1 / (1 + c1) for a background of 1 where the source has 0
    assert ssim(flat(1), flat(0), flat(0)) == pytest.approx(2 * 1e-4 / (1 + 1e-4), rel=1e-9)


def test_psnr_of_known_errors() -> None:
    # errors of 50 and 100: MSE = (2500 + 10000) / 2 / 65025; 20 log10(255 / 0.310028) = 58.3029
    assert psnr(flat(100), flat(50), flat(200)) == pytest.approx(58.30286, abs=1e-4)
    # errors of 5 and -5: 20 log10(255 * 255 / 5)
    assert psnr(flat(10), flat(5), flat(15)) == pytest.approx(20 * math.log10(13005), abs=1e-9)


def test_psnr_is_the_ordinary_one_plus_48_decibels() -> None:
    ordinary = 10 * math.log10(255**2 / ((2500 + 10000) / 2))
    shift = 20 * math.log10(255)
    assert psnr(flat(100), flat(50), flat(200)) == pytest.approx(ordinary + shift, abs=1e-9)


QA_SAME = 0.9879 / (1 + math.exp(-22 * 0.2))  # direction kept: 0.975916


def test_qabf_of_a_copy_is_0_9753() -> None:
    # Qg = 0.9994 (G = g of F where equal, far above 1), Qa = 0.975916
    assert edge_preservation(dot(100), dot(100), flat(0)) == pytest.approx(0.9994 * QA_SAME)


def test_qabf_of_half_the_contrast() -> None:
    # G = 1/2 at every edge pixel: Qg = 0.9994 / 2
    assert edge_preservation(dot(100), dot(200), flat(0)) == pytest.approx(0.4997 * QA_SAME)


def test_qabf_weighs_the_sources_by_their_edges() -> None:
    # A is kept whole and weighs 1, B is halved and weighs 2
    expected = (0.9994 + 2 * 0.4997) / 3 * QA_SAME
    assert edge_preservation(dot(100), dot(100), dot(200)) == pytest.approx(expected)


def test_qabf_of_edges_that_turned_by_90_degrees_is_lost() -> None:
    # In the middle, sx against sy alone: D = 0, Qa = 0.9879 / (1 + e^17.6) = 2.2e-8
    ramp = np.tile(np.arange(0, 110, 10, dtype=np.uint8), (11, 1))
    turned = edge_preservation(ramp.T.copy(), ramp, flat(0))
    assert turned < 0.25 * edge_preservation(ramp, ramp, flat(0))


def test_scd_of_a_maximum() -> None:
    # F - B = [0, 0, 4, 0] against A = [0, 0, 4, 4]: 8 / sqrt(12 * 16) = 0.57735, twice
    A, B, F = grey([0, 0], [4, 4]), grey([0, 4], [0, 4]), grey([0, 4], [4, 4])
    assert correlation_of_differences(F, A, B) == pytest.approx(2 / math.sqrt(3), abs=1e-12)


def test_scd_of_a_sum_is_2() -> None:
    A, B = grey([0, 1], [20, 3]), grey([9, 0], [4, 4])
    assert correlation_of_differences(A + B, A, B) == pytest.approx(2.0, abs=1e-12)


def test_spatial_frequency_of_four_pixels() -> None:
    # rows: (16 + 9) / 2, columns: (9 + 16) / 2, sqrt(25)
    assert spatial_frequency(grey([0, 3], [4, 0])) == pytest.approx(5.0, abs=1e-12)


def test_differences_do_not_wrap_around_in_8_bits() -> None:
    checker = (np.indices((12, 12)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert spatial_frequency(checker) == pytest.approx(255 * math.sqrt(2))


def test_luminance_rounds_and_keeps_grey() -> None:
    colours = grey([255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 7, 7])
    # 76.245, 149.685, 29.07
    assert luminance(colours).tolist() == [76, 150, 29, 255, 7]


def test_8_bits_are_clipped_and_rounded_never_wrapped() -> None:
    assert to_uint8([-0.5, 0.0, 0.4999 / 255, 0.501 / 255, 1.0, 1.7]).tolist() == [
        *(0, 0, 0, 1, 255, 255),
    ]


# --- properties


@FEW
@given(triples)
def test_the_order_of_the_sources_does_not_matter(images: Image) -> None:
    one, other = evaluate(*images[[0, 1, 2]]), evaluate(*images[[0, 2, 1]])
    for name in REPORTED:
        assert one[name] == pytest.approx(other[name], abs=1e-9), name


@FEW
@given(triples)
def test_bounds(images: Image) -> None:
    values = evaluate(*images)
    assert 0 <= values["EN"] <= 8
    assert -1e-9 <= values["MI"] <= 2 * values["EN"] + 1e-9
    assert -2 <= values["SSIM"] <= 2 + 1e-9
    assert -2 <= values["SSIM255"] <= 2 + 1e-9
    assert -2 - 1e-9 <= values["SCD"] <= 2 + 1e-9
    assert 0 <= values["Qabf"] <= 0.9994 * 0.9879
    assert values["PSNR"] >= 20 * math.log10(255) - 1e-9
    assert values["AG"] >= 0
    assert 0 <= values["SF"] <= 255 * math.sqrt(2)


@FEW
@given(triples)
def test_a_copy_of_both_sources_has_all_of_them(images: Image) -> None:
    A = images[0]
    values = evaluate(A, A, A)
    assert values["SSIM"] == pytest.approx(2.0)
    assert values["SSIM255"] == pytest.approx(2.0)
    assert values["MI"] == pytest.approx(2 * values["EN"], abs=1e-9)
    assert values["PSNR"] == math.inf
    assert values["SCD"] == 0.0


@FEW
@given(triples)
def test_mirrored_images_have_the_same_metrics(images: Image) -> None:
    straight, mirrored = evaluate(*images), evaluate(*images[:, ::-1, ::-1])
    for name in REPORTED:
        assert straight[name] == pytest.approx(mirrored[name], abs=1e-9), name


@FEW
@given(triples)
def test_entropy_and_information_know_nothing_of_positions(images: Image) -> None:
    shuffled = images.reshape(3, -1)[:, np.random.default_rng(0).permutation(images[0].size)]
    F, A, B = shuffled.reshape(images.shape)
    assert entropy(F) == pytest.approx(entropy(images[0]), abs=1e-12)
    assert mutual_information(F, A, B) == pytest.approx(mutual_information(*images), abs=1e-9)


def test_empty_slices_give_zeros_not_nan() -> None:
    values = evaluate(flat(0), flat(0), flat(0))
    assert values["Qabf"] == 0.0
    assert values["SCD"] == 0.0
    assert values["EN"] == 0.0
    assert values["SSIM"] == pytest.approx(2.0)
    assert values["PSNR"] == math.inf


# --- parity, stacks and refusals


@FEW
@given(triples)
def test_every_metric_equals_the_plain_implementation(images: Image) -> None:
    for name, metric in REPORTED.items():
        assert metric(*images) == pytest.approx(PLAIN[name](*images), rel=1e-6, abs=1e-6), name


def test_smooth_images_equal_the_plain_implementation() -> None:
    y, x = np.mgrid[:23, :19]
    A = (127 + 120 * np.sin(x / 3) * np.cos(y / 5)).astype(np.uint8)
    B = (255 * np.exp(-((x - 9) ** 2 + (y - 11) ** 2) / 40)).astype(np.uint8)
    F = np.maximum(A, B)
    values = evaluate(F, A, B)
    for name, plain in PLAIN.items():
        assert values[name] == pytest.approx(plain(F, A, B), rel=1e-6, abs=1e-6), name


def test_an_image_of_several_strips_equals_the_plain_implementation() -> None:
    images = np.random.default_rng(8).integers(0, 256, (3, 2 * STRIP + 5, 14), dtype=np.uint8)
    values = evaluate(*images)
    for name, plain in PLAIN.items():
        assert values[name] == pytest.approx(plain(*images), rel=1e-6, abs=1e-6), name


def test_a_stack_equals_its_slices() -> None:
    stacks = np.random.default_rng(5).integers(0, 256, (3, 6, 20, 17), dtype=np.uint8)
    together = evaluate_stack(*stacks)
    for index in range(6):
        for name, metric in REPORTED.items():
            assert together[name][index] == metric(*stacks[:, index]), name


def test_slices_of_different_sizes_are_measured_each_at_its_own() -> None:
    random = np.random.default_rng(6)
    slices = [random.integers(0, 256, (3, size, size + 2), dtype=np.uint8) for size in (11, 30)]
    values = evaluate_each((F, A, B) for F, A, B in slices)
    assert values["EN"].tolist() == [entropy(s[0]) for s in slices]


def test_the_table_has_the_eight_metrics() -> None:
    assert list(METRICS) == ["EN", "AG", "MI", "SSIM", "PSNR", "Qabf", "SCD", "SF"]
    assert list(REPORTED) == [*METRICS, "SSIM255"]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([flat(0), flat(0), flat(0).astype(np.float32)], "found float32"),
        ([flat(0), flat(0), np.zeros((11, 11, 3), np.uint8)], "8-bit grey images with 2 axes"),
        ([flat(0), flat(0), flat(0, 12)], "expected one shape"),
        ([flat(0, 10)] * 3, "expected at least 11 x 11"),
    ],
)
def test_what_is_no_8_bit_grey_triple_is_refused(images: list[Image], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        evaluate(*images)


# --- the plain implementation

H1 = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
H3 = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]


def plain_entropy(*images: Image) -> float:
    """Of one image, or of the tuples of levels of several: - sum p log2 p."""
    counts: dict[tuple[int, ...], int] = {}
    for levels_here in zip(*(image.ravel().tolist() for image in images), strict=True):
        counts[levels_here] = counts.get(levels_here, 0) + 1
    return -sum(n / images[0].size * math.log2(n / images[0].size) for n in counts.values())


def plain_en(F: Image, A: Image, B: Image) -> float:
    return plain_entropy(F)


def plain_difference(line: list[float], i: int) -> float:
    """Central inside, one-sided at both ends."""
    if i == 0:
        return line[1] - line[0]
    if i == len(line) - 1:
        return line[-1] - line[-2]
    return (line[i + 1] - line[i - 1]) / 2


def plain_ag(F: Image, A: Image, B: Image) -> float:
    f, (h, w) = F.astype(float), F.shape
    total = 0.0
    for y in range(h):
        for x in range(w):
            gx = plain_difference(f[y, :].tolist(), x)
            gy = plain_difference(f[:, x].tolist(), y)
            total += math.sqrt((gx**2 + gy**2) / 2)
    return total / ((h - 1) * (w - 1))


def plain_mi(F: Image, A: Image, B: Image) -> float:
    h = plain_entropy
    return h(F) + h(A) - h(F, A) + h(F) + h(B) - h(F, B)


def plain_window_similarity(x: Image, y: Image, data_range: float) -> float:
    weights = np.array(
        [[math.exp(-(i * i + j * j) / (2 * 1.5**2)) for j in range(-5, 6)] for i in range(-5, 6)]
    )
    weights /= weights.sum()
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    cov = (weights * (x - mx) * (y - my)).sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    result = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(result)


def plain_similarity(X: Image, F: Image, data_range: float) -> float:
    x, f = X.astype(float), F.astype(float)
    windows = [
        plain_window_similarity(x[r : r + 11, c : c + 11], f[r : r + 11, c : c + 11], data_range)
        for r in range(F.shape[0] - 10)
        for c in range(F.shape[1] - 10)
    ]
    return sum(windows) / len(windows)


def plain_ssim(F: Image, A: Image, B: Image) -> float:
    return plain_similarity(A, F, 1) + plain_similarity(B, F, 1)


def plain_ssim255(F: Image, A: Image, B: Image) -> float:
    return plain_similarity(A, F, 255) + plain_similarity(B, F, 255)


def plain_psnr(F: Image, A: Image, B: Image) -> float:
    def mean_square(X: Image) -> float:
        differences = zip(F.ravel().tolist(), X.ravel().tolist(), strict=True)
        return sum((f - x) ** 2 for f, x in differences) / F.size

    mse = (mean_square(A) + mean_square(B)) / 2 / 255**2
    return math.inf if mse == 0 else 20 * math.log10(255 / math.sqrt(mse))


def plain_edge(image: Image, y: int, x: int) -> tuple[float, float]:
    """Sobel strength and angle of one pixel, 0 outside the image."""
    sy = sx = 0
    for i in range(3):
        for j in range(3):
            row, column = y + i - 1, x + j - 1
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                sy += H1[i][j] * int(image[row, column])
                sx += H3[i][j] * int(image[row, column])
    return math.sqrt(sx**2 + sy**2), math.pi / 2 if sx == 0 else math.atan(sy / sx)


def plain_kept(g: float, alpha: float, g_fused: float, alpha_fused: float) -> float:
    ratio = g_fused if g == g_fused else min(g, g_fused) / max(g, g_fused)
    turn = 1 - abs(alpha - alpha_fused) / (math.pi / 2)
    return (
        0.9994 / (1 + math.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + math.exp(-22 * (turn - 0.8)))
    )


def plain_qabf(F: Image, A: Image, B: Image) -> float:
    kept = weight = 0.0
    for y in range(F.shape[0]):
        for x in range(F.shape[1]):
            fused, a, b = plain_edge(F, y, x), plain_edge(A, y, x), plain_edge(B, y, x)
            kept += plain_kept(*a, *fused) * a[0] + plain_kept(*b, *fused) * b[0]
            weight += a[0] + b[0]
    return kept / weight if weight else 0.0


def plain_pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    xy = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
    xx, yy = sum((p - mx) ** 2 for p in x), sum((q - my) ** 2 for q in y)
    return xy / math.sqrt(xx * yy) if xx * yy > 0 else 0.0


def plain_scd(F: Image, A: Image, B: Image) -> float:
    f, a, b = (image.astype(float).ravel() for image in (F, A, B))
    return plain_pearson(list(f - b), list(a)) + plain_pearson(list(f - a), list(b))


def plain_sf(F: Image, A: Image, B: Image) -> float:
    f, (h, w) = F.astype(float), F.shape
    rows = [(f[y + 1, x] - f[y, x]) ** 2 for y in range(h - 1) for x in range(w)]
    columns = [(f[y, x + 1] - f[y, x]) ** 2 for y in range(h) for x in range(w - 1)]
    return math.sqrt(sum(rows) / len(rows) + sum(columns) / len(columns))


PLAIN: dict[str, Callable[[Image, Image, Image], float]] = {
    "EN": plain_en,
    "AG": plain_ag,
    "MI": plain_mi,
    "SSIM": plain_ssim,
    "PSNR": plain_psnr,
    "Qabf": plain_qabf,
    "SCD": plain_scd,
    "SF": plain_sf,
    "SSIM255": plain_ssim255,
}
