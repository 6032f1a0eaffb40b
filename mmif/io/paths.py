"""What MONAI hands to an ImageReader: paths, not opened before their pixels are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.data import ImageReader

from mmif.errors import InputError


@dataclass(frozen=True)
class Unread:
    """What our readers' ``read`` hands to ``get_data``: what was named, not yet looked at."""

    named: Sequence[str | Path] | str | Path

    @property
    def path(self) -> Path:
        """The one path.

        Raises:
            InputError: several paths; one names one volume.
        """
        paths = [self.named] if isinstance(self.named, str | Path) else list(self.named)
        if len(paths) != 1:
            raise InputError(f"{len(paths)} paths given; expected one file or folder a volume")
        return Path(paths[0])


class ContentReader(ImageReader):  # type: ignore[misc]
    """A reader that judges by content, never by name.

    Nothing is opened before ``get_data``, so that a refusal reaches the caller instead of making
    MONAI try its next reader.

    Args:
        role: ct, mri, spect or pet: what the values are checked for; None for any.
        frame: which volume of a 4-D file or of a series that holds several.
    """

    def __init__(self, role: str | None = None, frame: int | None = None) -> None:
        super().__init__()
        self.role, self.frame = role, frame

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """True: a name tells nothing."""
        return True

    def read(self, data: Sequence[str | Path] | str | Path, **kwargs: Any) -> Unread:
        """The path to read, unopened."""
        return Unread(data)
