"""What a training is between two steps, and its checkpoint."""

import copy
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mmif.config import TrainingConfig
from mmif.errors import TrainingError
from mmif.io.atomic import staging_path
from mmif.networks.s3imfusion import S3IMFusion
from mmif.training.card import Origin
from mmif.training.validation import Validation

CHECKPOINT = "checkpoint.pt"
PARTS = (
    "terms",
    "origin",
    "network",
    "optimizer",
    "scheduler",
    "average",
    "step",
    "seconds",
    "best",
)


@dataclass(eq=False)
class State:
    """The network, its optimiser, the running mean of its weights, and how far it is.

    Attributes:
        terms: name to value of what must be the same for a resumed training to be the same.
        best: the validation of the weights that are kept.
    """

    terms: Mapping[str, Any]
    origin: Origin
    network: S3IMFusion
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    average: dict[str, Tensor] | None
    decay: float
    step: int = 0
    seconds: float = 0.0
    best: Validation | None = None

    @classmethod
    def fresh(
        cls,
        terms: Mapping[str, Any],
        origin: Origin,
        network: S3IMFusion,
        recipe: TrainingConfig,
        steps: int,
    ) -> "State":
        """The state before the first of ``steps`` steps."""
        optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
        scheduler = None
        if recipe.schedule == "one-cycle":
            scheduler = OneCycleLR(
                optimizer, recipe.learning_rate, total_steps=steps + 1, pct_start=0.1
            )
        average = _copy_tensors(network) if recipe.average else None
        return cls(terms, origin, network, optimizer, scheduler, average, recipe.average)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self) -> None:
        """Apply the gradients, go on in the schedule, and follow with the running mean."""
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        if self.average is None:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            mean = self.average[name]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def averaged_network(self) -> S3IMFusion:
        """A copy of the network with the running mean of its weights, in evaluation mode."""
        network = copy.deepcopy(self.network)
        if self.average is not None:
            network.load_state_dict(self.average)
        return network.eval()


def save_checkpoint(state: State, output: Path) -> None:
    """Write ``checkpoint.pt``, whole or not at all."""
    content: dict[str, Any] = {
        "terms": dict(state.terms),
        "origin": asdict(state.origin),
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
        "average": state.average,
        "step": state.step,
        "seconds": state.seconds,
        "best": asdict(state.best) if state.best else None,
    }
    packed = io.BytesIO()  # torch hides what a full disk says
    torch.save(content, packed)
    with staging_path(output / CHECKPOINT) as path:
        path.write_bytes(packed.getbuffer())


def load_checkpoint(state: State, output: Path) -> None:
    """Bring ``state`` to where the checkpoint in ``output`` stood.

    Raises:
        TrainingError: none there, not readable, or of another network, task, recipe or data.
    """
    path = output / CHECKPOINT
    if not path.is_file():
        raise TrainingError(f"{path}: no checkpoint to resume from")
    try:
        content = _read(path, state.network)
        _check_same(state, content, path)
        _restore(state, content)
    except TrainingError:
        raise
    except Exception as error:  # whatever a tampered file makes of torch's parts
        raise TrainingError(f"{path}: not a readable checkpoint of mmif train") from error


def _check_same(state: State, content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint of another network, task, recipe, data or beginning."""
    for name, expected in state.terms.items():
        found = content["terms"].get(name)
        if found != expected:
            raise TrainingError(f"{path}: of {name} {found}, expected {expected}")
    begun_from = content["origin"]["started_from"]
    if state.origin.started_from not in (None, begun_from):
        raise TrainingError(
            f"{path}: started from {begun_from}, expected {state.origin.started_from}"
        )


def _restore(state: State, content: Mapping[str, Any]) -> None:
    state.origin = Origin(**content["origin"])
    state.network.load_state_dict(content["network"])
    state.optimizer.load_state_dict(content["optimizer"])
    if state.scheduler is not None:
        state.scheduler.load_state_dict(content["scheduler"])
    state.average = content["average"]
    if state.average is not None:
        state.averaged_network()
    state.step, state.seconds = int(content["step"]), float(content["seconds"])
    state.best = content["best"]


def _read(path: Path, network: S3IMFusion) -> dict[str, Any]:
    """The parts of a checkpoint; of data alone, so that nothing in it is run."""
    device = next(network.parameters()).device
    content = torch.load(path, map_location=device, weights_only=True)
    content["best"] = content["best"] and Validation(**content["best"])
    return {part: content[part] for part in PARTS}


def _copy_tensors(network: S3IMFusion) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
