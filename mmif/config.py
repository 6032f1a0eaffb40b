"""Pipelines as data: frozen dataclasses that mirror ``pipelines/*.yaml``, key for key.

A pipeline file says everything that decides a result: windows, grid, registration, network,
loss and training. An unknown key is an error that lists the known ones.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from mmif.errors import ConfigError
from mmif.options import Fov, FuseOptions
from mmif.roles import TASKS

MAX_YAML_BYTES = 1 << 18
"""Bytes of a pipeline file; the shipped ones take about 2 KiB."""

Precision = Literal["auto", "fp32", "bf16"]
ScaleKind = Literal["window", "percentile", "brain", "suv"]
Schedule = Literal["constant", "one-cycle"]
Output = Literal["between", "residual", "tanh"]


@dataclass(frozen=True)
class IntensityConfig:
    """How the physical values of one role become 0..1, once per volume.

    ``window``: ``low`` and ``high`` are physical values (HU for CT). With ``bone``, values from
    ``high`` to ``bone`` follow at a lower slope: soft tissue takes 0..0.75, bone the rest. ``head``
    is low, high and bone for a volume that shows a brain inside of a skull, in place of these.
    ``percentile``: they are percentiles of the foreground of the volume.
    ``brain``: they are the brightness, 0..1, of the brain's 2nd and 99th percentile.
    ``suv``: they are SUV by body weight; a PET whose headers do not allow it is refused.
    """

    kind: ScaleKind = "percentile"
    low: float = 0.0
    high: float = 99.5  # fat and vessels of an MRI, a SPECT's hottest voxels lie above
    bone: float | None = None
    head: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse a window that is empty or upside down."""
        if self.head is not None:
            if self.kind != "window":
                raise ConfigError(f"found head for kind {self.kind}, expected it for a window")
            self.of_head()
        if self.bone is not None and not (self.kind == "window" and self.high < self.bone):
            raise ConfigError(
                f"found bone {self.bone:g}, expected it above high ({self.high:g}) of a window"
            )
        if self.kind == "brain" and not 0 <= self.low < self.high <= 1:
            raise ConfigError(f"found {self.low:g} to {self.high:g}, expected brightnesses in 0..1")
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"found low {self.low:g} and high {self.high:g}, expected low < high")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ConfigError(
                f"found {self.low:g} to {self.high:g}, expected percentiles in 0..100"
            )

    def of_head(self) -> "IntensityConfig":
        """What stands for a head: the same, or the window of ``head``."""
        return self if self.head is None else IntensityConfig("window", *self.head)


@dataclass(frozen=True)
class GridConfig:
    """The fused grid: ``size`` x ``size`` square pixels over the field of view ``fov``."""

    size: int = 256  # of the paper's slices, and so of the weights
    fov: Fov = "reference"

    def __post_init__(self) -> None:
        """Refuse a grid that holds no picture."""
        if not 16 <= self.size <= 4096:
            raise ConfigError(f"found size {self.size}, expected 16 to 4096 pixels")


@dataclass(frozen=True)
class RegistrationConfig:
    """The rigid search; lengths in mm, angles in degrees."""

    seed: int = 2025  # any: docs/registration.md has 100 starts, each with draws of its own
    timeout_s: float = 120.0  # 20 times what a search of two heads takes of CPU


@dataclass(frozen=True)
class NetworkConfig:
    """Widths and depths of S3IMFusion.

    ``channels`` at full and ``coarse_channels`` at half resolution; ``width``, ``heads`` and
    ``blocks`` of the Transformer, which sees patches of ``patch`` x ``patch`` pixels; ``margin``
    pixels are replicated around a slice, so that the edge of the picture is no edge in it.
    ``output``: what the last tanh means (`mmif.networks.s3imfusion.S3IMFusion`).
    ``leak``: slope of the last ReLU below 0. With none, features that died for tissue pass nothing
    back, and what is darker in the second source alone is never learnt.
    ``full_resolution``: the second scale of the detail subnetwork by larger kernels in place of
    half the resolution, and patches of single pixels, as the paper prints it; five times slower.
    """

    # what the paper leaves open, and how it was chosen: docs/paper.md
    channels: int = 16
    coarse_channels: int = 16
    detail_layers: int = 2
    width: int = 32
    heads: int = 2
    blocks: int = 2
    patch: int = 16
    margin: int = 8
    output: Output = "between"
    leak: float = 0.0
    full_resolution: bool = False


