"""What NIfTI headers say, and how far the file bears them out; neither torch nor MONAI is needed.

The sform wins over a qform that disagrees; a file without orientation is refused.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError, InputError, MmifError
from mmif.geometry import Matrix, apply, spacing_mm
from mmif.io.checks import MAX_VOXELS, check_unpacked
from mmif.io.dicom.read.headers import one_line, quiet

Header = Any  # nibabel.Nifti1Header or Nifti2Header; nibabel has no types

CHUNK_BYTES = 1 << 24  # read at once, so that a file cut short takes no memory for its claim

DISAGREEMENT_MM = 0.1
"""Corners that sform and qform put further apart are said aloud."""

# Xyzt_units, bits 0 to 2 (nifti1.h): unknown, metre, millimetre, micron
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metres", 3: "microns"}  # those that are said aloud
# Datatype codes (nifti1.h)
_RGB24 = 128
# Integers and floats of nifti1.h that NumPy has; no complex ones
_GREY_CODES = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}


@dataclass(frozen=True)
class NiftiInfo:
    """What a NIfTI header says, checked.

    Attributes:
        path: the file that was named.
        shape: voxels along i, j, k.
        frames: volumes in the file.
        affine_ras: voxel to RAS mm.
        colour: RGB24.
        warnings: what was noticed, in words.
        header: nibabel's header.
    """

    path: Path
    shape: tuple[int, int, int]
    frames: int
    affine_ras: Matrix
    colour: bool
    warnings: tuple[str, ...]
    header: Header


def nifti_info(path: Path) -> NiftiInfo:
    """What the header of a NIfTI file says.

    Raises:
        MmifError: it is no NIfTI, says impossible things, or has no orientation.
    """
    with nifti_errors(path):
        header = _header(path)
        shape, frames = _shape(header, path)
        code = int(header["datatype"])
        if code not in _GREY_CODES | {_RGB24}:
            raise InputError(f"{path}: data type code {code}; expected real numbers or RGB24")
        affine, notes = _affine(header, shape, path)
    notes = (*_naming_notes(path), *notes)
    return NiftiInfo(path, shape, frames, affine, code == _RGB24, notes, header)


@contextmanager
def nifti_errors(path: Path) -> Iterator[None]:
    """Turns whatever a foreign parser raises over ``path`` into one InputError line."""
    try:
        with quiet:
            yield
    except MmifError:
        raise
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: truncated or broken ({one_line(error)})") from error
    except Exception as error:
        raise InputError(f"{path}: not readable as NIfTI ({one_line(error)})") from error


def is_packed(path: Path) -> bool:
    """Whether the content of a file is gzip, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def open_nifti(path: Path) -> Iterator[BinaryIO]:
    """``path`` for reading, unpacked if its content is gzip."""
    with gzip.open(path) if is_packed(path) else path.open("rb") as file:
        yield cast(BinaryIO, file)


def read_values(
    path: Path, start: int, count: int, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], int]:
    """``count`` stored values from byte ``start`` of what ``path`` holds, unpacked; and the rest.

    The rest are the bytes behind them. Of a packed file they are read as well, since gzip's
    checksum stands at the end. Memory is taken only as bytes come.

    Raises:
        InputError: there are fewer, they are damaged, or far more than images unpack to.
    """
    size, packed, held = count * dtype.itemsize, is_packed(path), path.stat().st_size
    if packed:
        check_unpacked(start + size, held, str(path))
    data = bytearray()
    with open_nifti(path) as file:
        file.seek(start)
        while len(data) < size and (chunk := file.read(min(size - len(data), CHUNK_BYTES))):
            data += chunk
        rest = 0 if packed else max(held - start - size, 0)
        while packed and (chunk := file.read(CHUNK_BYTES)):
            rest += len(chunk)
            check_unpacked(start + size + rest, held, str(path))
    if len(data) < size:
        raise InputError(f"{path}: {len(data)} bytes of voxels; expected {size} (truncated)")
    return np.frombuffer(data, dtype=dtype), rest


def _naming_notes(path: Path) -> tuple[str, ...]:
    """A note where the name says gzip and the content does not, or the other way round."""
    packed = is_packed(path)
    if packed == path.name.lower().endswith(".gz"):
        return ()
    return (f"the content is {'' if packed else 'not '}gzip, unlike its name says; read as it is",)


def _header(path: Path) -> Header:
    """The header, in whichever version and byte order."""
    with open_nifti(path) as file:
        block = file.read(540)
    if block[4:8] in {b"n+2\0", b"ni2\0"} and len(block) == 540:
        return nib.Nifti2Header(block, check=False)
    if len(block) >= 348 and block[344:348] in {b"n+1\0", b"ni1\0"}:
        return nib.Nifti1Header(block[:348], check=False)
    if block[:4] in {b"\x5c\x01\0\0", b"\0\0\x01\x5c"}:
        raise InputError(f"{path}: Analyze 7.5, which has no orientation; expected NIfTI")
    raise InputError(f"{path}: no NIfTI header (truncated or another format)")


