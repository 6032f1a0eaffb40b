"""What MONAI hands to an ImageReader: paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
