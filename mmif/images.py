"""Registered 2-D images in, one fused image out: two or three of any task, at their own size.

The network fuses brightness (Y). Where the task has a colour source (the visible image; SPECT or
PET), its U and V give the fused image its colour back at the same hue. Of three images the grey
ones are fused first, then the activity over them.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mmif
from mmif.config import Pipeline, Precision
from mmif.io.images import (
    Image2D,
    Pixels,
    check_image_output,
    check_same_size,
    grey_of,
    read_image,
    write_image,
)
from mmif.metrics import SSIM_WINDOW, evaluate, to_uint8
from mmif.networks.inference import InferenceInfo, fuse_slices
from mmif.roles import TASKS
from mmif.transforms.colour import restore_colour, rgb_to_yuv
from mmif.weights import Weights, load_weights

log = logging.getLogger(__name__)

Images = tuple[Image2D, ...]
ImagePair = tuple[Image2D, Image2D]


def fuse_images(
    inputs: Mapping[str, Path],
    output: Path,
    pipeline: Pipeline,
    *,
    weights: Weights | str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fuse registered images of one size into the image file ``output``.

    Args:
        inputs: role to file, for each role of the pipeline.
        output: PNG, JPEG, TIFF or BMP by its ending.
        pipeline: the task, the weights and the precision.
        weights: of the last pass: loaded ones, or a shipped name or file; the pipeline's by
            default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overwrite: replace an output that exists.

    Returns:
        What was done, in the form of ``summary.json`` as far as it applies to images.

    Raises:
        MmifError: an image that cannot be used, different sizes, weights of another task, an
            output that exists or cannot be written.
    """
    started = time.perf_counter()
    images, warnings = plan_images(inputs, output, pipeline, overwrite=overwrite)
    if not isinstance(weights, Weights):
        weights = load_weights(weights or pipeline.weights, TASKS[pipeline.task].passes[-1])
    identity: dict[str, Any] = {"weights": {"name": weights.name, "sha256": weights.sha256}}
    grey = None
    if pipeline.grey_weights is not None:
        grey = load_grey(pipeline.grey_weights, pipeline.task)
        identity["grey_weights"] = {"name": grey.name, "sha256": grey.sha256}
    [fused], info = fuse_pixels(
        weights.network,
        pipeline.task,
        [last_pair(images, grey)],
        device=device,
        precision=pipeline.fusion.precision,
    )
    log.info("fuse: %.2f s on %s in %s", info.seconds, info.device, info.precision)
    write_image(fused, output, overwrite=overwrite)
    metrics = _metrics(fused, images)
    log.info("  %s", ", ".join(f"{name} {value:.3g}" for name, value in metrics.items()))
    for warning in (*warnings, *info.warnings):
        log.warning("%s", warning)
    return {
        "mmif_version": mmif.__version__,
        "task": pipeline.task,
        "inputs": [
            {
                "role": role,
                "path": str(image.path),
                "format": image.format,
                "shape": list(image.size),
                "colour": image.is_colour,
            }
            for role, image in zip(pipeline.roles, images, strict=True)
        ],
        "fusion": {
            "device": info.device,
            "precision": info.precision,
            **identity,
            "seconds": info.seconds,
        },
        "metrics": metrics,
        "outputs": [str(output)],
        "warnings": [*warnings, *info.warnings],
        "seconds": {"total": round(time.perf_counter() - started, 3)},
    }


def plan_images(
    inputs: Mapping[str, Path], output: Path, pipeline: Pipeline, *, overwrite: bool = False
) -> tuple[Images, tuple[str, ...]]:
    """The images by the roles of ``pipeline``, and what must be said of them; nothing is written.

    Raises:
        InputError: an image that cannot be used, or some of different sizes.
        OutputError: an output that exists or has no image's ending.
    """
    paths = [inputs[role] for role in pipeline.roles]
    check_image_output(output, overwrite=overwrite, inputs=paths)
    images = tuple(map(read_image, paths))
    check_same_size(*images)
    return images, _lost_colours(pipeline, images)


