"""Spatial Registration objects (PS3.3 A.39.1): a rigid transform between two frames."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.uid import SpatialRegistrationStorage
from pydicom.valuerep import DSfloat, format_number_as_ds

from mmif.errors import GeometryError, InputError
from mmif.geometry import Alignment, Matrix, check_rigid
from mmif.io.dicom.read.frames import sop_class_name
from mmif.io.dicom.read.headers import header_errors, read_header
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.elements import encode, write_elements
from mmif.io.dicom.write.header import (
    code,
    content_elements,
    dates_of_making,
    frame_of_reference,
    frame_uid,
    header_warnings,
    series_elements,
)
from mmif.io.dicom.write.references import (
    encode_instances,
    image_references,
    instance_reference,
    referable,
)
from mmif.io.files import detect_format
from mmif.io.source import Source

SAME_FRAME = ("125021", "DCM", "Frame of Reference Identity")
WORDS: Mapping[Alignment, str] = {
    "searched": "Rigid registration by mutual information",
    "headers": "Not searched: the pose of the headers",
    "given": "Rigid transform given, not searched",
}
# PS3.16 CID 7100 has no word for a transform that was given: its type 2 sequence stays empty
TYPES: Mapping[Alignment, tuple[str, str, str] | None] = {
    "searched": ("125024", "DCM", "Image Content-based Alignment"),
    "headers": SAME_FRAME,
    "given": None,
}


def write_spatial_registration(path: Path, recipe: DerivedSeries) -> tuple[str, ...]:
    """Writes ``recipe.fixed_to_moving_lps`` as the object ``path``; what must be warned of.

    The frame of reference of the object is that of ``recipe.reference`` (identity); the matrix of
    ``recipe.others[0]`` carries its points there, as PS3.3 C.20.2.1.1 has it: moving to fixed.

    Raises:
        GeometryError: the matrix is missing, or not rigid.
        OutputError: the file cannot be written.
    """
    if recipe.fixed_to_moving_lps is None or not recipe.others:
        raise GeometryError(f"{path}: no transform to write; expected one, and a moving source")
    matrix = check_rigid(recipe.fixed_to_moving_lps, str(path))
    fixed, moving = recipe.reference, recipe.others[0]
    to_fixed = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    ds = _header(recipe)
    ds.SOPInstanceUID = recipe.uid("registration", recipe.alignment, matrix.round(9).tolist())
    ds.RegistrationSequence = Sequence(
        [
            _registration_item(fixed, np.eye(4), SAME_FRAME),
            _registration_item(moving, to_fixed, TYPES[recipe.alignment]),
        ]
    )
    referred = [*image_references(fixed), *image_references(moving)]
    references = encode_instances(referred, ds.StudyInstanceUID)
    write_elements({**encode(ds), **references}, path)
    return header_warnings(recipe)


def _header(recipe: DerivedSeries) -> Dataset:
    """Everything of the object but the matrices and the references."""
    uid = recipe.uid("registration series")
    ds = series_elements(recipe, "REG", "registration", uid, "mmif registration")
    ds.update(frame_of_reference(recipe.reference))
    ds.update(dates_of_making(recipe, "Content"))
    ds.update(content_elements("REGISTRATION", WORDS[recipe.alignment]))
    ds.SOPClassUID = SpatialRegistrationStorage
    return ds


def _registration_item(
    source: Source, to_fixed_lps: Matrix, how: tuple[str, str, str] | None
) -> Dataset:
    """One item of RegistrationSequence: the frame and images of ``source``, and their matrix."""
    matrix = Dataset()
    matrix.FrameOfReferenceTransformationMatrixType = "RIGID"
    matrix.FrameOfReferenceTransformationMatrix = [_exact(v) for v in to_fixed_lps.ravel()]
    step = Dataset()
    step.MatrixSequence = Sequence([matrix])
    step.RegistrationTypeCodeSequence = code(*how) if how else Sequence()
    item = Dataset()
    item.FrameOfReferenceUID = frame_uid(source)
    item.ReferencedImageSequence = Sequence(map(instance_reference, referable(source)))
    item.MatrixRegistrationSequence = Sequence([step])
    return item


def _exact(value: float) -> DSfloat:
    """``value`` as a decimal string with all the digits that 16 characters hold."""
    return DSfloat(format_number_as_ds(float(value) if abs(value) > 1e-12 else 0.0))


def read_spatial_registration(
    path: Path, fixed: Source | None = None, moving: Source | None = None
) -> Matrix:
    """The rigid transform, fixed point to moving point in LPS mm, of the object in ``path``.

    The items of ``fixed`` and ``moving`` are found by the images they refer to, or else by frame
    of reference; a source that the object does not name, while it is the object's own frame, has
    the identity.

    Raises:
        InputError: not a Spatial Registration object, or one of other images, or an ambiguous one.
        GeometryError: a matrix is not rigid.
    """
    with header_errors(str(path)):
        ds = _open(path)
        if fixed is None or moving is None:
            raise InputError(
                f"{path}: a DICOM registration needs both images, to know its direction"
            )
        to_registered = [_to_registered(ds, source, path) for source in (fixed, moving)]
    return check_rigid(np.linalg.inv(to_registered[1]) @ to_registered[0], str(path))


def _open(path: Path) -> Dataset:
    if detect_format(path) != "dicom":
        raise InputError(f"{path}: not readable as a DICOM file")
    ds = read_header(path).dataset
    if ds.get("SOPClassUID") != SpatialRegistrationStorage:
        raise InputError(
            f"{path}: found {sop_class_name(ds)}, expected a Spatial Registration object"
        )
    return ds


def _to_registered(ds: Dataset, source: Source, path: Path) -> Matrix:
    """The matrix that carries points of ``source`` into the object's registered frame."""
    items = list(ds.get("RegistrationSequence") or [])
    headers = () if source.moved else source.headers
    instances = {str(header.get("SOPInstanceUID")) for header in headers} - {"None"}
    frame = frame_uid(source)
    found = [item for item in items if _images(item) & instances]
    found = found or [item for item in items if item.get("FrameOfReferenceUID") == frame]
    matrices = [_compose(item, path) for item in found]
    if not matrices and ds.get("FrameOfReferenceUID") == frame:
        return np.eye(4)
    if not matrices or any(not np.allclose(m, matrices[0], atol=1e-6) for m in matrices):
        what = f"{len(matrices)} different matrices" if matrices else "no matrix"
        raise InputError(
            f"{path}: found {what} for {source.path} (its images and frame of reference), "
            "expected one"
        )
    return matrices[0]


def _images(item: Dataset) -> set[str]:
    """The SOPInstanceUIDs that an item of RegistrationSequence refers to."""
    return {
        str(i.get("ReferencedSOPInstanceUID")) for i in item.get("ReferencedImageSequence") or []
    }


def _compose(item: Dataset, path: Path) -> Matrix:
    """The product of the matrices of an item; the first in the sequence is applied first."""
    total = np.eye(4)
    for step in item.get("MatrixRegistrationSequence") or []:
        for entry in step.get("MatrixSequence") or []:
            try:
                values = np.asarray(entry.FrameOfReferenceTransformationMatrix, dtype=np.float64)
                total = check_rigid(values.reshape(4, 4), str(path)) @ total
            except (AttributeError, ValueError, TypeError) as error:
                raise InputError(
                    f"{path}: a matrix is not readable, expected 16 numbers"
                ) from error
    return total
