"""Slices a second, memory, and the share of the machine's limits that the network reaches.

    python benchmarks/network.py [--threads 2] [--batches 1,8,32] [--seconds 2] [--weights ct-mri]

CPU in fp32 and bf16; a GPU, where there is one, in fp32, bf16 and bf16 compiled. The limits are
measured on the spot: a copy of 256 MiB for the bandwidth, a product of two 2048 x 2048 matrices for
arithmetic. Memory is the peak of the process on a CPU, that of the tensors on a GPU. The last lines
name the operations that take the most time at the largest batch: the next bottleneck.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mmif.weights import load_weights

SIZE = 256


@dataclass(frozen=True)
class Limits:
    bytes_per_second: float
    flop_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--weights", default="ct-mri")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    weights = load_weights(arguments.weights)
    parameters = sum(p.numel() for p in weights.network.parameters())
    flop, moved = cost(weights.network)
    print(f"{parameters:,} parameters, {flop / 1e9:.2f} GFLOP and {moved / 1e6:.0f} MB a slice")
    print(f"bf16 against fp32: {precision_gap(weights.network):.2f}/255 at the 99.9th percentile")
    print("device  precision       batch  slices/s   memory  of arithmetic  of bandwidth")
    batches, busiest = list(map(int, arguments.batches.split(","))), []
    for device, precision, network, cast in variants(weights.network):
        dtype = torch.bfloat16 if "bf16" in precision else torch.float32
        limits, width = measure_limits(device, dtype), dtype.itemsize / 4
        for batch in batches:
            rate, memory = speed(network, device, cast, batch, arguments.seconds)
            print(
                f"{device.type:7} {precision:15} {batch:5} {rate:9.1f} {memory:5.2f} GB"
                f" {rate * flop / limits.flop_per_second:12.0%}"
                f" {rate * width * moved / limits.bytes_per_second:12.0%}",
                flush=True,
            )
        shares = operations(network, device, cast, max(batches))
        busiest.append(f"{device.type} {precision}: {shares}")
    print("most time in", *busiest, sep="\n  ")


def variants(
    network: nn.Module,
) -> Iterator[tuple[torch.device, str, nn.Module, Callable[[], object]]]:
    cpu = torch.device("cpu")
    network = network.to(memory_format=torch.channels_last)
    yield cpu, "fp32", network, nullcontext
    yield cpu, "bf16", network, lambda: torch.autocast("cpu", torch.bfloat16)
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        network = network.to(gpu)
        yield gpu, "fp32", network, nullcontext
        yield gpu, "bf16", network, lambda: torch.autocast("cuda", torch.bfloat16)
        compiled = torch.compile(network)
        yield gpu, "bf16 compiled", compiled, lambda: torch.autocast("cuda", torch.bfloat16)


def speed(
    network: nn.Module,
    device: torch.device,
    cast: Callable[[], object],
    batch: int,
    seconds: float,
) -> tuple[float, float]:
    """Slices a second (the best of the calls), and peak memory in GB."""
    sources = torch.rand(batch, 2, SIZE, SIZE, device=device)
    sources = sources.contiguous(memory_format=torch.channels_last)
    forget_peak(device)
    with torch.inference_mode(), cast():
        network(sources)
        times = list(timed(lambda: network(sources), device, seconds))
    return batch / min(times), peak_memory(device)


def timed(call: Callable[[], object], device: torch.device, seconds: float) -> Iterator[float]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - start


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM starts again


def peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line for line in status if line.startswith("VmHWM")).split()[1]
    return int(kilobytes) * 1024 / 1e9


def operations(
    network: nn.Module, device: torch.device, cast: Callable[[], object], batch: int
) -> str:
    """The three operations with the largest shares of the time."""
    sources = torch.rand(batch, 2, SIZE, SIZE, device=device)
    sources = sources.contiguous(memory_format=torch.channels_last)
    watched = [ProfilerActivity.CPU]
    watched += [ProfilerActivity.CUDA] * (device.type == "cuda")
    with torch.inference_mode(), cast(), profile(activities=watched) as profiler:
        network(sources)
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, kind) for event in profiler.key_averages()}
    whole = sum(times.values())
    top = sorted(times, key=times.__getitem__, reverse=True)[:3]
    return ", ".join(f"{name} {times[name] / whole:.0%}" for name in top)


def cost(network: nn.Module) -> tuple[float, float]:
    """FLOP of one slice, and the bytes that its layers read and write in fp32."""
    moved = 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal moved
        moved += 4 * (sum(x.numel() for x in given) + out.numel())

    leaves = [m for m in network.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(count) for m in leaves]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 2, SIZE, SIZE))
    for hook in hooks:
        hook.remove()
    return float(counter.get_total_flops()), float(moved)


def precision_gap(network: nn.Module) -> float:
    """The 99.9th percentile of the distance of bf16 to fp32, in grey levels of 255."""
    torch.manual_seed(0)
    coarse = torch.rand(4, 2, 32, 32)
    sources = nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        exact = network(sources)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(sources).float()
    return float(((exact - rough).abs() * 255).flatten().quantile(0.999))


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    a = torch.rand(2048, 2048, device=device).to(dtype)
    flop = 2 * 2048**3 / min(timed(lambda: a @ a, device, 1.0))
    big = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(big)
    rate = 2 * len(big) / min(timed(lambda: target.copy_(big), device, 1.0))
    return Limits(rate, flop)


if __name__ == "__main__":
    main()
