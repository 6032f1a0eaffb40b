"""From the places of slices to volumes on a regular grid, or to the reason why there is none.

Slices are sorted by their position along the normal, never by name or number. What is accepted:

- jitter from rounding: positions within 10 % of the spacing and 0.2 mm of a regular row;
- gantry tilt (slices that slide sideways) and variable spacing: the volume is resampled;
- several volumes in one series, where an attribute separates them.

Refused: a missing slice, and volumes that nothing separates.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError, InputError
from mmif.geometry import FLIP_XY, Matrix, main_axes
from mmif.io.dicom.read.frames import SEPARATORS, Frame

MIN_SLICES = 3
JITTER_FRACTION = 0.1
JITTER_MM = 0.2
DRIFT_MM = 0.1
"""Sideways shift over the whole stack that still counts as none."""

SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3
CLEARLY_MORE = 3
"""A volume is the clear choice in its series when it has so many times the others' slices."""

MAX_GAP_MM = 12.0
MAX_FINER = 4
"""A variable spacing becomes a regular one with at most so many times the slices."""

MAX_THICKNESSES = 3
MAX_UNSEEN_MM = 5.0
"""Slices further apart than so many thicknesses, with so many mm unseen between, are no volume."""

CONTRASTS = (
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "InversionTime",
    "RepetitionTime",
    "DiffusionBValue",
    "ComplexImageComponent",
    "KVP",
    "ConvolutionKernel",
)
"""Attributes of which one image has one value."""

SAME_CONTRAST = 0.02
"""By which fraction numbers of one contrast may differ: scanners round times slice by slice."""