@dataclass(frozen=True)
class FusionConfig:
    """How slices go through the network, and where one source stands alone.

    ``slice_batch``: slices at once; None leaves it to the device.
    ``transition_mm``: width of the soft step from both sources to the reference alone, where the
    coverage of the moving volume ends.
    ``activity_floor``: the fused brightness is at least this times the square root of the activity
    (0..1), so that there is room for its colour over lungs and fat, which a CT shows black.
    ``anatomy_share``: how much of the brightness under the colours is the anatomy's own, 0..1; the
    rest is what the network made of anatomy and activity.
    ``colour_room``: the brightest that anything is in the map ``activity``. Near white there is no
    room for colour; below 1 all of the anatomy is as much darker.
    """

    slice_batch: int | None = None
    precision: Precision = "auto"
    transition_mm: float = 6.0  # one thick slice, or several thin ones: chosen by eye
    activity_floor: float = 0.0
    anatomy_share: float = 0.0
    # on the sample head with SPECT: docs/evaluation.md, "Room for colour"
    colour_room: float = 0.75

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.slice_batch is not None and self.slice_batch < 1:
            raise ConfigError(f"found slice_batch {self.slice_batch}, expected at least 1")
        if not 0 <= self.transition_mm <= 100:
            raise ConfigError(f"found transition_mm {self.transition_mm:g}, expected 0 to 100")
        for name in ("activity_floor", "anatomy_share", "colour_room"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"found {name} {getattr(self, name):g}, expected 0 to 1")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of the training loss; see ``mmif.training.losses`` for each of them.

    ``similarity``, ``gradient`` and ``smooth`` are the paper's (Eq. 4 to 7) with its weights;
    ``local_similarity`` is its ablation L_ab. ``target``, ``target_regions`` and ``target_edges``
    pull towards what a reader should see (`mmif.training.targets`), ``overlay`` of an anatomy under
    an activity. The others guide towards single metrics.
    """

    similarity: float = 10.0
    gradient: float = 5.0
    smooth: float = 1.0
    local_similarity: float = 0.0
    saliency: float = 0.0
    bone: float = 0.0
    structure: float = 0.0
    edge: float = 0.0
    difference: float = 0.0
    information: float = 0.0
    entropy: float = 0.0
    sharpness: float = 0.0
    halo: float = 0.0
    overlay: float = 0.0
    target: float = 0.0
    target_regions: float = 0.0
    target_edges: float = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe of one training run.

    ``batch`` pairs a step, over all ranks; ``crop`` pixels a side, 0 for whole slices (of one
    size); ``schedule`` of the learning rate; ``average``: decay of the running mean of the
    weights that is validated and kept, 0 for none; ``augmentation``: share of the pairs that are
    changed; ``scanner``: share that is shown as a scanner's volume would show it, with noise and
    findings (`mmif.training.scanner`); ``phantoms``: share that is replaced by drawn images of
    flat regions, on which ringing shows; ``other``: the second source counts in the loss as so many
    times as bright as the network sees it, for an activity has its colour besides, and its
    brightness takes that of the anatomy; ``data``: the public data that has the
    ``validation_cases``, for the card;
    ``validation_cases``: the cases held out, a fifth by the seed where none are named or there;
    ``validate_every``: epochs between validations, of at most ``validation_pairs`` pairs, evenly
    spaced: all of them by default, so that `mmif evaluate` prints the figures of the card.
    """

    # the paper's: 100 epochs of 16 whole slices at 0.001 (docs/paper.md)
    epochs: int = 100
    batch: int = 16
    crop: int = 256
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    average: float = 0.0
    augmentation: float = 0.0
    scanner: float = 0.0
    phantoms: float = 0.0
    other: float = 1.0
    seed: int = 2025
    precision: Precision = "auto"
    data: Literal["harvard", "roadscene"] | None = None
    validation_cases: tuple[str, ...] = ()
    validate_every: int = 5  # a validation takes about an epoch's time
    validation_pairs: int = 100

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        at_least = {"epochs": 1, "batch": 1, "crop": 0, "seed": 0, "validate_every": 1}
        for name, low in {**at_least, "validation_pairs": 1}.items():
            if getattr(self, name) < low:
                raise ConfigError(f"found {name} {getattr(self, name)}, expected at least {low}")
        for name in ("augmentation", "scanner", "phantoms", "average", "other"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"found {name} {getattr(self, name):g}, expected 0 to 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"found learning_rate {self.learning_rate:g}, expected above 0")


@dataclass(frozen=True)
class Pipeline:
    """One task from files to files.

    Attributes:
        task: one of `mmif.roles.TASKS`.
        roles: those of the task: the first is network channel 0 and image A of the metrics, the
            second is channel 1 and image B; a third, an activity, lies over both.
        reference: the role whose frame the fused volume has.
        weights: of the only pass; of three sources those of the second, the activity over the fused
            grey ones.
        grey_weights: of three sources those of the first pass.
        colour_map: the pseudo-colour map of the activity, or None for grey fusion.
        intensity: role to how its physical values become 0..1.
        grid: pixels and field of view of the fused slices.
        registration: the rigid search.
        network: widths and depths; of use in training, weights carry their own.
        fusion: how slices go through the network.
        loss: weights of the terms of the training loss.
        training: the recipe.
    """

    task: str
    roles: tuple[str, ...]
    reference: str
    weights: str
    grey_weights: str | None = None
    colour_map: str | None = None
    intensity: Mapping[str, IntensityConfig] = field(default_factory=dict)
    grid: GridConfig = GridConfig()
    registration: RegistrationConfig = RegistrationConfig()
    network: NetworkConfig = NetworkConfig()
    fusion: FusionConfig = FusionConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        """Refuse roles that are not the task's, and a target that the task has none of."""
        if self.task not in TASKS:
            raise ConfigError(f"task: found {self.task!r}, expected one of {', '.join(TASKS)}")
        wanted = TASKS[self.task].roles
        if self.roles != wanted:
            found, expected = (" and ".join(roles) for roles in (self.roles, wanted))
            raise ConfigError(f"roles: found {found}, expected {expected} for task {self.task}")
        if (self.grey_weights is None) == (len(self.roles) == 3):
            found = f"{self.grey_weights!r} for {len(self.roles)} sources"
            raise ConfigError(f"grey_weights: found {found}; expected them for three sources alone")
        if self.reference not in self.roles:
            expected = " or ".join(self.roles)
            raise ConfigError(f"reference: found {self.reference!r}, expected {expected}")
        if strangers := sorted(set(self.intensity) - set(self.roles)):
            expected = " and ".join(self.roles)
            raise ConfigError(f"intensity: found {', '.join(strangers)}, expected {expected}")
        if (self.loss.target or self.loss.target_edges) and self.task != "ct-mri":
            raise ConfigError(f"loss: found a target for task {self.task}, expected it for ct-mri")

    @property
    def activity(self) -> str | None:
        """The role that is shown in colour, None where all are grey."""
        return TASKS[self.task].activity

    @property
    def passes(self) -> tuple[str, ...]:
        """The weights of each pass of the network."""
        return (self.weights,) if self.grey_weights is None else (self.grey_weights, self.weights)

    def with_options(self, options: FuseOptions) -> "Pipeline":
        """The pipeline with what ``options`` say in place of its own.

        Raises:
            ConfigError: a reference that is none of the roles.
        """
        grid = replace(self.grid, fov=options.fov or self.grid.fov)
        timeout_s = options.registration_timeout or self.registration.timeout_s
        intensity = self.intensity
        if options.suv_max is not None:
            if "pet" not in self.roles:
                raise ConfigError(f"found suv_max {options.suv_max:g} in {self.task}; expected PET")
            intensity = {**intensity, "pet": IntensityConfig("suv", 0.0, options.suv_max)}
        return replace(
            self,
            intensity=intensity,
            reference=options.reference or self.reference,
            weights=options.weights or self.weights,
            colour_map=options.colour_map or self.colour_map,
            grid=replace(grid, size=options.size or grid.size),
            registration=replace(self.registration, timeout_s=timeout_s),
        )

    def intensity_of(self, role: str) -> IntensityConfig:
        """How the values of ``role`` become 0..1; slices and images do not need it.

        Raises:
            ConfigError: the pipeline does not say.
        """
        if role not in self.intensity:
            raise ConfigError(f"pipeline {self.task}: no intensity for {role}; volumes need one")
        return self.intensity[role]


def shipped_path(name: Literal["pipelines", "weights", "LICENSE"]) -> Path:
    """What is shipped beside the code: inside the wheel, or beside a source checkout."""
    package = Path(__file__).parent
    inside = package / "_shipped" / name
    return inside if inside.exists() else package.parent / name


class _PlainLoader(yaml.SafeLoader):
    """Plain data alone: an alias repeats what it stands for, and a few unfold to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"an alias in line {mark.line + 1}; expected values in full")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """The plain data in a YAML file of settings.

    Raises:
        ConfigError: it cannot be read, is too large, or holds more than plain data.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; expected settings in YAML")
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: more than {MAX_YAML_BYTES >> 10} KiB; expected settings")
        return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; expected settings") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not readable as YAML ({reason})") from error


