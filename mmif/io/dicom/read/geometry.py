"""From the places of slices to a regular grid, or to the reason why there is none.

Slices are sorted by their position along the normal, never by name or number. What is accepted:

- jitter from rounding: positions within 10 % of the spacing and 0.2 mm of a regular row;
- gantry tilt (slices that slide sideways) and variable spacing: the volume is resampled.

Refused: a missing slice, and a gap in which most of the patient was not seen.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError
from mmif.geometry import FLIP_XY, MIN_SLICES, Matrix, main_axes
from mmif.io.dicom.read.frames import Frame
from mmif.io.dicom.read.labels import as_number

JITTER_FRACTION = 0.1
MAX_TILT_DEG = 60.0
"""Gantries tilt by 30 degrees at most; with a patient's own tilt in the same plane twice that."""
JITTER_MM = 0.2
"""How far rounded positions may lie from a regular row, by the lesser of both. The real series of
`benchmarks/constants.py geometry` lie within 0.071 mm and 0.010 of a step; scanners that round to
0.1 mm reach 0.05. A lost slice is off by half a step."""

DRIFT_MM = 0.1
"""Sideways shift over the whole stack that still counts as none."""

SAME_PLACE_MM = 0.01
"""Of the same series no two slices lie nearer than 0.5 mm, unless they are in one place to 1e-6."""

SAME_DIRECTION = 1e-3
"""Of direction cosines: a quarter of a mm at the edge of a slice. In each real series of
`benchmarks/constants.py geometry` they are the same to the last digit."""

MAX_GAP_MM = 12.0
"""Of a variable spacing: sequential head CT steps by up to 10 mm above the posterior fossa."""

MAX_FINER = 4
"""A variable spacing becomes a regular one with at most so many times the slices."""

MAX_FILLED = 0.1
"""The share of slices that may be lost, each alone, where gaps are filled on demand."""

HALF_SEEN = 1.9
"""Slices so many thicknesses apart leave half of the patient unseen; that is said."""

MAX_THICKNESSES = 3
MAX_UNSEEN_MM = 5.0
"""Slices further apart than so many thicknesses, with so many mm unseen between, are no volume. The
real series reach 1.41 (`benchmarks/constants.py geometry`); 5 mm hide a bleed."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """Frames of one volume, sorted along their normal.

    Attributes:
        frames: at least one, all of one size, pixel spacing and orientation.
        label: what separates this volume from the others of its series; "" if it is alone.
    """

    frames: tuple[Frame, ...]
    label: str = ""

    @property
    def depths_mm(self) -> Vector:
        """(n,) positions along the normal."""
        return positions(self.frames) @ normal(self.frames[0])


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the voxels of a stack go.

    Attributes:
        shape: columns, rows and slices of the regular grid.
        affine_ras: (4, 4) voxel to RAS mm of that grid.
        regular: whether the slices already lie on it; otherwise they are resampled:
        depths: (n,) place of each stored slice along k, in voxels of the grid.
        shifts: (n, 2) place of each stored slice's first pixel along i and j, in voxels.
        warnings: what was noticed, in words.
        filled: slices of the grid that were lost, and lie between two stored ones.
    """

    shape: tuple[int, int, int]
    affine_ras: Matrix
    regular: bool
    depths: Vector
    shifts: Vector
    warnings: tuple[str, ...] = ()
    filled: tuple[int, ...] = ()


def normal(frame: Frame) -> Vector:
    """Unit normal of a slice: row direction x column direction, LPS."""
    return np.cross(frame.row_lps, frame.column_lps)


def positions(frames: Sequence[Frame]) -> Vector:
    """(n, 3) LPS mm of the first pixels."""
    return np.array([frame.position_lps for frame in frames])


def is_alike(a: Frame, b: Frame) -> bool:
    """Whether two slices can be of one volume."""
    return (
        a.size == b.size
        and max(abs(p - q) for p, q in zip(a.pixel_mm, b.pixel_mm, strict=True)) < 1e-3
        and max(abs(p - q) for p, q in zip(a.row_lps, b.row_lps, strict=True)) < SAME_DIRECTION
        and max(abs(p - q) for p, q in zip(a.column_lps, b.column_lps, strict=True))
        < SAME_DIRECTION
    )


