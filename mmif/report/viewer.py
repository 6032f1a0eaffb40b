"""What the page's viewer needs: volumes packed for the browser, and a description as JSON."""

import base64
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mmif.geometry import Grid, Matrix
from mmif.report.alignment import before_voxels
from mmif.report.pictures import CONTOUR_LEVELS, LOST_RGB, SHARE_KNOTS
from mmif.report.readability import legend_table
from mmif.report.study_view import StudyView, array, is_blurred, registration_of
from mmif.report.volumes import PackedVolume, Parts, pack_unit, pack_values
from mmif.roles import label
from mmif.transforms.colour import palette

if TYPE_CHECKING:
    from mmif.result import Coverage, RegisteredSource

Voxels = npt.NDArray[Any]

FACTORS = (1, 2, 3, 4, 6, 8, 12, 16)
"""By how many pixels, along rows and columns, means are taken until the volumes fit; with the last
those of the largest fused grid do."""

SAMPLED_SLICES, SAMPLED_EVERY = 6, 20
"""Packed to tell the size of all: so many, or one in so many: time against the precision of the
guess, which a body needs more of than a head; chosen."""

LIKELY_TO_FIT = 0.94
"""Of the budget: what a few slices say of all may be too little by 7 % (three sources of the
sample head)."""

PACKED_AT_ONCE = 8
"""Slices of the page that are worked on at once, so that no second copy of a volume is made."""

FINENESS = ((4096, 1.0, 1), (1024, 2.0, 1), (512, 3.0, 1), (256, 4.0, 1), (256, 4.0, 2))
"""(levels of a source without a unit of its own, step of a CT in HU, by how many pixels a SPECT or
PET, which is blurred, is coarser than the rest), the finest first."""

SHARE_FACTOR = 2
"""The shares are means over 9 x 9 pixels anyway: they are kept at half the resolution."""

HU_PRESETS = (
    ("brain", 0.0, 80.0),
    ("soft tissue", -160.0, 240.0),
    ("bone", -500.0, 1500.0),
)
"""Name, lowest and highest HU: the customary windows (width 80, 400, 2000; level 40, 40, 500)."""


@dataclass(frozen=True)
class ViewerData:
    """The viewer's part of the page.

    Attributes:
        study: JSON-ready description.
        volumes: name to base64 text.
        reduced: what the viewer shows less than the written volumes, in words; "" if nothing.
        was_moved: whether any source lay elsewhere before registration.
    """

    study: dict[str, Any]
    volumes: dict[str, str]
    reduced: str
    was_moved: bool


@dataclass(frozen=True)
class Detail:
    """How fine the page's volumes are.

    Attributes:
        pixels: so many along rows and columns are averaged to one.
        slices: so many slices are.
        levels: of a source without a unit of its own.
        step_hu: of a CT.
        activity_pixels: and so many more along rows and columns of a SPECT or PET.
    """

    pixels: int = 1
    slices: int = 1
    levels: int = FINENESS[0][0]
    step_hu: float = FINENESS[0][1]
    activity_pixels: int = FINENESS[0][2]

    @property
    def factors(self) -> tuple[int, int, int]:
        """Voxels along i, j and k that are averaged to one."""
        return self.pixels, self.pixels, self.slices

    def coarser(self, source: "RegisteredSource") -> int:
        """By how many pixels, along rows and columns, ``source`` is coarser than the rest."""
        return self.activity_pixels if is_blurred(source.role) else 1


def viewer_data(view: StudyView, budget: int) -> ViewerData:
    """The volumes and words of the viewer, the volumes as fine as ``budget`` bytes allow."""
    detail, packed = _pack(view, budget)
    columns, rows = view.frame
    grid = reduced_grid(framed_grid(view.result.grid, columns, rows), detail.factors)
    result, cut = view.result, view.cut
    described = {name: volume.description() for name, volume in packed.items()}
    for name in ("share", "strength", "lost"):
        described[name]["factor"] = SHARE_FACTOR
    for name, source in view.sources.items():
        described[name] |= _source_words(described[name], source.window, source.role)
        described[name]["factor"] = detail.coarser(source)
        if source.colour_map is not None:
            table = palette(source.colour_map).tobytes()
            described[name]["palette"] = base64.b64encode(table).decode("ascii")
    for name, source in view.registered.items():
        described[name]["before"] = _before(source, grid)
    described["fused"] |= {
        "label": "fused",
        "unit": "",
        "window": [0.0, 1.0],
        "range": [0.0, 1.0],
        "presets": [["as written", 0.0, 1.0], ["brighter", 0.0, 0.6], ["high part", 0.4, 1.0]],
    }
    study = {
        "shape": list(grid.shape),
        "spacing": list(grid.spacing_mm),
        "affine": grid.affine_ras.tolist(),
        "letters": axis_letters(grid.affine_ras),
        "first": [columns.start, rows.start, 0],
        "factors": list(detail.factors),
        "start": [
            (cut.i - columns.start) // detail.pixels,
            (cut.j - rows.start) // detail.pixels,
            cut.k // detail.slices,
        ],
        "shareKnots": [list(knot) for knot in SHARE_KNOTS],
        "lostColours": [list(colour) for colour in LOST_RGB],
        "legend": legend_table(result),
        "volumes": described,
    }
    volumes = {name: volume.data for name, volume in packed.items()}
    was_moved = any(described[name]["before"] for name in view.registered)
    return ViewerData(study, volumes, reduction_words(view, detail, grid), was_moved)


