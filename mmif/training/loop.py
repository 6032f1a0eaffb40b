"""The training loop: slices in, weights out.

One process, or one a device under ``torchrun``. Everything random is drawn from the seed and the
step, so a training that was killed goes on with the same losses from its checkpoint.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from mmif.config import Pipeline, TrainingConfig
from mmif.errors import TrainingError
from mmif.io.atomic import staging_path
from mmif.networks.inference import choose_precision
from mmif.networks.s3imfusion import S3IMFusion
from mmif.training.batches import Batch, check_crops, draw_batch, steps_per_epoch
from mmif.training.card import Origin, weights_card
from mmif.training.losses import Target, fusion_loss
from mmif.training.pairs import PairSet
from mmif.training.ranks import Ranks
from mmif.training.record import LOSSES, VALIDATION, Record
from mmif.training.state import CHECKPOINT, State, load_checkpoint, save_checkpoint
from mmif.training.targets import with_truth
from mmif.training.validation import Validation, Validator
from mmif.weights import CARD, MODEL, save_weights

log = logging.getLogger(__name__)

# Norm of all gradients: one odd batch does not throw the weights; chosen, not measured
GRADIENT_LIMIT = 1.0
WORKERS = 8
"""At most so many processes draw batches; a crop takes about 4 ms, a step on a GPU 15."""
MODEL_FOLDER = "weights"
SAMPLES = "samples"
WRITTEN = (
    f"{MODEL_FOLDER}/{MODEL}",
    f"{MODEL_FOLDER}/{CARD}",
    CHECKPOINT,
    LOSSES,
    VALIDATION,
    f"{SAMPLES}/[0-9]*.png",
    "tensorboard/events.out.tfevents.*",
)
"""All that a training writes; a folder with anything else in it is not replaced."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after each step: the losses are those of this step."""

    step: int
    steps: int
    losses: Mapping[str, float]
    seconds_left: float
    validation: Validation | None = None


Watcher = Callable[[Progress], None]


@dataclass(frozen=True)
class Job:
    """One training: what, where to, how long, on what.

    Attributes:
        max_steps: stop here, although the recipe (and its schedule) goes on; 0 for no limit.
        output: a folder that is made anew, but for ``resume``.
        resume: go on from ``output/checkpoint.pt``.
        origin: for the card.
        start: weights to begin with, in place of random ones; of the pipeline's network.
        compiled: through ``torch.compile``.
    """

    pipeline: Pipeline
    output: Path
    origin: Origin
    max_steps: int = 0
    resume: bool = False
    start: Mapping[str, Tensor] | None = None
    compiled: bool = False


def train(
    job: Job,
    pairs: PairSet,
    ranks: Ranks,
    watch: Watcher = lambda progress: None,
) -> Validation | None:
    """Train as ``job`` says; the best validation so far (None on ranks but the first).

    ``output`` gets ``weights/`` (the best, with their card), ``checkpoint.pt``, ``losses.csv``,
    ``validation.csv`` and ``samples/*.png``.

    Raises:
        TrainingError: a batch that the ranks cannot share, crops of different sizes, no more finite
            loss, or a checkpoint or weights to start from that do not fit.
        OutputError: ``output`` cannot be made.
    """
    recipe = job.pipeline.training
    if job.pipeline.loss.target or job.pipeline.loss.target_edges:
        pairs = replace(
            pairs, training=with_truth(pairs.training), validation=with_truth(pairs.validation)
        )
    if recipe.batch % ranks.count:
        raise TrainingError(
            f"training.batch is {recipe.batch}, expected a multiple of the {ranks.count} processes"
        )
    check_crops(pairs.training, recipe.crop)
    steps = recipe.epochs * steps_per_epoch(pairs.training, recipe.batch)
    state = _begin(job, pairs, ranks, steps)
    network = _parallel(job, state, ranks)
    end = min(steps, job.max_steps or steps)
    interval = recipe.validate_every * steps_per_epoch(pairs.training, recipe.batch)
    if ranks.first and not job.resume:
        _make(job.output)
    ranks.wait()
    keeper = _Keeper(job, state, pairs) if ranks.first else None
    if state.step >= end:
        log.warning("nothing is left to do: %d of %d steps are done", state.step, end)
    batches = iter(_loader(pairs, recipe, range(state.step, end), ranks))
    while state.step < end:
        started = time.perf_counter()
        batch = next(batches)
        losses = _step(network, state, batch, job, ranks)
        state.step += 1
        state.seconds += time.perf_counter() - started
        validation = None
        if keeper is not None:
            keeper.record.step(state.step, state.learning_rate, losses)
            if state.step % interval == 0 or state.step == end:
                validation = keeper.validate(ranks.device)
        left = (end - state.step) * state.seconds / state.step
        watch(Progress(state.step, end, losses, left, validation))
        ranks.wait()
    return state.best if ranks.first else None


def _loader(
    pairs: PairSet, recipe: TrainingConfig, steps: range, ranks: Ranks
) -> DataLoader[Batch]:
    """The batches of ``steps``, drawn beside the training by processes of their own."""
    draw = partial(draw_batch, pairs.training, recipe, rank=ranks.rank, ranks=ranks.count)
    workers = min(WORKERS, (os.cpu_count() or 1) - 1, len(steps))
    return DataLoader(_Drawn(draw, steps), batch_size=None, num_workers=workers)


