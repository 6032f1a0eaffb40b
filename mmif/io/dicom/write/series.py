"""Volumes into DICOM series that other software reads correctly.

One recipe (`~mmif.io.dicom.write.derived.DerivedSeries`) and one volume become one series in a
folder:
what all slices share is made once, each slice adds its place, its sources and its pixels.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import ImageWriter, MetaTensor
from pydicom import Dataset
from pydicom.uid import generate_uid

from mmif.errors import OutputError
from mmif.geometry import Grid, spacing_mm
from mmif.io.dicom.write.compression import SYNTAXES, pixel_elements
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.elements import encode, write_elements
from mmif.io.dicom.write.header import (
    code,
    copy_elements,
    dates_of_making,
    frame_of_reference,
    header_warnings,
    series_elements,
)
from mmif.io.dicom.write.iods import ObjectKind, object_kind
from mmif.io.dicom.write.multiframe import multiframe_elements
from mmif.io.dicom.write.planes import Planes, decimal, plane_elements, planes_of
from mmif.io.dicom.write.references import Contributions, encode_instances, encode_source_images
from mmif.io.nifti.writer import (
    NOT_FOR_DIAGNOSIS,
    affine_of,
    channel_first,
    disk_errors,
)
from mmif.io.source import SOURCE_KEY, Source, source_of

log = logging.getLogger(__name__)

LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def write_dicom_series(volume: MetaTensor, folder: Path, recipe: DerivedSeries) -> tuple[str, ...]:
    """Writes ``volume`` as a series into ``folder``, as ``recipe`` says; what must be warned of.

    The files are ``0001.dcm`` and on, in order along the normal of the slices.

    Args:
        volume: (1 or 3, X, Y, Z) with its affine to RAS mm, of any orientation. Fused values lie
            in 0..1, registered ones are physical; three channels are RGB in 0..1.
        folder: made if missing; files of the same names are replaced.
        recipe: what the volume was made from, and how.

    Raises:
        GeometryError: the axes of the volume are not at right angles.
        OutputError: another number of channels, or a file cannot be written.
    """
    voxels = volume.detach().cpu().numpy()
    if voxels.ndim != 4 or voxels.shape[0] not in (1, 3):
        raise OutputError(f"{folder}: found shape {voxels.shape}, expected (1 or 3, X, Y, Z)")
    planes = planes_of(Grid(voxels.shape[1:], np.asarray(volume.affine)), str(folder))
    kind = object_kind(planes.order_slices(voxels), recipe)
    recipe = recipe.with_pixels(kind.values.stack)
    shared = _shared_elements(kind, planes, recipe)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if kind.multiframe:
        elements = multiframe_elements(shared, kind, planes, recipe)
        write_elements(elements, folder / "0001.dcm", SYNTAXES[recipe.transfer_syntax])
    else:
        _write_slices(folder, shared, kind, planes, recipe)
    return header_warnings(recipe)


def write_aloud(volume: MetaTensor, folder: Path, recipe: DerivedSeries) -> None:
    """As `write_dicom_series`, for callers without a summary: warnings are logged."""
    for warning in write_dicom_series(volume, folder, recipe):
        log.warning("%s: %s", folder, warning)


def _shared_elements(kind: ObjectKind, planes: Planes, recipe: DerivedSeries) -> Dataset:
    """What all slices of the series have in common, without geometry and pixel data."""
    uid = recipe.uid("series", kind.sop_class_uid)
    ds = series_elements(recipe, kind.modality, recipe.kind, uid, recipe.description[:64])
    header = recipe.reference.headers[0] if recipe.reference.headers else Dataset()
    ds.update(copy_elements(header, ["PatientPosition"]))
    ds.setdefault("PatientPosition", "")
    ds.update(dates_of_making(recipe, "Content"))
    ds.update(frame_of_reference(recipe.reference))
    ds.update(_derivation_elements(kind, recipe))
    ds.update(_lossy_elements(recipe.sources))
    ds.update(kind.elements)
    ds.update(kind.values.elements)
    ds.SOPClassUID = kind.sop_class_uid
    ds.Rows, ds.Columns = planes.rows, planes.columns
    if kind.modality == "PT":
        ds.NumberOfSlices = len(planes.positions)
        del ds.PatientPosition  # the orientation codes of the PET stand for it (C.7.3.1.1.2)
    elif not kind.multiframe:
        ds.SpacingBetweenSlices = decimal(planes.slice_mm)
    return ds


def _derivation_elements(kind: ObjectKind, recipe: DerivedSeries) -> Dataset:
    """What says that these are derived images, from what and for what."""
    ds = Dataset()
    words = filter(None, (recipe.derivation, kind.values.meaning))
    ds.DerivationDescription = "; ".join(words)[:1024]
    ds.DerivationCodeSequence = code("113085", "DCM", "Spatial resampling")
    ds.BurnedInAnnotation = "NO"
    ds.RecognizableVisualFeatures = "YES"
    ds.ContentQualification = "RESEARCH"
    ds.ImageComments = NOT_FOR_DIAGNOSIS
    return ds


def _lossy_elements(sources: tuple[Source, ...]) -> Dataset:
    """LossyImageCompression, inherited from any source that went through it (C.7.6.1.1.5)."""
    ds = Dataset()
    ds.LossyImageCompression = "00"
    for source in sources:
        if source.headers and source.headers[0].get("LossyImageCompression") == "01":
            ds.LossyImageCompression = "01"
            ds.update(copy_elements(source.headers[0], LOSSY))
    return ds


def _write_slices(
    folder: Path, shared: Dataset, kind: ObjectKind, planes: Planes, recipe: DerivedSeries
) -> None:
    """One file a slice, in order along the normal."""
    to_headers = None if recipe.reference.moved else np.eye(4)
    images = [Contributions(recipe.reference, to_headers, recipe.locations_preserved)]
    transforms = [recipe.fixed_to_moving_lps, *[None] * len(recipe.others)]
    images += [Contributions(s, t) for s, t in zip(recipe.others, transforms, strict=False)]
    common, syntax = encode(shared), SYNTAXES[recipe.transfer_syntax]
    for index, pixels in enumerate(kind.values.stack):
        ds = plane_elements(planes, index)
        ds.SOPInstanceUID = recipe.uid("slice", kind.sop_class_uid, index)
        ds.InstanceNumber = index + 1
        if kind.modality == "PT":
            ds.ImageIndex = index + 1
        ds.update(pixel_elements(pixels, shared, recipe.transfer_syntax))
        used = [image for source in images for image in source.to(planes, index)]
        references = {
            **encode_source_images(used),
            **encode_instances(used, shared.StudyInstanceUID),
        }
        elements = {**common, **references, **encode(ds)}
        write_elements(elements, folder / f"{index + 1:04d}.dcm", syntax)


class DicomSeriesWriter(ImageWriter):  # type: ignore[misc]
    """MONAI's ``ImageWriter`` onto :func:`write_dicom_series`: one folder a volume.

    ``SaveImage(output_ext="", writer=DicomSeriesWriter)``. Patient, study and frame of reference
    come from ``meta["source"]`` where mmif's readers put it. It never resamples.
    """

    def __init__(self, recipe: DerivedSeries | None = None, **kwargs: Any) -> None:
        """``recipe`` says what the series is; without it, the volume's own physical values."""
        super().__init__(**kwargs)
        self.recipe = recipe

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_options: Any) -> None:
        """Takes the voxels, with the channel at ``channel_dim``."""
        self.data_obj = channel_first(data_array, channel_dim)

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, **_options: Any) -> None:
        """Takes the affine, and the source of the volume."""
        self.meta = dict(meta_dict or {})

    def write(self, filename: str | PathLike[str], verbose: bool = True, **_options: Any) -> None:
        """Writes the folder ``filename``."""
        super().write(filename, verbose=verbose)
        volume = MetaTensor(self.data_obj, affine=affine_of(self.meta))
        volume.meta[SOURCE_KEY] = self.meta.get(SOURCE_KEY)
        write_aloud(volume, Path(filename), self.recipe or own_recipe(volume))


