"""Everything that can be read under a path, for people and for scripts."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmif.errors import InputError, MmifError
from mmif.geometry import Matrix, spacing_mm
from mmif.io.checks import check_grid
from mmif.io.dicom.read.geometry import orientation_code
from mmif.io.dicom.read.headers import one_line
from mmif.io.dicom.read.series import FileIndex, SeriesInfo, describe, index_files
from mmif.io.files import FoundFile, IgnoredFile, detect_format
from mmif.roles import VOLUME_ROLES


@dataclass(frozen=True)
class VolumeInfo:
    """What the header of a volume file (NIfTI, MetaImage, NRRD, ...) says.

    Attributes:
        path: the file.
        format: nifti or other.
        matrix: voxels along i, j, k.
        frames: volumes in the file.
        spacing_mm: their spacing.
        orientation: the patient directions that i, j, k grow towards (``RAS``).
        roles: what it can be used for; the file does not say its modality.
        reason: why it is not usable; "" where it is.
        warnings: what reading it would note.
    """

    path: Path
    format: str
    matrix: tuple[int, ...] | None
    frames: int
    spacing_mm: tuple[float, float, float] | None
    orientation: str
    roles: tuple[str, ...]
    reason: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """What was found under a path.

    Attributes:
        path: the path that was named.
        series: DICOM series.
        volumes: files of other formats.
        ignored: files that are neither, with reasons.
    """

    path: Path
    series: tuple[SeriesInfo, ...]
    volumes: tuple[VolumeInfo, ...]
    ignored: tuple[IgnoredFile, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, texts and numbers; patients are numbered, their keys stay unsaid."""
        plain: dict[str, Any] = _plain(asdict(self))
        keys = sorted({series.patient_key for series in self.series if series.patient_key})
        numbers = {key: number for number, key in enumerate(keys, 1)}
        for series in plain["series"]:
            series["patient"] = numbers.get(series.pop("patient_key"))
        return plain


def inventory(path: str | Path) -> Inventory:
    """Everything that can be read under ``path``: a file, a folder of any depth, or a zip.

    Raises:
        InputError: nothing is there, or nothing that is an image.
    """
    with index_files(path) as scan:
        found = _inventory(scan)
    if not (found.series or found.volumes or found.ignored):
        raise InputError(f"{path}: an empty folder; expected DICOM, NIfTI or another volume")
    return found


def _inventory(scan: FileIndex) -> Inventory:
    """A scan, described."""
    volumes = [_volume(file) for file in scan.volumes]
    ignored = scan.ignored
    if (
        scan.path.is_file()
        and not scan.series
        and not volumes
        and detect_format(scan.path) != "zip"
    ):
        volumes, ignored = [_volume(FoundFile(scan.path, str(scan.path)))], ()
    return Inventory(scan.path, tuple(map(describe, scan.series)), tuple(volumes), ignored)


def _volume(file: FoundFile) -> VolumeInfo:
    """What the header of a volume file says, or why it cannot be read."""
    kind = detect_format(file.path)
    is_nifti = kind in {"nifti", "analyze"}
    look = {"nifti": _nifti, "analyze": _nifti, "mgh": _freesurfer}.get(kind, _itk)
    name = Path(file.name)
    try:
        matrix, frames, affine, warnings, colour = look(file.path)
    except MmifError as error:
        reason = one_line(error, 400).replace(str(file.path), file.name)
        return VolumeInfo(name, "nifti" if is_nifti else "other", None, 0, None, "", (), reason, ())
    reason = _reason(matrix, frames, affine, colour)
    return VolumeInfo(
        name,
        "nifti" if is_nifti else "other",
        matrix,
        frames,
        spacing_mm(affine),
        orientation_code(affine),
        () if reason else VOLUME_ROLES,
        reason,
        warnings,
    )


_Header = tuple[tuple[int, ...], int, Matrix, tuple[str, ...], bool]


def _nifti(path: Path) -> _Header:
    """Matrix, frames, affine, warnings and whether it is colour, of a NIfTI file."""
    from mmif.io.nifti.header import nifti_info

    info = nifti_info(path)
    return info.shape, info.frames, info.affine_ras, info.warnings, info.colour


def _freesurfer(path: Path) -> _Header:
    """The same of a FreeSurfer volume."""
    from mmif.io.nifti.freesurfer import mgh_info

    info = mgh_info(path)
    return info.shape, info.frames, info.affine_ras, (), False


def _itk(path: Path) -> _Header:
    """The same of a file that SimpleITK reads."""
    from mmif.io.itk.header import read_itk_header

    header = read_itk_header(path)
    return header.size[:3], header.frames, header.affine_ras, header.warnings, header.colour


def _reason(matrix: tuple[int, ...], frames: int, affine: Matrix, colour: bool) -> str:
    """Why a volume with this header is not usable; "" if it is."""
    try:
        check_grid(matrix, affine, "header")
    except MmifError as error:
        return str(error).removeprefix("header: ")
    if colour:
        return "colour, not grey values; no source for a role"
    return f"4-D with {frames} volumes; one frame must be chosen" if frames > 1 else ""


def _plain(value: Any) -> Any:
    """``value`` with paths as text and tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
