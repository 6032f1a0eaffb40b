"""The still pictures of the report: inputs, before and after, worst slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from mmif.geometry import Matrix
from mmif.report.alignment import before_voxels, plane_before, plane_part
from mmif.report.contributions import luminance
from mmif.report.pictures import (
    Cut,
    Floats,
    Pixels,
    PlaneName,
    contours,
    cut_plane,
    data_uri,
    edges,
    grey,
    plane_spacing,
    share_colours,
    square_pixels,
    to_aspect,
    with_edges,
)
from mmif.report.study_view import (
    StudyView,
    array,
    axial,
    axial_slice,
    bright_of,
    is_blurred,
    registration_of,
)
from mmif.roles import label
from mmif.transforms.colour import shown

if TYPE_CHECKING:
    from mmif.result import RegisteredSource

PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")
THUMB, PICTURE, TALLEST = 280, 420, 840
"""Widths in pixels, and the most height of a picture: a body is three times as high as wide."""

MARGIN = 6
"""Pixels left around what a picture shows."""

Box = tuple[slice, slice]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """One picture in the page: a data URI, its size, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class BeforeAfter:
    """One plane before and after registration."""

    plane: str
    before: Picture
    after: Picture
    empty_before: bool


def thumbnails(view: StudyView) -> dict[str, Picture]:
    """Each source, by its name in the page, and ``fused``, in the axial plane to look at first."""
    at = view.cut
    slices = {
        "reference": (axial_slice(view.reference, at.k), view.reference_label),
        **{
            name: (axial_slice(source, at.k), f"{label(source.role)}, registered")
            for name, source in view.registered.items()
        },
        "fused": (view.fused[..., at.k], "fused"),
    }
    box = content_box(view.fused_bright(axial(at.k)).T)

    def picture(values: Floats, words: str) -> Picture:
        pixels = grey(_upright(values))[box]
        return _axial_picture(view, pixels, f"{words}, axial slice {at.k + 1}")

    return {name: picture(values, words) for name, (values, words) in slices.items()}


def before_and_after(view: StudyView, moving: "RegisteredSource") -> list[BeforeAfter]:
    """The edges of ``moving`` over the reference, in three planes."""
    to_voxels = before_voxels(registration_of(moving).fixed_to_moving_lps, view.result.grid)
    return [_before_after(view, moving, plane, to_voxels) for plane in PLANES]


def _before_after(
    view: StudyView, moving: "RegisteredSource", plane: PlaneName, to_voxels: Matrix
) -> BeforeAfter:
    thin, flat = plane_part(plane, view.cut)
    unit = plane_before(moving.unit, to_voxels, plane, view.cut)
    planes = (
        cut_plane(view.reference_bright(thin), plane, flat),
        cut_plane(bright_of(moving, thin), plane, flat),
        luminance(array(shown(torch.from_numpy(unit.copy())[None], moving.colour_map))),
        cut_plane(np.asarray(moving.coverage[(0, *thin)]), plane, flat),
        plane_before(moving.coverage, to_voxels, plane, view.cut),
    )
    row_mm, column_mm = plane_spacing(view.result.grid.spacing_mm, plane)
    under, after, before, covered, covered_before = (
        square_pixels(values, row_mm, column_mm) for values in planes
    )
    box = content_box(under, after, before)
    blurred = is_blurred(moving.role)
    lines, name = (contours, "lines of equal brightness") if blurred else (edges, "edges")

    def picture(bright: Floats, covered: Floats, when: str) -> Picture:
        above, below = label(moving.role), view.reference_label
        words = f"{plane} plane, {name} of the {above} over the {below}"
        pixels = with_edges(grey(under), lines(bright) & ~end_marks(covered))[box]
        rows, columns = pixels.shape[:2]
        sized = to_aspect(pixels, 1.0, 1.0, min(PICTURE, max(1, TALLEST * columns // rows)))
        return _picture(sized, f"{words}, {when} registration")

    # far apart by their headers: the cut shows nothing of the moving volume, and it is said
    empty = not bool((before > 0.1).any()) and bool((after > 0.1).any())
    return BeforeAfter(
        plane, picture(before, covered_before, "before"), picture(after, covered, "after"), empty
    )


def end_marks(coverage: Floats) -> Marks:
    """Where a plane's volume ends or is near its end: edges there are not the patient's."""
    return np.asarray(ndimage.binary_dilation(coverage < 0.5, iterations=3))


def slice_row(view: StudyView, k: int) -> list[Picture]:
    """Each source, fused and source share of axial slice ``k`` (from 0)."""
    at = Cut(view.cut.i, view.cut.j, k)
    of_moving, strength, lost = (
        cut_plane(part, "axial", at)
        for part in (view.share.moving, view.share.strength, view.share.lost)
    )
    share = share_colours(of_moving / 255, strength / 255, lost)
    box = content_box(*(bright_of(source, axial(k)).T for source in view.sources.values()))
    row: Sequence[tuple[Pixels, str]] = (
        *(
            (grey(_upright(axial_slice(source, k))), label(source.role))
            for source in view.sources.values()
        ),
        (grey(_upright(view.fused[..., k])), "fused"),
        (share, "source share"),
    )
    return [_axial_picture(view, pixels[box], f"{words}, slice {k + 1}") for pixels, words in row]


def content_box(*planes: Floats) -> Box:
    """Rows and columns that hold all that is bright in ``planes``, and a margin; all if none."""
    # above a CT's noise in air as its window shows it, below the skin
    bright = np.any([plane > 0.08 for plane in planes], axis=0)
    spans = []
    for axis in (1, 0):
        used = np.flatnonzero(bright.any(axis=axis))
        length = bright.shape[1 - axis]
        low, high = (used[0], used[-1] + 1) if len(used) else (0, length)
        spans.append(slice(max(0, int(low) - MARGIN), min(length, int(high) + MARGIN)))
    return spans[0], spans[1]


def _upright(values: Floats) -> Floats:
    """(rows, columns) or (rows, columns, 3) of a slice (C, X, Y)."""
    plane = values.transpose(2, 1, 0)
    return plane[..., 0] if plane.shape[-1] == 1 else plane


def _axial_picture(view: StudyView, pixels: Pixels, alt: str) -> Picture:
    row_mm, column_mm = plane_spacing(view.result.grid.spacing_mm, "axial")
    return _picture(to_aspect(np.ascontiguousarray(pixels), row_mm, column_mm, THUMB), alt)


def _picture(pixels: Pixels, alt: str) -> Picture:
    return Picture(data_uri(pixels), pixels.shape[1], pixels.shape[0], alt)