def own_recipe(volume: MetaTensor) -> DerivedSeries:
    """The recipe that stores ``volume`` as what it is, in its own units."""
    source = source_of(volume) or _in_memory(volume)
    if source.moved and not source.frame_of_reference_uid:
        # Where it lies is known to nobody: a frame that no other volume is in
        entropy = ["mmif frame of one volume", *map(repr, _affine(volume)), _hash(volume)]
        source = replace(source, frame_of_reference_uid=str(generate_uid(entropy_srcs=entropy)))
    return DerivedSeries(
        reference=source,
        kind="registered",
        description=f"mmif {source.modality or 'volume'}",
        derivation="Volume as mmif held it in memory",
        parameters={
            "affine": _affine(volume),
            "content": _hash(volume),
        },
    )


def _affine(volume: MetaTensor) -> list[list[float]]:
    """The affine of ``volume``, rounded to what counts."""
    rows: list[list[float]] = np.asarray(volume.affine).round(6).tolist()
    return rows


def _hash(volume: MetaTensor) -> str:
    """A text that stands for the voxels of ``volume``."""
    voxels: npt.NDArray[Any] = np.ascontiguousarray(volume.detach().cpu().numpy())
    return hashlib.sha256(voxels.tobytes()).hexdigest()


def _in_memory(volume: MetaTensor) -> Source:
    """A source for a volume that came from no file."""
    shape = volume.shape[1:]
    return Source(
        path=Path(_hash(volume)),
        format="other",
        modality="",
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=spacing_mm(volume.affine),
    )