def load_pipeline(name_or_file: str | Path) -> Pipeline:
    """The pipeline of a shipped name (``ct-mri``) or of a YAML file.

    Args:
        name_or_file: a name without an ending, or a file that ends in ``.yaml`` or ``.yml``.

    Raises:
        ConfigError: no such name or file, broken YAML, an unknown key or a value of a wrong type.
    """
    path = Path(name_or_file)
    if path.suffix not in {".yaml", ".yml"}:
        path = shipped_path("pipelines") / f"{name_or_file}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in shipped_path("pipelines").glob("*.yaml")))
        raise ConfigError(f"no pipeline {name_or_file}; expected a YAML file or one of: {names}")
    return build(Pipeline, read_yaml(path), str(path))


T = TypeVar("T")


def build(cls: type[T], data: object, where: str) -> T:
    """An instance of the dataclass ``cls`` from the plain mapping ``data``.

    ``where`` is the place named in errors: a file, then the path of keys.

    Raises:
        ConfigError: not a mapping, an unknown or missing key, or a value of a wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: found {type(data).__name__}, expected keys and values")
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(
                f"{where}: unknown key {key!r}{guess}; known keys: {', '.join(known)}"
            )
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{where}: key {name!r} is missing")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _one_of(choices: tuple[object, ...], value: object, where: str) -> object:
    if value not in choices:
        expected = ", ".join(map(str, choices))
        raise ConfigError(f"{where}: found {value!r}, expected one of {expected}")
    return value


def _value(hint: Any, value: object, where: str) -> object:
    """``value`` as the type ``hint``, or a ConfigError that says what was expected."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _value(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal:
        return _one_of(args, value, where)
    if origin is tuple and isinstance(value, list):
        inner = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(inner) == len(value):
            return tuple(_value(h, v, where) for h, v in zip(inner, value, strict=True))
    if origin is Mapping and isinstance(value, Mapping):
        return {k: _value(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    exact = isinstance(value, bool) == (hint is bool)  # a bool is an int to isinstance
    if isinstance(hint, type) and isinstance(value, hint) and exact:
        return value
    raise ConfigError(f"{where}: found {value!r}, expected {getattr(hint, '__name__', hint)}")