MAX_GROUPS = 64
"""Orientations or sizes in one series; more are refused."""

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
    """

    shape: tuple[int, int, int]
    affine_ras: Matrix
    regular: bool
    depths: Vector
    shifts: Vector
    warnings: tuple[str, ...] = ()


def normal(frame: Frame) -> Vector:
    """Unit normal of a slice: row direction x column direction, LPS."""
    return np.cross(frame.row_lps, frame.column_lps)


def positions(frames: Sequence[Frame]) -> Vector:
    """(n, 3) LPS mm of the first pixels."""
    return np.array([frame.position_lps for frame in frames])


def stacks(frames: Sequence[Frame]) -> tuple[list[Stack], tuple[str, ...]]:
    """The volumes that ``frames`` of one series form, the largest first; and what was noticed.

    Raises:
        GeometryError: images at the same place that no attribute separates.
    """
    unique, notes = _without_copies(frames)
    found: list[Stack] = []
    groups = _alike(unique)
    for group in groups:
        label = f"{plane_name(group[0])}, {group[0].size[0]}x{group[0].size[1]}"
        found += _separated(group, label if len(groups) > 1 else "")
    shared = len(unique) - sum(len(stack.frames) for stack in found)
    if shared:
        notes += (f"blocks of several thicknesses share {shared} slices: the thinner were kept",)
    return sorted(found, key=lambda stack: -len(stack.frames)), notes


def chosen(found: Sequence[Stack], frame: int | None) -> tuple[Stack, tuple[str, ...]]:
    """The volume to read out of a series, and a note on what was left out.

    Raises:
        InputError: several volumes and no clear or valid choice.
    """
    by_label = sorted(found, key=lambda stack: _natural(stack.label))
    if frame is None:
        found, choice = _meant(found)
        if choice:
            return found[0], choice
    listed = "; ".join(
        f"{i}: {stack.label or plane_name(stack.frames[0])} ({len(stack.frames)} slices)"
        for i, stack in enumerate(by_label[:8])
    ) + ("; ..." if len(by_label) > 8 else "")
    if frame is not None:
        if not 0 <= frame < len(by_label):
            raise InputError(f"frame {frame} was asked for; the series holds {listed}")
        return by_label[frame], ((f"frame {frame} of {listed}",) if len(by_label) > 1 else ())
    if len(found) == 1:
        return found[0], ()
    first, second = found[0], found[1]
    enough = max(MIN_SLICES, CLEARLY_MORE * len(second.frames))
    if len(first.frames) < enough:
        raise InputError(
            f"one series holds {len(found)} volumes and no clear choice"
            f"{' (4-D)' if _is_repeated(found) else ''}; "
            f"choose one frame of {listed}"
        )
    rest = sum(len(stack.frames) for stack in found[1:])
    return first, (f"{rest} images of the series are not of its main volume and were left out",)


def _is_repeated(found: Sequence[Stack]) -> bool:
    """Whether the volumes lie in one plane and each has enough slices: not so in a localizer."""
    first = found[0].frames[0]
    return all(
        _is_alike(first, stack.frames[0]) and len(stack.frames) >= MIN_SLICES for stack in found
    )


def _meant(found: Sequence[Stack]) -> tuple[Sequence[Stack], tuple[str, ...]]:
    """The volume that is meant where magnitude stands beside phase, or b = 0 beside other b-values.

    Returns:
        That volume alone and a note; or all of ``found`` and none.
    """
    left = list(found)
    images = [stack for stack in left if not _is_phase(stack)]
    reasons = []
    if 0 < len(images) < len(left):
        left, reasons = images, ["magnitude before phase, real and imaginary images"]
    values = [_number(stack.frames[0].labels.get("DiffusionBValue", "")) for stack in left]
    if len({value for value in values if value is not None}) > 1 and 0.0 in values:
        left = [stack for stack, value in zip(left, values, strict=True) if value == 0]
        reasons.append("diffusion: b = 0 before other b-values")
    if len(left) != 1 or not reasons:
        return found, ()
    return left, (f"{' and '.join(reasons)}: 1 of {len(found)} volumes of the series is read",)


def _is_phase(stack: Stack) -> bool:
    """Whether a volume is phase, or the real or imaginary part (ImageType, PS3.3 C.8.3.1.1.1)."""
    labels = stack.frames[0].labels
    kinds = labels.get("ImageType", "").upper().split("\\")[2:]
    component = labels.get("ComplexImageComponent", "").upper()
    return not PHASE.isdisjoint({*kinds, component})


def _number(label: str) -> float | None:
    """A label as a number, None where it is none."""
    try:
        return float(label)
    except ValueError:
        return None


PHASE = frozenset({"P", "R", "I", "PHASE", "REAL", "IMAGINARY", "PHASE MAP"})
"""Values of ImageType and ComplexImageComponent that are no magnitude."""


def place(stack: Stack) -> Placement:
    """The regular grid for the slices of ``stack``.

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
    step, jitter = _regular_step(depths)
    _check_is_covered(frames, float(np.diff(depths).max()))
    tolerance = min(JITTER_FRACTION * step, JITTER_MM)
    if jitter >= tolerance:
        _check_nothing_missing(depths)
    drift = max(_drift(depths, i_mm), _drift(depths, j_mm))
    sideways = max(_residual(depths, i_mm), _residual(depths, j_mm))
    regular_depths = jitter < tolerance
    regular = regular_depths and drift <= DRIFT_MM and sideways < JITTER_MM
    axes = np.stack([row, column, along], axis=1)
    if regular:
        start = np.array([i_mm.mean(), j_mm.mean(), depths.mean() - step * (len(depths) - 1) / 2])
        notes = _jitter_note(jitter)
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
    return _resampled(frames, axes, np.stack([i_mm, j_mm, depths], axis=1), regular_depths)


def _check_is_covered(frames: Sequence[Frame], widest_mm: float) -> None:
    """Refuse slices that lie so far apart that most of the patient between them was not seen.

    Raises:
        GeometryError: how far apart, and how thick they are.
    """
    known = [_number(frame.labels.get("SliceThickness", "")) or 0.0 for frame in frames]
    thickness = max(known)
    if thickness <= 0:
        return
    if widest_mm > MAX_THICKNESSES * thickness and widest_mm - thickness > MAX_UNSEEN_MM:
        raise GeometryError(
            f"slices of {thickness:g} mm with a gap of up to {widest_mm:.1f} mm from one to the "
            f"next; expected at most {MAX_THICKNESSES} thicknesses (slices missing?)"
        )


