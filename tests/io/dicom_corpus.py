"""A synthetic head with known landmarks, written as DICOM in the ways that scanners write.

The head is a function of a point in the patient (LPS mm): four Gaussian landmarks on a flat
ground. A scan samples it; a reader is right when the landmarks are found where they were put.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from mmif.geometry import apply

LANDMARKS_LPS = np.array(
    [[-38.0, -31.0, -33.0], [34.0, -28.0, 21.0], [-24.0, 33.0, 30.0], [29.0, 27.0, -26.0]]
)
SIGMA_MM = 7.0
GROUND, PEAK = 100.0, 1000.0

CT, MR, PT, NM, SC = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.20",
    "1.2.840.10008.5.1.4.1.1.7",
)
ENHANCED = {
    "CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "PT": "1.2.840.10008.5.1.4.1.1.130",
}
MODALITY = {CT: "CT", MR: "MR", PT: "PT", NM: "NM", SC: "OT"}

AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])


def head(points_lps: np.ndarray) -> np.ndarray:
    """Values of the head at (..., 3) points."""
    value = np.full(points_lps.shape[:-1], GROUND)
    for landmark in LANDMARKS_LPS:
        square = ((points_lps - landmark) ** 2).sum(axis=-1)
        value += PEAK * np.exp(-square / (2 * SIGMA_MM**2))
    return value


@dataclass(frozen=True)
class Scan:
    """Where slices lie: first pixels (n, 3), row and column direction (2, 3), LPS mm."""

    first_pixels: np.ndarray
    axes: np.ndarray
    pixel_mm: tuple[float, float] = (4.0, 4.0)  # between rows, between columns
    size: tuple[int, int] = (40, 44)  # rows, columns
    shift_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.axes)

    def slices(self) -> np.ndarray:
        """(n, rows, columns) values of the head."""
        rows, columns = np.meshgrid(*map(np.arange, self.size), indexing="ij")
        plane = (
            columns[..., None] * self.axes[0] * self.pixel_mm[1]
            + rows[..., None] * self.axes[1] * self.pixel_mm[0]
        )
        return np.stack([head(first + plane - self.shift_mm) for first in self.first_pixels])


def scan(
    axes: np.ndarray = AXIAL,
    depths_mm: Sequence[float] = tuple(np.arange(28) * 5.0 - 67.5),
    slide: Sequence[float] = (0.0, 0.0, 0.0),
    pixel_mm: tuple[float, float] = (4.0, 4.0),
    size: tuple[int, int] = (40, 44),
) -> Scan:
    """Slices centred on the head at ``depths_mm`` along the normal.

    ``slide``: how far (LPS mm) a slice moves in its plane per mm of depth, as under gantry tilt.
    """
    axes = np.asarray(axes, dtype=float)
    normal = np.cross(*axes)
    corner = -axes[0] * pixel_mm[1] * (size[1] - 1) / 2 - axes[1] * pixel_mm[0] * (size[0] - 1) / 2
    depths = np.asarray(depths_mm, dtype=float)[:, None]
    return Scan(corner + depths * normal + depths * np.asarray(slide), axes, pixel_mm, size)


def axis_directions() -> list[np.ndarray]:
    """The 24 pairs of row and column directions along patient axes."""
    pairs = []
    for a, b in permutations(range(3), 2):
        for p, q in product((1.0, -1.0), repeat=2):
            pairs.append(np.array([p * np.eye(3)[a], q * np.eye(3)[b]]))
    return pairs


def oblique(degrees: float = 30.0) -> np.ndarray:
    """Axial directions turned about x, then half as much about z."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return AXIAL @ (about_z @ about_x).T


