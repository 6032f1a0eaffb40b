"""Registered 2-D images of one place, a folder a role, found by their equal names."""

from dataclasses import dataclass
from pathlib import Path

from mmif.errors import InputError
from mmif.io.images import SUFFIXES, Image2D, check_same_size, read_image
from mmif.metrics import SSIM_WINDOW
from mmif.roles import ROLES, TASKS


@dataclass(frozen=True)
class SliceFiles:
    """The files of one place.

    Attributes:
        name: of all files.
        case: what the name says of whose they are.
        paths: a file a role, in the order of the task's.
    """

    name: str
    case: str
    paths: tuple[Path, ...]


def find_slice_files(task: str, folder: Path) -> list[SliceFiles]:
    """The images of equal names in the folders of ``task``, in the order of their names.

    ``folder`` holds them as ``CT-MRI/{CT,MRI}`` or straight as ``{CT,MRI}``; for ir-vis as
    ``{IR,VIS}``, for ct-mri-spect as ``{CT,MRI,SPECT}``.

    Raises:
        InputError: no such folders, no images, or a name that is not in all of the folders.
    """
    folders = slice_folders(task, folder)
    images = [image_files(one) for one in folders]
    everywhere = set.intersection(*map(set, images))
    alone = sorted(set().union(*images) - everywhere)
    if alone:
        has = next(one for one, files in zip(folders, images, strict=True) if alone[0] in files)
        lacks = next(
            one for one, files in zip(folders, images, strict=True) if alone[0] not in files
        )
        raise InputError(
            f"{has / alone[0]}: found no image of this name in {lacks}, expected equal names in all"
            f" folders ({len(alone)} stand alone)"
        )
    if not everywhere:
        raise InputError(f"{folders[0]}: found no images, expected some of {', '.join(SUFFIXES)}")
    return [
        SliceFiles(name, case_of(name), tuple(files[name] for files in images))
        for name in sorted(everywhere)
    ]


def read_slices(files: SliceFiles) -> tuple[Image2D, ...]:
    """The images of one place, of one size that the metrics can measure.

    Raises:
        InputError: one cannot be used, or they differ in size, or are too small.
    """
    images = tuple(map(read_image, files.paths))
    check_same_size(*images)
    rows, columns = images[0].size
    if min(rows, columns) < SSIM_WINDOW:
        raise InputError(
            f"{files.paths[0]}: found {rows} x {columns} pixels, expected at least {SSIM_WINDOW}"
            f" x {SSIM_WINDOW}"
        )
    return images


def slice_folders(task: str, folder: Path) -> tuple[Path, ...]:
    """The folder of each role of ``task``, in the order of its roles.

    Raises:
        InputError: ``folder`` is not there or has no such folders.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the registered images of {task}")
    first, *others = (ROLES[role].folder for role in TASKS[task].roles)
    together = task.upper()
    for base in (folder, folder / together):
        if all((base / name).is_dir() for name in (first, *others)):
            return tuple(base / name for name in (first, *others))
    raise InputError(
        f"{folder}: no folders {', '.join(others)} and {first} (or {together} with them); expected"
        f" the registered images of {task}"
    )


def image_files(folder: Path) -> dict[str, Path]:
    """The images in ``folder`` by name, hidden files left out.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder of images")
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    }


def case_of(name: str) -> str:
    """The case of an image's name: what stands before the last three digits, the slice.

    >>> case_of("16003.png"), case_of("FLIR_04212.jpg"), case_of("scene.png")
    ('16', 'FLIR_04', 'scene')
    """
    stem = Path(name).stem
    return stem[:-3] if stem[-3:].isdecimal() and len(stem) > 3 else stem
