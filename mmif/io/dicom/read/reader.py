"""DICOM series as volumes: a MONAI ImageReader."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmif.errors import GeometryError, InputError
from mmif.geometry import Matrix, spacing_mm
from mmif.io.checks import MAX_VOXELS, check_grid, check_values, fill_background
from mmif.io.dicom.read.agreement import stray_notes
from mmif.io.dicom.read.frames import Frame
from mmif.io.dicom.read.geometry import Placement, Stack
from mmif.io.dicom.read.headers import Header, integer, patient_key, prefix_errors, quiet, text
from mmif.io.dicom.read.nuclear import modality_code
from mmif.io.dicom.read.pixels import (
    AIR_HU,
    FrameReader,
    Pixels,
    fill_padding,
    frame_reader,
    rescale_of,
    to_air,
    units_of,
)
from mmif.io.dicom.read.select import select
from mmif.io.dicom.read.series import (
    FileIndex,
    Series,
    SeriesInfo,
    describe,
    frame_count,
    index_files,
    is_cut_short,
)
from mmif.io.dicom.suv import suv_or_reason
from mmif.io.monai_reader import ContentReader, Unread, monai_meta
from mmif.io.regrid import onto_grid
from mmif.io.source import Slab, Source
from mmif.roles import ACTIVITY_ROLES

Volume = npt.NDArray[np.float32]

MAX_HU = 32767
"""No scanner's scale, not even an extended one, goes beyond."""


class DicomSeriesReader(ContentReader):
    """Reads a DICOM series, with the geometry right to the millimetre or refused.

    For MONAI's ``LoadImage(reader=DicomSeriesReader())``; the path is a folder, a zip, a file of
    a series, or a multi-frame file. The affine is RAS, the values physical (HU, Bq/ml, counts).
    Args:
        role: ct, mri, spect or pet: which modality is expected; None for any.
        series_uid: SeriesInstanceUID of the series to take.
        frame: which volume of a series that holds several.
        fill_gaps: put a lost slice between its two neighbours, instead of refusing.
    """

    def __init__(
        self,
        role: str | None = None,
        series_uid: str | None = None,
        frame: int | None = None,
        fill_gaps: bool = False,
    ) -> None:
        super().__init__(role, frame)
        self.series_uid, self.fill_gaps = series_uid, fill_gaps

    def get_data(self, img: Unread) -> tuple[Volume, dict[str, Any]]:
        """Voxels (X, Y, Z), or (3, X, Y, Z) for colours, and MONAI's metadata.

        Raises:
            MmifError: the path holds no series that can be read rightly.
        """
        with index_files(img.path, complete=True) as scan:
            voxels, affine, source = read_scan(
                scan, self.role, self.series_uid, self.frame, self.fill_gaps
            )
        return voxels, monai_meta(voxels, affine, source)


def _what_lies_there(scan: FileIndex) -> str:
    """The files that are no images, by their commonest reason; "" where there are none."""
    counts = Counter(file.reason for file in scan.ignored)
    return "".join(f"; {count} x {reason}" for reason, count in counts.most_common(1))


def read_scan(
    scan: FileIndex,
    role: str | None,
    series_uid: str | None,
    frame: int | None,
    fill_gaps: bool = False,
) -> tuple[Volume, Matrix, Source]:
    """The series that is meant under a path, read.

    Returns:
        Voxels (X, Y, Z) or (3, X, Y, Z), affine RAS, source.

    Raises:
        MmifError: none is meant, or it cannot be read rightly.
    """
    infos = [describe(series, frame, fill_gaps) for series in scan.series]
    if not infos:
        raise InputError(f"{scan.path}: no DICOM series found{_what_lies_there(scan)}")
    info, why = select(infos, scan.path, role, series_uid)
    series = scan.series[infos.index(info)].with_complete_headers()
    where = f"{scan.path}: series {series.uid}"
    stack, placement, notes = series.volume(frame, fill_gaps)
    check_grid(placement.shape, placement.affine_ras, where)
    notes += stray_notes(stack.frames, series.headers, _lone_images(scan, series))
    if info.attenuation_corrected is False:
        notes += ("activity that is not corrected for attenuation (NAC)",)
    if info.attenuation_corrected is None and {*info.roles} & {*ACTIVITY_ROLES}:
        why += "; nothing says whether it is corrected for attenuation"
    pixel_notes: tuple[str, ...] = ()
    if info.colour:
        voxels = _colours(series, stack, placement, where)
    else:
        voxels, pixel_notes = _greys(series, stack, placement, where)
    low, high = check_values(voxels, where)
    is_ct = not info.colour and units_of(series.headers[stack.frames[0].file].dataset) == "HU"
    if is_ct and high > MAX_HU:
        raise InputError(
            f"{where}: values up to {high:.0f} HU; expected at most {MAX_HU} "
            "(negative values declared as unsigned?)"
        )
    if is_ct and low >= 0:
        pixel_notes += (f"a CT without negative values (lowest {low:g}); HU have air at -1000",)
    source = _source(scan.path, info, [series.headers[n] for n in _in_order(stack)])
    source = replace(
        source,
        shape=(*stack.frames[0].size, len(stack.frames)),
        spacing_mm=spacing_mm(placement.affine_ras),
        selection=why,
        warnings=(*notes, *pixel_notes, *source.warnings),
        unseen=_slabs(placement),
    )
    return voxels, placement.affine_ras, source


