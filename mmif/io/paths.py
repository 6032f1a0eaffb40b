"""What MONAI hands to an ImageReader: paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmif.errors import InputError


@dataclass(frozen=True)
class Unread:
    """What our readers' ``read`` hands to ``get_data``: a path, not yet opened."""

    path: Path


def one_path(data: Sequence[str | Path] | str | Path) -> Path:
    """The one path in ``data``.

    Raises:
        InputError: several paths; one names one volume.
    """
    paths = [data] if isinstance(data, str | Path) else list(data)
    if len(paths) != 1:
        raise InputError(f"{len(paths)} paths given; expected one file or folder a volume")
    return Path(paths[0])
