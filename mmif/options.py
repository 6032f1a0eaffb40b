"""Every option of ``mmif fuse``, ``batch`` and `mmif.fuse`, declared once.

The command line makes its options of these fields, the Python function its keywords, and a batch
takes those that all of its studies can share.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

from mmif.errors import ConfigError
from mmif.roles import VOLUME_ROLES

OutputFormat = Literal["auto", "dicom", "nifti", "both"]
DicomEncoding = Literal["series", "multiframe"]
Fov = Literal["reference", "head"]
TransferSyntax = Literal["explicit", "jpeg2000", "jpeg-ls", "rle"]


class UnknownOptionError(ConfigError, TypeError):
    """A keyword that no option has; also a TypeError, as Python's own would be."""


@dataclass(frozen=True)
class OptionSpec:
    """What the command line has to know of one option.

    Attributes:
        help: one line.
        flag: its name on the command line; ``--no-X`` where the Python name is positive,
            ``--X/--no-X`` where nothing said is a third thing.
        choices: what it may be; () for anything.
        metavar: what stands for its value in the help.
        low: the smallest number.
        by_role: given as ``ROLE=VALUE``, once for each role.
        shared: whether all studies of a batch can have it in common.
    """

    help: str
    flag: str = ""
    choices: tuple[str | int, ...] = ()
    metavar: str | None = None
    low: float | None = None
    by_role: bool = False
    shared: bool = True