def fit_grid(stack: Stack, fill_gaps: bool = False) -> Placement:
    """The regular grid for the slices of ``stack``.

    Args:
        stack: the slices.
        fill_gaps: put a lost slice between its two neighbours, instead of refusing.

    Raises:
        GeometryError: too few slices, or a slice missing.
    """
    frames = stack.frames
    if len(frames) < MIN_SLICES:
        raise GeometryError(
            f"{len(frames)} slice{'s' if len(frames) > 1 else ''}; expected at least {MIN_SLICES}"
        )
    row, column, along = _axes(frames)
    points = positions(frames)
    depths, i_mm, j_mm = points @ along, points @ row, points @ column
    step, jitter = regular_step(depths)
    _check_is_covered(frames, float(np.diff(depths).max()))
    # irregular: slices that are lost, or a protocol of two spacings; only the first is refused
    tolerance = min(JITTER_FRACTION * step, JITTER_MM)
    if jitter >= tolerance:
        axes = np.stack([row, column, along], axis=1)
        if fill_gaps and (
            filled := _fit_with_gaps(frames, axes, np.stack([i_mm, j_mm, depths], axis=1))
        ):
            return filled
        _check_nothing_missing(depths)
    # a tilted gantry slides slices sideways: by the same each (drift), or they are out of line
    drift = max(_drift(depths, i_mm), _drift(depths, j_mm))
    sideways = max(_residual(depths, i_mm), _residual(depths, j_mm))
    regular_depths = jitter < tolerance
    regular = regular_depths and drift <= DRIFT_MM and sideways < JITTER_MM
    axes = np.stack([row, column, along], axis=1)
    if regular:
        start = np.array([i_mm.mean(), j_mm.mean(), depths.mean() - step * (len(depths) - 1) / 2])
        notes = _jitter_note(jitter) + _unseen_notes(frames, step)
        size = (*frames[0].size, len(frames))
        affine = _affine(axes, (*frames[0].pixel_mm, step), start)
        return Placement(
            size,
            affine,
            True,
            np.arange(len(frames), dtype=float),
            np.zeros((len(frames), 2)),
            notes,
        )
    return _resample(frames, axes, np.stack([i_mm, j_mm, depths], axis=1), regular_depths)


def _check_is_covered(frames: Sequence[Frame], widest_mm: float) -> None:
    """Refuse slices that lie so far apart that most of the patient between them was not seen.

    Raises:
        GeometryError: how far apart, and how thick they are.
    """
    known = [as_number(frame.labels.get("SliceThickness", "")) or 0.0 for frame in frames]
    thickness = max(known)
    if thickness <= 0:
        return
    if widest_mm > MAX_THICKNESSES * thickness and widest_mm - thickness > MAX_UNSEEN_MM:
        raise GeometryError(
            f"slices of {thickness:g} mm with a gap of up to {widest_mm:.1f} mm from one to the "
            f"next; expected at most {MAX_THICKNESSES} thicknesses (slices missing?)"
        )


def _fit_with_gaps(frames: tuple[Frame, ...], axes: Matrix, places_mm: Vector) -> Placement | None:
    """The regular grid of slices of which single ones were lost; None where it is not so.

    Args:
        frames: the slices.
        axes: (3, 3) directions of i, j, k as columns, LPS.
        places_mm: (n, 3) mm of each first pixel along those directions.
    """
    depths = places_mm[:, 2]
    gaps = np.diff(depths)
    multiples = np.rint(gaps / float(np.median(gaps))).astype(int)
    index = np.concatenate([[0], np.cumsum(multiples)])
    lost = sorted(set(range(int(index[-1]))) - set(index.tolist()))
    if multiples.min() < 1 or multiples.max() > 2 or not lost:
        return None
    if len(lost) > max(1.0, MAX_FILLED * len(frames)):
        return None
    # the row through all slices that are there: one rounded position moves it least
    step, first = (float(number) for number in np.polyfit(index, depths, 1))
    off = float(np.abs(depths - first - step * index).max())
    sideways = max(max(_drift(depths, mm), _residual(depths, mm)) for mm in places_mm[:, :2].T)
    if off >= min(JITTER_FRACTION * step, JITTER_MM) or sideways > DRIFT_MM:
        return None
    start = np.array([places_mm[:, 0].mean(), places_mm[:, 1].mean(), first])
    note = ", ".join(f"{first + step * k:.1f}" for k in lost)
    return Placement(
        (*frames[0].size, int(index[-1]) + 1),
        _affine(axes, (*frames[0].pixel_mm, step), start),
        False,
        index.astype(float),
        np.zeros((len(frames), 2)),
        (f"slice missing at {note} mm along the normal: interpolated on demand (--fill-gaps)",),
        tuple(lost),
    )


