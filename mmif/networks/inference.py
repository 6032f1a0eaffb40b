"""A stack of slices through a fusion network, in batches, on the device that there is.

Out of memory halves the batch; at one slice a batch it goes on from the GPU to the CPU. What was
used in the end, and why, comes back with the fused slices.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from mmif.config import Precision
from mmif.errors import ConfigError, InputError, WeightsError

Progress = Callable[[int, int], None]
CPU = torch.device("cpu")
# Chosen, not measured; out of memory halves it
GPU_BATCH = 32
#: The allocator of a CPU; the driver, where another process holds the memory; cuBLAS; cuDNN.
OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class InferenceInfo:
    """How a stack of slices was fused.

    Attributes:
        device: where the last slice was fused: ``cpu``, ``cuda:0`` ...
        precision: ``fp32`` or ``bf16``.
        slice_batch: slices that went through the network at once, in the end.
        warnings: what gave way on the way, and why.
        seconds: wall time, the moves to and from the device included.
    """

    device: str
    precision: str
    slice_batch: int
    warnings: tuple[str, ...]
    seconds: float


@runtime_checkable
class StackNetwork(Protocol):
    """A network that is elsewhere and takes whole stacks, as `mmif.networks.remote` has it."""

    def fuse_stack(
        self, anatomical: torch.Tensor, other: torch.Tensor, precision: str, batch: int
    ) -> tuple[torch.Tensor, InferenceInfo]:
        """As `fuse_slices`, on the device of its owner."""


def choose_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; auto is a GPU where there is one.

    Raises:
        ConfigError: another name, or a GPU that is not there.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0") if gpus else CPU
    if name == "cpu":
        return CPU
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise ConfigError(f"device: found {name!r}, expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= gpus:
        raise ConfigError(f"device {name}: found {gpus} CUDA devices on this machine")
    return torch.device("cuda", int(number or 0))


def choose_precision(wanted: Precision, device: torch.device) -> str:
    """``fp32`` or ``bf16``; auto takes bf16 where the processor multiplies it in hardware.

    Elsewhere bf16 is emulated, and slower than fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if fast else "fp32"


def fuse_slices(
    network: nn.Module | StackNetwork,
    anatomical: torch.Tensor,
    other: torch.Tensor,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int | None = None,
    progress: Progress | None = None,
) -> tuple[torch.Tensor, InferenceInfo]:
    """The fused slices, and how they were made.

    Args:
        network: (n, 2, rows, columns) to (n, 1, rows, columns), both in 0..1. It is moved to the
            device and stays there, in evaluation mode. A `StackNetwork` stays where it is.
        anatomical: (s, rows, columns) in 0..1, network channel 0: MRI or visible.
        other: (s, rows, columns) in 0..1, network channel 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        batch: slices that go through the network at once; None takes 32 on a GPU, and on a CPU
            one, which keeps to its caches and is twice as fast there as eight.
        progress: called with (slices done, slices in all) after each batch.

    Returns:
        (s, rows, columns) float32 on the CPU, in 0..1, and the record of the run.

    Raises:
        ConfigError: no such device, or a batch below 1.
        InputError: stacks of different shapes, or one slice that is too large for the memory.
        WeightsError: the network gave NaN or Inf.
    """
    if anatomical.shape != other.shape or anatomical.ndim != 3:
        raise InputError(
            f"fusion: found stacks of {tuple(anatomical.shape)} and {tuple(other.shape)},"
            " expected two of one shape (slices, rows, columns)"
        )
    if batch is not None and batch < 1:
        raise ConfigError(f"slice_batch: found {batch}, expected at least 1")
    if isinstance(network, StackNetwork):
        return network.fuse_stack(anatomical, other, precision, batch or GPU_BATCH)
    started = time.perf_counter()
    chosen = choose_device(device)
    fitting = batch or (1 if chosen.type == "cpu" else GPU_BATCH)
    run = _Run(network, chosen, precision, fitting)
    fused = torch.empty(anatomical.shape, dtype=torch.float32)
    done, total = 0, len(fused)
    # a lane is a core of its own with slices of its own: cores that share one wait for each other
    with _cores(run.lanes) as cores:
        while done < total:
            last = min(total, done + run.lanes * run.batch)
            parts = [slice(k, min(k + run.batch, last)) for k in range(done, last, run.batch)]
            sides = ([stack[part] for part in parts] for stack in (anatomical, other))
            for part, result in zip(parts, cores.map(run.fuse, *sides), strict=True):
                if result is None:
                    # out of memory: what is done stays, the rest goes on with fewer slices at once
                    run.shrink(part.stop - part.start, tuple(anatomical.shape[1:]))
                    break
                if not bool(torch.isfinite(result).all()):
                    raise WeightsError("the network gave NaN or Inf, expected values in 0..1")
                fused[part] = result
                done = part.stop
                if progress is not None:
                    progress(done, total)
    seconds = time.perf_counter() - started
    info = InferenceInfo(
        str(run.device), run.precision, run.batch, tuple(run.warnings), round(seconds, 3)
    )
    return fused, info