def _lone_images(scan: FileIndex, series: Series) -> list[Header]:
    """The headers of the other series of one or two files; those cut short are counted before.

    An NM object of several frames is a whole: projections lie beside each reconstruction.
    """
    few = [other for other in scan.series if other.uid != series.uid and len(other.files) < 3]
    headers = [header for other in few for header in other.headers]
    whole = [modality_code(h.dataset) == "NM" and frame_count(h.dataset) > 1 for h in headers]
    return [
        h
        for h, is_whole in zip(headers, whole, strict=True)
        if not is_whole and not is_cut_short(h)
    ]


def _slabs(placement: Placement) -> tuple[Slab, ...]:
    """What lies between the stored slices around each lost one, RAS mm."""
    affine = placement.affine_ras
    along = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    depth = [float(along @ (affine[:3, 3] + k * affine[:3, 2])) for k in range(placement.shape[2])]
    x, y, z = (float(part) for part in along)
    return tuple(Slab((x, y, z), depth[k - 1], depth[k + 1]) for k in placement.filled)


def _source(path: Path, info: SeriesInfo, headers: list[Header]) -> Source:
    """Where the volume of ``headers`` (in the order of its slices) comes from."""
    first = headers[0].dataset
    suv, reason = suv_or_reason(*(header.dataset for header in headers))
    return Source(
        path=path,
        format="dicom",
        modality=info.modality,
        shape=(0, 0, 0),
        spacing_mm=(0.0, 0.0, 0.0),
        units=units_of(first),
        series_uid=text(first, "SeriesInstanceUID") or None,
        frame_of_reference_uid=text(first, "FrameOfReferenceUID") or None,
        patient_key=patient_key(first),
        headers=tuple(header.dataset for header in headers),
        suv=suv,
        warnings=reason,
    )


def _in_order(stack: Stack) -> list[int]:
    """The files of a stack's slices in their order, each once."""
    return list(dict.fromkeys(frame.file for frame in stack.frames))


def _greys(
    series: Series, stack: Stack, placement: Placement, where: str
) -> tuple[Volume, tuple[str, ...]]:
    """Physical values (X, Y, Z) of a stack on its regular grid, and notes on its pixels."""
    stored, notes = _stack(series, stack, where)
    volume = stored.transpose(2, 1, 0)
    if not placement.regular:
        volume = onto_grid(volume, placement, float(volume.min()))
    return volume, notes


def _stack(series: Series, stack: Stack, where: str) -> tuple[Volume, tuple[str, ...]]:
    """Physical values (slices, rows, columns) of a stack.

    One file after the other: pydicom and its decoders hold Python's lock, and two threads of a CT
    of 300 slices took 0.1 s more of wall and 0.25 s more of CPU than one, none less for JPEG 2000,
    JPEG-LS or RLE (docs/scaling.md).
    """
    volume = _empty(stack, where)
    readers = _Readers(series)
    is_ct = units_of(series.headers[stack.frames[0].file].dataset) == "HU"

    def read(k: int) -> tuple[int, int]:
        frame = stack.frames[k]
        dataset = series.headers[frame.file].dataset
        with prefix_errors(where):
            rescale = rescale_of(dataset, frame.index)
            padded, kept = rescale(readers(frame), volume[k])
        return padded + (to_air(volume[k]) if is_ct else 0), kept

    with quiet:
        counts = [read(k) for k in range(len(volume))]
    padded, kept = (sum(column) for column in zip(*counts, strict=True))
    notes = tuple(sorted(readers.notes))
    if kept:
        share = 100 * kept / volume.size
        notes += (f"the padding value is tissue too ({share:.1f} % of the voxels): kept there",)
    if padded:
        # only after all slices: what air is in an MRI, the whole volume says
        air = AIR_HU if is_ct else fill_padding(volume)
        share = 100 * padded / volume.size
        notes += (f"padding ({share:.1f} % of the voxels) was set to air ({air:g})",)
    return volume, notes if is_ct else notes + fill_background(volume, "mri")


def _colours(series: Series, stack: Stack, placement: Placement, where: str) -> Volume:
    """Colours (3, X, Y, Z) in 0..1 of a stack."""
    if not placement.regular:
        raise GeometryError(f"{where}: colour slices off a regular grid; expected even ones")
    columns, rows = stack.frames[0].size
    volume = np.empty((3, len(stack.frames), rows, columns), dtype=np.float32)
    readers = _Readers(series)
    for k, frame in enumerate(stack.frames):
        with prefix_errors(where):
            rgb = readers(frame)
        volume[:, k] = np.moveaxis(rgb, -1, 0) / np.float32(np.iinfo(rgb.dtype).max)
    return volume.transpose(0, 3, 2, 1)


def _empty(stack: Stack, where: str) -> Volume:
    """Room for the slices of a stack, (slices, rows, columns)."""
    columns, rows = stack.frames[0].size
    if columns * rows * len(stack.frames) > MAX_VOXELS:
        raise InputError(
            f"{where}: {columns} x {rows} x {len(stack.frames)} voxels; expected at most 2^30"
        )
    return np.empty((len(stack.frames), rows, columns), dtype=np.float32)


class _Readers:
    """Stored samples of frames; multi-frame files are opened once.

    Attributes:
        notes: what was noticed in the pixels, in words.
    """

    def __init__(self, series: Series) -> None:
        self._series = series
        self._shared: dict[int, FrameReader] = {}
        self.notes: set[str] = set()

    def __call__(self, frame: Frame) -> Pixels:
        file, header = self._series.files[frame.file], self._series.headers[frame.file]
        if (integer(header.dataset, "NumberOfFrames") or 1) == 1:
            return frame_reader(file.path, header, file.name, self.notes)(frame.index)
        if frame.file not in self._shared:
            self._shared[frame.file] = frame_reader(file.path, header, file.name, self.notes)
        return self._shared[frame.file](frame.index)