def _unseen_notes(frames: Sequence[Frame], step: float) -> tuple[str, ...]:
    """What speaks for slices that are missing throughout, in words."""
    thicknesses, spacings = (
        {as_number(frame.labels.get(key, "")) or 0.0 for frame in frames}
        for key in ("SliceThickness", "SpacingBetweenSlices")
    )
    thickness, stated = max(thicknesses), max(map(abs, spacings))
    notes: tuple[str, ...] = ()
    if thickness > 0 and step >= HALF_SEEN * thickness:
        notes += (f"slices of {thickness:g} mm lie {step:.4g} mm apart; some may be missing",)
    if stated >= (1 - JITTER_FRACTION) * thickness > 0 and step >= HALF_SEEN * stated:
        notes += (f"SpacingBetweenSlices says {stated:g} mm, the slices lie {step:.4g} mm apart",)
    return notes


def _resample(
    frames: tuple[Frame, ...], axes: Matrix, places_mm: Vector, regular_depths: bool
) -> Placement:
    """The grid that covers tilted or unevenly spaced slices.

    Args:
        frames: the slices.
        axes: (3, 3) directions of i, j, k as columns, LPS.
        places_mm: (n, 3) mm of each first pixel along those directions.
        regular_depths: whether the spacing along the normal is even.
    """
    n, depths = len(frames), places_mm[:, 2]
    step, _ = regular_step(depths)
    if not regular_depths:
        extent = float(depths[-1] - depths[0])
        step = max(float(np.diff(depths).min()), extent / (MAX_FINER * (n - 1)))
        step = extent / round(extent / step)
    slices = round(float(depths[-1] - depths[0]) / step) + 1
    pixel_mm = frames[0].pixel_mm
    low, high = places_mm[:, :2].min(axis=0), places_mm[:, :2].max(axis=0)
    _check_tilt(float((high - low).max()), float(depths[-1] - depths[0]))
    wider = np.ceil((high - low) / pixel_mm - 1e-3).astype(int)
    shifts = (places_mm[:, :2] - low) / pixel_mm
    if regular_depths:
        first = float(depths.mean()) - step * (n - 1) / 2
        places = np.arange(n, dtype=float)
    else:
        first = float(depths[0])
        places = (depths - first) / step
    columns, rows = frames[0].size
    shape = (columns + int(wider[0]), rows + int(wider[1]), slices)
    affine = _affine(axes, (*pixel_mm, step), np.array([*low, first]))
    return Placement(shape, affine, False, places, shifts, _resampling_notes(places_mm, step))


def _check_tilt(sideways_mm: float, extent_mm: float) -> None:
    """Refuse slices that lie beside rather than above each other.

    Raises:
        GeometryError: the angle.
    """
    angle = float(np.degrees(np.arctan2(sideways_mm, extent_mm)))
    if angle > MAX_TILT_DEG:
        raise GeometryError(
            f"slices shifted sideways at {angle:.0f} degrees; expected at most {MAX_TILT_DEG:.0f}"
        )


def _resampling_notes(places_mm: Vector, step: float) -> tuple[str, ...]:
    """Why and how the volume was resampled, in words."""
    depths = places_mm[:, 2]
    gaps = np.diff(depths)
    notes = []
    slide = places_mm[-1, :2] - places_mm[0, :2]
    if np.linalg.norm(slide) > DRIFT_MM:
        angle = np.degrees(np.arctan2(np.linalg.norm(slide), depths[-1] - depths[0]))
        notes.append(
            f"gantry tilt of {angle:.1f} degrees: slices shifted onto a rectangular grid "
            "by their positions (linear interpolation)"
        )
    if np.ptp(gaps) > 2 * min(JITTER_FRACTION * float(np.median(gaps)), JITTER_MM):
        notes.append(
            f"variable slice spacing {gaps.min():.2f} to {gaps.max():.2f} mm: "
            f"resampled to {step:.2f} mm by position (monotone cubic interpolation)"
        )
    return tuple(notes) or ("uneven slice positions: resampled by position",)


def plane_name(frame: Frame) -> str:
    """The plane in which a slice lies, with "oblique" where it is off by 2 degrees or more."""
    along = np.abs(normal(frame))
    name = ("sagittal", "coronal", "axial")[int(np.argmax(along))]
    cosines = np.abs([frame.row_lps, frame.column_lps]).max(axis=1)
    return name if min(*cosines, along.max()) > np.cos(np.radians(2)) else f"oblique {name}"


def orientation_code(affine_ras: Matrix) -> str:
    """The patient directions that i, j, k grow towards (``LPS``, ``RAS``)."""
    letters = ("LR", "PA", "IS")
    axes = main_axes(affine_ras)
    return "".join(letters[axis][int(affine_ras[axis, k] > 0)] for k, axis in enumerate(axes))