@contextmanager
def _cores(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads of one core each. Cores that share a layer wait for each other at its end.

    On a machine with other work such a wait is a time slice of the scheduler: 26 slices took 5 to
    20 s on two cores that shared each layer, 0.9 s on two that share none (load 3.5).
    """
    before = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool
        finally:
            torch.set_num_threads(before)  # the call above also decides for threads to come


class _Run:
    """The network on its present device, and what had to give way so far."""

    def __init__(
        self, network: nn.Module, device: torch.device, wanted: Precision, batch: int
    ) -> None:
        self.network, self.wanted, self.batch = network.eval(), wanted, batch
        self.warnings: list[str] = []
        self.device = device
        self._settle(device)

    def _settle(self, device: torch.device) -> None:
        self.device = device
        self.lanes = torch.get_num_threads() if device == CPU else 1
        self.precision = choose_precision(self.wanted, device)
        exact_gpu = device.type == "cuda" and self.precision == "fp32"
        # an H200 fuses 4600 slices/s in bf16 by channels last, 4200 without; in fp32 2100 and 3100
        self.layout = torch.contiguous_format if exact_gpu else torch.channels_last
        self.network.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]

    def fuse(self, anatomical: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
        """The fused slices of one batch on the device, or None where the memory did not do."""
        try:
            with torch.inference_mode(), self._arithmetic():
                sides = [side.to(self.device, torch.float32) for side in (anatomical, other)]
                pair = torch.stack(sides, dim=1)  # (n, 2, rows, columns), made on the device
                pair = pair.contiguous(memory_format=self.layout)
                return self.network(pair)[:, 0].float().clamp_(0, 1)  # type: ignore[no-any-return]
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        return None  # outside the handler: the error holds the tensors of the failed batch

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """What the precision says; fp32 means it, where a GPU would take TF32 for convolutions."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        if self.device.type == "cuda":
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()

    def shrink(self, tried: int, size: tuple[int, ...]) -> None:
        """One batch at once; half of it; the CPU for the GPU once a batch of one does not fit."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.lanes > 1:
            self.lanes = 1
            self.warnings.append(f"{self.device} ran out of memory; went on with one batch at once")
        elif tried > 1:
            self.batch = tried // 2
            self.warnings.append(
                f"{self.device} ran out of memory at {tried} slices a batch; went on with"
                f" {self.batch}"
            )
        elif self.device != CPU:
            self.warnings.append(f"{self.device} ran out of memory at one slice; went on on cpu")
            self._settle(CPU)
        else:
            raise InputError(
                f"fusion: a slice of {' x '.join(map(str, size))} pixels does not fit in the memory"
                " of cpu; expected a smaller one"
            )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """True for PyTorch's own error, and for what drivers and libraries raise in its place."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)
