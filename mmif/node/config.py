"""The node's one YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from mmif.batch.worker import Limits
from mmif.config import build, read_yaml
from mmif.errors import ConfigError
from mmif.node.peers import Peer, check_ae_title
from mmif.options import FuseOptions, specs
from mmif.roles import VOLUME_TASKS


@dataclass(frozen=True)
class ReceiveConfig:
    """What those who send may take.

    Attributes:
        associations: at a time; more are rejected for a while.
        pdu_bytes: the largest protocol data unit that is taken; 0: any.
        idle_s: an association that says nothing for so long is aborted.
        free_gib: less free disk than this, and nothing more is taken.
    """

    associations: int = 8  # two senders at a time; 4 sent 50 studies in 9 s (benchmarks/node.py)
    pdu_bytes: int = 65536  # a slice of 512 x 512 in eight; 4096 is PS3.8's least (D.1)
    idle_s: float = 60.0  # pynetdicom's own
    free_gib: float = 5.0  # ten studies of 500 MB: what may come before somebody looks

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.associations < 1:
            raise ConfigError(f"found associations {self.associations}, expected at least 1")
        if self.pdu_bytes and not 4096 <= self.pdu_bytes <= 1 << 24:
            raise ConfigError(f"found pdu_bytes {self.pdu_bytes}, expected 0, or 4096 to 16777216")
        if self.idle_s <= 0 or self.free_gib < 0:
            raise ConfigError("expected idle_s above 0 and free_gib of at least 0")


@dataclass(frozen=True)
class DeliverConfig:
    """How results are handed on.

    Attributes:
        first_pause_s: before the second try; each further pause is twice as long,
        longest_pause_s: but not longer than this.
        give_up_days: no more tries of a result that is older.
        commitment: whether the archive is asked to commit itself, where it offers that.
        commitment_s: how long its answer is awaited.
    """

    first_pause_s: float = 5.0  # an archive that restarts
    longest_pause_s: float = 600.0  # one that is down over night is noticed within ten minutes
    give_up_days: float = 7.0  # a weekend and a week of maintenance
    commitment: bool = True
    commitment_s: float = 60.0  # Orthanc answers within a second; others when their queue allows

    def __post_init__(self) -> None:
        """Refuse pauses that are none."""
        if not 0 < self.first_pause_s <= self.longest_pause_s:
            raise ConfigError("expected 0 < first_pause_s <= longest_pause_s")
        if self.give_up_days <= 0 or self.commitment_s <= 0:
            raise ConfigError("expected give_up_days and commitment_s above 0")


@dataclass(frozen=True)
class NodeConfig:
    """Everything a node is told; the keys of its YAML file.

    Attributes:
        output: folder for what comes (``spool``), the results (``studies``) and the records.
        accept: calling AE titles that may send; all others are refused.
        send_to: where results go, as ``AET@HOST:PORT``.
        ae_title: ours, called and calling.
        host: the address to listen at; "" for all.
        port: the port to listen at.
        quiet_s: a patient of whom nothing has come for so long is complete.
        keep_days: how long images and delivered results stay.
        tasks: the tasks that are wanted; what a study can make, when left out.
        pipelines: YAML files in place of the shipped pipelines of their tasks.
        options: of ``mmif fuse``, for every study.
        jobs: worker processes; 0: one a core, as far as memory goes.
        work: limits of one study: ``timeout_s``, ``memory_mib``, ``threads``.
        receive: limits of those who send.
        deliver: how results are handed on.
    """

    output: str
    accept: tuple[str, ...]
    send_to: tuple[str, ...] = ()
    ae_title: str = "MMIF"
    host: str = ""
    port: int = 11112  # IANA's for DICOM that needs no privilege (PS3.8 9.1.1 has 104 beside it)
    quiet_s: float = 60.0  # series of one examination come with pauses; chosen (docs/hospital.md)
    keep_days: float = 7.0  # as long as results are tried to be sent
    tasks: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    options: FuseOptions = field(default_factory=FuseOptions)
    jobs: int = 0
    work: Limits = Limits()
    receive: ReceiveConfig = ReceiveConfig()
    deliver: DeliverConfig = DeliverConfig()

    def __post_init__(self) -> None:
        """Refuse titles, peers, tasks and options that cannot be."""
        for title in (self.ae_title, *self.accept):
            check_ae_title(title)
        if not self.accept:
            raise ConfigError("accept: found nobody; expected the AE titles that may send")
        if len(set(self.peers)) < len(self.peers):
            raise ConfigError("send_to: found a peer twice; expected each once")
        if not 0 < self.port < 65536:
            raise ConfigError(f"port: found {self.port}, expected 1 to 65535")
        if self.quiet_s <= 0 or self.keep_days <= 0 or self.jobs < 0:
            raise ConfigError("expected quiet_s and keep_days above 0 and jobs of at least 0")
        if strangers := sorted(set(self.tasks) - set(VOLUME_TASKS)):
            expected = ", ".join(VOLUME_TASKS)
            raise ConfigError(f"tasks: found {', '.join(strangers)}, expected some of {expected}")
        _check_options(self.options)

    @cached_property
    def peers(self) -> tuple[Peer, ...]:
        """Where results go."""
        return tuple(map(Peer.parse, self.send_to))

    @classmethod
    def read(cls, path: Path | None, given: Mapping[str, Any]) -> Self:
        """The configuration of the YAML file ``path`` with what is ``given`` in place of its own.

        Raises:
            ConfigError: no file, broken YAML, unknown keys, values that cannot be.
        """
        data = read_yaml(path) if path is not None else {}
        if not isinstance(data, Mapping):
            raise ConfigError(f"{path}: found {type(data).__name__}, expected keys and values")
        return build(cls, {**data, **given}, str(path or "mmif node"))


def _check_options(options: FuseOptions) -> None:
    """Refuse options that one study alone can have, and results that no archive takes.

    Raises:
        ConfigError: one of those.
    """
    plain = FuseOptions()
    for name, spec in specs(FuseOptions).items():
        value = getattr(options, name)
        if not spec.shared and value != getattr(plain, name):
            raise ConfigError(f"options: {name} is one study's; expected it in no node")
        if spec.choices and value is not None and value not in spec.choices:
            expected = ", ".join(map(str, spec.choices))
            raise ConfigError(f"options: found {name} {value}, expected one of {expected}")
    if options.format == "nifti":
        raise ConfigError("options: found format nifti; expected DICOM, which can be sent on")
    if options.deidentify:  # its UIDs are new in each run: nothing could be sent exactly once
        raise ConfigError("options: found deidentify; expected identity, by which archives match")
