"""What the page's viewer needs: volumes packed for the browser, and a description as JSON."""

import base64
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmif.geometry import Grid, Matrix
from mmif.report.alignment import before_voxels
from mmif.report.pictures import CONTOUR_LEVELS, LOST_RGB, SHARE_KNOTS
from mmif.report.readability import legend_table
from mmif.report.study_view import StudyView, array, is_blurred
from mmif.report.volumes import PackedVolume, pack_unit, pack_values
from mmif.roles import label
from mmif.transforms.colour import palette

Voxels = npt.NDArray[Any]

BUDGET_BYTES = 6_000_000
"""For the volumes; the page as a whole stays below 8 MB, which any mail and browser takes."""

FACTORS = (1, 2, 3, 4, 6, 8)
"""By how many pixels, along rows and columns, means are taken until the volumes fit."""

SAMPLED_SLICES = 6
"""Packed to tell the size of all: time against the precision of the guess; chosen."""

FINENESS = ((4096, 1.0), (1024, 2.0), (512, 3.0), (256, 4.0))
"""(levels of a source without a unit of its own, step of a CT in HU), the finest first."""

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
        reduced: in-plane voxels were averaged by this factor to keep the page small; 1 is none.
    """

    study: dict[str, Any]
    volumes: dict[str, str]
    reduced: int


def viewer_data(view: StudyView, summary: Mapping[str, Any]) -> ViewerData:
    """The volumes and words of the viewer, as fine as the page's size allows."""
    factor, packed = _pack(view)
    columns, rows = view.frame
    grid = reduced_grid(framed_grid(view.result.grid, columns, rows), factor)
    result, cut = view.result, view.cut
    described = {name: volume.description() for name, volume in packed.items()}
    for name in ("share", "strength", "lost"):
        described[name]["factor"] = SHARE_FACTOR
    coloured = "moving" if view.reference.colour_map is None else "reference"
    for name, role in (("reference", view.reference.role), ("moving", view.moving.role)):
        window = result.windows[role]
        described[name] |= _source_words(described[name], window, role)
    map_name = (summary.get("pipeline") or {}).get("colour_map")
    if map_name:
        table = palette(str(map_name)).tobytes()
        described[coloured]["palette"] = base64.b64encode(table).decode("ascii")
    described["fused"] |= {
        "label": "fused",
        "unit": "",
        "window": [0.0, 1.0],
        "range": [0.0, 1.0],
        "presets": [["as written", 0.0, 1.0], ["brighter", 0.0, 0.6], ["high part", 0.4, 1.0]],
    }
    identity = np.allclose(view.registration.fixed_to_moving_lps, np.eye(4), atol=1e-9)
    before = before_voxels(view.registration.fixed_to_moving_lps, grid)
    study = {
        "shape": list(grid.shape),
        "spacing": list(grid.spacing_mm),
        "affine": grid.affine_ras.tolist(),
        "letters": axis_letters(grid.affine_ras),
        "first": [columns.start, rows.start, 0],
        "factor": factor,
        "start": [(cut.i - columns.start) // factor, (cut.j - rows.start) // factor, cut.k],
        "before": None if identity else before.tolist(),
        "shareKnots": [list(knot) for knot in SHARE_KNOTS],
        "lostColours": [list(colour) for colour in LOST_RGB],
        "legend": legend_table(result),
        "volumes": described,
    }
    return ViewerData(study, {name: volume.data for name, volume in packed.items()}, factor)


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


def reduced_grid(grid: Grid, factor: int) -> Grid:
    """``grid`` with ``factor`` x ``factor`` pixels of a slice made one."""
    if factor == 1:
        return grid
    scale = np.diag([factor, factor, 1.0, 1.0])
    scale[:2, 3] = (factor - 1) / 2
    x, y, z = grid.shape
    return Grid((-(-x // factor), -(-y // factor), z), grid.affine_ras @ scale)


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


def _pack(view: StudyView) -> tuple[int, dict[str, PackedVolume]]:
    """The finest volumes that fit the budget, and by what factor their pixels were averaged.

    Slices are packed one by one, so a few of them tell the size of all.
    """
    slices = view.fused.shape[-1]
    sample = np.unique(np.linspace(0, slices - 1, SAMPLED_SLICES).round().astype(int))
    for factor in FACTORS:
        for fineness in FINENESS:
            tried = _volumes(view, sample, factor, fineness).values()
            size = sum(len(volume.data) for volume in tried) * slices / len(sample)
            if size <= BUDGET_BYTES:
                return factor, _volumes(view, np.arange(slices), factor, fineness)
    return factor, _volumes(view, np.arange(slices), factor, fineness)


def _volumes(
    view: StudyView, slices: npt.NDArray[np.int_], factor: int, fineness: tuple[int, float]
) -> dict[str, PackedVolume]:
    """The viewer's seven volumes, the sources in steps of ``fineness``, packed side by side."""
    share = view.share
    levels, step_hu = fineness
    columns, rows = view.frame

    def crop(volume: Voxels) -> Voxels:
        inside = volume[:, columns, rows]
        return inside if len(slices) == volume.shape[-1] else inside[..., slices]

    def shrink(volume: Voxels, by: int = factor) -> Voxels:
        return average_pixels(crop(volume), by)

    small = factor * SHARE_FACTOR

    def source(volume: Any, role: str) -> PackedVolume:
        step = step_hu if role == "ct" else None
        return pack_values(shrink(array(volume))[0], step=step, levels=levels)

    packers: dict[str, Callable[[], PackedVolume]] = {
        "fused": lambda: pack_unit(shrink(view.fused)),
        "coverage": lambda: pack_unit(_quantise(shrink(array(view.moving.coverage)), 15)),
        "share": lambda: pack_unit(_quantise(shrink(share.moving[None], small), 30)),
        "strength": lambda: pack_unit(_quantise(shrink(share.strength[None], small), 15)),
        "lost": lambda: pack_unit(crop(share.lost[None])[:, ::small, ::small] / 2),
        "reference": lambda: source(view.reference.values, view.reference.role),
        "moving": lambda: source(view.moving.values, view.moving.role),
    }
    with ThreadPoolExecutor(torch.get_num_threads()) as cores:
        packing = {name: cores.submit(pack) for name, pack in packers.items()}
        return {name: packed.result() for name, packed in packing.items()}


def _quantise(volume: Voxels, steps: int) -> Voxels:
    """0..1 in so many even steps, which packs smaller."""
    return np.asarray(np.round(volume * steps) / steps)


def average_pixels(volume: Voxels, factor: int) -> Voxels:
    """(C, X, Y, Z) with ``factor`` x ``factor`` pixels of a slice averaged into one."""
    if factor == 1:
        return volume
    channels, x, y, z = volume.shape
    padded = np.pad(volume, ((0, 0), (0, -x % factor), (0, -y % factor), (0, 0)), mode="edge")
    blocks = padded.reshape(channels, -(-x // factor), factor, -(-y // factor), factor, z)
    return np.asarray(blocks.mean(axis=(2, 4)))
