"""From the frames of one series to its volumes, and to the one that is meant.

Several volumes in one series are told apart by the attributes that separate them, also where each
place was seen only once: slices of two contrasts are no volume. Where magnitude stands beside
phase, b = 0 beside other b-values, or a first echo beside later ones, that one is meant; else the
choice is the user's.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError, InputError, quote
from mmif.geometry import MIN_SLICES
from mmif.io.dicom.read.frames import Frame
from mmif.io.dicom.read.geometry import (
    JITTER_FRACTION,
    JITTER_MM,
    SAME_PLACE_MM,
    Stack,
    is_alike,
    normal,
    plane_name,
    positions,
    regular_step,
)
from mmif.io.dicom.read.labels import (
    ALTERNATING,
    COMPONENT,
    CONTRASTS,
    NO_MAGNITUDE,
    SEPARATORS,
    as_number,
)

TIMES = ("AcquisitionTime",)
CLEARLY_MORE = 3
"""A volume is the clear choice in its series when it has so many times the others' slices."""

SAME_CONTRAST = 0.02
"""By which fraction numbers of one contrast may differ: scanners round times slice by slice."""

MAX_B0 = 50.0
"""Up to this b-value (s/mm2) an image is hardly weighted: Siemens and Philips give b = 0 so."""

MAX_GROUPS = 64
"""Orientations or sizes in one series; more are refused."""

MAX_LISTED = 8
"""Volumes that a refusal lists."""


def split_volumes(frames: Sequence[Frame]) -> tuple[list[Stack], tuple[str, ...]]:
    """The volumes that ``frames`` of one series form, the largest first; and what was noticed.

    Raises:
        GeometryError: images at the same place that no attribute separates.
    """
    unique, notes = _without_copies(frames)
    found: list[Stack] = []
    groups = _alike(unique)
    for group in groups:
        label = f"{plane_name(group[0])}, {group[0].size[0]}x{group[0].size[1]}"
        found += _separate(group, label if len(groups) > 1 else "")
    shared = len(unique) - sum(len(stack.frames) for stack in found)
    if shared:
        notes += (f"blocks of several thicknesses share {shared} slices: the thinner were kept",)
    packages = max((_packages(stack.frames) for stack in found), default=1)
    if packages > 1:
        notes += (f"slices of {packages} acquisitions in turn are read as one volume",)
    return sorted(found, key=lambda stack: -len(stack.frames)), notes


def select_volume(found: Sequence[Stack], frame: int | None) -> tuple[Stack, tuple[str, ...]]:
    """The volume to read out of a series, and a note on what was left out.

    Args:
        found: the volumes, the largest first.
        frame: which one, in the order of their labels; None for the one that is meant.

    Raises:
        InputError: several volumes and no clear or valid choice.
    """
    if frame is not None:
        by_label = _in_order(found)
        if not 0 <= frame < len(by_label):
            raise InputError(
                f"frame {frame} was asked for; the series holds {_list_volumes(found)}"
            )
        chosen = by_label[frame]
        what = f"{_name(chosen)}, {len(chosen.frames)} slices"
        note = f"frame {frame} ({what}): 1 of {len(found)} volumes of the series is read"
        return chosen, (note,) if len(found) > 1 else ()
    if len(found) == 1:
        return found[0], ()
    # what is far smaller than the largest is a scout, a report or a stray, never what is meant
    large = [s for s in found if CLEARLY_MORE * len(s.frames) > len(found[0].frames)]
    rest = sum(len(stack.frames) for stack in found) - sum(len(s.frames) for s in large)
    notes: tuple[str, ...] = ()
    if rest:
        notes = (f"{rest} images of the series are not of its main volume and were left out",)
    if len(large) == 1 and len(large[0].frames) >= MIN_SLICES:
        return large[0], notes
    meant, reasons = _clear_choice(large)
    if meant is None:
        raise InputError(
            f"one series holds {len(found)} volumes and no clear choice"
            f"{' (4-D)' if _is_repeated(found) else ''}; choose one by {_list_volumes(found)}"
        )
    return meant, (f"{reasons}: 1 of {len(found)} volumes of the series is read", *notes)


def _in_order(found: Sequence[Stack]) -> list[Stack]:
    """Volumes in the order of their labels, EchoTime 9 before EchoTime 80."""
    return sorted(found, key=lambda stack: _natural(stack.label))


def _name(stack: Stack) -> str:
    """What tells a volume from the others of its series."""
    return stack.label or plane_name(stack.frames[0])


def _list_volumes(found: Sequence[Stack]) -> str:
    """The volumes with the option that chooses each; ROLE stands for the role."""
    weights = [stack.frames[0].labels.get("DiffusionBValue", "") for stack in found]
    lines = []
    for number, stack in enumerate(_in_order(found)[:MAX_LISTED]):
        name = _name(stack)
        weight = stack.frames[0].labels.get("DiffusionBValue", "")
        if len(set(weights)) > 1 and weight and "DiffusionBValue" not in name:
            name += f", b = {weight}"
        lines.append(f"--frame ROLE={number} ({name}, {len(stack.frames)} slices)")
    return "; ".join(lines) + ("; ..." if len(found) > MAX_LISTED else "")


