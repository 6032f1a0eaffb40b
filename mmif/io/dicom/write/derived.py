"""What a derived DICOM object is made from: the recipe, and the UIDs that follow from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydicom.uid import generate_uid

from mmif.geometry import Alignment, Matrix
from mmif.io.source import Source
from mmif.options import DicomEncoding, TransferSyntax

Kind = Literal["fused", "registered"]


@cache
def mmif_version() -> str:
    """The version of the installed package, or ``0`` in a checkout that is not installed."""
    try:
        return version("mmif")
    except PackageNotFoundError:
        return "0"


@dataclass(frozen=True, eq=False)
class DerivedSeries:
    """How a series came about: all that decides its attributes and its UIDs.

    Attributes:
        reference: the source whose patient, study and frame of reference the series takes over.
        others: the other sources. For ``kind="registered"`` the first one is the moving volume,
            whose values the series shows.
        fixed_to_moving_lps: (4, 4) reference point to point in the frame of ``others[0]``, to
            know which of its slices contribute to which slice of the series; None: all do.
        alignment: where that transform is from: ``searched`` in the images, ``headers`` that were
            trusted, or ``given`` by the user.
        of_heads: whether what was searched looked like heads.
        kind: ``fused`` values lie in 0..1; ``registered`` values are physical (HU, Bq/ml, counts).
        description: SeriesDescription.
        derivation: DerivationDescription, in words.
        parameters: everything else that decides the pixels; only its text enters the UIDs.
        weights_sha256: of the network that fused, of two passes both; "" without one.
        created: SeriesDate and the other dates of making; not part of the UIDs.
        version: of mmif.
        encoding: ``multiframe`` puts a colour series into one file.
        transfer_syntax: how pixels are encoded; lossless, and so not part of the UIDs.
        locations_preserved: whether the grid is the reference's own.
    """

    reference: Source
    others: tuple[Source, ...] = ()
    fixed_to_moving_lps: Matrix | None = None
    alignment: Alignment = "searched"
    of_heads: bool = True
    kind: Kind = "fused"
    description: str = "mmif fused"
    derivation: str = "Rigid registration, resampling and image fusion"
    parameters: Mapping[str, object] = field(default_factory=dict)
    weights_sha256: str = ""
    created: datetime = field(default_factory=datetime.now)
    version: str = field(default_factory=mmif_version)
    encoding: DicomEncoding = "series"
    transfer_syntax: TransferSyntax = "explicit"
    locations_preserved: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """The reference and the others."""
        return (self.reference, *self.others)

    @property
    def body_part(self) -> dict[str, str]:
        """BodyPartExamined where the reference does not say it: searched are heads, mostly."""
        searched = self.alignment == "searched" and self.of_heads
        return {"BodyPartExamined": "HEAD"} if searched else {}

    def uid(self, *parts: object) -> str:
        """The UID of a part of this series: the same recipe and parts give the same one."""
        return generate_uid(entropy_srcs=[*self._entropy, *map(str, parts)])

    def number(self, series_uid: str, first: int) -> int:
        """A SeriesNumber that no other series of the study has, as far as can be known.

        It follows from ``series_uid``: a rerun keeps it, and another task, other weights or other
        options have another. Scanners and workstations number far below a million.

        Args:
            series_uid: of the series.
            first: where the numbers of its kind begin; there are a million of them.
        """
        taken = {str(header.get("SeriesNumber")) for s in self.sources for header in s.headers}
        number = int(hashlib.sha256(series_uid.encode()).hexdigest(), 16)
        return next(
            n
            for step in range(len(taken) + 1)
            if str(n := first + (number + step) % 1_000_000) not in taken
        )

    def with_pixels(self, stored: npt.NDArray[Any]) -> Self:
        """The recipe of just these ``stored`` values: its UIDs are those of no others."""
        digest = hashlib.sha256(np.ascontiguousarray(stored).data)
        described = f"{stored.dtype} {stored.shape} {digest.hexdigest()}"
        return replace(self, parameters={**self.parameters, "pixels": described})

    @cached_property
    def _entropy(self) -> tuple[str, ...]:
        parameters = sorted((key, repr(value)) for key, value in self.parameters.items())
        origin = (self.version, self.weights_sha256, self.kind, repr(parameters))
        return ("mmif", *map(fingerprint, self.sources), *origin)


def fingerprint(source: Source) -> str:
    """A text that stands for what ``source`` holds: its SOP instances, or a hash of its file."""
    instances = [str(header.get("SOPInstanceUID", "")) for header in source.headers]
    if any(instances):
        return "\n".join(sorted(instances))
    if source.series_uid:
        return source.series_uid
    digest = hashlib.sha256(repr((source.shape, source.spacing_mm)).encode())
    if source.path.is_file():
        with source.path.open("rb") as file:
            return hashlib.file_digest(file, lambda: digest).hexdigest()
    digest.update(source.path.name.encode())
    return digest.hexdigest()
