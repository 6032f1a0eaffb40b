"""Volumes onto the fused grid and into slices, one interpolation for each source.

`to_grid` carries a source straight from its own voxels to the grid, through its rigid transform;
`coverage` says where on that grid the source has data at all; `to_slices` turns a volume on
the grid into the network's stack.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from mmif.errors import GeometryError
from mmif.geometry import FLIP_XY, Grid, Matrix, apply, ras_lps, spacing_mm
from mmif.io.source import source_of
from mmif.result import Coverage
from mmif.transforms.head import body_threshold
from mmif.transforms.smooth import TRUNCATE, smoothed

COARSER = 1.25
"""A grid this many times coarser than a source, along an axis of the source, is anti-aliased."""

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""

SLAB = 8
"""Slices that are worked on at once: in one go the terms of a whole body's sum take gigabytes."""

BLOCK_VOXELS = 1 << 22
"""Voxels of a source (16 MB) or grid that are carried at once: no second copy of a large one stands
in memory, and cores work side by side. Of 1 << 20, 22, 24 and 30 a CT of 512 x 512 x 300, tilted,
took 1.7, 1.3, 1.4 and 1.3 s of CPU and 130, 230, 490 and 770 MB (benchmarks/resampling.py)."""

REACH = 2
"""Voxels that a block of a source is wider than what it is needed for: linear interpolation takes
one beyond."""

STILL = 1e-6
"""Voxels of a source: what an index changes by less than this over the grid is no change; chosen,
well below what float32 tells apart."""

CUT = 0.15
"""Where the head ends with more than this share of its largest area, it was cut."""

Block = tuple[slice, slice, slice]
"""A part of a grid, along its columns, rows and slices."""


def grid_of(volume: MetaTensor) -> Grid:
    """The voxel grid of ``volume`` (C, X, Y, Z)."""
    x, y, z = volume.shape[-3:]
    return Grid((x, y, z), np.asarray(volume.affine, dtype=np.float64))


def on_grid(
    voxels: npt.ArrayLike | torch.Tensor, grid: Grid, like: MetaTensor | None = None
) -> MetaTensor:
    """``voxels`` (C, X, Y, Z) as a float32 volume at the place of ``grid``.

    What else ``like`` knows of itself (its ``meta``, the source among it) goes along.
    """
    meta = {} if like is None else {k: v for k, v in like.meta.items() if k != "affine"}
    values = torch.as_tensor(voxels, dtype=torch.float32).as_subclass(torch.Tensor)
    return MetaTensor(values, affine=torch.as_tensor(grid.affine_ras), meta=meta)


def to_grid(
    volume: MetaTensor,
    grid: Grid,
    reference_to_source_lps: Matrix | None = None,
    *,
    fill: float | None = None,
    reference: MetaTensor | None = None,
) -> MetaTensor:
    """``volume`` on ``grid``, by one trilinear interpolation.

    Linear never leaves the range of its neighbours: no ringing stands beside bone. Along the axes
    of the source where the grid is clearly coarser, a Gaussian first widens the source's voxels to
    the grid's, so that nothing is skipped (see `anti_alias_sigma`).

    Args:
        volume: (C, X, Y, Z), physical values.
        grid: where the values are wanted, in the reference's frame.
        reference_to_source_lps: (4, 4) LPS mm, a point of the grid's frame to the same anatomical
            point in the frame of ``volume``; None where both are one frame.
        fill: the value outside of ``volume``; its minimum, which is air, when left out.
        reference: the volume whose frame the grid lies in, if that is known.

    Returns:
        (C, *grid.shape), float32, with the ``meta`` of ``volume`` and the place of ``grid``. After
        a transform its source names the frame of ``reference``, no longer its own.
    """
    channels = volume.detach().cpu().numpy().astype(np.float32, copy=False)
    outside = float(channels.min()) if fill is None else fill  # numpy's: 100 times torch's here
    moved = np.empty((len(channels), *grid.shape[::-1]), dtype=np.float32).transpose(0, 3, 2, 1)
    source, blocks = grid_of(volume), _blocks(max(channels[0].size, math.prod(grid.shape)), grid)

    def carry(block: Block) -> None:
        """Fill a block of the grid."""
        part = _part_of(grid, block)
        resample = _resampler(part, reference_to_source_lps, outside)
        if len(blocks) > 1:
            resample.SetNumberOfThreads(1)
        for channel, whole in zip(channels, moved, strict=True):
            image = _source_for(part, channel, source, reference_to_source_lps)
            if image is None:
                whole[block] = outside
            else:
                carried = resample.Execute(image)  # which must outlive the view of it
                whole[block] = sitk.GetArrayViewFromImage(carried).transpose(2, 1, 0)

    with ThreadPoolExecutor(torch.get_num_threads()) as cores:
        list(cores.map(carry, blocks))
    result = on_grid(moved, grid, like=volume)
    if reference_to_source_lps is not None:
        _name_frame(result, reference)
    return result


