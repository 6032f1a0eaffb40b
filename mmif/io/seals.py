"""What a file says of itself: that mmif wrote it, and a checksum by which an edit is seen.

A seal is the sha256 of all else that the file says, so a copy keeps it and an editor breaks it. It
shows an edit, not a forger: whoever wants to can make a new one.
"""

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

JSON_SEAL = "seal"
MARK = "mmif"
"""What pictures name as the software that made them; 0.1 wrote no more than that."""
MOST_BYTES = 64 << 20
"""Bytes of a text that are looked at; a summary of 1,000 slices has 0.4 MB."""

_LINE = re.compile(r"[#%] mmif sha256 ([0-9a-f]{64})")
_PICTURE = re.compile(rf"{MARK} sha256 ([0-9a-f]{{64}})")
_BMP_RESERVED = slice(6, 10)  # bfReserved1 and 2 of BITMAPFILEHEADER: the writer's own to use


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(content: Mapping[str, Any], seal: str = JSON_SEAL) -> str:
    """The sha256 of all keys and values but that of ``seal``, whatever their order."""
    rest = {key: value for key, value in content.items() if key != seal}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed_json(content: Mapping[str, Any]) -> str:
    """``content`` as a JSON text with its seal; numbers that are not finite are refused.

    >>> is_sealed_json(sealed_json({"mmif_version": "0"}))
    True
    >>> is_sealed_json(sealed_json({"mmif_version": "0"}).replace("0", "1", 1))
    False
    """
    plain = json.loads(json.dumps(content, allow_nan=False))  # as it is read: tuples are lists
    return json.dumps({**plain, JSON_SEAL: content_sha256(plain)}, indent=2) + "\n"


def is_sealed_json(text: str) -> bool:
    """Whether a text is mmif's JSON, unchanged; 0.1 wrote its version and no seal."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(content, dict) or "mmif_version" not in content:
        return False
    return JSON_SEAL not in content or content[JSON_SEAL] == content_sha256(content)


def seal_lines(lines: Sequence[str], comment: str, at: int = 0) -> list[str]:
    """``lines`` with one more, a comment that seals the others.

    Args:
        lines: without their ends.
        comment: ``#`` or ``%``.
        at: the index of the new line.
    """
    return [*lines[:at], f"{comment} mmif sha256 {_lines_sha256(lines)}", *lines[at:]]


def is_sealed_text(text: str) -> bool:
    """Whether a text holds one line of `seal_lines`, true of all its others."""
    lines = text.split("\n")
    seals = [(k, found[1]) for k, line in enumerate(lines) if (found := _LINE.fullmatch(line))]
    if len(seals) != 1:
        return False
    ((at, said),) = seals
    rest = [*lines[:at], *lines[at + 1 :]]
    return rest[-1] == "" and _lines_sha256(rest[:-1]) == said


def _lines_sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def save_sealed(pixels: "npt.NDArray[np.uint8]", path: Path, jpeg_quality: int) -> None:
    """Write 8-bit ``pixels``, (rows, columns[, 3]), to ``path`` in the format that its ending says.

    PNG, JPEG and TIFF name mmif and a seal of their pixels as what made them; BMP has four bytes
    for its writer, and they hold a CRC-32.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image, suffix = Image.fromarray(pixels), path.suffix.lower()
    if suffix in {".jpg", ".jpeg"}:
        options: dict[str, Any] = {"quality": jpeg_quality, "subsampling": 0}
        image.save(packed := BytesIO(), format="JPEG", **options)
        with Image.open(packed) as decoded:
            image.save(path, comment=_picture_seal(decoded), **options)
    elif suffix in {".tif", ".tiff"}:
        image.save(path, software=_picture_seal(image))
    elif suffix == ".png":
        software = PngInfo()
        software.add_text("Software", _picture_seal(image))
        image.save(path, pnginfo=software)
    else:
        image.save(packed := BytesIO(), format="BMP")
        path.write_bytes(_sealed_bmp(packed.getvalue()))


def is_sealed_picture(path: Path) -> bool:
    """Whether `save_sealed` wrote the picture at ``path``, and nobody has changed its pixels."""
    from PIL import Image

    if path.suffix.lower() == ".bmp":
        content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
        return content[:2] == b"BM" and content == _sealed_bmp(content)
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            tags = getattr(image, "tag_v2", {})
            said = [image.info.get("Software"), image.info.get("comment"), tags.get(305)]
            texts = [s.decode("latin-1") if isinstance(s, bytes) else s for s in said]
            found = next((text for text in texts if isinstance(text, str)), "")
            return found == MARK or (
                _PICTURE.fullmatch(found) is not None and found == _picture_seal(image)
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _picture_seal(image: "Image") -> str:
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return f"{MARK} sha256 {digest.hexdigest()}"


def _sealed_bmp(content: bytes) -> bytes:
    """A BMP file with the CRC-32 of mmif's mark and all its other bytes where it has room."""
    start, end = content[: _BMP_RESERVED.start], content[_BMP_RESERVED.stop :]
    return start + struct.pack("<I", zlib.crc32(MARK.encode() + start + end)) + end
