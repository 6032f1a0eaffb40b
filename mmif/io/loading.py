"""Any volume that mmif reads, from a path."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmif.errors import InputError, quote
from mmif.io.dicom.read.series import FileIndex, describe, index_files
from mmif.io.files import Kind, detect_format, require_path, sibling
from mmif.io.source import SOURCE_KEY
from mmif.roles import VOLUME_ROLES

if TYPE_CHECKING:
    from monai.data import ImageReader, MetaTensor


def load(
    path: str | Path,
    *,
    role: str | None = None,
    series_uid: str | None = None,
    frame: int | None = None,
    fill_gaps: bool = False,
) -> "MetaTensor":
    """The volume at ``path``: float32 (1, X, Y, Z), affine to RAS mm, ``meta["source"]``.

    Args:
        path: a NIfTI file or another volume that SimpleITK reads, a DICOM file, a folder of any
            depth, or a zip. One slice of a DICOM series stands for its series.
        role: ct, mri, spect or pet: which modality is expected; None for any.
        series_uid: SeriesInstanceUID of the series to take, where there are several.
        frame: which volume of a 4-D file or series to take.
        fill_gaps: interpolate single lost slices of a DICOM series instead of refusing them;
            ``meta["source"].unseen`` says where.

    Returns:
        The volume in physical units; a colour volume is (3, X, Y, Z) in 0..1.

    Raises:
        MmifError: nothing there that can be read rightly; one line says what was found.
    """
    if role is not None and role not in VOLUME_ROLES:
        raise InputError(f"role {role!r}; expected one of {', '.join(VOLUME_ROLES)}")
    root = require_path(path)
    kind = None if root.is_dir() else detect_format(root)
    if kind in {None, "zip", "dicom", "packed"}:
        with index_files(root, complete=True) as scan:
            return _from_scan(scan, role, series_uid, frame, fill_gaps)
    if series_uid is not None:
        raise InputError(f"{path}: no DICOM file or folder, so there is no series to choose")
    return _from_file(*_of_pair(root, kind), role, frame)


def _of_pair(path: Path, kind: Kind | None) -> tuple[Path, Kind | None]:
    """The header file of a ``.hdr``/``.img`` pair of which the image was named."""
    if kind == "other" and path.name.lower().endswith((".img", ".img.gz")):
        header = sibling(path, (".hdr", ".hdr.gz"))
        if header is not None:
            return header, detect_format(header)
    return path, kind


def _from_scan(
    scan: FileIndex, role: str | None, series_uid: str | None, frame: int | None, fill_gaps: bool
) -> "MetaTensor":
    """The series that is meant in a folder or zip; or the one volume file that is there instead."""
    from mmif.io.dicom.read.reader import read_scan
    from mmif.io.monai_reader import monai_meta, to_volume

    strays = len(scan.volumes) == 1 and not any(
        describe(s, frame, fill_gaps).spacing_mm for s in scan.series
    )
    if series_uid is not None or not scan.volumes or (scan.series and not strays):
        voxels, affine, source = read_scan(scan, role, series_uid, frame, fill_gaps)
        return to_volume(voxels, monai_meta(voxels, affine, source))
    if len(scan.volumes) > 1:
        names = ", ".join(Path(file.name).name for file in scan.volumes[:6])
        raise InputError(f"{scan.path}: {len(scan.volumes)} volumes ({names}); name one of them")
    found = scan.volumes[0]
    volume = _from_file(found.path, detect_format(found.path), role, frame)
    volume.meta[SOURCE_KEY] = replace(
        volume.meta[SOURCE_KEY], path=scan.path, selection=f"the only volume: {quote(found.name)}"
    )
    return volume


def _from_file(path: Path, kind: Kind | None, role: str | None, frame: int | None) -> "MetaTensor":
    """The volume in a file that is not DICOM."""
    from mmif.io.monai_reader import to_volume

    reader = _reader(kind, role, frame)
    volume = to_volume(*reader.get_data(reader.read(path)))
    if role is not None:
        volume.meta["role"] = role  # such a file does not say its modality
    return volume


def _reader(kind: Kind | None, role: str | None, frame: int | None) -> "ImageReader":
    """The reader for a file that is not DICOM."""
    if kind in {"nifti", "analyze"}:
        from mmif.io.nifti.reader import NiftiVolumeReader

        return NiftiVolumeReader(role=role, frame=frame)
    if kind == "mgh":
        from mmif.io.nifti.freesurfer import FreesurferReader

        return FreesurferReader(role=role, frame=frame)
    from mmif.io.itk.reader import SimpleItkReader

    return SimpleItkReader(role=role, frame=frame)
