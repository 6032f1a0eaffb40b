"""A colour volume as one Multi-frame True Color Secondary Capture object (PS3.3 A.8.5)."""

from copy import copy

from pydicom import Dataset, Sequence
from pydicom.tag import Tag

from mmif.io.dicom.write.compression import pixel_elements
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.elements import encode
from mmif.io.dicom.write.iods import ObjectKind
from mmif.io.dicom.write.planes import Planes, decimal, decimals, orientation_letters
from mmif.io.dicom.write.references import (
    encode_instances,
    encode_source_images,
    image_references,
)


def multiframe_elements(
    shared: Dataset, kind: ObjectKind, planes: Planes, recipe: DerivedSeries
) -> dict[int, bytes]:
    """All slices as the frames of one encoded object, with their places in functional groups."""
    frames = kind.values.stack
    ds = Dataset()
    ds.SOPInstanceUID = recipe.uid("multi-frame", kind.sop_class_uid)
    ds.InstanceNumber = 1
    ds.NumberOfFrames = len(frames)
    ds.FrameIncrementPointer = Tag("SliceLocationVector")
    ds.SliceLocationVector = decimals(planes.positions @ planes.normal)
    ds.PatientOrientation = [orientation_letters(planes.row), orientation_letters(planes.column)]
    ds.SharedFunctionalGroupsSequence = Sequence([_shared_groups(planes)])
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        _frame_groups(planes, index) for index in range(len(frames))
    )
    shared = copy(shared)
    shared.NumberOfFrames = len(frames)
    ds.update(pixel_elements(frames, shared, recipe.transfer_syntax))
    images = [image for source in recipe.sources for image in image_references(source)]
    references = {
        **encode_source_images(images),
        **encode_instances(images, shared.StudyInstanceUID),
    }
    return {**encode(shared), **references, **encode(ds)}


def _shared_groups(planes: Planes) -> Dataset:
    """Pixel Measures and Plane Orientation (C.7.6.16.2.1, C.7.6.16.2.4), the same for all."""
    measures, orientation, groups = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = decimals(planes.pixel_mm)
    measures.SliceThickness = measures.SpacingBetweenSlices = decimal(planes.slice_mm)
    orientation.ImageOrientationPatient = decimals((*planes.row, *planes.column))
    groups.PixelMeasuresSequence = Sequence([measures])
    groups.PlaneOrientationSequence = Sequence([orientation])
    return groups


def _frame_groups(planes: Planes, index: int) -> Dataset:
    """Plane Position of one frame (C.7.6.16.2.3)."""
    place, groups = Dataset(), Dataset()
    place.ImagePositionPatient = decimals(planes.positions[index])
    groups.PlanePositionSequence = Sequence([place])
    return groups
