"""The eight metrics of image fusion, and SSIM255, as pure functions of 8-bit grey images.

Every function takes F, A, B: the fused image, the anatomical source (MRI or visible) and the
other source (CT, SPECT, PET or infrared), each (rows, columns) uint8, and returns one number.
``METRICS`` maps the eight names to them, ``REPORTED`` has SSIM255 beside; ``evaluate`` gives all
of ``REPORTED`` for one slice and ``evaluate_stack`` for many. Higher is better in all of them.

The definitions are those behind the published tables of S3IMFusion and its peers, quirks
included (SSIM with L = 1 on data in 0..255; PSNR on a squared error divided by 255 squared).
Where a definition divides nothing by nothing (an empty slice), the metric says 0: no
correlation, no edge carried over.

Examples:
    >>> image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> METRICS["EN"](image, image, image)
    8.0
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmif.errors import InputError

Image = npt.NDArray[np.uint8]
Stack = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Metric = Callable[[Image, Image, Image], float]

# Wang et al. 2004, 11 x 11 pixels and a standard deviation of 1.5
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5  # pixels
# Slices measured at once, as NumPy lets go of Python's lock (not measured beyond two cores)
THREADS = 2
# Rows that are worked on at once, so that what is in between stays in the cache. With 64, 96, 128
# and 256 one thread takes 0.47, 0.48, 0.49 and 0.51 s for 60 slices of 256 x 256, and two 0.66,
# 0.49, 0.44 and 0.38: each call of NumPy hands Python's lock to and fro
STRIP = 256


def to_uint8(image: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """An image in 0..1 as 8 bits: clipped, times 255, rounded; of any shape."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def luminance(rgb: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Y = 0.299 R + 0.587 G + 0.114 B of 8-bit colours (..., 3), rounded half up, (...)."""
    weights = np.array([299, 587, 114], dtype=np.int64)
    thousandths = np.asarray(rgb, dtype=np.int64) @ weights
    return ((thousandths + 500) // 1000).astype(np.uint8)


def entropy(F: Image, A: Image | None = None, B: Image | None = None) -> float:
    """EN: Shannon entropy of the 256 grey levels of F, in bits; 0..8."""
    return _bits(np.bincount(F.ravel(), minlength=256))


def average_gradient(F: Image, A: Image | None = None, B: Image | None = None) -> float:
    """AG: sum of sqrt((gx^2 + gy^2) / 2) over (H - 1)(W - 1), in grey levels a pixel."""
    gy, gx = np.gradient(F.astype(np.float64))
    rows, columns = F.shape
    return float(np.sqrt((gx * gx + gy * gy) / 2).sum() / ((rows - 1) * (columns - 1)))


def mutual_information(F: Image, A: Image, B: Image) -> float:
    """MI: MI(F, A) + MI(F, B) in bits, with MI(X, Y) = H(X) + H(Y) - H(X, Y)."""
    return _shared_bits(F, A) + _shared_bits(F, B)


def ssim(F: Image, A: Image, B: Image) -> float:
    """SSIM: S(A, F) + S(B, F), a sum, with L = 1 on data in 0..255 as all tables have it."""
    return _structural_similarity(F, A, B, 1.0)[0]


def ssim255(F: Image, A: Image, B: Image) -> float:
    """SSIM255: the same sum with L = 255, the range that the data has."""
    return _structural_similarity(F, A, B, 255.0)[0]


def psnr(F: Image, A: Image, B: Image) -> float:
    """PSNR: 20 log10(255 / sqrt(MSE)) in dB, MSE the mean of both over 255^2.

    Infinite where F, A and B are the same image.
    """
    f, a, b = _floats(F, A, B)
    error = (np.mean((f - a) ** 2) + np.mean((f - b) ** 2)) / 2 / 255.0**2
    return float(20 * np.log10(255.0 / np.sqrt(error))) if error > 0 else float("inf")


def edge_preservation(F: Image, A: Image, B: Image) -> float:
    """Qabf: the share of the sources' edges that F keeps in strength and direction; 0..1.

    Xydeas and Petrovic 2000. 0 where neither source has an edge.
    """
    padded = [np.pad(image.astype(np.int32), 1) for image in (F, A, B)]
    kept = weight = 0.0
    for top in range(0, len(F), STRIP):
        fused, *sources = (_edges(levels[top : top + STRIP + 2]) for levels in padded)
        for source in sources:
            kept += float((_preservation_map(source, fused) * source.strength).sum())
            weight += float(source.strength.sum())
    return kept / weight if weight > 0 else 0.0


def correlation_of_differences(F: Image, A: Image, B: Image) -> float:
    """SCD: r(F - B, A) + r(F - A, B), Pearson over the pixels; -2..2 (Aslantas 2015)."""
    f, a, b = _floats(F, A, B)
    return _pearson(f - b, a) + _pearson(f - a, b)


def spatial_frequency(F: Image, A: Image | None = None, B: Image | None = None) -> float:
    """SF: sqrt(mean squared difference along rows + the same along columns), grey levels."""
    f = F.astype(np.float64)
    rows, columns = np.diff(f, axis=0), np.diff(f, axis=1)
    return float(np.sqrt(np.mean(rows * rows) + np.mean(columns * columns)))


METRICS: dict[str, Metric] = {
    "EN": entropy,
    "AG": average_gradient,
    "MI": mutual_information,
    "SSIM": ssim,
    "PSNR": psnr,
    "Qabf": edge_preservation,
    "SCD": correlation_of_differences,
    "SF": spatial_frequency,
}
"""The eight names to their functions of three 8-bit images (rows, columns): fused, A and B."""

REPORTED: dict[str, Metric] = {**METRICS, "SSIM255": ssim255}


def evaluate(F: Image, A: Image, B: Image) -> dict[str, float]:
    """All of ``REPORTED`` of one slice by name; the two SSIM share their windows.

    Args:
        F: fused, (rows, columns) uint8.
        A: the anatomical source, likewise.
        B: the other source, likewise.

    Raises:
        InputError: not 8-bit grey images of one shape of at least 11 x 11.
    """
    check_images(F, A, B)
    similarity = dict(
        zip(("SSIM", "SSIM255"), _structural_similarity(F, A, B, 1.0, 255.0), strict=True)
    )
    return {
        name: similarity[name] if name in similarity else metric(F, A, B)
        for name, metric in REPORTED.items()
    }


def evaluate_stack(
    fused: Stack, a: Stack, b: Stack, *, threads: int = THREADS
) -> dict[str, Floats]:
    """All of ``REPORTED`` of many slices: name to (n,) values.

    Args:
        fused: (n, rows, columns) uint8.
        a: the anatomical source, likewise.
        b: the other source, likewise.
        threads: slices that are measured at the same time.

    Raises:
        InputError: not 8-bit stacks of one shape.
    """
    check_images(fused, a, b, dimensions=3)
    return evaluate_each(zip(fused, a, b, strict=True), threads=threads)


def evaluate_each(
    slices: Iterable[tuple[Image, Image, Image]], *, threads: int = THREADS
) -> dict[str, Floats]:
    """All of ``REPORTED`` of (F, A, B) triples, which may differ in size: name to (n,) values."""
    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(lambda triple: evaluate(*triple), slices))
    return {name: np.array([row[name] for row in rows]) for name in REPORTED}