def _shape(header: Header, path: Path) -> tuple[tuple[int, int, int], int]:
    """Voxels along i, j, k, and the number of volumes."""
    dims = [int(d) for d in header["dim"]]
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise InputError(f"{path}: dimensions {dims}; expected 1 to 7 positive ones")
    sizes = dims[1 : dims[0] + 1] + [1] * (7 - dims[0])
    if math.prod(sizes[:3]) > MAX_VOXELS:
        raise InputError(f"{path}: claims {math.prod(sizes[:3])} voxels; expected at most 2^30")
    return (sizes[0], sizes[1], sizes[2]), math.prod(sizes[3:])


def _affine(
    header: Header, shape: tuple[int, int, int], path: Path
) -> tuple[Matrix, tuple[str, ...]]:
    """Voxel to RAS mm: the sform if valid, else the qform; and what was noticed."""
    sform, qform = _valid(header, "sform"), _valid(header, "qform")
    notes: tuple[str, ...] = ()
    if sform is None and qform is None:
        codes = f"sform code {int(header['sform_code'])}, qform code {int(header['qform_code'])}"
        raise GeometryError(f"{path}: no valid orientation ({codes}); expected a valid sform")
    if sform is None and int(header["sform_code"]) > 0:
        notes += ("the sform is not valid; the qform is used",)
    # tools write the identity where nobody set an sform; pixdim then tells it from a real one
    if sform is not None and _is_never_set(sform, header):
        if qform is None:
            steps = " x ".join(f"{float(step):g}" for step in header["pixdim"][1:4])
            raise GeometryError(
                f"{path}: the sform is the identity, pixdim says {steps}, and there is no valid "
                "qform; expected an orientation that fits its spacing"
            )
        notes += ("the sform is the identity and does not fit pixdim; the qform is used",)
        sform = None
    elif sform is not None and (steps := _other_steps(sform, header)):
        notes += (f"the sform has steps of {steps}; the sform is used",)
    affine = sform if sform is not None else cast(Matrix, qform)
    unit = int(header["xyzt_units"]) & 7
    scale = _MM_PER_UNIT.get(unit, 1.0)
    scaled = np.diag([scale, scale, scale, 1.0]) @ affine
    if unit in _UNIT_NAMES:
        notes += (f"lengths are in {_UNIT_NAMES[unit]}; converted to mm",)
    # both valid: ITK and most viewers take one of the two, so their difference is said
    if sform is not None and qform is not None:
        apart = scale * _apart_mm(sform, qform, shape)
        if apart > DISAGREEMENT_MM:
            notes += (f"sform and qform disagree by up to {apart:.1f} mm; the sform is used",)
    return scaled, notes


def _valid(header: Header, form: str) -> Matrix | None:
    """The sform or qform of a header; None where it is not set, not finite or singular."""
    if int(header[f"{form}_code"]) <= 0:
        return None
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # as the standard reads a 0
    try:
        affine = header.get_sform() if form == "sform" else header.get_qform()
    except Exception:  # nibabel raises its own and numpy's errors on broken quaternions
        return None
    matrix = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 1e6:
        return None
    return matrix if min(spacing_mm(matrix)) > 0 and _is_invertible(matrix) else None


def _is_never_set(sform: Matrix, header: Header) -> bool:
    """Whether an sform is the identity that software writes by default, against pixdim.

    One that was moved, or mirrored along an axis, still has no step of its own.
    """
    steps = _pixdim(header)
    return bool(
        np.allclose(np.abs(sform[:3, :3]), np.eye(3), atol=1e-3)
        and steps is not None
        and np.abs(steps - 1).max() > 0.01
    )


def _other_steps(sform: Matrix, header: Header) -> str:
    """The steps of an sform and those of pixdim in words, where they differ by 1 % and more."""
    steps = _pixdim(header)
    if steps is None or np.allclose(spacing_mm(sform), steps, rtol=0.01):
        return ""
    own = " x ".join(f"{step:.4g}" for step in spacing_mm(sform))
    return f"{own} and pixdim says {' x '.join(f'{step:.4g}' for step in steps)}"


def _pixdim(header: Header) -> npt.NDArray[np.float64] | None:
    """The three steps of pixdim; None where they are not told."""
    steps = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    return steps if np.isfinite(steps).all() and bool((steps > 0).all()) else None


def _is_invertible(matrix: Matrix) -> bool:
    """Whether the three axes span space, with at least 6 degrees between an axis and a plane."""
    return abs(float(np.linalg.det(matrix[:3, :3] / spacing_mm(matrix)))) > 0.1


def _apart_mm(a: Matrix, b: Matrix, shape: tuple[int, int, int]) -> float:
    """The largest distance between corners placed by two affines."""
    bits = np.array([[(n >> bit) & 1 for bit in range(3)] for n in range(8)])
    corners = bits * (np.array(shape) - 1)
    return float(np.linalg.norm(apply(a, corners) - apply(b, corners), axis=1).max())