def reduction_words(view: StudyView, detail: Detail, grid: Grid) -> str:
    """What the viewer shows less than the written volumes, in a sentence; "" if nothing."""
    less = []
    if detail.pixels > 1 or detail.slices > 1:
        block = " × ".join(map(str, detail.factors))
        size = " × ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
        less.append(f"means of {block} voxels ({size} mm)")
    if detail.step_hu > FINENESS[0][1]:
        for source in view.sources.values():
            steps = f"steps of {detail.step_hu:g} HU"
            shown = steps if source.role == "ct" else f"{detail.levels} levels"
            n = detail.coarser(source)
            less.append(f"the {label(source.role)} in {shown}" + f" of {n} × {n} pixels" * (n > 1))
    return " and ".join([", ".join(less[:-1]), less[-1]] if len(less) > 1 else less)


def axis_letters(affine_ras: Matrix) -> list[list[str]]:
    """For i, j and k, the patient's side at the first and at the last voxel, as letters."""
    letters = []
    for column in np.asarray(affine_ras)[:3, :3].T:
        world = int(np.argmax(np.abs(column)))
        pair = ["LR", "PA", "IS"][world]
        letters.append(list(pair if column[world] > 0 else pair[::-1]))
    return letters


def framed_grid(grid: Grid, columns: slice, rows: slice) -> Grid:
    """The part of ``grid`` in ``columns`` (i) and ``rows`` (j), all slices."""
    shift = np.eye(4)
    shift[:2, 3] = columns.start, rows.start
    size = (columns.stop - columns.start, rows.stop - rows.start, grid.shape[2])
    return Grid(size, grid.affine_ras @ shift)