def _name_frame(moved: MetaTensor, reference: MetaTensor | None) -> None:
    """Lets the source of ``moved`` say that its voxels lie in the frame of ``reference`` now."""
    source = source_of(moved)
    if source is not None:
        fixed = None if reference is None else source_of(reference)
        frame = fixed.frame_of_reference_uid if fixed is not None else None
        moved.meta["source"] = replace(source, frame_of_reference_uid=frame, moved=True)


def anti_alias_sigma(
    source: Grid, grid: Grid, reference_to_source_lps: Matrix | None = None
) -> tuple[float, float, float]:
    """Standard deviations, in voxels of ``source``, of the smoothing before it goes to ``grid``.

    Along each axis of the grid, its step g is held against the width s of a source voxel in that
    direction. Where g is more than ``COARSER`` s, a Gaussian of full width at half maximum
    sqrt(g^2 - s^2) widens the one to the other; it is shared out over the axes of the source.
    So slices as thick as the source's are not smoothed, tilted or not.
    """
    turn = _world_to_source_ras(reference_to_source_lps)[:3, :3]
    steps, source_steps = np.asarray(grid.spacing_mm), np.asarray(source.spacing_mm)
    directions = turn @ (grid.affine_ras[:3, :3] / steps)
    along = (source.affine_ras[:3, :3] / source_steps).T @ directions  # cosines: source x grid
    widths = np.linalg.norm(along * source_steps[:, None], axis=0)
    extra = np.where(steps > COARSER * widths, steps**2 - widths**2, 0.0)
    x, y, z = np.sqrt(along**2 @ extra) / FWHM / source_steps
    return float(x), float(y), float(z)


