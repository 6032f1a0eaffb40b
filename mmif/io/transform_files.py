"""Rigid transforms in files: ITK transform files, and DICOM Spatial Registration objects."""

from pathlib import Path
from subprocess import DEVNULL, SubprocessError, run

import numpy as np
import SimpleITK as sitk

from mmif.errors import GeometryError, InputError
from mmif.geometry import Matrix, check_rigid
from mmif.io.atomic import private_folder
from mmif.io.dicom.write.registration import read_spatial_registration
from mmif.io.files import text_of
from mmif.io.nifti.writer import disk_errors
from mmif.io.seals import seal_lines
from mmif.io.source import Source

_TEXT_SUFFIXES = (".tfm", ".txt")
ITK_SUFFIXES = (*_TEXT_SUFFIXES, ".h5", ".hdf5")

_CONVERSION = (
    "import SimpleITK; SimpleITK.WriteTransform(SimpleITK.ReadTransform(sys.argv[1]), sys.argv[2])"
)
# One small file in another process; chosen, not measured
_CONVERSION_S = 60

MAX_TEXT_BYTES = 1 << 20
"""Bytes of a transform file in text; a rigid transform takes about 200."""


def write_itk_transform(path: Path, fixed_to_moving_lps: Matrix) -> Path:
    """The ITK transform file ``path``: a fixed point to the same moving point, in LPS mm.

    It is what SimpleITK, ANTs, elastix and 3D Slicer read; the Euler angles are about the origin.

    Raises:
        GeometryError: the matrix is not rigid.
        OutputError: the file cannot be written.
    """
    matrix = check_rigid(fixed_to_moving_lps, str(path))
    angles = sitk.Euler3DTransform()
    angles.SetMatrix(_orthonormal(matrix[:3, :3]).ravel().tolist(), 1e-6)
    parameters = (*angles.GetParameters()[:3], *matrix[:3, 3])
    lines = [
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: Euler3DTransform_double_3_3",
        "Parameters: " + " ".join(format(float(value), ".17g") for value in parameters),
        "FixedParameters: 0 0 0 0",
    ]
    with disk_errors(path):  # ITK's reader skips lines that begin with #
        path.write_text("\n".join(seal_lines(lines, "#", at=1)) + "\n", encoding="ascii")
    return path


def read_transform(path: Path, fixed: Source | None = None, moving: Source | None = None) -> Matrix:
    """The rigid transform in ``path``, fixed point to moving point in LPS mm, as a 4x4 matrix.

    ``.tfm``, ``.txt`` and ``.h5`` are ITK transform files, taken as fixed to moving. Any other
    file is read as a DICOM Spatial Registration object, whose direction follows from the frames
    of reference of ``fixed`` and ``moving``.

    Raises:
        InputError: the file is missing, unreadable, or of other images.
        GeometryError: the transform is not rigid.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such transform file")
    if path.suffix.lower() not in ITK_SUFFIXES:
        return read_spatial_registration(path, fixed, moving)
    try:
        text = path.suffix.lower() in _TEXT_SUFFIXES
        transform = _parse(path) if text else _parse_hdf5(path)
    except (RuntimeError, ValueError, OSError, SubprocessError) as error:
        raise InputError(f"{path}: not readable as an ITK transform file") from error
    return check_rigid(_matrix(transform, path), str(path))


def _parse_hdf5(path: Path) -> sitk.Transform:
    """The transform in an HDF5 file, opened in a process of its own: damage crashes ITK there."""
    from mmif.startup import environment, isolated_command

    with private_folder() as folder:
        as_text = folder / "transform.tfm"
        command = isolated_command(_CONVERSION, str(path.absolute()), str(as_text))
        run(
            command,
            check=True,
            env=environment(threads=1),
            stdin=DEVNULL,
            capture_output=True,
            timeout=_CONVERSION_S,
        )
        return _parse(as_text)


def _parse(path: Path) -> sitk.Transform:
    """The transform in a text file."""
    with path.open("rb") as file:
        _check_text(file.read(MAX_TEXT_BYTES + 1))
    return sitk.ReadTransform(text_of(path))


def _check_text(content: bytes) -> None:
    """Refuse a text that is no list of transforms: ITK's parser never comes back from some.

    Raises:
        ValueError: a line of another kind, something that is no number, or far too much of it.
    """
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError("too long")
    for line in content.decode("ascii").splitlines():
        name, _, values = line.partition(":")
        if name in {"Parameters", "FixedParameters"}:
            list(map(float, values.split()))
        elif line.strip() and not line.startswith("#") and name != "Transform":
            raise ValueError("neither a transform nor its parameters")


def _matrix(transform: sitk.Transform, path: Path) -> Matrix:
    """The 4x4 matrix of a linear ``transform``, from where it carries four points."""
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise GeometryError(
            f"{path}: found {transform.GetName()} in {transform.GetDimension()}-D, "
            "expected a rigid transform in 3-D"
        )
    origin = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
    axes = [np.asarray(transform.TransformPoint(tuple(e))) - origin for e in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(axes, axis=1)
    matrix[:3, 3] = origin
    return matrix


def _orthonormal(rotation: Matrix) -> Matrix:
    """The rotation nearest to ``rotation``, which may be off by rounding."""
    left, _, right = np.linalg.svd(rotation)
    return np.asarray(left @ right)