def reduced_grid(grid: Grid, factors: tuple[int, int, int]) -> Grid:
    """``grid`` with so many voxels along i, j and k made one."""
    scale = np.diag([*factors, 1.0])
    scale[:3, 3] = (np.array(factors) - 1) / 2
    x, y, z = (-(-n // by) for n, by in zip(grid.shape, factors, strict=True))
    return Grid((x, y, z), grid.affine_ras @ scale)


def _before(source: "RegisteredSource", grid: Grid) -> list[list[float]] | None:
    """Where a voxel of ``grid`` lay before registration; None where nothing was moved."""
    found = registration_of(source).fixed_to_moving_lps
    moved = not np.allclose(found, np.eye(4), atol=1e-9)
    return before_voxels(found, grid).tolist() if moved else None


def _source_words(described: Mapping[str, Any], window: Any, role: str) -> dict[str, Any]:
    low = float(described["offset"])
    high = low + float(described["step"]) * float(described["largest"])
    presets: list[list[Any]] = [["as fused", float(window.low), float(window.high)]]
    if role == "ct":
        presets += [list(preset) for preset in HU_PRESETS]
    return {
        "label": label(role),
        "contours": list(CONTOUR_LEVELS) if is_blurred(role) else [],
        "unit": window.unit or ("HU" if role == "ct" else ""),
        "window": [float(window.low), float(window.high)],
        "range": [low, high],
        "presets": [*presets, ["full range", low, high]],
    }


def details(spacing_mm: tuple[float, float, float]) -> Iterator[tuple[int, int]]:
    """(pixels, slices) that are averaged to one, the finest first.

    Slices are drawn together while they stay no thicker than the pixels are wide.
    """
    before = 1
    for pixels in FACTORS:
        most = max(before, int(pixels * spacing_mm[0] / spacing_mm[2] + 1e-6))
        yield from ((pixels, slices) for slices in range(before, most + 1))
        before = most


def _pack(view: StudyView, budget: int) -> tuple[Detail, dict[str, PackedVolume]]:
    """The finest volumes that fit the budget, and how fine they are.

    Slices are packed one by one, so a few of them tell the size of all, about.
    """
    grid = view.result.grid
    detail, packed = Detail(), dict[str, PackedVolume]()
    for pixels, slices in details(grid.spacing_mm):
        finest_first = [Detail(pixels, slices, *fineness) for fineness in FINENESS]
        if _guessed_bytes(view, finest_first[-1]) > LIKELY_TO_FIT * budget:
            continue
        for detail in finest_first:
            if _guessed_bytes(view, detail) <= LIKELY_TO_FIT * budget:
                every = np.arange(-(-grid.shape[2] // slices))
                packed = _volumes(view, every, detail)
                if sum(len(volume.data) for volume in packed.values()) <= budget:
                    return detail, packed
    return detail, packed


def _guessed_bytes(view: StudyView, detail: Detail) -> float:
    """What the volumes take in the page, by a few of their slices."""
    count = -(-view.result.grid.shape[2] // detail.slices)
    sampled = max(SAMPLED_SLICES, count // SAMPLED_EVERY)
    sample = np.unique(np.linspace(0, count - 1, sampled).round().astype(int))
    tried = _volumes(view, sample, detail).values()
    return sum(len(volume.data) for volume in tried) * count / len(sample)


def _volumes(
    view: StudyView, places: npt.NDArray[np.int_], detail: Detail
) -> dict[str, PackedVolume]:
    """The viewer's volumes, those of its slices ``places``, packed side by side."""
    share, result = view.share, view.result
    columns, rows = view.frame
    depth = result.grid.shape[2]
    few = np.array_split(places, -(-len(places) // PACKED_AT_ONCE))

    def parts(
        volume: "Voxels | Coverage", pixels: int = detail.pixels, middle: bool = False
    ) -> Parts:
        """``volume`` (C, X, Y, Z) in the frame and averaged, a few slices at a time."""
        by = (pixels, pixels, detail.slices)

        def make(chosen: npt.NDArray[np.int_]) -> Voxels:
            inside = [np.arange(k * by[2], min((k + 1) * by[2], depth)) for k in chosen]
            within = ((slice(None), columns, rows, slice(one[0], one[-1] + 1)) for one in inside)
            whole = [np.asarray(volume[part]) for part in within]
            blocks = [nearest_voxels(b, by) if middle else average_voxels(b, by) for b in whole]
            return np.concatenate(blocks, axis=3)

        return Parts(make, few)

    small = detail.pixels * SHARE_FACTOR

    def values(source: "RegisteredSource") -> PackedVolume:
        step = detail.step_hu if source.role == "ct" else None
        made = parts(array(source.values), detail.pixels * detail.coarser(source))
        return pack_values(made, step=step, levels=detail.levels)

    def coverage(source: "RegisteredSource") -> PackedVolume:
        return pack_unit(_quantised(parts(source.coverage), 1, 15))

    packers: dict[str, Callable[[], PackedVolume]] = {
        "fused": lambda: pack_unit(parts(array(result.fused))),
        "share": lambda: pack_unit(_quantised(parts(share.moving[None], small), 255, 30)),
        "strength": lambda: pack_unit(_quantised(parts(share.strength[None], small), 255, 15)),
        "lost": lambda: pack_unit(part / 2 for part in parts(share.lost[None], small, middle=True)),
        **{name: partial(values, one) for name, one in view.sources.items()},
        **{f"{name}-coverage": partial(coverage, one) for name, one in view.registered.items()},
    }
    with ThreadPoolExecutor(torch.get_num_threads()) as cores:
        packing = {name: cores.submit(pack) for name, pack in packers.items()}
        return {name: packed.result() for name, packed in packing.items()}


def _quantised(parts: Parts, largest: int, steps: int) -> Iterator[Voxels]:
    """0..``largest`` as 0..1 in so many even steps, which packs smaller."""
    return (np.round(part * (steps / largest)) / steps for part in parts)


def nearest_voxels(volume: Voxels, by: tuple[int, int, int]) -> Voxels:
    """One voxel of each block of ``volume`` (C, X, Y, Z): its first, of its first slice."""
    return volume[:, :: by[0], :: by[1], :: by[2]]


def average_voxels(volume: Voxels, by: tuple[int, int, int]) -> Voxels:
    """(C, X, Y, Z) with blocks of ``by`` voxels averaged into one."""
    if by == (1, 1, 1):
        return volume
    ends = [(0, -n % step) for n, step in zip(volume.shape[1:], by, strict=True)]
    padded = np.pad(volume, ((0, 0), *ends), mode="edge")
    split = [m for n, step in zip(padded.shape[1:], by, strict=True) for m in (n // step, step)]
    return np.asarray(padded.reshape(len(volume), *split).mean(axis=(2, 4, 6), dtype=np.float32))
