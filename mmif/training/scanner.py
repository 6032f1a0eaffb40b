"""Training pairs as a scanner's volumes show them: windows, contrasts, noise, blur, findings.

The training slices are 8-bit pictures, windowed by hand and free of noise. A volume from a scanner
is not; so crops of them are shown here as `mmif.transforms.intensity` shows volumes: soft tissue of
the CT below 0.75 and bone above it with its texture, the MRI by its brain in any contrast, noise
and blur in both, and findings drawn into one of them. The target is that of the clean pair.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional as F

from mmif.training.targets import Image, reader_target

Generator = np.random.Generator

FINDING_WEIGHT = 6.0
"""A pixel of a finding counts this much more in the loss: they are few."""

VOLUME_PARENCHYMA = 0.34
"""35 HU behind the CT's window for volumes (-20..100 HU to 0..0.75)."""

SOFT_TOP = 0.75
"""Where bone begins behind that window."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A pair of slices as the network is shown it, and what it should make of it.

    Attributes:
        sources: (2, rows, columns): anatomical and other, 0..1.
        target: (rows, columns), 0..1.
        weight: (rows, columns), how much each pixel counts.
    """

    sources: npt.NDArray[np.float32]
    target: Image
    weight: Image


def show_as_scanner(mri: Image, ct: Image, parenchyma: float, random: Generator) -> Shown:
    """A clean pair (rows, columns) in 0..1 as some scanner would show it."""
    brain = (mri > 0.08) & (np.abs(ct - parenchyma) < 0.2) & (ct < 0.95)
    ct, level = as_volume(ct, parenchyma, random)
    mri = _contrast(mri, brain, random)
    weight = np.ones_like(mri)
    for _ in range(int(random.integers(0, 5))):
        mri, ct, place = _finding(mri, ct, brain, level, random)
        weight += FINDING_WEIGHT * place
    ct = _blur(ct, random, 0.9)
    mri = _blur(mri, random, 0.5)
    mri, ct = np.clip(mri, 0, 1), np.clip(ct, 0, 1)
    target = reader_target(mri, ct, level)
    if random.random() < 0.06:
        return _one_alone(mri, ct, weight, random)
    # up to 9 HU and 3 grey levels: a head CT of thin slices, an MRI of a short protocol
    noisy_ct = ct + noise(ct.shape, random, 0.055) * (ct > 0)
    noisy_mri = np.abs(mri + noise(mri.shape, random, 0.012)) * (mri > 0)
    sources = np.stack([noisy_mri, noisy_ct]).clip(0, 1).astype(np.float32)
    return Shown(sources, target, weight.astype(np.float32))


def as_volume(ct: Image, parenchyma: float, random: Generator) -> tuple[Image, float]:
    """A slice behind a hand-made window as the window for volumes shows it, and its parenchyma."""
    level = VOLUME_PARENCHYMA + float(random.normal(0, 0.025))
    if random.random() < 0.2:  # some other window
        level = float(random.uniform(0.25, 0.6))
    scale = float(random.uniform(0.65, 1.0))
    bone = ndimage.gaussian_filter((ct > 0.97).astype(np.float32), 1.0)
    tissue = np.clip(level + scale * (ct - parenchyma), 0, SOFT_TOP)
    tissue *= np.clip(ct / 0.04, 0, 1)
    texture = random.uniform(0.5, 1.3) + 0.5 * _smooth_noise(ct.shape, random, 4.0)
    bony = SOFT_TOP + (1 - SOFT_TOP) * np.clip(texture * (2 * bone - 0.6), 0, 1)
    return np.where(ct > 0.97, bony, tissue).astype(np.float32), level


def _contrast(mri: Image, brain: npt.NDArray[np.bool_], random: Generator) -> Image:
    """The MRI in another weighting and brightness, as the window by the brain shows it.

    About the brightnesses of the pipelines' window (0.04 to 0.62), wide enough for other ones.
    """
    inside = mri[brain]
    if inside.size < 200:
        return mri
    low, high = np.percentile(inside, [2, 99])
    unit = (mri - low) / max(high - low, 0.05)  # brain 0..1
    gamma = float(np.exp(random.uniform(-0.5, 0.5)))
    unit = np.where(unit > 0, np.clip(unit, 0, None) ** gamma, unit)
    if random.random() < 0.35:  # the other weighting
        unit = np.where(mri > 0.04, 1 - unit, -1)
    dark, bright = random.uniform(0.04, 0.2), random.uniform(0.6, 0.85)
    shown = dark + (bright - dark) * unit
    shown *= np.exp(0.25 * _smooth_noise(mri.shape, random, 40.0))  # bias field
    return np.clip(np.where(mri > 0.02, shown, 0), 0, 1).astype(np.float32)