def coverage(
    volume: MetaTensor,
    grid: Grid,
    reference_to_source_lps: Matrix | None = None,
    transition_mm: float = 6.0,
) -> Coverage:
    """How far ``volume`` counts at each voxel of ``grid``: 1 inside it, 0 outside, soft between.

    The step is a raised cosine over ``transition_mm``, and lies inside the field of view: at the
    border the weight is 0 already, so that no edge of missing data can show.
    Planes of padding at an end of the volume are outside (see `data_box`); padding around a
    round field of view is air, and inside.

    Raises:
        GeometryError: ``transition_mm`` is negative.
    """
    if transition_mm < 0:
        raise GeometryError(f"coverage: found a transition of {transition_mm} mm, expected >= 0")
    source = grid_of(volume)
    to_index = (
        np.linalg.inv(source.affine_ras)
        @ _world_to_source_ras(reference_to_source_lps)
        @ grid.affine_ras
    )
    low, high = data_box(volume)
    first, beyond = np.array(low) - 0.5, np.array(high) + 0.5
    steps_mm = np.array(source.spacing_mm)
    ends = apply(to_index, np.array(list(product(*((0, n - 1) for n in grid.shape)))))
    nearest_mm = np.minimum(ends - first, beyond - ends).min(axis=0) * steps_mm
    limiting = np.flatnonzero(nearest_mm < transition_mm)
    # the faces across axes of the source that change along the same axes of the grid: one factor
    turns = np.abs(to_index[:, :3]) * grid.shape > STILL
    changing: dict[tuple[bool, ...], list[int]] = {}
    for axis in limiting:
        changing.setdefault(tuple(turns[axis]), []).append(int(axis))

    def weigh(along: tuple[bool, ...], axes: list[int]) -> torch.Tensor:
        """The least weight by the faces across ``axes``, one long where nothing changes."""
        lengths = zip(grid.shape, along, strict=True)
        columns, rows, slices = (n if turn else 1 for n, turn in lengths)
        k, j, i = np.ogrid[:slices, :rows, :columns]
        weight = np.empty((slices, rows, columns), dtype=np.float32)

        def fill(part: slice) -> None:
            """A few slices, so that what is in between stays in the cache."""
            depth_mm = np.full((len(k[part]), rows, columns), np.inf, dtype=np.float32)
            for axis in axes:
                a, b, c, offset = to_index[axis]
                # the index along this axis, and how deep it lies below the nearer face of the box
                index = (a * i + b * j + (c * k[part] + offset)).astype(np.float32)
                np.minimum(depth_mm, (index - first[axis]) * steps_mm[axis], out=depth_mm)
                np.minimum(depth_mm, (beyond[axis] - index) * steps_mm[axis], out=depth_mm)
            ramp = np.clip(depth_mm / max(transition_mm, 1e-3), 0, 1)
            weight[part] = 0.5 - 0.5 * np.cos(np.pi * ramp)

        with ThreadPoolExecutor(torch.get_num_threads()) as cores:
            list(cores.map(fill, slabs(slices, 4)))
        return torch.from_numpy(weight.transpose(2, 1, 0)[None])

    factors = tuple(weigh(along, axes) for along, axes in changing.items())
    return Coverage(factors, (1, *grid.shape)) if factors else Coverage.whole(grid.shape)


