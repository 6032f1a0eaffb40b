"""Two-dimensional images in files: 8-bit grey or RGB, read and written by Pillow."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mmif.errors import InputError, OutputError
from mmif.io.atomic import staging_path
from mmif.io.ownership import refuse_existing
from mmif.io.seals import save_sealed
from mmif.metrics import luminance

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# The most that Pillow's handbook advises; above it files grow for nothing
JPEG_QUALITY = 95
MAX_PIXELS = 1 << 26
"""Of one image: 64 Mi are 8192 x 8192, and fused they take about 5 GB; a file of 0.2 MB can say
more. Pillow itself warns from 85 Mi on."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""All that Pillow may open: others start interpreters (EPS) or follow their own rules."""


@dataclass(frozen=True, eq=False)
class Image2D:
    """One image and the file it came from.

    Attributes:
        path: the file.
        format: PNG, JPEG, TIFF, BMP ...
        pixels: (rows, columns) grey or (rows, columns, 3) RGB, uint8.
    """

    path: Path
    format: str
    pixels: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.pixels.shape[:2]
        return rows, columns

    @property
    def is_colour(self) -> bool:
        """Whether any pixel is not grey; an RGB file may hold a grey image."""
        p = self.pixels
        return p.ndim == 3 and bool((p[..., :1] != p[..., 1:]).any())

    @property
    def grey(self) -> Pixels:
        """(rows, columns): the image itself, or Y of its colours."""
        return grey_of(self.pixels)


def grey_of(pixels: Pixels) -> Pixels:
    """(rows, columns) of grey or RGB ``pixels``: themselves, or their Y."""
    return luminance(pixels) if pixels.ndim == 3 else pixels


def read_image(path: Path) -> Image2D:
    """The 8-bit grey or RGB image in ``path``, turned upright where its EXIF data says so.

    Raises:
        InputError: missing, corrupt, cut off, more than one page, with transparency, or not of
            8 bits a channel.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"{path}: found {found}, expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            opened = Image.open(path, formats=FORMATS)
        with opened as image:
            _check(image, path)
            name = image.format or "unknown"
            upright = ImageOps.exif_transpose(image)
            pixels = np.array(upright if upright.mode == "L" else upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a readable image; expected PNG, JPEG or TIFF") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error})") from error
    return Image2D(path, name, pixels)


def check_same_size(*images: Image2D) -> None:
    """Nothing, where all images have as many rows and columns.

    Raises:
        InputError: otherwise, naming the first that differs.
    """
    first = images[0]
    for image in images[1:]:
        if image.size != first.size:
            raise InputError(
                f"{image.path}: found {_words(image)} pixels, expected {_words(first)} as in"
                f" {first.path}"
            )


def check_image_output(path: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Nothing, where `write_image` can be asked to write ``path``.

    Raises:
        OutputError: its ending names no image format, it exists and ``overwrite`` is False, or it
            is one of the ``inputs``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: expected an image's ending, one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of an image file")
    refuse_existing(path, overwrite=overwrite, inputs=inputs)


def write_image(pixels: Pixels, path: Path, *, overwrite: bool = False) -> None:
    """Write (rows, columns) grey or (rows, columns, 3) RGB uint8 ``pixels``, whole or not at all.

    The ending of ``path`` names the format. JPEG is not exact: an empty background stays black
    only in the others.

    Raises:
        OutputError: no known ending, an existing file, or the system refuses.
    """
    check_image_output(path, overwrite=overwrite)
    with staging_path(path) as staged:
        save_pixels(pixels, staged)


def save_pixels(pixels: Pixels, path: Path) -> None:
    """Write ``pixels`` straight to ``path``, for callers that publish a whole folder.

    The file names mmif as its software.
    """
    save_sealed(pixels, path, JPEG_QUALITY)


def _check(image: Image.Image, path: Path) -> None:
    """Refuse what would lose something as 8-bit grey or RGB, or is too large."""
    columns, rows = image.size
    if columns * rows > MAX_PIXELS:
        raise InputError(
            f"{path}: found {rows} x {columns} pixels, expected at most {MAX_PIXELS >> 20} Mi"
        )
    pages = getattr(image, "n_frames", 1)
    if pages != 1:
        raise InputError(f"{path}: found {pages} pages, expected one image")
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if deep or image.mode.startswith(("I", "F")):
        raise InputError(
            f"{path}: found more than 8 bits a channel, expected an 8-bit grey or RGB image"
        )
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        raise InputError(
            f"{path}: found transparency ({image.mode}), expected an 8-bit grey or RGB image"
        )
    if image.mode not in {"L", "RGB", "P"}:
        raise InputError(
            f"{path}: found an image of mode {image.mode}, expected an 8-bit grey or RGB image"
        )


def _words(image: Image2D) -> str:
    return " x ".join(map(str, image.size))
