"""Which source images a derived object refers to, as encoded reference sequences."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag

from mmif.geometry import Matrix, Points, apply
from mmif.io.dicom.write.elements import Elements, encode, item, sequence
from mmif.io.dicom.write.header import code
from mmif.io.dicom.write.planes import Planes
from mmif.io.source import Source


@dataclass(frozen=True)
class ImageReference:
    """One source image: its study and series, and the encoded items that refer to it.

    Attributes:
        study_uid: StudyInstanceUID, "" where the source does not say.
        series_uid: SeriesInstanceUID.
        instance: an item of ReferencedInstanceSequence.
        source_image: an item of SourceImageSequence.
    """

    study_uid: str
    series_uid: str
    instance: bytes
    source_image: bytes


def image_references(source: Source, locations_preserved: bool = False) -> list[ImageReference]:
    """One reference for each header of ``source`` that can be referred to, in their order."""
    return [_reference(header, locations_preserved) for header in referable(source)]


def referable(source: Source) -> list[Dataset]:
    """The headers of ``source`` that another object can refer to."""
    needed = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
    return [header for header in source.headers if all(header.get(word) for word in needed)]


def instance_reference(header: Dataset) -> Dataset:
    """The SOP class and instance of ``header`` as a reference item (PS3.3 10.8)."""
    ds = Dataset()
    ds.ReferencedSOPClassUID = str(header.SOPClassUID)
    ds.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    return ds


def _reference(header: Dataset, locations_preserved: bool) -> ImageReference:
    own = encode(instance_reference(header))
    study, series = header.get("StudyInstanceUID"), header.SeriesInstanceUID
    source_image = item({**own, **_purpose(locations_preserved)})
    return ImageReference(str(study or ""), str(series), item(own), source_image)


@cache
def _purpose(locations_preserved: bool) -> Elements:
    """What an item of SourceImageSequence says beside the image; it is the same for all."""
    ds = Dataset()
    ds.SpatialLocationsPreserved = "YES" if locations_preserved else "NO"
    ds.PurposeOfReferenceCodeSequence = code(
        "121322", "DCM", "Source image for image processing operation"
    )
    return encode(ds)


class Contributions:
    """Which images of one source reach into which slice of a series."""

    def __init__(
        self,
        source: Source,
        series_to_source_lps: Matrix | None,
        locations_preserved: bool = False,
    ) -> None:
        """``series_to_source_lps`` carries points in mm; None: every image contributes."""
        self._references = image_references(source, locations_preserved)
        self._along = _positions(referable(source)) if len(self._references) > 1 else None
        self._series_to_source_lps = series_to_source_lps

    def to(self, planes: Planes, index: int) -> list[ImageReference]:
        """The images that contribute to slice ``index`` of ``planes``.

        Linear interpolation takes from the source slices on either side of a point; slices that
        are thicker than the source's average over their thickness. All images where positions
        are not known (a multi-frame file).
        """
        if self._along is None or self._series_to_source_lps is None:
            return self._references
        normal, along = self._along
        reach = float(np.max(np.diff(np.sort(along))))
        # not yet twice as thick: what is smoothed on the way (`anti_alias_sigma`) is averaged
        thickness = planes.slice_mm if planes.slice_mm > 1.5 * reach else 0.0
        corners = apply(self._series_to_source_lps, planes.corners(index, thickness)) @ normal
        inside = reach - 1e-3
        near = (along > corners.min() - inside) & (along < corners.max() + inside)
        return [image for image, use in zip(self._references, near, strict=True) if use]


def _positions(headers: list[Dataset]) -> tuple[Points, Points] | None:
    """The normal of the slices, and where each lies along it in mm."""
    try:
        orientation = np.asarray(headers[0].ImageOrientationPatient, dtype=np.float64)
        places = np.asarray([h.ImagePositionPatient for h in headers], dtype=np.float64)
    except (AttributeError, TypeError, ValueError):
        return None
    if orientation.shape != (6,) or places.shape != (len(headers), 3):
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    return normal, places @ normal


def encode_source_images(images: Iterable[ImageReference]) -> dict[int, bytes]:
    """SourceImageSequence (C.7.6.1.1.4) onto ``images``; nothing without any."""
    items = [image.source_image for image in images]
    return _elements("SourceImageSequence", items)


def encode_instances(images: Iterable[ImageReference], study_uid: str) -> dict[int, bytes]:
    """The Common Instance Reference module (C.12.2): ``images`` by study and series."""
    studies: dict[str, dict[str, list[bytes]]] = {}
    for image in images:
        series = studies.setdefault(image.study_uid or study_uid, {})
        series.setdefault(image.series_uid, []).append(image.instance)
    own = _elements("ReferencedSeriesSequence", _series_items(studies.pop(study_uid, {})))
    foreign = []
    for uid, series in studies.items():
        ds = Dataset()
        ds.StudyInstanceUID = uid
        listed = _elements("ReferencedSeriesSequence", _series_items(series))
        foreign.append(item({**listed, **encode(ds)}))
    return {**own, **_elements("StudiesContainingOtherReferencedInstancesSequence", foreign)}


def _series_items(series: dict[str, list[bytes]]) -> list[bytes]:
    items = []
    for uid, instances in series.items():
        ds = Dataset()
        ds.SeriesInstanceUID = uid
        items.append(item({**_elements("ReferencedInstanceSequence", instances), **encode(ds)}))
    return items


def _elements(keyword: str, items: list[bytes]) -> dict[int, bytes]:
    """The sequence ``keyword`` with encoded ``items``, by its tag; empty without items."""
    tag = int(Tag(keyword))
    return {tag: sequence(tag, items)} if items else {}