def _is_repeated(found: Sequence[Stack]) -> bool:
    """Whether the volumes lie in one plane and each has enough slices: not so in a localizer."""
    first = found[0].frames[0]
    return all(
        is_alike(first, stack.frames[0]) and len(stack.frames) >= MIN_SLICES for stack in found
    )


def _clear_choice(found: Sequence[Stack]) -> tuple[Stack | None, str]:
    """The one volume that is meant among several, and why; None where that is not clear."""
    left = _in_order(found)
    reasons: list[str] = []
    for reason, rule in _MEANT:
        kept = rule(left)
        if len(kept) < len(left):
            left, reasons = kept, [*reasons, reason]
    if len(left) == 1 and reasons and _covers(left[0], found):
        return left[0], " and ".join(reasons)
    return _of_several_stacks(found)


def _without_phase(found: list[Stack]) -> list[Stack]:
    """The volumes of magnitude, where there are any."""
    return [stack for stack in found if not is_phase(stack)] or found


def _keep_least_weighted(found: list[Stack]) -> list[Stack]:
    """The first volume that is hardly diffusion weighted, where others are."""
    known = [as_number(stack.frames[0].labels.get("DiffusionBValue", "")) for stack in found]
    lowest = min((value for value in known if value is not None), default=None)
    if lowest is None or lowest > MAX_B0 or len(set(known)) == 1:
        return found
    return [stack for stack, value in zip(found, known, strict=True) if value == lowest][:1]


def _first_echo(found: list[Stack]) -> list[Stack]:
    """The volumes of the shortest echo time, or of the first echo."""
    for key in ("EchoTime", "EffectiveEchoTime", "EchoNumbers"):
        known = [as_number(stack.frames[0].labels.get(key, "")) for stack in found]
        numbers = [number for number in known if number is not None]
        if len(set(numbers)) > 1 and len(numbers) == len(found):
            return [s for s, number in zip(found, known, strict=True) if number == min(numbers)]
    return found


_MEANT: tuple[tuple[str, Callable[[list[Stack]], list[Stack]]], ...] = (
    ("magnitude before phase, real and imaginary images", _without_phase),
    ("diffusion: b = 0 (or hardly more) before other b-values", _keep_least_weighted),
    ("the first echo before later ones", _first_echo),
)


def is_phase(stack: Stack) -> bool:
    """Whether a volume is phase, or the real or imaginary part."""
    return stack.frames[0].labels.get(COMPONENT, "").upper() in NO_MAGNITUDE


def _covers(chosen: Stack, found: Sequence[Stack]) -> bool:
    """Whether ``chosen`` has a slice at each place where any volume of ``found`` has one."""
    along, first = normal(chosen.frames[0]), chosen.frames[0]
    depths = positions(chosen.frames) @ along
    for stack in found:
        if not is_alike(first, stack.frames[0]):
            return False
        other = positions(stack.frames) @ along
        if np.abs(other[:, None] - depths[None]).min(axis=1).max() > JITTER_MM:
            return False
    return True


