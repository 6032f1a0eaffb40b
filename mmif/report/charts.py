"""Figures per slice as small line charts, in SVG coordinates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# SVG units; a choice of layout
WIDTH, HEIGHT = 320, 150
# Margins for axis labels
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 24

MEANINGS = {
    "EN": ("Entropy", "bits; detail and haze alike raise it"),
    "AG": ("Average gradient", "sharpness; noise raises it too"),
    "MI": ("Mutual information", "bits shared with both sources"),
    "SSIM": (
        "Structural similarity",
        "sum over both sources, at most 2, as published tables have it",
    ),
    "SSIM255": ("Structural similarity, L = 255", "sum over both sources, at most 2"),
    "PSNR": ("Peak signal to noise", "dB as published tables have it (48.13 dB above the usual)"),
    "Qabf": ("Edges kept", "share of the sources' edges that the fused slice keeps, 0 to 1"),
    "SCD": ("Sum of correlated differences", "at most 2"),
    "SF": ("Spatial frequency", "activity; noise raises it too"),
}
"""Name to (what it is, how to read it)."""

MOST_DOTS = 400
"""With more slices than this a line is enough: dots lie over each other, and those of 1,000 slices
and nine metrics take 0.9 MB of the page."""

JUDGED_BY = ("Qabf", "SSIM", "SCD")
"""The metrics that compare with the sources: by these a slice is called bad."""


@dataclass(frozen=True)
class Dot:
    """One slice in a chart: slice number (from 0), its place, its value."""

    index: int
    x: float
    y: float
    value: float


@dataclass(frozen=True)
class Chart:
    """One metric over the slices, ready to be drawn in WIDTH x HEIGHT.

    Attributes:
        name: of the metric.
        title: what it is.
        reading: how to read it.
        mean: over the slices that have a value; NaN if none has.
        dots: the slices that have a value.
        marked: those of them that are drawn as dots: all, or of many those without a neighbour.
        lines: runs of neighbouring slices as ``x,y x,y`` for a polyline.
        ticks: (y, text).
        missing: how many slices have no value.
    """

    name: str
    title: str
    reading: str
    mean: float
    dots: tuple[Dot, ...]
    marked: tuple[Dot, ...]
    lines: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]
    missing: int


def slice_x(index: float, count: int) -> float:
    """Where slice ``index`` of ``count`` stands."""
    return round(LEFT + (index + 0.5) / max(count, 1) * (WIDTH - LEFT - RIGHT), 2)


def chart(name: str, values: npt.ArrayLike) -> Chart:
    """The chart of one metric; values that are not finite are gaps.

    Args:
        name: of the metric.
        values: (slices,).
    """
    figures = np.asarray(values, dtype=np.float64)
    good = figures[np.isfinite(figures)]
    low, high = (float(good.min()), float(good.max())) if good.size else (0.0, 1.0)
    ticks = _ticks(low, high)
    bottom, top = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return round(
            HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM), 2
        )

    dots = tuple(
        Dot(index, slice_x(index, len(figures)), y(float(value)), float(value))
        for index, value in enumerate(figures)
        if math.isfinite(value)
    )
    title, reading = MEANINGS.get(name, (name, ""))
    mean = float(good.mean()) if good.size else float("nan")
    marks = tuple((y(tick), f"{tick:g}".replace("-", "−")) for tick in ticks)
    known = {dot.index for dot in dots}
    alone = (dot for dot in dots if not known & {dot.index - 1, dot.index + 1})
    marked = dots if len(figures) <= MOST_DOTS else tuple(alone)
    missing = len(figures) - good.size
    return Chart(name, title, reading, mean, dots, marked, _runs(dots), marks, missing)


def _runs(dots: Sequence[Dot]) -> tuple[str, ...]:
    """Polylines through neighbouring slices, broken where a slice has no value."""
    runs: list[list[str]] = []
    previous = None
    for dot in dots:
        if previous is None or dot.index != previous + 1:
            runs.append([])
        runs[-1].append(f"{dot.x:g},{dot.y:g}")
        previous = dot.index
    return tuple(" ".join(run) for run in runs)


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round figures that hold ``low`` and ``high``."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 3
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def worst_slices(
    per_slice: Mapping[str, npt.NDArray[np.float64]],
    count: int,
    judged: npt.NDArray[np.bool_] | None = None,
) -> tuple[int, ...]:
    """The ``count`` slices with the lowest mean rank in `JUDGED_BY`; the worst first.

    Slices without a finite value in one of them, and those not ``judged``, are left out; fewer
    may come back.
    """
    named = [np.asarray(per_slice[n], dtype=np.float64) for n in JUDGED_BY if n in per_slice]
    if not named:
        return ()
    values = np.stack(named)
    known = np.isfinite(values).all(axis=0)
    slices = np.flatnonzero(known if judged is None else known & judged)
    ranks = values[:, slices].argsort(axis=1, kind="stable").argsort(axis=1).mean(axis=0)
    order = ranks.argsort(kind="stable")[:count]
    return tuple(int(slices[n]) for n in order)
