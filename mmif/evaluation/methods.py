"""What is scored: weights, folders of fused images, and the baselines, all as one type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmif.errors import InputError
from mmif.evaluation.baselines import BASELINES, Stack
from mmif.images import ImagePair, fuse_pixels, last_pair
from mmif.io.images import Pixels, check_same_size, read_image
from mmif.studies.slice_files import SliceFiles, image_files, read_slices
from mmif.weights import Weights


@dataclass(frozen=True, eq=False)
class LoadedPair:
    """A registered pair in memory: (anatomical, other), two images of one size."""

    files: SliceFiles
    images: ImagePair


@dataclass(frozen=True, eq=False)
class Method:
    """A way to fuse pairs.

    Attributes:
        name: its row in the table.
        fuse: pairs to their fused 8-bit images, (rows, columns) grey or with 3 colours.
        is_baseline: one of the three simple rules.
    """

    name: str
    fuse: Callable[[Sequence[LoadedPair]], list[Pixels]]
    is_baseline: bool = False


def load_pair(files: SliceFiles, grey: Weights | None = None) -> LoadedPair:
    """Both images of a pair; of three images those of the second pass.

    Args:
        files: of two images, or of three.
        grey: of three, the weights that fuse the grey ones in the first pass.

    Raises:
        InputError: one cannot be used, or they differ in size, or are too small to be scored.
    """
    return LoadedPair(files, last_pair(read_slices(files), grey))


def weights_method(weights: Weights, device: str = "auto", batch: int = 8) -> Method:
    """What the network of ``weights`` makes of the pairs, colour included.

    In fp32, so that the scores are the same on every processor.
    """

    def fuse(pairs: Sequence[LoadedPair]) -> list[Pixels]:
        images = [pair.images for pair in pairs]
        network, task = weights.network, weights.task
        fused, _ = fuse_pixels(network, task, images, device=device, precision="fp32", batch=batch)
        return fused

    return Method(f"mmif {weights.name}", fuse)


def folder_method(name: str, folder: Path, pairs: Sequence[SliceFiles]) -> Method:
    """The fused images in ``folder``, named as the pairs but for the ending.

    Args:
        name: its row in the table.
        folder: at least one image for each of the pairs.
        pairs: those that will be scored.

    Raises:
        InputError: no such folder, no images in it, or none for one of the pairs.
    """
    fused: dict[str, Path] = {}
    for path in image_files(folder).values():
        if path.stem in fused:
            raise InputError(f"{path}: found {fused[path.stem].name} too, expected one of them")
        fused[path.stem] = path
    if not fused:
        raise InputError(
            f"{folder}: found no images, expected the fused ones of {len(pairs)} pairs"
        )
    missing = [pair.name for pair in pairs if Path(pair.name).stem not in fused]
    if missing:
        raise InputError(
            f"{folder}: found no fused image for {missing[0]} ({len(missing)} of {len(pairs)} are"
            " missing); expected one of each name, or fewer cases by --cases"
        )
    return Method(name, partial(_read_fused, fused))


def baseline_methods() -> list[Method]:
    """The three simple rules, on the brightness of the sources."""
    return [
        Method(name, partial(_apply_rule, rule), is_baseline=True)
        for name, rule in BASELINES.items()
    ]


def _read_fused(fused: dict[str, Path], pairs: Sequence[LoadedPair]) -> list[Pixels]:
    images = [read_image(fused[Path(pair.files.name).stem]) for pair in pairs]
    for image, pair in zip(images, pairs, strict=True):
        check_same_size(pair.images[0], image)
    return [image.pixels for image in images]


def _apply_rule(rule: Callable[[Stack, Stack], Stack], pairs: Sequence[LoadedPair]) -> list[Pixels]:
    return [rule(pair.images[0].grey, pair.images[1].grey) for pair in pairs]