def _finding(
    mri: Image, ct: Image, brain: npt.NDArray[np.bool_], level: float, random: Generator
) -> tuple[Image, Image, Image]:
    """Something that one source alone shows, at some place in the brain; and the place.

    As strong as they are: 0.75 are 120 HU, so that a bleed lies 13 to 48 HU above the brain and an
    infarct 5 to 19 below, as in the first hours; a calcification begins 40 HU above.
    """
    places = np.argwhere(brain)
    if not len(places):
        return mri, ct, np.zeros_like(mri)
    centre = places[random.integers(len(places))]
    kind = random.choice(["bleed", "calcification", "infarct", "lesion"], p=[0.3, 0.2, 0.25, 0.25])
    radius = {
        "bleed": random.uniform(3, 9),
        "calcification": random.uniform(1.3, 3.5),
        "infarct": random.uniform(6, 18),
        "lesion": random.uniform(2.5, 8),
    }[kind]
    place = _ellipse(mri.shape, centre, radius, random)
    soft = place * (ct < SOFT_TOP)
    if kind == "bleed":
        ct = np.minimum(ct + soft * random.uniform(0.08, 0.3), np.maximum(ct, 0.74))
    elif kind == "calcification":
        ct = np.maximum(ct, soft * random.uniform(min(level + 0.25, SOFT_TOP), 0.8))
    elif kind == "infarct":
        ct = np.maximum(ct - soft * random.uniform(0.03, 0.12), np.minimum(ct, 0.1))
    else:
        mri = mri * (1 + place * random.choice([-1, 1]) * random.uniform(0.12, 0.4))
    return mri.astype(np.float32), ct.astype(np.float32), place


def _one_alone(mri: Image, ct: Image, weight: Image, random: Generator) -> Shown:
    """A place that one source alone covers: it is shown as it is."""
    alone = int(random.integers(2))
    sources = np.zeros((2, *mri.shape), np.float32)
    sources[alone] = (mri, ct)[alone]
    return Shown(sources, sources[alone], weight.astype(np.float32))


def _ellipse(
    shape: tuple[int, ...], centre: npt.NDArray[np.int_], radius: float, random: Generator
) -> Image:
    """0..1, one inside of a turned ellipse, with an edge of one to two pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    turn, flat = random.uniform(0, np.pi), random.uniform(0.7, 1.3)
    across = np.cos(turn) * (x - centre[1]) + np.sin(turn) * (y - centre[0])
    along = np.cos(turn) * (y - centre[0]) - np.sin(turn) * (x - centre[1])
    distance = np.hypot(across * flat, along / flat)
    inside = np.clip((radius - distance) / random.uniform(1, 2) + 0.5, 0, 1)
    return np.asarray(inside, dtype=np.float32)


def _blur(image: Image, random: Generator, most: float) -> Image:
    """``image`` as sharp as another resolution or interpolation leaves it."""
    sigma = random.uniform(0, most)
    return np.asarray(ndimage.gaussian_filter(image, sigma)) if sigma > 0.2 else image


def noise(shape: tuple[int, ...], random: Generator, most: float) -> Image:
    """Noise of some strength, fine or as coarse as interpolation leaves it."""
    white = random.standard_normal(shape, dtype=np.float32)
    coarse = ndimage.gaussian_filter(white, random.uniform(0.3, 1.1))
    strength = most * random.random() ** 0.7
    return np.asarray(strength * coarse / coarse.std(), dtype=np.float32)


def _smooth_noise(shape: tuple[int, ...], random: Generator, sigma: float) -> Image:
    """A smooth field of about -1..1 that varies over ``sigma`` pixels."""
    rows, columns = (max(2, round(side / sigma) + 1) for side in shape)
    coarse = torch.from_numpy(random.standard_normal((1, 1, rows, columns), dtype=np.float32))
    field = F.interpolate(coarse, size=shape, mode="bilinear", align_corners=True)[0, 0]
    return np.asarray(field.numpy() / 1.5, dtype=np.float32)
