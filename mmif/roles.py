"""The one table of roles and of tasks: what a source is, and which sources are fused together.

A role is what a source is to the fusion (``ct``, ``mri``, ``spect``, ``pet``; ``ir`` and
``visible`` in 2-D); a task is a set of roles, its reference first.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mmif.errors import ConfigError

RoleKind = Literal["anatomy", "activity", "scene"]


@dataclass(frozen=True)
class Role:
    """What a source is to the fusion.

    Attributes:
        name: as options, pipelines and the summary have it.
        label: as a reader is told.
        kind: ``anatomy`` is fused in grey; ``activity`` (SPECT, PET) lies over it in colour;
            ``scene`` are the 2-D images of the infrared-visible extension.
        modality: DICOM Modality (0008,0060) of the series that are read for it; "" in 2-D.
        unit: of its values where the file does not say.
        folder: the folder of its slices in a training set, after the Harvard layout.
        names: words in file and folder names that mean it.
        is_blurred: whether it has no sharp edges to show, only lines of equal brightness.
    """

    name: str
    label: str
    kind: RoleKind
    modality: str = ""
    unit: str = ""
    folder: str = ""
    names: tuple[str, ...] = ()

    @property
    def is_blurred(self) -> bool:
        """Whether it has no sharp edges to show, only lines of equal brightness."""
        return self.kind == "activity"


ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role("ct", "CT", "anatomy", "CT", "HU", "CT", ("ct",)),
        Role(
            "mri",
            "MRI",
            "anatomy",
            "MR",
            "",
            "MRI",
            ("mri", "mr", "t1", "t1w", "t2", "t2w", "flair"),
        ),
        Role("spect", "SPECT", "activity", "NM", "", "SPECT", ("spect", "nm")),
        Role("pet", "PET", "activity", "PT", "", "PET", ("pet", "pt")),
        Role("visible", "visible", "scene", folder="VIS"),
        Role("ir", "infrared", "scene", folder="IR"),
    )
}

VOLUME_ROLES = tuple(name for name, role in ROLES.items() if role.kind != "scene")
IMAGE_ROLES = tuple(name for name, role in ROLES.items() if role.kind == "scene")
ACTIVITY_ROLES = tuple(name for name, role in ROLES.items() if role.kind == "activity")


@dataclass(frozen=True)
class Task:
    """A set of roles that become one volume.

    Attributes:
        name: as options, pipelines, weights and the summary have it.
        roles: the reference by default first. The first two are the channels of the network and
            images A and B of the metrics; the third, an activity, lies over what they became.
        colour: the role that gives registered 2-D images their colour, None for grey.
    """

    name: str
    roles: tuple[str, ...]
    colour: str | None = None

    @property
    def reference(self) -> str:
        """The role whose frame the fused volume has by default: the MRI, else the CT."""
        return self.roles[0]

    @property
    def activity(self) -> str | None:
        """The role shown in colour, None where all are grey."""
        return next((role for role in self.roles if ROLES[role].kind == "activity"), None)

    @property
    def passes(self) -> tuple[frozenset[str], ...]:
        """For each pass of the network, the tasks whose weights were trained for such a pair.

        An activity over one anatomy is as one over another; over two it is over what they became.
        """
        if self.activity is None:
            return (frozenset({self.name}),)
        over = frozenset(task.name for task in TASKS.values() if task.activity == self.activity)
        return (over,) if len(self.roles) == 2 else (frozenset({"ct-mri"}), over)


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("ct-mri", ("mri", "ct")),
        Task("spect-mri", ("mri", "spect"), colour="spect"),
        Task("pet-mri", ("mri", "pet"), colour="pet"),
        Task("spect-ct", ("ct", "spect"), colour="spect"),
        Task("pet-ct", ("ct", "pet"), colour="pet"),
        Task("ct-mri-spect", ("mri", "ct", "spect"), colour="spect"),
        Task("ct-mri-pet", ("mri", "ct", "pet"), colour="pet"),
        Task("ir-vis", ("visible", "ir"), colour="visible"),
    )
}

VOLUME_TASKS = tuple(
    name for name, task in TASKS.items() if all(role in VOLUME_ROLES for role in task.roles)
)
"""The tasks of volumes; the others are of 2-D images alone."""

PAIR_TASKS = tuple(name for name, task in TASKS.items() if len(task.roles) == 2)
"""The tasks of two sources."""


def task_of(roles: Collection[str]) -> str:
    """The task that ``roles`` name, in any order.

    Raises:
        ConfigError: not a set that mmif fuses.

    >>> task_of({"ct", "mri"})
    'ct-mri'
    """
    for name, task in TASKS.items():
        if set(task.roles) == set(roles):
            return name
    known = "; ".join(" and ".join(task.roles) for task in TASKS.values())
    raise ConfigError(f"found {' and '.join(roles) or 'nothing'}; expected one of: {known}")


def unit_of(role: str | None) -> str:
    """The unit of the values of ``role`` where a file does not say; "" where there is none."""
    return ROLES[role].unit if role is not None and role in ROLES else ""


def label(role: str) -> str:
    """How ``role`` is written for a reader; an unknown one as it is."""
    return ROLES[role].label if role in ROLES else role


def labels(roles: Iterable[str]) -> str:
    """``roles`` as a reader is told of them together.

    >>> labels(["mri", "ct", "spect"]), labels(["ct", "pet"])
    ('MRI, CT and SPECT', 'CT and PET')
    """
    *first, last = map(label, roles)
    return f"{', '.join(first)} and {last}" if first else last
