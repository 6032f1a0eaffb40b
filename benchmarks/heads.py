"""Simulated scans with known truth, for the benchmarks of registration.

The head is the one of ``sample_data/make_sample.py`` (1 mm maps of T1, HU and tracer), bent
smoothly into other heads for "wrong patients". A scan is that head sampled on a scanner's grid,
with its slice thickness, noise and bias, in a frame of its own. The true transforms are known
to rounding.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mmif.geometry import apply, rigid

MAKER = Path(__file__).parent.parent / "sample_data" / "make_sample.py"


@dataclass(frozen=True, eq=False)
class Head:
    """Maps of one head, each (X, Y, Z) float32, on one grid in RAS mm."""

    affine: np.ndarray
    t1: np.ndarray
    hu: np.ndarray
    activity: np.ndarray
    brain: np.ndarray  # bool


def simulated_head(wheels: Path, cache: Path | None = None) -> Head:
    """The head of the sample data, made from the two wheels, or read from ``cache`` (.npz)."""
    if cache is not None and cache.is_file():
        with np.load(cache) as maps:
            return Head(**maps)
    spec = importlib.util.spec_from_file_location("make_sample", MAKER)
    maker = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_sample"] = maker
    spec.loader.exec_module(maker)
    made = maker.make_head(wheels)
    maps = {n: getattr(made, n).astype(np.float32) for n in ("t1", "hu", "activity")}
    head = Head(np.asarray(made.affine, float), brain=made.brain, **maps)
    if cache is not None:
        np.savez(cache, **vars(head))
    return head


def bent(
    values: np.ndarray, affine: np.ndarray, outside: float, seed: int, strength: float = 1.0
) -> np.ndarray:
    """A scan (X, Y, Z) of another person's head: one ``seed`` is one person, in any scan.

    With ``strength`` 1 the head is 4 to 8 % larger or smaller along each axis, and bent smoothly by
    6 mm (root mean square) at a scale of 40 mm.
    """
    rng = np.random.default_rng(seed)
    scale = 1 + strength * rng.uniform(0.04, 0.08, 3) * rng.choice([-1, 1], 3)
    coarse = np.stack([ndimage.gaussian_filter(c, 4.0) for c in rng.normal(size=(3, 28, 28, 28))])
    coarse *= 6.0 * strength / np.sqrt((coarse**2).sum(axis=0).mean())  # one sample per 10 mm
    indices = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"))
    world = carried(affine, indices)
    middle = np.array([0.0, -16.0, 10.0])[:, None, None, None]
    shift = np.stack([looked_up(c, (world - middle) / 10 + 13.5, 0.0) for c in coarse])
    there = (world - middle) * scale[:, None, None, None] + middle + shift
    return looked_up(values.astype(np.float32), carried(np.linalg.inv(affine), there), outside)


def carried(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``places`` (3, ...) through the 4x4 ``matrix``, in single precision."""
    turned = np.tensordot(matrix[:3, :3].astype(np.float32), places.astype(np.float32), 1)
    return turned + matrix[:3, 3].astype(np.float32)[:, None, None, None]


def looked_up(values: np.ndarray, places: np.ndarray, outside: float) -> np.ndarray:
    """``values`` (X, Y, Z) at voxel ``places`` (3, ...), trilinear."""
    size = np.array(values.shape, dtype=np.float32) - 1
    grid = torch.from_numpy(np.moveaxis(places, 0, -1).astype(np.float32) * 2 / size - 1).flip(-1)
    volume = torch.from_numpy(np.ascontiguousarray(values - outside, dtype=np.float32))
    flat = grid.reshape(1, 1, 1, -1, 3)
    found = F.grid_sample(volume[None, None], flat, align_corners=True)
    return found.numpy().reshape(places.shape[1:]) + outside