def check_images(*images: npt.NDArray[np.uint8], dimensions: int = 2) -> None:
    """Nothing, where all are 8-bit grey, of one shape and large enough for the SSIM window.

    Raises:
        InputError: otherwise.
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != dimensions:
            raise InputError(
                f"metrics: found {image.dtype} of shape {image.shape}, expected 8-bit grey images"
                f" with {dimensions} axes"
            )
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise InputError(f"metrics: found images of shapes {sorted(shapes)}, expected one shape")
    if min(images[0].shape[-2:]) < SSIM_WINDOW:
        raise InputError(
            f"metrics: found an image of {images[0].shape[-2:]} pixels, expected at least"
            f" {SSIM_WINDOW} x {SSIM_WINDOW}"
        )


def _floats(*images: Image) -> list[Floats]:
    return [image.astype(np.float64) for image in images]


def _bits(counts: npt.NDArray[np.intp]) -> float:
    """Shannon entropy in bits of a histogram."""
    shares = counts[counts > 0] / counts.sum()
    return float(abs(np.sum(shares * np.log2(shares))))


def _shared_bits(X: Image, Y: Image) -> float:
    """H(X) + H(Y) - H(X, Y) in bits, from the 256 x 256 joint histogram."""
    joint = np.bincount(X.ravel().astype(np.intp) * 256 + Y.ravel(), minlength=256 * 256)
    table = joint.reshape(256, 256)
    return _bits(table.sum(axis=1)) + _bits(table.sum(axis=0)) - _bits(joint)


def _pearson(x: Floats, y: Floats) -> float:
    """The correlation of two images; 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / spread) if spread > 0 else 0.0


