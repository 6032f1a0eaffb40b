"""Registered pairs of 2-D images in two folders, paired by their names."""

from dataclasses import dataclass
from pathlib import Path

from mmif.errors import InputError
from mmif.io.images import SUFFIXES, Image2D, check_same_size, read_image
from mmif.metrics import SSIM_WINDOW
from mmif.roles import ROLES, TASKS


@dataclass(frozen=True)
class PairFiles:
    """The two files of one registered pair."""

    name: str
    case: str
    anatomical: Path
    other: Path


def find_pair_files(task: str, folder: Path) -> list[PairFiles]:
    """The pairs of equal names in the two folders of ``task``, in the order of their names.

    ``folder`` holds them as ``CT-MRI/{CT,MRI}`` or straight as ``{CT,MRI}``; for ir-vis as
    ``{IR,VIS}``.

    Raises:
        InputError: no such folders, no images, or a name that stands in one folder only.
    """
    first, second = pair_folders(task, folder)
    left, right = image_files(first), image_files(second)
    alone = sorted(left.keys() ^ right.keys())
    if alone:
        has, lacks = (first, second) if alone[0] in left else (second, first)
        raise InputError(
            f"{has / alone[0]}: found no image of this name in {lacks}, expected pairs of equal"
            f" names ({len(alone)} stand alone)"
        )
    if not left:
        raise InputError(f"{first}: found no images, expected some of {', '.join(SUFFIXES)}")
    return [PairFiles(name, case_of(name), left[name], right[name]) for name in sorted(left)]


def read_pair(files: PairFiles) -> tuple[Image2D, Image2D]:
    """The anatomical image and the other one, of one size that the metrics can measure.

    Raises:
        InputError: one cannot be used, or they differ in size, or are too small.
    """
    images = read_image(files.anatomical), read_image(files.other)
    check_same_size(*images)
    rows, columns = images[0].size
    if min(rows, columns) < SSIM_WINDOW:
        raise InputError(
            f"{files.anatomical}: found {rows} x {columns} pixels, expected at least {SSIM_WINDOW}"
            f" x {SSIM_WINDOW}"
        )
    return images


def pair_folders(task: str, folder: Path) -> tuple[Path, Path]:
    """The folder of the anatomical source and that of the other one.

    Raises:
        InputError: ``folder`` is not there or has no such two folders.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the registered pairs of {task}")
    first, second = (ROLES[role].folder for role in TASKS[task].roles)
    for base in (folder, folder / f"{second}-{first}"):
        if (base / first).is_dir() and (base / second).is_dir():
            return base / first, base / second
    raise InputError(
        f"{folder}: no folders {first} and {second} (or {second}-{first} with both); expected the"
        f" registered pairs of {task}"
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