@dataclass(frozen=True)
class Scanner:
    """How a volume is sampled: in-plane pixels, slices, their plane, and the quality."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    plane: str = "axial"
    noise: float = 0.02
    bias: float = 0.0
    blur_mm: float = 0.0


CT = Scanner((200, 200, 44), (1.2, 1.2, 3.5), noise=14)
T1 = Scanner((200, 200, 52), (1.2, 1.2, 3.0), noise=2.5, bias=0.2)
SPECT = Scanner((64, 64, 52), (3.9, 3.9, 3.9), noise=0.06, blur_mm=9.0)
PET = Scanner((100, 100, 72), (2.4, 2.4, 2.4), noise=0.06, blur_mm=6.0)
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}


def grid_affine(scanner: Scanner, centre: np.ndarray, tilt_deg: np.ndarray) -> np.ndarray:
    """Voxel to RAS mm of ``scanner`` around ``centre``, its slices tilted."""
    axes = np.zeros((3, 3))
    for voxel, world in enumerate(PLANES[scanner.plane]):
        axes[world, voxel] = 1
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix() @ axes
    affine[:3, :3] *= scanner.spacing_mm
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(scanner.shape) - 1) / 2)
    return affine


def scan(
    head: Head,
    what: str,
    scanner: Scanner,
    head_to_scan: np.ndarray,
    seed: int,
    middle_mm: tuple[float, float, float] = (0.0, -16.0, 18.0),
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> MetaTensor:
    """The map ``what`` (t1, t2, hu, activity) of ``head`` as ``scanner`` shows it.

    Args:
        head_to_scan: 4x4 RAS mm; the frame of the volume.
        middle_mm: the middle of the field of view, in the head's own frame.
    """
    rng = np.random.default_rng(seed)
    values = head.t1 if what == "t2" else getattr(head, what)
    outside = -1000.0 if what == "hu" else 0.0
    if what == "t2":
        values = t2_of(head)
    sigma = scanner.blur_mm / 2.355
    if sigma:
        values = ndimage.gaussian_filter(values, sigma)
    affine = grid_affine(scanner, apply(head_to_scan, np.array(middle_mm)), np.array(tilt_deg))
    to_head = np.linalg.inv(head.affine) @ np.linalg.inv(head_to_scan) @ affine
    indices = np.stack(np.meshgrid(*map(np.arange, scanner.shape), indexing="ij"))
    places = np.einsum("ab,bxyz->axyz", to_head[:3, :3], indices) + to_head[:3, 3, None, None, None]
    parts = max(1, round(scanner.spacing_mm[2] / 1.2))
    total = np.zeros(scanner.shape, np.float32)
    for within in (np.arange(parts) + 0.5) / parts - 0.5:
        total += looked_up(values, places + (to_head[:3, 2] * within)[:, None, None, None], outside)
    total /= parts
    return MetaTensor(
        torch.from_numpy(with_noise(total, what, scanner, rng))[None],
        affine=torch.from_numpy(affine),
    )


def t2_of(head: Head) -> np.ndarray:
    """A T2 brightness: fluid bright, white matter dark, skull dark, scalp in between."""
    inside = (head.hu > 0) & (head.hu < 60) & (head.t1 > 0)
    t2 = np.where(inside, np.clip(190 - 1.25 * head.t1, 25, 190), 0.45 * head.t1)
    return t2.astype(np.float32)


def with_noise(
    values: np.ndarray, what: str, scanner: Scanner, rng: np.random.Generator
) -> np.ndarray:
    """``values`` with the noise (and for MR the bias) of the scanner."""
    if what == "hu":
        return values + rng.normal(0, scanner.noise, values.shape).astype(np.float32)
    if what == "activity":
        expected = 60 * values / np.percentile(values, 99.5) + 0.3
        return (rng.poisson(expected * 8) / 8).astype(np.float32)
    i, j, k = (np.linspace(-1, 1, n) for n in values.shape)
    phase = rng.uniform(-0.8, 0.8, 3)
    wave = [np.cos(a - p) for a, p in zip((i, j, k), phase, strict=True)]
    bias = 1 + scanner.bias * (np.einsum("i,j,k->ijk", *wave) - 0.5)
    noise = rng.normal(0, scanner.noise, (2, *values.shape))
    return np.hypot(values * bias + noise[0], noise[1]).astype(np.float32)


def random_pose(rng: np.random.Generator, degrees: float, mm: float) -> np.ndarray:
    """A turn of up to ``degrees`` about any axis, a shift of up to ``mm`` in any direction."""
    axis, way = rng.normal(size=(2, 3))
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.radians(rng.uniform(0, degrees)))
    shift = way / np.linalg.norm(way) * rng.uniform(0, mm)
    return rigid(turn.as_matrix(), shift, np.array([0.0, -16.0, 18.0]))
