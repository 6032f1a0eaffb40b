"""The processes that train together: one alone, or those that ``torchrun`` started."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed

from mmif.errors import TrainingError
from mmif.networks.inference import choose_device

#: Every error of gloo's connections names its source file here; gloo has no error class of its own,
#: and a lost peer is "closed", "reset", a broken pipe or a time-out by what was under way.
GLOO_CONNECTION = "gloo/transport/"


@dataclass(frozen=True)
class Ranks:
    """This process among ``count``; the first one validates and writes."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True for the process that validates and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.count > 1:
            torch.distributed.barrier()

    @contextmanager
    def one_after_the_first(self) -> Iterator[None]:
        """A block that the first process has left before the others enter it."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def mean(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The mean of each loss over the ranks."""
        if self.count == 1:
            return dict(losses)
        values = torch.tensor(list(losses.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(values)
        return dict(zip(losses, (values / self.count).tolist(), strict=True))


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """This process's place; under ``torchrun`` (environment ``WORLD_SIZE``) in a process group.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; with several ranks each takes the GPU of
            its local rank.

    Raises:
        TrainingError: another process stopped.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(0, 1, choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), count, chosen)
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and GLOO_CONNECTION not in str(error):
            raise
        raise TrainingError("another process stopped; its own line says why") from error
    finally:
        torch.distributed.destroy_process_group()