class _Drawn(Dataset[Batch]):
    """The batches of some steps, each drawn where it is asked for."""

    def __init__(self, draw: Callable[[int], Batch], steps: range) -> None:
        self.draw, self.steps = draw, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        torch.set_num_threads(1)
        return self.draw(self.steps[index])


def _begin(job: Job, pairs: PairSet, ranks: Ranks, steps: int) -> State:
    """A fresh state on the rank's device, or that of the checkpoint."""
    recipe = job.pipeline.training
    torch.manual_seed(recipe.seed)
    network = S3IMFusion(job.pipeline.network)
    if job.start is not None:
        try:
            network.load_state_dict(dict(job.start))
        except RuntimeError as error:
            raise TrainingError(
                f"{job.origin.started_from}: weights of another network than the recipe's"
            ) from error
    network = network.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State.fresh(_terms(job.pipeline, pairs), job.origin, network, recipe, steps)
    if job.resume:
        load_checkpoint(state, job.output)
    return state


def _make(output: Path) -> None:
    """An empty folder at ``output``, in place of what stands there."""
    with staging_path(output) as folder:
        folder.mkdir()


def _terms(pipeline: Pipeline, pairs: PairSet) -> dict[str, Any]:
    """What decides the losses: the same in every part of a resumed training."""
    parts = asdict(pipeline)
    recipe = {
        f"{part}.{key}": value
        for part in ("network", "loss", "training")
        for key, value in parts[part].items()
    }
    cases = ", ".join(f"{case} ({count})" for case, count in pairs.cases()["training"].items())
    return {"task": pipeline.task, **recipe, "training cases": cases}


def _parallel(job: Job, state: State, ranks: Ranks) -> nn.Module:
    network: nn.Module = state.network
    if job.compiled:
        network = torch.compile(network)  # type: ignore[assignment]
    if ranks.count == 1:
        return network
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices)


def _step(
    network: nn.Module, state: State, batch: Batch, job: Job, ranks: Ranks
) -> dict[str, float]:
    """One update; the losses by name, their mean over the ranks."""
    recipe, device = job.pipeline.training, ranks.device
    sources = batch.sources.to(device, non_blocking=True)
    sources = sources.contiguous(memory_format=torch.channels_last)
    network.train()
    state.optimizer.zero_grad(set_to_none=True)
    with _cast(recipe, device):
        fused = network(sources)
    generator = torch.Generator(device).manual_seed(recipe.seed * 1_000_003 + state.step)
    a, b = sources[:, :1], sources[:, 1:] * recipe.other
    drawn = batch.drawn.to(device)
    total, parts = fusion_loss(
        fused, a, b, job.pipeline.loss, generator, drawn, _target(batch, device)
    )
    losses = {name: float(value) for name, value in {"total": total.detach(), **parts}.items()}
    _refuse_unsound("loss", total, state, batch, job)
    total.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), GRADIENT_LIMIT)
    _refuse_unsound("gradient", norm, state, batch, job)
    state.update()
    return ranks.mean(losses)


def _target(batch: Batch, device: torch.device) -> Target | None:
    if batch.targets is None or batch.weights is None:
        return None
    return Target(batch.targets.to(device), batch.weights.to(device))


def _refuse_unsound(what: str, value: Tensor, state: State, batch: Batch, job: Job) -> None:
    """Refuse to go on where ``value`` is not finite; nothing was changed by this step."""
    if torch.isfinite(value):
        return
    path = job.output / CHECKPOINT
    kept = f"the last good checkpoint is kept in {path}" if path.exists() else "no checkpoint yet"
    raise TrainingError(
        f"step {state.step + 1}: {what} is {float(value.detach())} on {', '.join(batch.names)},"
        f" expected a finite one; {kept}"
    )


def _cast(recipe: TrainingConfig, device: torch.device) -> AbstractContextManager[Any]:
    if choose_precision(recipe.precision, device) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


class _Keeper:
    """What the first rank keeps: the record, the validations, the best weights, the checkpoint."""

    def __init__(self, job: Job, state: State, pairs: PairSet) -> None:
        self.job, self.state, self.cases = job, state, pairs.cases()
        self.record = Record(job.output, state.step)
        self.validator = Validator(pairs.validation, job.pipeline.training.validation_pairs)

    def validate(self, device: torch.device) -> Validation:
        """Validate the averaged weights; keep them where they are the best; write a checkpoint."""
        network, state = self.state.averaged_network(), self.state
        validation = self.validator(network, device)
        self.record.validation(state.step, validation)
        self.validator.picture(network, device, self.job.output / SAMPLES / f"{state.step:06d}.png")
        if state.best is None or validation.order < state.best.order:
            state.best = validation
            card = weights_card(
                self.job.pipeline, state.origin, self.cases, validation, device, state.seconds
            )
            save_weights(network, self.job.output / MODEL_FOLDER, card)
        save_checkpoint(state, self.job.output)
        return validation