def _axes(frames: tuple[Frame, ...]) -> tuple[Vector, Vector, Vector]:
    """Row, column and normal directions: the mean over the slices, exactly perpendicular."""
    row = np.mean([frame.row_lps for frame in frames], axis=0)
    row /= np.linalg.norm(row)
    column = np.mean([frame.column_lps for frame in frames], axis=0)
    column -= row * (row @ column)
    column /= np.linalg.norm(column)
    return row, column, np.cross(row, column)


def regular_step(depths: Vector) -> tuple[float, float]:
    """The spacing of the best-fitting regular row of slices, and the largest distance from it."""
    n = len(depths)
    if n < 2:
        return 0.0, 0.0
    index = np.arange(n) - (n - 1) / 2
    step = float(index @ depths / (index @ index))
    return step, float(np.abs(depths - depths.mean() - step * index).max())


def _drift(depths: Vector, offsets: Vector) -> float:
    """How far slices slide sideways from first to last, in mm."""
    centred = depths - depths.mean()
    slope = float(centred @ offsets / (centred @ centred))
    return abs(slope) * float(np.ptp(depths))


def _residual(depths: Vector, offsets: Vector) -> float:
    """How far a slice is off the straight line of the others sideways, in mm."""
    centred = depths - depths.mean()
    slope = float(centred @ offsets / (centred @ centred))
    return float(np.abs(offsets - offsets.mean() - slope * centred).max())


def _check_nothing_missing(depths: Vector) -> None:
    """Refuse a gap that is a whole multiple of the equal gaps around it.

    Raises:
        GeometryError: a slice is missing, or a gap is too wide to interpolate over.
    """
    gaps = np.diff(depths)
    runs = [list(run) for _, run in itertools.groupby(_run_numbers(gaps))]
    holes, start = [], 0
    for number, run in enumerate(runs):
        around = [runs[i] for i in (number - 1, number + 1) if 0 <= i < len(runs)]
        firsts = [start - 1, start + len(run)]
        neighbours = [float(gaps[i]) for i in firsts if 0 <= i < len(gaps)]
        # an odd gap between two runs of equal ones is a hole; at an end it takes a longer run
        settled = len(around) == 2 or any(len(other) > 1 for other in around)
        if len(run) <= 2 and settled and _is_hole(float(gaps[start]), neighbours):
            holes.append(start)
        start += len(run)
    if holes:
        first = holes[0]
        missing = round(gaps[first] / gaps[first - 1 if first else first + 1]) - 1
        what = "slice missing" if missing == 1 else f"{missing} slices missing"
        more = f" and {len(holes) - 1} more gaps" if len(holes) > 1 else ""
        raise GeometryError(
            f"{what} between {depths[first]:.1f} and {depths[first + 1]:.1f} mm{more} "
            "(positions along the slice normal); --fill-gaps interpolates single ones"
        )
    widest = int(np.argmax(gaps))
    if gaps[widest] > MAX_GAP_MM:
        raise GeometryError(
            f"a gap of {gaps[widest]:.1f} mm between {depths[widest]:.1f} and "
            f"{depths[widest + 1]:.1f} mm; expected slices at most {MAX_GAP_MM:g} mm apart"
        )


def _run_numbers(gaps: Vector) -> list[int]:
    """For each gap, the number of the run of equal gaps that it belongs to."""
    run, numbers = 0, [0]
    for previous, gap in itertools.pairwise(gaps):
        run += int(abs(gap - previous) > _same_gap(min(gap, previous)))
        numbers.append(run)
    return numbers


def _is_hole(gap: float, neighbours: list[float]) -> bool:
    """Whether ``gap`` is a whole multiple, 2 or more, of equal neighbouring gaps."""
    base = float(np.mean(neighbours))
    multiple = round(gap / base) if base > SAME_PLACE_MM else 0
    return (
        multiple >= 2
        and max(neighbours) - min(neighbours) <= _same_gap(base)
        and abs(gap - multiple * base) <= 2 * _same_gap(base)
    )


def _same_gap(gap: float) -> float:
    """By how many mm two gaps of rounded positions may differ."""
    return 2 * min(JITTER_FRACTION * gap, JITTER_MM)


def _jitter_note(jitter: float) -> tuple[str, ...]:
    """A note on rounded positions, where they show."""
    if jitter < 0.01:
        return ()
    return (f"slice positions are rounded by up to {jitter:.2f} mm; read as evenly spaced",)


def _affine(axes: Matrix, spacing: tuple[float, float, float], start_mm: Vector) -> Matrix:
    """Voxel to RAS mm from LPS directions, spacing, and the first voxel along them."""
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ start_mm
    return np.asarray(FLIP_XY @ affine)
