"""The geometry of a NIfTI file: a qform in single precision, and an sform that agrees with it.

A qform keeps three numbers of a unit quaternion (b, c, d) and readers work out the fourth,
a = sqrt(1 - b^2 - c^2 - d^2). Near half a turn, where the axes of an axial DICOM lie, a is what
the rounding of the other three leaves over. So the three are chosen for the rotation that readers
make of them, never by turning the voxels.
"""

import itertools
from collections.abc import Iterator

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.quaternions import mat2quat, quat2mat

from mmif.geometry import Matrix, apply, spacing_mm

SCANNER = 1  # NIfTI-1 xform code: scanner-based anatomical coordinates
QFORM_ERROR_MM = 0.01
"""An sform repeats a qform that misses the geometry by less, at the corners of the volume."""

TAKEN_FOR_ZERO = (1e-7, 3 * float(np.finfo(np.float32).eps))
"""a^2 below which the NIfTI C library, and nibabel, read half a turn exactly."""

STEPS = range(-3, 4)  # single-precision neighbours of the largest component that are tried

Quaternion = npt.NDArray[np.float64]


def set_forms(image: nibabel.Nifti1Image, affine_ras: Matrix) -> None:
    """Writes ``affine_ras`` into both forms of ``image``, with code 1; the axes at right angles.

    The sform is what the qform holds wherever that misses ``affine_ras`` by less than
    ``QFORM_ERROR_MM``; else it is ``affine_ras`` itself, and the qform the nearest there is.
    """
    header = image.header
    image.set_qform(affine_ras, SCANNER)
    axes = affine_ras[:3, :3] / spacing_mm(affine_ras)
    axes[:, 2] *= float(header["pixdim"][0])
    lengths = np.asarray(image.shape[:3]) * spacing_mm(affine_ras)
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = _nearest(axes, lengths)
    held = image.get_qform()
    close = _corner_error_mm(held, affine_ras, image.shape) < QFORM_ERROR_MM
    image.set_sform(held if close else affine_ras, SCANNER)


def _corner_error_mm(found: Matrix, affine_ras: Matrix, shape: tuple[int, ...]) -> float:
    """By how much ``found`` misses ``affine_ras`` at the corners of a volume of ``shape``."""
    corners = list(itertools.product(*((0, size) for size in shape[:3])))
    misses = apply(found, corners) - apply(affine_ras, corners)
    return float(np.linalg.norm(misses, axis=1).max())


def _nearest(axes: Matrix, lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The (b, c, d) in single precision that readers turn into ``axes`` most nearly.

    ``lengths`` are the sides of the volume in mm: they weigh the errors of the three axes.
    """
    wanted = mat2quat(axes)
    candidates = list(_candidates(-wanted if wanted[0] < 0 else wanted))
    misses = [_miss_mm(candidate, axes, lengths) for candidate in candidates]
    return candidates[int(np.argmin(misses))]


def _candidates(wanted: Quaternion) -> Iterator[npt.NDArray[np.float32]]:
    """Roundings of ``wanted`` (a, b, c, d), and of the nearest one whose a no reader drops.

    Beside the plain rounding, the largest of the three takes each of its neighbours, and one of
    the other two what then makes the quaternion a unit one.
    """
    yield wanted[1:].astype(np.float32)
    largest, *others = np.argsort(-np.abs(wanted[1:]))
    for a in (wanted[0], 0.0, np.sqrt(1.02 * max(TAKEN_FOR_ZERO))):
        rest = wanted[1:] * np.sqrt((1 - a**2) / max(1 - wanted[0] ** 2, 1e-30))
        for step, solved in itertools.product(STEPS, others):
            bcd = rest.astype(np.float32)
            bcd[largest] += np.float32(step) * np.spacing(bcd[largest])
            kept = np.delete(bcd.astype(np.float64), solved)
            left = 1 - a**2 - kept @ kept
            yield bcd.copy()
            if left >= 0:
                bcd[solved] = np.copysign(np.sqrt(left), rest[solved])
                yield bcd


def _miss_mm(bcd: npt.NDArray[np.float32], axes: Matrix, lengths: npt.NDArray[np.float64]) -> float:
    """By how much readers of ``bcd`` miss ``axes`` at the far corner, at most; inf: unreadable."""
    x = bcd.astype(np.float64)
    left = 1 - x @ x
    if left <= -min(TAKEN_FOR_ZERO):
        return float("inf")
    read = ([0.0 if left < zero else np.sqrt(left), *x] for zero in TAKEN_FOR_ZERO)
    misses = ((quat2mat(quaternion) - axes) * lengths for quaternion in read)
    return max(float(np.linalg.norm(miss, axis=0).sum()) for miss in misses)