def data_box(volume: MetaTensor) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The first and the last voxel along i, j and k that hold data.

    Whole planes of one single value at an end of an axis are padding, if the head is cut off
    where they begin; if it closes there, they are the air around it and count as data.
    """
    values = volume[0].detach().cpu().numpy()
    low, high = [0, 0, 0], [n - 1 for n in values.shape]
    for axis in range(3):
        planes = np.moveaxis(values, axis, 0)
        first = next((n for n in range(len(planes)) if _varies(planes[n])), 0)
        last = next((n for n in range(len(planes) - 1, first, -1) if _varies(planes[n])), first)
        if (first, last) == (0, len(planes) - 1) or not _varies(planes[first]):
            continue
        area = np.count_nonzero(planes > body_threshold(values), axis=(1, 2))
        if area[first] > CUT * area.max():
            low[axis] = first
        if area[last] > CUT * area.max():
            high[axis] = last
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _varies(plane: npt.NDArray[np.float32]) -> bool:
    """Whether ``plane`` holds more than one value; most volumes have such planes at all ends."""
    return bool(plane.min() < plane.max())


def covered_fraction(
    weight: Coverage, within: torch.Tensor | None = None
) -> npt.NDArray[np.float64]:
    """(Z,) share of each slice where the coverage ``weight`` (1, X, Y, Z) is above zero.

    Args:
        weight: the coverage on the fused grid.
        within: (1, X, Y, Z) bool, the part of the grid that counts (the reference's head); the
            whole slice when left out. A slice without any of it is counted whole.
    """
    covered = weight.above(0)
    inside = np.ones(covered.shape, bool) if within is None else np.asarray(within[0], dtype=bool)
    inside = inside | ~inside.any(axis=(0, 1))
    counts = np.count_nonzero(covered & inside, axis=(0, 1))
    return np.asarray(counts / np.count_nonzero(inside, axis=(0, 1)), dtype=np.float64)


def to_slices(volume: torch.Tensor) -> torch.Tensor:
    """The stack (Z, Y, X) = (slices, rows, columns) of a volume (1, X, Y, Z)."""
    return volume.as_subclass(torch.Tensor)[0].permute(2, 1, 0).contiguous()


def _world_to_source_ras(reference_to_source_lps: Matrix | None) -> Matrix:
    if reference_to_source_lps is None:
        return np.eye(4)
    return FLIP_XY @ np.asarray(reference_to_source_lps, dtype=np.float64) @ FLIP_XY


def slabs(count: int, thick: int = SLAB) -> Iterator[slice]:
    """``count`` slices, ``thick`` at a time.

    >>> list(slabs(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, count, thick):
        yield slice(start, min(start + thick, count))


def _blocks(voxels: int, grid: Grid) -> list[Block]:
    """``grid`` in blocks, each of about `BLOCK_VOXELS` of the ``voxels`` of source or grid.

    Of like sides, since the box around a tilted block is the larger the flatter the block is.
    """
    count = math.ceil((voxels / BLOCK_VOXELS) ** (1 / 3))
    x, y, z = (list(slabs(n, -(-n // count))) for n in grid.shape)
    return [(i, j, k) for k in z for j in y for i in x]


def _part_of(grid: Grid, block: Block) -> Grid:
    """``block`` of ``grid``, a grid of its own."""
    shift = np.eye(4)
    shift[:3, 3] = [along.start for along in block]
    i, j, k = (along.stop - along.start for along in block)
    return Grid((i, j, k), grid.affine_ras @ shift)


def _source_for(
    part: Grid,
    channel: npt.NDArray[np.float32],
    source: Grid,
    reference_to_source_lps: Matrix | None,
) -> sitk.Image | None:
    """What of ``channel`` (X, Y, Z) on ``source`` is needed for ``part``; None where nothing is."""
    sigma = anti_alias_sigma(source, part, reference_to_source_lps)
    to_index = np.linalg.inv(source.affine_ras) @ _world_to_source_ras(reference_to_source_lps)
    corners = apply(to_index, part.corners_ras)
    margin = REACH + np.ceil(TRUNCATE * np.array(sigma))
    low = np.maximum(np.floor(corners.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) + margin) + 1, channel.shape).astype(int)
    if (high <= low).any():
        return None
    shift = np.eye(4)
    shift[:3, 3] = low
    box = channel[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
    return _itk_image(box, sigma, source.affine_ras @ shift)


def _itk_image(
    channel: npt.NDArray[np.float32], sigma: tuple[float, float, float], affine_ras: Matrix
) -> sitk.Image:
    """``channel`` (X, Y, Z), smoothed by ``sigma`` voxels, as an ITK image at its place."""
    planes = channel.transpose(2, 1, 0)  # as volumes lie in memory: no copy across it is made
    image = sitk.GetImageFromArray(smoothed(planes, sigma) if any(sigma) else planes)
    affine = ras_lps(affine_ras)
    steps = spacing_mm(affine)
    image.SetSpacing(steps)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / steps).ravel().tolist())
    return image


def _resampler(
    grid: Grid, reference_to_source_lps: Matrix | None, outside: float
) -> sitk.ResampleImageFilter:
    affine = ras_lps(grid.affine_ras)
    steps = spacing_mm(affine)
    transform = sitk.AffineTransform(3)
    if reference_to_source_lps is not None:
        matrix = np.asarray(reference_to_source_lps, dtype=np.float64)
        transform.SetMatrix(matrix[:3, :3].ravel().tolist())
        transform.SetTranslation(matrix[:3, 3].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in grid.shape])
    resampler.SetOutputSpacing(steps)
    resampler.SetOutputOrigin(affine[:3, 3].tolist())
    resampler.SetOutputDirection((affine[:3, :3] / steps).ravel().tolist())
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(outside)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return resampler