def landmark_error_mm(volume: Any) -> float:
    """The largest distance between a landmark found in ``volume`` and where it was put."""
    affine = np.asarray(volume.affine)
    values = np.asarray(volume[0], dtype=np.float64)
    low, high = values.min(), values.max()
    weights = np.clip((values - low) / (high - low) - 0.02, 0, None)
    errors = []
    for landmark in LANDMARKS_LPS * [-1, -1, 1]:
        index = apply(np.linalg.inv(affine), landmark)
        reach = np.ceil(3.2 * SIGMA_MM / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
        start = np.maximum(np.round(index).astype(int) - reach, 0)
        stop = np.maximum(np.round(index).astype(int) + reach + 1, 0)
        box = weights[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        if box.size == 0 or box.max() < 0.5:
            return float("inf")
        grid = np.stack(np.meshgrid(*map(np.arange, box.shape), indexing="ij"), axis=-1) + start
        centre = (grid * box[..., None]).reshape(-1, 3).sum(axis=0) / box.sum()
        errors.append(np.linalg.norm(apply(affine, centre) - landmark))
    return float(max(errors))


def base(sop_class: str, uid: str, series_uid: str, modality: str | None = None) -> Dataset:
    """A data set with the attributes that every image has."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), uid
    ds.Modality = modality or MODALITY[sop_class]
    ds.PatientName, ds.PatientID = "Phantom^Secret", "ID-4711"
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.SeriesInstanceUID = series_uid
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", series_uid])
    ds.SeriesDescription = f"synthetic {ds.Modality}"
    ds.SeriesNumber = 3
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    return ds


def _geometry(ds: Dataset, made: Scan) -> None:
    ds.Rows, ds.Columns = made.size
    ds.PixelSpacing = [float(v) for v in made.pixel_mm]
    ds.ImageOrientationPatient = [ds_number(v) for v in made.axes.ravel()]


def ds_number(value: float) -> str:
    """A number as a decimal string of at most 16 characters."""
    return f"{value:.9f}"[:16] if abs(value) < 1e4 else f"{value:.3f}"


def save(ds: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def write_series(
    folder: Path,
    made: Scan,
    sop_class: str = CT,
    name: str = "a",
    change: Callable[[Dataset, int], None] | None = None,
    backwards: bool = False,
    **attributes: Any,
) -> str:
    """One file a slice; file names and instance numbers tell nothing. Returns the series UID."""
    series_uid = attributes.get("SeriesInstanceUID") or generate_uid(entropy_srcs=["series", name])
    offset = -1024 if sop_class == CT else 0
    stored = np.round(made.slices() - offset).astype("<u2")
    order = list(range(len(stored)))[:: -1 if backwards else 1]
    for number, k in enumerate(order):
        ds = base(sop_class, generate_uid(entropy_srcs=[name, str(k)]), series_uid)
        _geometry(ds, made)
        ds.ImagePositionPatient = [ds_number(v) for v in made.first_pixels[k]]
        ds.InstanceNumber = number + 1
        ds.SliceThickness = 5.0
        if sop_class in {CT, PT}:
            ds.RescaleSlope, ds.RescaleIntercept = 1, offset
        if sop_class == PT:
            ds.Units = "BQML"
        ds.PixelData = stored[k].tobytes()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        if change:
            change(ds, k)
        save(ds, folder / f"{name}{(k * 7919) % 1009:04d}")
    return str(series_uid)


def write_enhanced(
    path: Path,
    made: Scan,
    modality: str = "MR",
    change: Callable[[Dataset, int], None] | None = None,
    backwards: bool = False,
    sop_class: str | None = None,
) -> str:
    """One multi-frame object with functional groups. Returns the series UID."""
    series_uid = generate_uid(entropy_srcs=["enhanced", str(path)])
    uid = generate_uid(entropy_srcs=["instance", str(path)])
    ds = base(sop_class or ENHANCED[modality], uid, series_uid, modality)
    stored = np.round(made.slices()).astype("<u2")
    order = list(range(len(stored)))[:: -1 if backwards else 1]
    ds.NumberOfFrames = len(stored)
    ds.Rows, ds.Columns = made.size
    measures, plane, values = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(v) for v in made.pixel_mm]
    measures.SliceThickness = 5.0
    plane.ImageOrientationPatient = [ds_number(v) for v in made.axes.ravel()]
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, 0, "US"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    shared.PixelValueTransformationSequence = [values]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k in order:
        place, content, group = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [ds_number(v) for v in made.first_pixels[k]]
        content.StackID, content.InStackPositionNumber = "1", k + 1
        group.PlanePositionSequence = [place]
        group.FrameContentSequence = [content]
        if change:
            change(group, k)
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.PixelData = stored[order].tobytes()
    save(ds, path)
    return str(series_uid)


def write_nuclear(
    path: Path, made: Scan, negative: bool = False, at_top: bool = False, **attributes: Any
) -> str:
    """One NM RECON TOMO object; with ``negative`` spacing the last slice comes first."""
    series_uid = generate_uid(entropy_srcs=["nm", str(path)])
    ds = base(NM, generate_uid(entropy_srcs=["nm instance", str(path)]), series_uid)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    stored = np.round(made.slices()).astype("<u2")
    firsts = made.first_pixels
    if negative:
        stored, firsts = stored[::-1], firsts[::-1]
    _geometry(ds, made)
    orientation = ds.ImageOrientationPatient
    del ds.ImageOrientationPatient
    detector = ds if at_top else Dataset()
    detector.ImagePositionPatient = [ds_number(v) for v in firsts[0]]
    detector.ImageOrientationPatient = orientation
    if not at_top:
        ds.DetectorInformationSequence = [detector]
    step = float(np.linalg.norm(firsts[1] - firsts[0]))
    ds.SpacingBetweenSlices = -step if negative else step
    ds.NumberOfFrames = ds.NumberOfSlices = len(stored)
    ds.FrameIncrementPointer = 0x00540080
    ds.SliceVector = list(range(1, len(stored) + 1))
    ds.PixelData = stored.tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    save(ds, path)
    return str(series_uid)


def part(made: Scan, keep: Sequence[int]) -> Scan:
    """Some slices of a scan."""
    return replace(made, first_pixels=made.first_pixels[list(keep)])
