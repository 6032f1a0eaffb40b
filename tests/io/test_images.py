"""Images in files: what is read, what is refused, and that nothing half-written is left."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmif.errors import InputError, OutputError
from mmif.io.images import check_same_size, read_image, write_image

GREY = np.arange(12 * 15, dtype=np.uint8).reshape(12, 15)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def deep_rgb_png() -> bytes:
    """A PNG of 16 bits a channel in colour, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 12, 12, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(12 * 6)) * 12
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".PNG"])
@pytest.mark.parametrize("pixels", [GREY, RGB])
def test_what_is_written_is_read_again(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    write_image(pixels, tmp_path / f"image{suffix}")
    image = read_image(tmp_path / f"image{suffix}")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.size == (12, 15)
    assert image.is_colour == (pixels.ndim == 3)
    assert [path.name for path in tmp_path.iterdir()] == [f"image{suffix}"]


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    write_image(smooth, tmp_path / "image.jpg")
    image = read_image(tmp_path / "image.jpg")
    assert image.format == "JPEG"
    assert np.abs(image.pixels.astype(int) - smooth).max() <= 3


def test_grey_in_an_rgb_file_is_not_colour(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "grey.png")
    image = read_image(tmp_path / "grey.png")
    assert not image.is_colour
    np.testing.assert_array_equal(image.grey, GREY)


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    Image.fromarray(RGB).quantize(256).save(tmp_path / "palette.png")
    image = read_image(tmp_path / "palette.png")
    assert image.pixels.shape == (12, 15, 3)
    assert image.is_colour


def test_a_picture_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png").pixels, np.rot90(GREY, -1))


def _write_bad(kind: str, path: Path) -> None:
    alpha = np.dstack([RGB, GREY])
    images = {
        "rgba": Image.fromarray(alpha),
        "grey and alpha": Image.fromarray(np.dstack([GREY, GREY])),
        "16-bit": Image.fromarray(GREY.astype(np.uint16) * 200),
        "1-bit": Image.fromarray(GREY > 40),
    }
    if kind in images:
        images[kind].save(path)
    elif kind == "transparent colour":
        Image.fromarray(RGB).save(path, transparency=(1, 2, 3))
    elif kind == "16-bit colour":
        path.write_bytes(deep_rgb_png())
    elif kind == "float":
        Image.fromarray(GREY.astype(np.float32)).save(path, format="TIFF")
    elif kind == "cmyk":
        Image.fromarray(RGB).convert("CMYK").save(path, format="TIFF")
    elif kind == "two pages":
        page = Image.fromarray(GREY)
        page.save(path, format="TIFF", save_all=True, append_images=[page])
    elif kind == "cut off":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)).save(
            path
        )
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "corrupt":
        Image.fromarray(GREY).save(path)
        data = bytearray(path.read_bytes())
        data[41:60] = bytes(19)
        path.write_bytes(bytes(data))
    elif kind == "text":
        path.write_text("this is no image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("rgba", "transparency"),
        ("grey and alpha", "transparency"),
        ("transparent colour", "transparency"),
        ("16-bit", "more than 8 bits"),
        ("16-bit colour", "more than 8 bits"),
        ("float", "more than 8 bits"),
        ("1-bit", "mode 1"),
        ("cmyk", "mode CMYK"),
        ("two pages", "found 2 pages"),
        ("cut off", "not a readable image"),
        ("corrupt", "not a readable image"),
        ("text", "not a readable image"),
        ("empty", "not a readable image"),
        ("folder", "found a folder"),
        ("missing", "found nothing"),
    ],
)
def test_what_would_lose_something_is_refused_in_one_line(
    tmp_path: Path, kind: str, reason: str
) -> None:
    path = tmp_path / "bad.png"
    _write_bad(kind, path)
    with pytest.raises(InputError, match=reason) as refusal:
        read_image(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_different_sizes_are_named(tmp_path: Path) -> None:
    write_image(GREY, tmp_path / "a.png")
    write_image(GREY[:, :9], tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: found 12 x 9 pixels, expected 12 x 15"):
        check_same_size(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    write_image(GREY, path)
    with pytest.raises(OutputError, match="exists"):
        write_image(RGB, path)
    assert not read_image(path).is_colour
    write_image(RGB, path, overwrite=True)
    assert read_image(path).is_colour


@pytest.mark.parametrize("name", ["fused", "fused.nii.gz", "fused.dcm"])
def test_an_unknown_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"expected an image's ending, one of \.png"):
        write_image(GREY, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        write_image(GREY, tmp_path / "deep" / "image.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".eps"])
@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "ICO", "PCX", "WEBP"])
def test_other_formats_are_not_opened_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str
) -> None:
    """Of these, EPS would start an interpreter (gs), the others code that nobody asked for."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = tmp_path / f"a{suffix}"
    if kind == "EPS":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n")
    else:
        Image.fromarray(GREY).save(path, kind)
    with pytest.raises(InputError, match="not a readable image"):
        read_image(path)
    assert not (tmp_path / "started").exists()


def test_a_small_file_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    """It has 169 million, in 0.2 MB; Pillow would take it with a warning."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    size = (13_000).to_bytes(4, "big") * 2
    pixels = chunk(b"IDAT", zlib.compress(bytes(13_001 * 16)))
    parts = (chunk(b"IHDR", size + bytes([8, 0, 0, 0, 0])), pixels, chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(InputError, match="found 13000 x 13000 pixels, expected at most 64 Mi"):
        read_image(tmp_path / "a.png")