def _resampled(
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
    step, _ = _regular_step(depths)
    if not regular_depths:
        extent = float(depths[-1] - depths[0])
        step = max(float(np.diff(depths).min()), extent / (MAX_FINER * (n - 1)))
        step = extent / round(extent / step)
    slices = round(float(depths[-1] - depths[0]) / step) + 1
    pixel_mm = frames[0].pixel_mm
    low, high = places_mm[:, :2].min(axis=0), places_mm[:, :2].max(axis=0)
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


def _without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], tuple[str, ...]]:
    """``frames`` without second copies of the same instance.

    Images in other places are no copies, even where an anonymiser gave them one SOPInstanceUID.
    """
    seen: set[tuple[object, ...]] = set()
    unique = []
    for frame in frames:
        key = (frame.instance_uid or frame.file, frame.index, frame.position_lps, frame.row_lps)
        if key not in seen:
            seen.add(key)
            unique.append(frame)
    copies = len(frames) - len(unique)
    return unique, ((f"{copies} second copies of images were left out",) if copies else ())


def _alike(frames: Sequence[Frame]) -> list[list[Frame]]:
    """``frames`` grouped by size, pixel spacing and orientation."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _is_alike(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
            if len(groups) > MAX_GROUPS:
                raise GeometryError(f"more than {MAX_GROUPS} orientations or sizes in one series")
    return groups


def _is_alike(a: Frame, b: Frame) -> bool:
    """Whether two slices can be of one volume."""
    return (
        a.size == b.size
        and max(abs(p - q) for p, q in zip(a.pixel_mm, b.pixel_mm, strict=True)) < 1e-3
        and max(abs(p - q) for p, q in zip(a.row_lps, b.row_lps, strict=True)) < SAME_DIRECTION
        and max(abs(p - q) for p, q in zip(a.column_lps, b.column_lps, strict=True))
        < SAME_DIRECTION
    )


def _sorted(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """``frames`` from low to high along the normal of the first."""
    order = np.argsort(positions(frames) @ normal(frames[0]), kind="stable")
    return tuple(frames[i] for i in order)


def _is_one_volume(frames: Sequence[Frame]) -> bool:
    """Whether no two frames lie at the same depth."""
    depths = np.sort(positions(frames) @ normal(frames[0]))
    return bool((np.diff(depths) > SAME_PLACE_MM).all())


def _separated(frames: Sequence[Frame], label: str) -> list[Stack]:
    """The volumes among alike ``frames``."""
    frames = _joined_blocks(frames)
    if _is_one_volume(frames):
        return _contrasts(frames, label) or _acquisitions(frames, label)
    keys = [k for k in SEPARATORS if len({frame.labels.get(k) for frame in frames}) > 1]
    for count in (1, 2, 3) if len(frames) <= 2000 else (1, 2):
        for chosen_keys in itertools.combinations(keys, count):
            parts = _by_labels(frames, chosen_keys)
            if len(parts) <= len(frames) // 2 and all(map(_is_one_volume, parts.values())):
                return [_stack(part, label, chosen_keys, k) for k, part in parts.items()]
    depths = np.sort(positions(frames) @ normal(frames[0]))
    places = 1 + int((np.diff(depths) > SAME_PLACE_MM).sum())
    raise GeometryError(
        f"{len(frames)} images at {places} place{'s' * (places > 1)} and no attribute that "
        "separates them (time points, echoes or repeated slices)"
    )


def _contrasts(frames: Sequence[Frame], label: str) -> list[Stack]:
    """The images among slices at different places, where a contrast changes; else none."""
    for key in CONTRASTS:
        parts = _by_labels(frames, (key,))
        if len(parts) > 1 and not _is_rounding([values[0] for values in parts]):
            return [_stack(part, label, (key,), values) for values, part in parts.items()]
    return []


def _is_rounding(labels: list[str]) -> bool:
    """Whether numbers differ by so little that they are one."""
    found = [_number(label) for label in labels]
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return False
    return max(known) - min(known) <= SAME_CONTRAST * max(map(abs, known))


def _joined_blocks(frames: Sequence[Frame]) -> Sequence[Frame]:
    """``frames`` without the thicker slice where two blocks of different thickness meet."""
    blocks = sorted(
        _by_labels(frames, ("SliceThickness",)).items(),
        key=lambda item: _number(item[0][0]) or np.inf,
    )
    parts = [part for _, part in blocks]
    if not 1 < len(parts) <= 4 or min(map(len, parts)) < 2:
        return frames
    if not all(map(_is_one_volume, parts)) or _overlap(parts):
        return frames
    along = normal(frames[0])
    kept: list[Frame] = []
    for part in parts:  # the thinnest first
        taken = positions(kept) @ along if kept else np.empty(0)
        depths = positions(part) @ along
        free = [not (np.abs(taken - depth) <= SAME_PLACE_MM).any() for depth in depths]
        kept += [frame for frame, is_free in zip(part, free, strict=True) if is_free]
    return kept


def _acquisitions(frames: Sequence[Frame], label: str) -> list[Stack]:
    """One volume; or two interleaved ones, where attributes make two regular ones of them."""
    whole = Stack(_sorted(frames), label)
    step, jitter = _regular_step(whole.depths_mm)
    if len(frames) < 2 * MIN_SLICES or jitter < min(JITTER_FRACTION * step, JITTER_MM):
        return [whole]
    for key in ("StackID", "AcquisitionNumber", "ConvolutionKernel", "ImageType"):
        parts = _by_labels(frames, (key,))
        if 1 < len(parts) <= len(frames) // MIN_SLICES and _overlap(list(parts.values())):
            return [_stack(part, label, (key,), values) for values, part in parts.items()]
    return [whole]


def _overlap(parts: list[list[Frame]]) -> bool:
    """Whether the ranges of any two parts overlap; then they are no pieces of one volume."""
    along = normal(parts[0][0])
    ranges = sorted(
        (float(depths.min()), float(depths.max()))
        for depths in (positions(part) @ along for part in parts)
    )
    return any(a[1] > b[0] + SAME_PLACE_MM for a, b in itertools.pairwise(ranges))


def _by_labels(
    frames: Sequence[Frame], keys: tuple[str, ...]
) -> dict[tuple[str, ...], list[Frame]]:
    """``frames`` grouped by the values of ``keys``."""
    parts: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        parts[tuple(frame.labels.get(key, "") for key in keys)].append(frame)
    return parts


def _stack(
    frames: Sequence[Frame], label: str, keys: tuple[str, ...], values: tuple[str, ...]
) -> Stack:
    """A stack named after what separates it."""
    own = ", ".join(f"{key} {value or 'none'}" for key, value in zip(keys, values, strict=True))
    return Stack(_sorted(frames), f"{label}, {own}" if label else own)


def _axes(frames: tuple[Frame, ...]) -> tuple[Vector, Vector, Vector]:
    """Row, column and normal directions: the mean over the slices, exactly perpendicular."""
    row = np.mean([frame.row_lps for frame in frames], axis=0)
    row /= np.linalg.norm(row)
    column = np.mean([frame.column_lps for frame in frames], axis=0)
    column -= row * (row @ column)
    column /= np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _regular_step(depths: Vector) -> tuple[float, float]:
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
            f"(positions along the slice normal)"
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


def _natural(label: str) -> list[tuple[int, float, str]]:
    """A sort key that puts EchoTime 9 before EchoTime 80."""
    key = []
    for word in label.replace(",", " ").split():
        try:
            key.append((0, float(word), ""))
        except ValueError:
            key.append((1, 0.0, word))
    return key
