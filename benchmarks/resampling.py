"""Ways to bring a CT of 512 x 512 x 300 onto the fused grid: seconds, memory traffic, values.

    python benchmarks/resampling.py [--runs 5]

The interpolation: SimpleITK (what mmif does), PyTorch's `grid_sample` and SciPy's
`affine_transform`, all trilinear, of the same smoothed volume through the same transform. The
smoothing before it: SciPy's `gaussian_filter`, and mmif's own. Seconds are medians, by the clock
and of the processor; distances are in HU, against SciPy in double precision, where the grid lies
inside the volume by more than a voxel.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

import mmif
from mmif.geometry import FLIP_XY, axial_grid
from mmif.transforms.slices import (
    _itk_image,
    _resampler,
    anti_alias_sigma,
    grid_of,
    to_grid,
)
from mmif.transforms.smooth import smoothed

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
SHAPES = {"ct": (512, 512, 300), "mri": (256, 256, 180)}
HU_NOISE = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    ct, mri = (
        finer(mmif.load(SAMPLE / path), SHAPES[role])
        for role, path in (("ct", "ct"), ("mri", "mri.nii.gz"))
    )
    truth = np.array(json.loads((SAMPLE / "truth.json").read_text())["mri_to_ct"])
    grid, voxels = axial_grid(grid_of(mri), 256, None), ct[0].numpy()
    sigma = anti_alias_sigma(grid_of(ct), grid, truth)
    to_index = np.linalg.inv(ct.affine.numpy()) @ FLIP_XY @ truth @ FLIP_XY @ grid.affine_ras
    print("| what | wall s | CPU s | largest | mean |", "|---|---|---|---|---|", sep="\n")
    exact = ndimage.gaussian_filter(voxels.astype(float), sigma, mode="nearest", truncate=3.0)
    smooth = ndimage.gaussian_filter(voxels, sigma, mode="nearest", truncate=3.0)
    say(
        "smooth, SciPy",
        lambda: ndimage.gaussian_filter(voxels, sigma, mode="nearest", truncate=3.0),
        exact,
        np.ones(voxels.shape, bool),
        runs,
    )
    planes = np.ascontiguousarray(voxels.transpose(2, 1, 0))  # (Z, Y, X)
    say(
        "smooth, in buffers",
        lambda: smoothed(planes, sigma).transpose(2, 1, 0),
        exact,
        np.ones(voxels.shape, bool),
        runs,
    )
    lying = np.ascontiguousarray(smooth.transpose(2, 1, 0))  # (Z, Y, X)
    exact = ndimage.affine_transform(
        lying.transpose(2, 1, 0).astype(float), to_index, output_shape=grid.shape, order=1
    )
    places = [
        to_index[axis, 3]
        + sum(
            to_index[axis, a] * np.arange(n).reshape([-1 if a == b else 1 for b in range(3)])
            for a, n in enumerate(grid.shape)
        )
        for axis in range(3)
    ]
    inside = np.all(
        [(p >= 1) & (p <= n - 2) for p, n in zip(places, voxels.shape, strict=True)], axis=0
    )
    image = _itk_image(lying.transpose(2, 1, 0), (0.0, 0.0, 0.0), ct.affine.numpy())
    for name, call in {
        "interpolate, SimpleITK": lambda: sitk.GetArrayFromImage(
            _resampler(grid, truth, -1000.0).Execute(image)
        ).transpose(2, 1, 0),
        "interpolate, grid_sample": lambda: sampled(lying, to_index, grid.shape),
        "interpolate, SciPy": lambda: ndimage.affine_transform(
            lying.transpose(2, 1, 0), to_index, output_shape=grid.shape, order=1
        ),
    }.items():
        say(name, call, exact, inside, runs)
    say("to_grid, all of it", lambda: to_grid(ct, grid, truth)[0].numpy(), exact, inside, runs)


def finer(volume: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """``volume`` on ``shape`` voxels over the same corners, with a scanner's noise."""
    size = volume.shape[1:]
    fine = torch.nn.functional.interpolate(
        volume.as_tensor()[None], shape, mode="trilinear", align_corners=True
    )[0]
    fine += HU_NOISE * torch.randn(fine.shape, generator=torch.Generator().manual_seed(0))
    fine = fine.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)  # as a reader leaves it
    scale = np.diag([*((n - 1) / (m - 1) for n, m in zip(size, shape, strict=True)), 1.0])
    return type(volume)(fine, affine=torch.from_numpy(volume.affine.numpy() @ scale))


def sampled(voxels: np.ndarray, to_index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """By ``grid_sample``, whose coordinates are float32 in -1..1; slices in turn."""
    size = np.array(voxels.shape[::-1])
    scale = 2 / (size - 1)
    matrix = torch.from_numpy((scale[:, None] * to_index[:3]).astype(np.float32))
    volume = torch.from_numpy(voxels)[None, None]
    x, y, z = (torch.arange(n, dtype=torch.float32) for n in shape)
    out = torch.empty(shape[::-1])
    for k in range(shape[2]):
        plane = torch.stack(torch.broadcast_tensors(x[None], y[:, None], z[k], torch.ones(())), -1)
        where = (plane @ matrix.T - 1)[None, None]
        out[k] = torch.nn.functional.grid_sample(volume, where, align_corners=True)[0, 0, 0]
    return out.numpy().transpose(2, 1, 0)


def say(
    name: str,
    call: Callable[[], np.ndarray],
    exact: np.ndarray,
    inside: np.ndarray,
    runs: int,
) -> None:
    """One row of the table."""
    walls, cpus = [], []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        found = call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    apart = np.abs(found[inside] - exact[inside])
    print(
        f"| {name} | {statistics.median(walls):.2f} | {statistics.median(cpus):.2f} |"
        f" {apart.max():.1e} | {apart.mean():.1e} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