def _of_several_stacks(found: Sequence[Stack]) -> tuple[Stack | None, str]:
    """The axial, else the largest, else the first of the stacks of one multi-frame object."""
    names = [stack.frames[0].labels.get("StackID", "") for stack in found]
    files = {frame.file for stack in found for frame in stack.frames}
    if len(set(names)) < len(found) or "" in names or len(files) > 1:
        return None, ""
    axial = [stack for stack in found if plane_name(stack.frames[0]).endswith("axial")]
    meant = max(_in_order(axial or found), key=lambda stack: len(stack.frames))
    others = [stack for stack in found if stack is not meant]
    if len(meant.frames) < MIN_SLICES or any(
        _overlap([s.frames, meant.frames]) for s in others if is_alike(s.frames[0], meant.frames[0])
    ):
        return None, ""
    name = meant.frames[0].labels["StackID"]
    return meant, f"the axial, else the largest, else the first stack, here StackID {name}"


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
            if is_alike(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
            if len(groups) > MAX_GROUPS:
                raise GeometryError(f"more than {MAX_GROUPS} orientations or sizes in one series")
    return groups


def _sort(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """``frames`` from low to high along the normal of the first."""
    order = np.argsort(positions(frames) @ normal(frames[0]), kind="stable")
    return tuple(frames[i] for i in order)


def _is_one_volume(frames: Sequence[Frame]) -> bool:
    """Whether no two frames lie at the same depth."""
    depths = np.sort(positions(frames) @ normal(frames[0]))
    return bool((np.diff(depths) > SAME_PLACE_MM).all())


def _separate(frames: Sequence[Frame], label: str) -> list[Stack]:
    """The volumes among alike ``frames``."""
    frames = _join_blocks(frames)
    places = _places(frames)
    if places.max() + 1 == len(frames):
        return _contrasts(frames, label) or _acquisitions(frames, label)
    keys = _separating_keys(frames, places)
    if keys:
        parts = _by_labels(frames, keys)
        return [_stack(part, label, keys, values) for values, part in parts.items()]
    count = int(places.max()) + 1
    raise GeometryError(
        f"{len(frames)} images at {count} place{'s' * (count > 1)} and no attribute that "
        "separates them (time points, echoes or repeated slices)"
    )


def _places(frames: Sequence[Frame]) -> npt.NDArray[np.int64]:
    """(n,) which place along the normal each frame lies at, counted from the lowest."""
    depths = positions(frames) @ normal(frames[0])
    order = np.argsort(depths, kind="stable")
    places = np.empty(len(frames), dtype=np.int64)
    places[order] = np.concatenate([[0], np.cumsum(np.diff(depths[order]) > SAME_PLACE_MM)])
    return places


def _separating_keys(frames: Sequence[Frame], places: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """The fewest attributes by which no volume has two frames at one place; () for none."""
    codes: dict[str, npt.NDArray[np.int64]] = {}
    for key in SEPARATORS:
        known: dict[str, int] = {}
        values = [known.setdefault(frame.labels.get(key, ""), len(known)) for frame in frames]
        if len(known) > 1:
            codes[key] = np.array(values, dtype=np.int64)
    for count in (1, 2, 3):
        for keys in itertools.combinations(codes, count):
            joined = codes[keys[0]]
            for key in keys[1:]:
                both = joined * (codes[key].max() + 1) + codes[key]
                joined = np.unique(both, return_inverse=True)[1]
            if joined.max() + 1 <= len(frames) // 2:
                pairs = joined * (places.max() + 1) + places
                if len(np.unique(pairs)) == len(frames):
                    return keys
    return ()


def _contrasts(frames: Sequence[Frame], label: str) -> list[Stack]:
    """The images among slices at different places, where a contrast changes; else none."""
    for key in CONTRASTS:
        parts = _by_labels(frames, (key,))
        if len(parts) > 1 and not _is_rounding([values[0] for values in parts]):
            return [_stack(part, label, (key,), values) for values, part in parts.items()]
    return []


def _is_rounding(labels: list[str]) -> bool:
    """Whether numbers differ by so little that they are one."""
    found = [as_number(label) for label in labels]
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return False
    return max(known) - min(known) <= SAME_CONTRAST * max(map(abs, known))


def _join_blocks(frames: Sequence[Frame]) -> Sequence[Frame]:
    """``frames`` without the thicker slice where two blocks of different thickness meet."""
    blocks = sorted(
        _by_labels(frames, ("SliceThickness",)).items(),
        key=lambda item: as_number(item[0][0]) or np.inf,
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
    """One volume; or several, where an attribute goes back and forth between its slices."""
    whole = Stack(_sort(frames), label)
    if len(frames) < 2 * MIN_SLICES:
        return [whole]
    step, jitter = regular_step(whole.depths_mm)
    even = jitter < min(JITTER_FRACTION * step, JITTER_MM)
    for key in ALTERNATING if even else (*ALTERNATING, "ImageType"):
        if key == "AcquisitionNumber" and even and _packages(whole.frames) > 1:
            continue
        parts = _by_labels(frames, (key,))
        if 1 < len(parts) <= len(frames) // MIN_SLICES and _overlap(list(parts.values())):
            return [_stack(part, label, (key,), values) for values, part in parts.items()]
    return [whole]


def _packages(frames: Sequence[Frame]) -> int:
    """In how many packages the slices of one MRI were acquired, each taking every n-th; else 1.

    Slices thicker than their spacing are of images beside each other, not of one.

    Args:
        frames: evenly spaced, from low to high.
    """
    numbers = [frame.labels.get("AcquisitionNumber", "") for frame in frames]
    count = len(set(numbers))
    if (
        count == 1
        or len(frames) < 2 * count
        or not any("RepetitionTime" in frame.labels for frame in frames)
    ):
        return 1
    step, _ = regular_step(positions(frames) @ normal(frames[0]))
    thickest = max(as_number(frame.labels.get("SliceThickness", "")) or 0.0 for frame in frames)
    in_turn = all(a == b for a, b in zip(numbers, numbers[count:], strict=False))
    return count if in_turn and 0 < thickest <= (1 + JITTER_FRACTION) * step else 1


def _overlap(parts: Sequence[Sequence[Frame]]) -> bool:
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


def _label_text(key: str, value: str) -> str:
    """A label for a message: texts and times are a site's own words, and marked as such."""
    return value or "none" if key not in TIMES and as_number(value) is not None else quote(value)


def _stack(
    frames: Sequence[Frame], label: str, keys: tuple[str, ...], values: tuple[str, ...]
) -> Stack:
    """A stack named after what separates it."""
    own = ", ".join(
        f"{key} {_label_text(key, value)}" for key, value in zip(keys, values, strict=True)
    )
    return Stack(_sort(frames), f"{label}, {own}" if label else own)


def _natural(label: str) -> list[tuple[int, float, str]]:
    """A sort key that puts EchoTime 9 before EchoTime 80."""
    key = []
    for word in label.replace(",", " ").split():
        try:
            key.append((0, float(word), ""))
        except ValueError:
            key.append((1, 0.0, word))
    return key