def load_grey(name_or_file: str, task: str) -> Weights:
    """The weights of the first of the two passes of ``task``.

    Raises:
        WeightsError: missing, altered, or of another task.
    """
    return load_weights(name_or_file, TASKS[task].passes[0])


def last_pair(images: Images, grey: Weights | None = None) -> ImagePair:
    """The two images of the last pass: of three, what the grey ones become, and the activity.

    Args:
        images: two, or two grey ones and an activity, in the order of the task's roles.
        grey: of three, the weights of the first pass.
    """
    if grey is None:
        first, last = images
        return first, last
    first, second, last = images
    [joined] = join_grey(grey.network, first.grey[None], second.grey[None])
    return replace(first, pixels=joined), last


def join_grey(network: nn.Module, anatomical: Pixels, other: Pixels) -> Pixels:
    """What stacks (slices, rows, columns) of grey images become in the first of two passes.

    On the CPU in fp32, so that it is the same wherever the second pass runs.
    """
    first, second = (torch.from_numpy(stack).float() / 255 for stack in (anatomical, other))
    joined, _ = fuse_slices(network, first, second, device="cpu", precision="fp32")
    return to_uint8(joined.numpy())


def fuse_pixels(
    network: nn.Module,
    task: str,
    pairs: Sequence[ImagePair],
    *,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int = 8,
) -> tuple[list[Pixels], InferenceInfo]:
    """The fused 8-bit image of each pair, grey or RGB, and how the last of them were made.

    Neighbouring pairs of one size go through the network together.

    Args:
        network: (n, 2, rows, columns) to (n, 1, rows, columns) in 0..1.
        task: says which image gives its colour, if any.
        pairs: (anatomical, other), two of one size; at least one pair.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        batch: pairs that go through the network at once.
    """
    fused: list[Pixels] = []
    for _, group in groupby(pairs, key=lambda pair: pair[0].size):
        alike = list(group)
        anatomical, other = (
            torch.from_numpy(np.stack([pair[index].grey for pair in alike])).float() / 255
            for index in (0, 1)
        )
        stack, info = fuse_slices(
            network, anatomical, other, device=device, precision=precision, batch=batch
        )
        fused += [
            _restore_colour(grey, _colour_source(task, pair))
            for grey, pair in zip(stack, alike, strict=True)
        ]
    return fused, info


def _lost_colours(pipeline: Pipeline, images: Images) -> tuple[str, ...]:
    """A warning for each colour image whose colour the fused one does not carry."""
    kept = TASKS[pipeline.task].colour
    return tuple(
        f"{image.path}: a colour image as {role}; its brightness alone was fused"
        for role, image in zip(pipeline.roles, images, strict=True)
        if role != kept and image.is_colour
    )


def _colour_source(task: str, pair: ImagePair) -> Image2D | None:
    """The image that gives the fused one its colour: the reference, or the last of the task."""
    colour = TASKS[task].colour
    image = pair[0] if colour == TASKS[task].reference else pair[-1]
    return image if colour is not None and image.is_colour else None


def _restore_colour(grey: torch.Tensor, colour: Image2D | None) -> Pixels:
    """A fused slice (rows, columns) in 0..1 as 8 bits, with the hue of ``colour`` if any."""
    if colour is None:
        return to_uint8(grey.numpy())
    rgb = torch.from_numpy(colour.pixels).movedim(-1, 0).float() / 255  # (3, rows, columns)
    yuv = rgb_to_yuv(rgb)
    return to_uint8(restore_colour(grey[None], yuv[1:2], yuv[2:3]).movedim(0, -1).numpy())


def _metrics(fused: Pixels, images: Images) -> dict[str, float]:
    """The metrics of the fused image with the first and the last as A and B, as of volumes.

    None where it is smaller than the window of SSIM.
    """
    if min(fused.shape[:2]) < SSIM_WINDOW:
        return {}
    return evaluate(grey_of(fused), images[0].grey, images[-1].grey)
