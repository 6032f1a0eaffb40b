"""Where the brain is in registered volumes: what a window of the MRI is chosen by."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Volume = npt.NDArray[Any]

BONE_HU = 250.0
"""Compact bone lies above; contrast-filled vessels and dense blood stay below."""

TISSUE_HU = (0.0, 80.0)
"""Brain, its fluid and fresh blood."""

COVERED = 0.5
"""A voxel counts where a source's weight is above this."""

GAP_MM = 5.0
"""Sutures, foramina and thin bone leave gaps of up to twice this in the skull."""

FROM_BONE_MM = 3.0
"""Blur and small errors of registration end this far from bone."""

CAVITY_MM2 = 3000.0
"""A slice whose largest cavity is smaller shows sinuses, eyes or the vertex, and no brain."""

LEAST_ML = 30.0
"""A brain of less than this says too little of the volume: then it is sought by depth."""

SCALP_MM = 20.0
"""Scalp, skull and the fluid under it are together thinner (adults: 12 to 18 mm)."""

BRAIN_MM = 60.0
"""From the vertex of what is deep, this far down there is brain alone; then come the orbits."""


def brain_in_skull(ct: Volume, covered: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Soft tissue inside of the skull, slice by slice; empty where no skull closes.

    Args:
        ct: (X, Y, Z) in HU.
        covered: (X, Y, Z), where ``ct`` was measured.
        spacing: mm.
    """
    bone = (ct > BONE_HU) & covered
    close = max(1, round(GAP_MM / spacing[0]))
    inside = np.zeros(ct.shape[::-1], dtype=bool).transpose(2, 1, 0)  # slice after slice

    def seek(k: int) -> None:
        shell = ndimage.binary_closing(bone[..., k], iterations=close)
        parts, count = ndimage.label(~shell)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
            sizes[edge] = 0  # open to the air around the head, and so no cavity
        if sizes.max() * spacing[0] * spacing[1] > CAVITY_MM2:
            inside[..., k] = parts == np.argmax(sizes)

    with ThreadPoolExecutor(torch.get_num_threads()) as cores:
        list(cores.map(seek, np.flatnonzero(bone.any(axis=(0, 1)))))
    margin = [2 * round(FROM_BONE_MM / step) + 1 for step in spacing]
    near_bone = ndimage.maximum_filter(bone, size=margin)
    tissue = covered & (ct > TISSUE_HU[0]) & (ct < TISSUE_HU[1])
    return np.asarray(inside & ~near_bone & tissue, dtype=bool)


def brain_by_depth(head: Mask, spacing: tuple[float, float, float]) -> Mask:
    """What lies deeper in the head than scalp and skull, and not far below the vertex.

    Args:
        head: (X, Y, Z), filled (`mmif.transforms.head.head_mask`), feet first along Z.
        spacing: mm.
    """
    if not head.any():
        return head
    # distances to 2.5 mm are enough for a depth of SCALP_MM, and take a tenth of the time
    strides = tuple(max(1, int(2.5 / step)) for step in spacing)
    coarse = np.pad(head[:: strides[0], :: strides[1], :: strides[2]], ((1, 1), (1, 1), (0, 0)))
    steps = np.multiply(spacing, strides)
    depth = ndimage.distance_transform_edt(coarse, sampling=steps)[1:-1, 1:-1]
    # of a head so small that nothing lies that deep (a child, few slices) the inner part
    deep = depth > min(SCALP_MM, 0.6 * float(depth.max()))
    top = int(np.flatnonzero(deep.any(axis=(0, 1)))[-1])
    deep[..., : max(0, top - round(BRAIN_MM / steps[2]))] = False
    for axis, stride in enumerate(strides):
        deep = np.repeat(deep, stride, axis=axis)
    return np.asarray(head & deep[tuple(slice(n) for n in head.shape)], dtype=bool)


def find_brain(ct: Volume, head: Mask, covered: Mask, spacing: tuple[float, float, float]) -> Mask:
    """The brain inside of the skull of ``ct``, or by its depth in ``head`` where no skull closes.

    Args:
        ct: (X, Y, Z) in HU.
        head: (X, Y, Z), filled.
        covered: (X, Y, Z), where ``ct`` was measured.
        spacing: mm.
    """
    brain = brain_in_skull(ct, covered, spacing)
    return brain if is_enough(brain, spacing) else brain_by_depth(head, spacing)


def is_enough(mask: Mask, spacing: tuple[float, float, float]) -> bool:
    """Whether a brain mask holds enough to choose a window by."""
    return float(mask.sum() * np.prod(spacing)) > LEAST_ML * 1000
