"""Blending Softcopy Presentation States (PS3.3 A.33.4): a registered series over its reference.

For viewers that know them: the reference in grey, as its window shows it, and the registered series
over it in colour, half transparent. highdicom has no class for this object (0.28: the Advanced one
alone), so its modules are written here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ImageCms
from pydicom import Dataset, dcmread
from pydicom import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import BlendingSoftcopyPresentationStateStorage
from pydicom.valuerep import DSfloat, format_number_as_ds

from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.elements import encode, write_elements
from mmif.io.dicom.write.header import content_elements, dates_of_making, series_elements
from mmif.io.dicom.write.references import instance_reference, referable
from mmif.io.source import Source

# 0..1 (PS3.3 C.11.14): both alike to begin with; chosen
RELATIVE_OPACITY = 0.5
ICC_DATE = slice(24, 36)  # ICC.1:2010 7.2.8: year, month, day, hour, minute, second, 2 bytes each
ICC_EPOCH = bytes.fromhex("07d0 0001 0001 0000 0000 0000")


@dataclass(frozen=True)
class Look:
    """How a registered series lies over its reference.

    Attributes:
        reference_window: physical values that are black and white.
        registered_window: physical values that are the first and the last colour.
        palette: (256, 3) 8-bit RGB, from lowest to highest.
        palette_name: of the colour map.
    """

    reference_window: tuple[float, float]
    registered_window: tuple[float, float]
    palette: npt.NDArray[np.uint8]
    palette_name: str


def can_blend(reference: Source | None) -> bool:
    """Whether a presentation state can lay something over ``reference`` as it lies in the archive.

    It must be a CT or MR of single-frame slices with one rescale slope and intercept, for the state
    has one for all of them (C.11.14), that no transform carried out of its frame.
    """
    if reference is None or reference.modality not in ("CT", "MR") or reference.moved:
        return False
    headers = referable(reference)
    single = all(int(header.get("NumberOfFrames") or 1) == 1 for header in headers)
    whole = len(headers) == len(reference.headers) > 0
    return whole and single and len(set(map(_rescale, headers))) == 1


def write_blending(path: Path, recipe: DerivedSeries, folder: Path, look: Look) -> None:
    """Writes the object ``path``: a registered series over ``recipe.reference``.

    Args:
        path: the file.
        recipe: of the registered series.
        folder: where that series was written.
        look: windows and colours.

    Raises:
        OutputError: the file cannot be written.
    """
    underlying = referable(recipe.reference)
    registered = [dcmread(file, stop_before_pixels=True) for file in sorted(folder.iterdir())]
    ds = _header(recipe, registered[0].SeriesInstanceUID, look)
    ds.RelativeOpacity = RELATIVE_OPACITY
    ds.BlendingSequence = Items(
        [
            _blending_item("UNDERLYING", underlying, look.reference_window),
            _blending_item("SUPERIMPOSED", registered, look.registered_window),
        ]
    )
    ds.DisplayedAreaSelectionSequence = Items([_displayed_area(underlying[0])])
    ds.update(_colours(look.palette))
    write_elements(encode(ds), path)


def _header(recipe: DerivedSeries, registered_uid: str, look: Look) -> Dataset:
    """Patient, study, series, equipment and identification (C.7.1 to C.7.5, C.11.9, C.11.10)."""
    parts = registered_uid, look.reference_window, look.registered_window, look.palette_name
    uid, description = recipe.uid("blending series", *parts), f"{recipe.description[:54]}, blended"
    ds = series_elements(recipe, "PR", "blending", uid, description)
    ds.update(dates_of_making(recipe, "PresentationCreation"))
    ds.update(content_elements("BLENDING", f"{recipe.description[:40]}, laid over it"))
    ds.SOPClassUID = BlendingSoftcopyPresentationStateStorage
    ds.SOPInstanceUID = recipe.uid("blending", *parts)
    return ds


def _blending_item(
    position: str, headers: Sequence[Dataset], window: tuple[float, float]
) -> Dataset:
    """One item of BlendingSequence (C.11.14)."""
    slope, intercept = _rescale(headers[0])
    images = Dataset()
    images.SeriesInstanceUID = str(headers[0].SeriesInstanceUID)
    images.ReferencedImageSequence = Items(map(instance_reference, headers))
    low, high = window
    shown = Dataset()
    shown.WindowCenter, shown.WindowWidth = _decimal((low + high) / 2), _decimal(high - low)
    item = Dataset()
    item.BlendingPosition = position
    item.StudyInstanceUID = str(headers[0].StudyInstanceUID)
    item.ReferencedSeriesSequence = Items([images])
    item.RescaleIntercept, item.RescaleSlope = _decimal(intercept), _decimal(slope)
    item.RescaleType = "HU" if headers[0].Modality == "CT" else "US"
    item.SoftcopyVOILUTSequence = Items([shown])
    return item


def _rescale(header: Dataset) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept of ``header``; 1 and 0 where it has none."""
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return float(1 if slope is None else slope), float(intercept or 0)


def _displayed_area(header: Dataset) -> Dataset:
    """The whole of a slice of the reference (C.10.4)."""
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [int(header.Columns), int(header.Rows)]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelSpacing = header.PixelSpacing
    return area


def _colours(palette: npt.NDArray[np.uint8]) -> Dataset:
    """The palette of the superimposed series, and the colour space of all (C.7.9, C.11.15)."""
    ds = Dataset()
    for channel, name in enumerate(("Red", "Green", "Blue")):
        keyword = f"{name}PaletteColorLookupTable"
        ds.add_new(Tag(f"{keyword}Descriptor"), "US", [len(palette), 0, 16])
        wide = palette[:, channel].astype("<u2") * 257  # 8 bits as the high byte and the low one
        ds.add_new(Tag(f"{keyword}Data"), "OW", wide.tobytes())
    ds.ICCProfile = _srgb()
    return ds


@cache
def _srgb() -> bytes:
    """An ICC profile of sRGB, without the time at which it was made."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[ICC_DATE] = ICC_EPOCH
    return bytes(profile) + b"\0" * (len(profile) % 2)


def _decimal(value: float) -> DSfloat:
    return DSfloat(format_number_as_ds(float(value)))