class _Edges(NamedTuple):
    strength: Floats  # (rows, columns), Sobel magnitude
    angle: Floats  # (rows, columns), -pi/2..pi/2


def _edges(levels: npt.NDArray[np.int32]) -> _Edges:
    """Sobel edges inside a frame of one pixel, (rows - 2, columns - 2)."""
    smooth_rows = levels[:-2] + 2 * levels[1:-1] + levels[2:]
    smooth_columns = levels[:, :-2] + 2 * levels[:, 1:-1] + levels[:, 2:]
    sx = smooth_rows[:, 2:] - smooth_rows[:, :-2]
    sy = smooth_columns[:-2] - smooth_columns[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = sy / sx
    slope[sx == 0] = np.inf  # an angle of pi/2
    return _Edges(np.sqrt(sx * sx + sy * sy), np.arctan(slope))


def _preservation_map(source: _Edges, fused: _Edges) -> Floats:
    """Q of each pixel: how much of the source's edge strength and direction F keeps; 0..1."""
    low = np.minimum(source.strength, fused.strength)
    high = np.maximum(source.strength, fused.strength)
    ratio = np.where(low == high, low, low / np.maximum(high, 1))  # strengths are 0 or above 1
    turn = 1 - np.abs(source.angle - fused.angle) / (np.pi / 2)
    # the constants of Xydeas and Petrovic 2000, table 1
    strength = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
    direction = 0.9879 / (1 + np.exp(-22 * (turn - 0.8)))
    return np.asarray(strength * direction)


class _Moments(NamedTuple):
    """Gaussian-weighted population moments in each window; each (rows - 10, columns - 10)."""

    mean_f: Floats
    variance_f: Floats
    means: tuple[Floats, Floats]  # of A, of B
    variances: tuple[Floats, Floats]
    covariances: tuple[Floats, Floats]  # of A with F, of B with F


def _window_moments(F: Image, A: Image, B: Image) -> _Moments:
    f, a, b = _floats(F, A, B)
    mean_f, mean_a, mean_b = _blur(f), _blur(a), _blur(b)
    return _Moments(
        mean_f,
        _blur(f * f) - mean_f * mean_f,
        (mean_a, mean_b),
        (_blur(a * a) - mean_a * mean_a, _blur(b * b) - mean_b * mean_b),
        (_blur(a * f) - mean_a * mean_f, _blur(b * f) - mean_b * mean_f),
    )


def _blur(levels: Floats) -> Floats:
    """The Gaussian mean of each 11 x 11 window that lies inside the image."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    return _weigh(_weigh(levels, weights).T, weights).T


def _weigh(levels: Floats, weights: Floats) -> Floats:
    """Sums of neighbouring rows with symmetric ``weights``, where all of them are inside."""
    middle, inside = len(weights) // 2, len(levels) - len(weights) + 1
    total = weights[middle] * levels[middle : middle + inside]
    for k in range(middle):
        mirrored = len(weights) - 1 - k
        total += weights[k] * (levels[k : k + inside] + levels[mirrored : mirrored + inside])
    return np.asarray(total)


def _structural_similarity(F: Image, A: Image, B: Image, *data_ranges: float) -> list[float]:
    """S(A, F) + S(B, F), mean over all windows, for each of the ``data_ranges``."""
    check_images(F, A, B)
    rows, columns = F.shape[0] - SSIM_WINDOW + 1, F.shape[1] - SSIM_WINDOW + 1
    totals = np.zeros(len(data_ranges))
    for top in range(0, rows, STRIP):
        strip = slice(top, top + STRIP + SSIM_WINDOW - 1)
        moments = _window_moments(F[strip], A[strip], B[strip])
        totals += [_similarity(moments, data_range) for data_range in data_ranges]
    return [float(total) / (rows * columns) for total in totals]


def _similarity(moments: _Moments, data_range: float) -> float:
    """S(A, F) + S(B, F) (Wang 2004), summed over windows."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2  # K1 and K2 of Wang 2004
    total = 0.0
    for mean, variance, covariance in zip(
        moments.means, moments.variances, moments.covariances, strict=True
    ):
        numerator = (2 * mean * moments.mean_f + c1) * (2 * covariance + c2)
        denominator = (mean**2 + moments.mean_f**2 + c1) * (variance + moments.variance_f + c2)
        total += float((numerator / denominator).sum())
    return total