def option(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass field that is an option; ``facts`` are those of `OptionSpec`."""
    spec = OptionSpec(help, **facts)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"option": spec})
    return dataclasses.field(default=default, metadata={"option": spec})


@dataclass(frozen=True)
class FuseOptions:
    """How one study is fused; the defaults are those of the command line."""

    reference: str | None = option(
        None, "Whose frame and field of view. [mri, else ct]", choices=VOLUME_ROLES
    )
    fov: Fov | None = option(
        None, "What 256 pixels cover. [reference]", choices=("reference", "head")
    )
    size: int | None = option(
        None, "Rows and columns of the fused slices. [256]", choices=(256, 384, 512)
    )
    colour_map: str | None = option(
        None, "Colours of SPECT and PET. [the pipeline's]", metavar="NAME"
    )
    suv_max: float | None = option(
        None, "The SUV (by body weight) where a PET's window ends. [the pipeline's]", low=0.1
    )
    format: OutputFormat = option(
        "auto",
        "Of the fused volume; auto is the reference's.",
        choices=("auto", "dicom", "nifti", "both"),
    )
    dicom_encoding: DicomEncoding = option(
        "series",
        "Colour DICOM: a file a slice, or one multi-frame file.",
        choices=("series", "multiframe"),
    )
    transfer_syntax: TransferSyntax = option(
        "explicit",
        "Of written DICOM; lossless all of them.",
        choices=("explicit", "jpeg2000", "jpeg-ls", "rle"),
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    weights: str | None = option(
        None, "Shipped name, folder or .safetensors file. [the pipeline's]", shared=False
    )
    transform: Mapping[str, Path] = option(
        {},
        "Given transform, reference to moving (of several, to ROLE): .tfm, .txt, .dcm.",
        metavar="[ROLE=]FILE",
        by_role=True,
        shared=False,
    )
    register: bool | None = option(
        None,
        "Search the pose in any case, or trust the headers. [checked headers in one frame of "
        "reference, else a search]",
        flag="--register/--no-register",
    )
    registration_timeout: float | None = option(
        None, "Give the search up after S seconds. [120]", metavar="S", low=1
    )
    accept_registration: bool = option(False, "Go on with a registration of verdict fail.")
    accept_other_anatomy: bool = option(
        False, "Search although a volume does not look like a head."
    )
    accept_different_patients: bool = option(False, "Go on with two PatientIDs.")
    series_uid: Mapping[str, str] = option(
        {}, "The series to take.", metavar="[ROLE=]UID", by_role=True, shared=False
    )
    frame: Mapping[str, int] = option(
        {},
        "The frame to take of a 4-D volume, from 0.",
        metavar="ROLE=N",
        by_role=True,
        shared=False,
    )
    fill_gaps: bool = option(
        False, "Interpolate single lost slices of a DICOM series; marked in the outputs."
    )
    save_registered: bool = option(False, "Write the moving volume on the fused grid too.")
    preview: Path | None = option(None, "Write a contact sheet to this PNG.", shared=False)
    deidentify: bool = option(False, "Leave no identity in any output (PS3.15 Basic Profile).")
    report: bool = option(True, "Do not write report.html.", flag="--no-report")
    overwrite: bool = option(False, "Replace an output that exists.", shared=False)

    @classmethod
    def of(cls, values: Mapping[str, Any], also: Sequence[str] = ()) -> Self:
        """The options that ``values`` name; paths and text alike for files.

        Args:
            values: name to value.
            also: other names that may have been meant.

        Raises:
            UnknownOptionError: a name that is no option; it says the nearest one.
        """
        known = specs(cls)
        for name in values:
            if name not in known:
                raise UnknownOptionError(unknown_line(name, [*also, *known]))
        files: dict[str, Any] = {}
        if values.get("preview") is not None:
            files["preview"] = Path(values["preview"])
        if (given := values.get("transform")) is not None:
            by_role = given if isinstance(given, Mapping) else {"": given}
            files["transform"] = {role: Path(path) for role, path in by_role.items()}
        return cls(**{**values, **files})

    def arguments(self) -> Iterator[str]:
        """The words of a command line that say the same, defaults left out."""
        for name, spec in specs(type(self)).items():
            value, plain = getattr(self, name), default_of(type(self), name)
            if value == plain:
                continue
            flag = flag_of(name, spec)
            if spec.by_role:
                for role, chosen in value.items():
                    yield from (flag, f"{role}={chosen}" if role else str(chosen))
            elif isinstance(value, bool):
                yield flag.split("/")[not value] if "/" in flag else flag
            else:
                yield from (flag, str(value))

    def shared_options(self) -> dict[str, Any]:
        """The options that all studies of a batch have in common, by name."""
        return {n: getattr(self, n) for n, spec in specs(type(self)).items() if spec.shared}


class OptionKeywords(TypedDict, total=False):
    """The options as keywords, for type checkers: `FuseOptions` with what `FuseOptions.of` takes.

    A checker cannot read them off the dataclass; tests/test_options.py holds one to the other.
    ``weights`` is a keyword of its own wherever these are taken.
    """

    reference: str | None
    fov: Fov | None
    size: int | None
    colour_map: str | None
    suv_max: float | None
    format: OutputFormat
    dicom_encoding: DicomEncoding
    transfer_syntax: TransferSyntax
    device: str
    transform: Mapping[str, str | Path] | str | Path
    register: bool | None
    registration_timeout: float | None
    accept_registration: bool
    accept_other_anatomy: bool
    accept_different_patients: bool
    series_uid: Mapping[str, str]
    frame: Mapping[str, int]
    fill_gaps: bool
    save_registered: bool
    preview: str | Path | None
    deidentify: bool
    report: bool
    overwrite: bool


def specs(cls: type) -> dict[str, OptionSpec]:
    """The options of a dataclass made with `option`, by name."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}


def default_of(cls: type, name: str) -> Any:
    """What the option ``name`` is when nothing is said."""
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def flag_of(name: str, spec: OptionSpec) -> str:
    """The option as it is written on the command line.

    >>> flag_of("dicom_encoding", OptionSpec("..."))
    '--dicom-encoding'
    """
    return spec.flag or f"--{name.replace('_', '-')}"


def unknown_line(name: str, known: Iterable[str]) -> str:
    """One line on a name that nothing has, with its nearest neighbour.

    >>> unknown_line("acept", ["accept", "fov"])
    "unknown option 'acept' (did you mean accept?); expected one of: accept, fov"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown option {name!r}{guess}; expected one of: {', '.join(known)}"
