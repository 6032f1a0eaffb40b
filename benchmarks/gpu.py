"""mmif on a GPU against the same on a CPU: one command, one JSON, one table.

    python benchmarks/gpu.py [--minutes 4] [--device auto] [--json gpu.json] [--table gpu.md]
                             [--only SECTION,...] [--stop-at-errors]

Sections, in this order:
    machine       what it is, and its limits: copies, products of matrices, the way from the host
    network       FLOP and bytes of one slice
    throughput    slices/s on the device by precision, layout and batch, against the roofline
    compiled      the same through torch.compile
    stacks        slices/s of `fuse_slices`, from and to the memory of the host
    volume        the fused volume on this device against the CPU's
    memory        out of memory, provoked: what `fuse_slices` does then
    kernels       where the time of bf16, channels last, goes
    registration  the pose found with this device against the CPU's
    training      steps/s, and the losses against the CPU's
    batch         ten studies, many workers, one process that owns the GPU

Without a GPU each section runs in a reduced form. Each is a process of its own with a share of the
minutes; one that fails, or whose libraries are missing, says so in the JSON, and the others go on.
It needs the checkout and PyTorch; volume, training, registration and batch need mmif's other
libraries too. Only `sample_data` and drawn slices are used.

Bytes are those that each operation reads and writes where none is fused with the next: fused ones
move less, and may pass 100 % of the bandwidth.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

SIZE = 256
SAMPLE = ROOT / "sample_data"
#: Dense TFLOP/s of bf16 and fp32, and GB/s, as the makers' data sheets print them.
DATA_SHEETS = {
    "H200": (989.0, 67.0, 4800.0),
    "H100 PCIe": (756.0, 51.0, 2000.0),
    "H100": (989.0, 67.0, 3350.0),
    "A100": (312.0, 19.5, 2039.0),
    "L40": (181.0, 90.5, 864.0),
    "L4": (121.0, 30.3, 300.0),
    "T4": (65.0, 8.1, 300.0),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a section runs, how long it may take, and what the sections before it found."""

    device: torch.device
    seconds: float
    begun: float
    known: Mapping[str, list[Row]]

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)


# The network, measured


def slices(count: int, seed: int = 0) -> torch.Tensor:
    """(count, 2, 256, 256) float32 in 0..1: drawn heads, smooth and with edges."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 2, 24, 24, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    axis = torch.linspace(-1, 1, SIZE)
    radius = (axis[:, None] ** 2 / 0.8 + axis[None] ** 2 / 0.6).sqrt()
    skull, head = ((radius > 0.9) & (radius < 1)).float(), (radius < 1).float()
    ct = (0.3 * smooth[:, 1] + 0.2) * head * (1 - skull) + skull
    return torch.stack([smooth[:, 0] * head * (1 - 0.9 * skull), ct], 1)


def load_network(device: torch.device) -> nn.Module:
    from mmif.weights import load_weights

    return load_weights("ct-mri").network.eval().to(device)


def autocast(device: torch.device, precision: str) -> Any:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def timed(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median seconds of a call; on a GPU by events around a few calls at once."""
    for _ in range(3 if device.type == "cuda" else 1):
        call()
    if device.type != "cuda":
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return statistics.median(times)
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    torch.cuda.synchronize()
    each = max(1, int(seconds / 5 / max(time.perf_counter() - began, 1e-6)))
    times = []
    for _ in range(5):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(each):
            call()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1000 / each)
    return statistics.median(times)


def machine(place: Place) -> Iterator[Row]:
    """What it is, and what it can do."""
    device, gpu = place.device, place.gpu
    name = torch.cuda.get_device_name(device) if gpu else _processor()
    yield {"what": "device", "figure": name, "unit": ""}
    yield {"what": "torch", "figure": torch.__version__, "unit": ""}
    yield {"what": "cores of the host", "figure": os.cpu_count(), "unit": ""}
    yield {"what": "load of the host", "figure": round(os.getloadavg()[0], 1), "unit": ""}
    if gpu:
        properties = torch.cuda.get_device_properties(device)
        yield {"what": "memory", "figure": round(properties.total_memory / 1e9, 1), "unit": "GB"}
        yield {"what": "multiprocessors", "figure": properties.multi_processor_count, "unit": ""}
    side, seconds = (8192, 0.5) if gpu else (1024, 0.2)
    for precision, dtype, fast in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        if fast and not gpu:
            continue
        torch.backends.cuda.matmul.allow_tf32 = fast
        a = torch.rand(side, side, device=device, dtype=dtype)
        rate = 2 * side**3 / timed(lambda a=a: a @ a, device, seconds)  # type: ignore[misc]
        yield {"what": f"{precision} product", "figure": round(rate / 1e12, 2), "unit": "TFLOP/s"}
    big = torch.empty((4 << 30) if gpu else (64 << 20), dtype=torch.uint8, device=device)
    other = torch.empty_like(big)
    rate = 2 * len(big) / timed(lambda: other.copy_(big), device, seconds)
    yield {"what": "copy", "figure": round(rate / 1e9, 1), "unit": "GB/s"}
    if gpu:
        yield from _way_from_the_host(device)
    for part, sheet in DATA_SHEETS.items():
        if gpu and part in name:
            for what, figure in zip(("bf16", "fp32", "copy"), sheet, strict=True):
                unit = "GB/s" if what == "copy" else "TFLOP/s"
                yield {"what": f"{what}, data sheet", "figure": figure, "unit": unit}
            break


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).split(": ")[1]
    return "CPU"


def _way_from_the_host(device: torch.device) -> Iterator[Row]:
    """GB/s to the GPU and back, from pageable and from pinned memory."""
    for kind in ("pageable", "pinned"):
        host = torch.empty(64 << 20, dtype=torch.uint8, pin_memory=kind == "pinned")
        there = torch.empty_like(host, device=device)
        for way, call in (
            ("to the device", lambda h=host, t=there: t.copy_(h, non_blocking=True)),
            ("from the device", lambda h=host, t=there: h.copy_(t, non_blocking=True)),
        ):
            rate = len(host) / timed(call, device, 0.2)
            yield {"what": f"{way}, {kind}", "figure": round(rate / 1e9, 1), "unit": "GB/s"}


def network(place: Place) -> Iterator[Row]:
    """FLOP and bytes of one slice, counted on the CPU."""
    from torch.utils.flop_counter import FlopCounterMode

    model, pair = load_network(torch.device("cpu")), slices(1)
    yield {"what": "parameters", "figure": sum(p.numel() for p in model.parameters()), "unit": ""}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(pair)
    yield {"what": "FLOP", "figure": round(counter.get_total_flops() / 1e9, 3), "unit": "GFLOP"}
    for precision in ("fp32", "bf16"):
        with torch.inference_mode(), _CountedBytes() as moved, autocast(pair.device, precision):
            model(pair)
        said = f"bytes of all operations, {precision}"
        yield {"what": said, "figure": round(moved.total / 1e6, 1), "unit": "MB"}
    ends = 4 * SIZE * SIZE * 3 / 1e6
    yield {"what": "bytes in and out", "figure": round(ends, 2), "unit": "MB"}


class _CountedBytes(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what each operation reads and writes; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in str(function):
            found: dict[int, int] = {}
            for one in torch.utils._pytree.tree_leaves((args, kwargs, result)):
                if isinstance(one, torch.Tensor):
                    found[id(one)] = one.numel() * one.element_size()
            self.total += sum(found.values())
        return result


def throughput(place: Place) -> Iterator[Row]:
    """Eager variants by batch."""
    batches = (1, 8, 32, 128, 512) if place.gpu else (1, 4)
    last, first = torch.channels_last, torch.contiguous_format
    variants = [("fp32", first, ""), ("fp32", last, ""), ("bf16", first, ""), ("bf16", last, "")]
    if place.gpu:
        variants += [
            ("fp32", last, "tf32"),
            ("bf16", last, "searched"),
            ("bf16", first, "searched"),
        ]
    for precision, layout, more in variants:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = more == "tf32"
        torch.backends.cudnn.benchmark = more == "searched"  # cuDNN tries its algorithms
        model = load_network(place.device).to(memory_format=layout)
        name = f"{precision} {_named(layout)} {more}".strip()
        for batch in batches:
            yield from _one_rate(place, name, precision, model, batch, layout)
    if place.gpu:
        torch.backends.cudnn.benchmark = True
        model = load_network(place.device).to(memory_format=last)
        for batch in (1, 32, 128, 512):
            yield from _graph_rate(place, model, batch)


def _named(layout: torch.memory_format) -> str:
    return "channels last" if layout is torch.channels_last else "contiguous"


def _one_rate(
    place: Place,
    name: str,
    precision: str,
    model: nn.Module,
    batch: int,
    layout: torch.memory_format = torch.channels_last,
) -> Iterator[Row]:
    """The rate of one variant and batch, or why there is none."""
    device = place.device
    if place.left < 2:
        yield {"variant": name, "batch": batch, "skipped": "no time left"}
        return
    try:
        pair = slices(min(batch, 32)).repeat(-(-batch // 32), 1, 1, 1)[:batch]
        pair = pair.to(device).contiguous(memory_format=layout)
        if place.gpu:
            torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode(), autocast(device, precision):
            seconds = timed(lambda: model(pair), device, 0.3 if place.gpu else 0.1)
        yield _rated(place, name, precision, batch, seconds)
    except RuntimeError as error:
        yield {"variant": name, "batch": batch, "error": _line(error)}


def _graph_rate(place: Place, model: nn.Module, batch: int) -> Iterator[Row]:
    """The same operations, recorded once as a CUDA graph and played again."""
    name, pair = (
        "bf16 channels last, searched, CUDA graph",
        slices(32).repeat(-(-batch // 32), 1, 1, 1),
    )
    try:
        pair = pair[:batch].to(place.device).contiguous(memory_format=torch.channels_last)
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        # The cache of casts must be off: it would hold tensors of the recording.
        cast = torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
        with torch.inference_mode(), cast:
            with torch.cuda.stream(side):
                for _ in range(3):
                    model(pair)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                model(pair)
        yield _rated(place, name, "bf16", batch, timed(graph.replay, place.device, 0.3))
    except RuntimeError as error:
        yield {"variant": name, "batch": batch, "error": _line(error)}


def _rated(place: Place, name: str, precision: str, batch: int, seconds: float) -> Row:
    """Slices a second, and their share of what the device was measured to do."""
    rows = [*place.known.get("machine", ()), *place.known.get("network", ())]
    figures = {row["what"]: row["figure"] for row in rows if "figure" in row}
    rate = batch / seconds
    row: Row = {"variant": name, "batch": batch, "slices/s": round(rate, 1)}
    if place.gpu:
        row["GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    with suppress(KeyError, ZeroDivisionError):
        kind = "tf32" if name.endswith("tf32") else precision
        tflop, gb = figures["FLOP"] / 1e3, figures[f"bytes of all operations, {precision}"] / 1e3
        roof = min(figures[f"{kind} product"] / tflop, figures["copy"] / gb)
        row["of arithmetic"] = f"{rate * tflop / figures[f'{kind} product']:.1%}"
        row["of bandwidth"] = f"{rate * gb / figures['copy']:.0%}"
        row["roof, slices/s"] = round(roof)
    return row


def compiled(place: Place) -> Iterator[Row]:
    """torch.compile, with and without CUDA graphs; the seconds of compiling beside it."""
    if not place.gpu:
        yield {"variant": "bf16 compiled", "skipped": "on a GPU only"}
        return
    torch._dynamo.config.cache_size_limit = 64
    torch.backends.cudnn.benchmark = True
    wanted = [("default", 128), ("max-autotune-no-cudagraphs", 512), ("reduce-overhead", 128)]
    for mode, batch in wanted:
        if place.left < 20:
            yield {"variant": f"bf16 compiled, {mode}", "batch": batch, "skipped": "no time left"}
            continue
        model = load_network(place.device).to(memory_format=torch.channels_last)
        fast = torch.compile(model, mode=mode, dynamic=False)
        pair = slices(32).repeat(batch // 32, 1, 1, 1).to(place.device)
        pair = pair.contiguous(memory_format=torch.channels_last)
        try:
            took, apart = _compile(place, fast, model, pair)
        except Exception as error:  # whatever the compiler meets
            yield {"variant": f"bf16 compiled, {mode}", "batch": batch, "error": _line(error)}
            continue
        for row in _one_rate(place, f"bf16 compiled, {mode}", "bf16", fast, batch):
            yield row | {"compiling s": round(took, 1), "largest gap /255": round(apart, 2)}


def _compile(
    place: Place, fast: nn.Module, model: nn.Module, pair: torch.Tensor
) -> tuple[float, float]:
    """Seconds of the first call, and the largest distance to the network as it is, of 255."""
    began = time.perf_counter()
    with torch.inference_mode(), autocast(place.device, "bf16"):
        fused = fast(pair).clone()
        torch.cuda.synchronize()
        took = time.perf_counter() - began
        return took, float((fused.float() - model(pair).float()).abs().max() * 255)


def kernels(place: Place) -> Iterator[Row]:
    """The operations that take the time, of bf16 channels last at the largest batch."""
    from torch.profiler import ProfilerActivity, profile

    batch = 128 if place.gpu else 1
    model = load_network(place.device).to(memory_format=torch.channels_last)
    pair = slices(32).repeat(-(-batch // 32), 1, 1, 1)[:batch].to(place.device)
    pair = pair.contiguous(memory_format=torch.channels_last)
    watched = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * place.gpu
    with torch.inference_mode(), autocast(place.device, "bf16"):
        model(pair)
        with profile(activities=watched) as profiler:
            model(pair)
    kind = "self_device_time_total" if place.gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, kind) for event in profiler.key_averages()}
    whole = sum(times.values()) or 1
    for name in sorted(times, key=times.__getitem__, reverse=True)[:14]:
        share = f"{times[name] / whole:.1%}"
        yield {"operation": name[:70], "share": share, "us a slice": round(times[name] / batch, 2)}


def stacks(place: Place) -> Iterator[Row]:
    """`fuse_slices` as the program calls it, the memory of the host at both ends."""
    from mmif.networks.inference import fuse_slices

    count = 1024 if place.gpu else 4
    pair = slices(min(count, 32)).repeat(-(-count // 32), 1, 1, 1)[:count]
    mri, ct = pair[:, 0].contiguous(), pair[:, 1].contiguous()
    model = load_network(place.device)
    batches = (None, 8, 128, 512) if place.gpu else (None, 2)
    for precision in ("bf16", "fp32"):
        for batch in batches:
            if place.left < 2:
                return
            times = []
            for _ in range(4 if place.gpu else 2):  # the first one warms up
                began = time.perf_counter()
                _, info = fuse_slices(
                    model, mri, ct, device=str(place.device), precision=precision, batch=batch
                )
                times.append(time.perf_counter() - began)
            yield {
                "precision": info.precision,
                "batch": f"{info.slice_batch}{' (default)' if batch is None else ''}",
                "slices": count,
                "slices/s": round(count / statistics.median(times[1:]), 1),
            }


# The same on both


def gap(found: torch.Tensor, expected: torch.Tensor) -> Row:
    """Distances in grey levels of 255."""
    distance = (found.float() - expected.float()).abs().flatten().double() * 255
    ranked = distance.sort().values
    return {
        "largest /255": round(float(ranked[-1]), 4),
        "99.9 % /255": round(float(ranked[int(0.999 * (len(ranked) - 1))]), 4),
        "mean /255": round(float(distance.mean()), 5),
    }


def volume(place: Place) -> Iterator[Row]:
    """Drawn slices, then the sample head from its files."""
    from mmif.networks.inference import fuse_slices

    pair, model = slices(32 if place.gpu else 2), load_network(torch.device("cpu"))
    sides = pair[:, 0].contiguous(), pair[:, 1].contiguous()
    expected, _ = fuse_slices(model, *sides, device="cpu", precision="fp32")
    for precision in ("fp32", "bf16"):
        found, info = fuse_slices(model, *sides, device=str(place.device), precision=precision)
        yield {"what": "drawn slices", "device": info.device, "precision": precision} | gap(
            found, expected
        )
    yield from _sample_head(place)


def _sample_head(place: Place) -> Iterator[Row]:
    """The volumes of one registration, fused on both."""
    from mmif.fusion import fusion_transforms, run_steps
    from mmif.result import FUSED_KEY
    from mmif.transforms.fuse import FuseSlicesd

    def fuse_on(device: str, precision: Any) -> tuple[torch.Tensor, str]:
        step = FuseSlicesd(["mri", "ct"], ["ct-mri"], device=device, precision=precision)
        data = step(prepared)
        return data[FUSED_KEY].as_subclass(torch.Tensor), data["study"].fusion["device"]

    steps = fusion_transforms("ct-mri", register=False, device="cpu").up_to(FuseSlicesd)
    prepared, _ = run_steps(steps, {"ct": SAMPLE / "ct", "mri": SAMPLE / "mri.nii.gz"})
    expected, _ = fuse_on("cpu", "fp32")
    for precision in ("fp32", "bf16"):
        found, device = fuse_on(str(place.device), precision)
        yield {"what": "sample head", "device": device, "precision": precision} | gap(
            found, expected
        )


def memory(place: Place) -> Iterator[Row]:
    """Memory that does not do for the batch, then not for one slice."""
    from mmif.networks.inference import fuse_slices

    count = 128 if place.gpu else 4
    pair = slices(count)
    sides = pair[:, 0].contiguous(), pair[:, 1].contiguous()
    model = load_network(place.device)
    expected, _ = fuse_slices(model, *sides, device=str(place.device), precision="fp32")
    for room, megabytes in (("for a few slices", 600), ("for none", 1)):
        if place.gpu:
            model = load_network(place.device)
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(place.device).total_memory
            used = torch.cuda.memory_reserved() / 1e6
            torch.cuda.set_per_process_memory_fraction(1e6 * (megabytes + used) / total)
            hungry = model
        else:
            hungry = _Hungry(model, 1)
            if room == "for none":
                yield {"room": room, "skipped": "on a GPU only: a CPU has nothing to fall back on"}
                continue
        try:
            fused, info = fuse_slices(
                hungry, *sides, device=str(place.device), precision="fp32", batch=count
            )
        except Exception as error:
            yield {"room": room, "error": _line(error)}
            continue
        yield {
            "room": room,
            "batch asked": count,
            "batch in the end": info.slice_batch,
            "device": info.device,
            "said": "; ".join(info.warnings),
        } | gap(fused, expected)
    if place.gpu:
        torch.cuda.set_per_process_memory_fraction(1.0)


class _Hungry(nn.Module):
    """Fits ``limit`` slices at once; of more it says what the allocator of a CPU says."""

    def __init__(self, model: nn.Module, limit: int) -> None:
        super().__init__()
        self.model, self.limit = model, limit

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        if len(pair) > self.limit:
            raise RuntimeError("can't allocate memory (provoked)")
        return self.model(pair)  # type: ignore[no-any-return]


def training(place: Place) -> Iterator[Row]:
    """The recipe of ct-mri on drawn pairs: the same steps on the CPU and here."""
    steps = 300 if place.gpu else 4
    if place.gpu:
        yield _trained(place.device, "fp32", steps, 0.4 * place.left)
        yield _trained(place.device, "bf16", steps, 0.5 * place.left)
    yield _trained(torch.device("cpu"), "fp32", steps, place.left - 2)
    if not place.gpu:
        yield _trained(place.device, "bf16", steps, place.left)


class _TimeOverError(Exception):
    """A training that took longer than it had."""


def _trained(device: torch.device, precision: Any, steps: int, seconds: float) -> Row:
    """Steps a second without the first ten, and the losses, until the seconds are over."""
    from dataclasses import replace

    from mmif.config import load_pipeline
    from mmif.training import Job, Pair, PairSet, Ranks, train
    from mmif.training.card import Origin

    pipeline = load_pipeline("ct-mri")
    recipe = replace(pipeline.training, precision=precision, epochs=10**4, validate_every=10**4)
    drawn = (slices(20) * 255).round().byte().numpy()
    pairs = tuple(Pair(f"drawn{n}", f"case{n}", *pair) for n, pair in enumerate(drawn))
    end, losses, times = time.monotonic() + seconds, [], []

    def watch(progress: Any) -> None:
        losses.append(progress.losses["total"])
        times.append(time.perf_counter())
        if time.monotonic() > end and progress.step < steps:
            raise _TimeOverError

    with tempfile.TemporaryDirectory() as folder, suppress(_TimeOverError):
        job = Job(
            replace(pipeline, training=recipe),
            Path(folder) / "out",
            Origin("benchmarks/gpu.py"),
            max_steps=steps,
        )
        train(job, PairSet(pairs[:16], pairs[16:]), Ranks(0, 1, device), watch)
    last = times[:-1] if len(times) == steps else times  # the last step validates
    last = last[min(10, len(last) // 3) :]
    rate = (len(last) - 1) / (last[-1] - last[0]) if len(last) > 1 else None
    part = max(1, len(losses) // 6)
    return {
        "device": str(device),
        "precision": precision,
        "steps": len(losses),
        "steps/s": rate and round(rate, 2),
        "loss of the first step": round(losses[0], 4),
        "mean of its last sixth": round(statistics.mean(losses[-part:]), 4),
        "losses": [round(loss, 5) for loss in losses],
    }


def registration(place: Place) -> Iterator[Row]:
    """The pose of the sample head found on both; distances at 200 points of the brain."""
    import numpy as np

    import mmif

    truth = json.loads((SAMPLE / "truth.json").read_text())
    points = np.array(truth["brain_points_mri_lps"])
    fixed = mmif.load(SAMPLE / "mri.nii.gz")
    for role, path in (("ct", SAMPLE / "ct"), ("spect", SAMPLE / "spect.dcm")):
        if place.left < 5:
            yield {"pair": f"{role}-mri", "skipped": "no time left"}
            return
        moving, true = mmif.load(path), _moved(points, truth[f"mri_to_{role}"])
        places = []
        for device in ("cpu", str(place.device)):
            began = time.perf_counter()
            found = mmif.register(fixed, moving, device=device)
            took = time.perf_counter() - began
            places.append(_moved(points, found.fixed_to_moving_lps))
            yield {
                "pair": f"{role}-mri",
                "device": device,
                "seconds": round(took, 2),
                "verdict": found.verdict,
                "error mm": round(float(np.linalg.norm(places[-1] - true, axis=1).mean()), 3),
                "from the CPU's, mm": round(
                    float(np.linalg.norm(places[-1] - places[0], axis=1).max()), 4
                ),
            }


def _moved(points: Any, matrix: Any) -> Any:
    import numpy as np

    matrix = np.asarray(matrix, dtype=float)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def batch(place: Place) -> Iterator[Row]:
    """``mmif batch`` over copies of the sample head: workers that share one GPU process."""
    count = 10 if place.gpu else 2
    jobs = max(1, min(count, (os.cpu_count() or 2) - 2)) if place.gpu else 1
    devices = (str(place.device), "cpu") if place.gpu else ("cpu",)
    for device in devices:
        if place.left < (30 if device == "cpu" and place.gpu else 5):
            yield {"device": device, "skipped": "no time left"}
            return
        yield _batch(place, device, count, jobs)


def _batch(place: Place, device: str, count: int, jobs: int) -> Row:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"s{n},{SAMPLE / 'ct'},{SAMPLE / 'mri.nii.gz'}" for n in range(count)]
        (folder / "studies.csv").write_text("\n".join(["study,ct,mri", *rows, ""]))
        words = ["batch", str(folder / "studies.csv"), "-o", str(folder / "out"), "--jobs"]
        words += [str(jobs), "--device", device, "--memory", "4096"]
        if not place.gpu:
            words += ["--no-register", "--no-report"]
        began, most = time.perf_counter(), 0
        process = subprocess.Popen(
            [sys.executable, "-m", "mmif", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None:
            most = max(most, _processes_on_the_gpu() if place.gpu else 0)
            if place.left < 0:
                process.terminate()
            time.sleep(0.5)
        wall = time.perf_counter() - began
        said = (process.stderr.read() if process.stderr else "").strip().splitlines()
        ledgers = [path.read_text() for path in (folder / "out").glob("ledger*.jsonl")]
        lines = [json.loads(line) for text in ledgers for line in text.splitlines()]
        done = [line for line in lines if line.get("state") == "done"]
        used = {str(line.get("row", {}).get("device", "")) for line in done}
        said += [str(line["reason"]) for line in lines if line.get("state") == "failed"]
        return {
            "device": device,
            "jobs": jobs,
            "studies": count,
            "done": len(done),
            "exit code": process.returncode,
            "wall s": round(wall, 1),
            "studies/h": round(3600 * len(done) / wall),
            "network on": ", ".join(sorted(used)),
            "processes on the GPU": most,
            **({"error": said[-1][:200]} if said and process.returncode else {}),
        }


def _processes_on_the_gpu() -> int:
    """As the driver lists them, this one and its like not counted."""
    try:
        command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return len({line for line in listed.stdout.split() if line != str(os.getpid())})


# The whole


@dataclass(frozen=True)
class Section:
    """A part of the benchmark and the share of the minutes that it may take."""

    run: Callable[[Place], Iterator[Row]]
    share: float


SECTIONS = {
    "machine": Section(machine, 0.12),
    "network": Section(network, 0.08),
    "throughput": Section(throughput, 0.2),
    "compiled": Section(compiled, 0.3),
    "stacks": Section(stacks, 0.12),
    "volume": Section(volume, 0.15),
    "memory": Section(memory, 0.12),
    "kernels": Section(kernels, 0.1),
    "registration": Section(registration, 0.2),
    "training": Section(training, 0.35),
    "batch": Section(batch, 0.35),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--table", type=Path, default=Path("gpu.md"))
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--stop-at-errors", action="store_true")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # this process is one section
    args = parser.parse_args()
    if args.section:
        run_here(args.section, args.device, args.minutes * 60, args.json)
        return
    device = args.device
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    end, found = time.monotonic() + 60 * args.minutes, dict[str, list[Row]]()
    result: dict[str, Any] = {"command": " ".join(sys.argv), "device": device, "sections": found}
    for name in args.only.split(","):
        left = end - time.monotonic()
        seconds = min(left, max(10.0, SECTIONS[name].share * 60 * args.minutes))
        if seconds < 3:
            found[name] = [{"skipped": "no time left"}]
        else:
            found[name] = run_apart(name, device, seconds, found)
        args.json.write_text(json.dumps(result, indent=1))
        args.table.write_text(markdown(found))
        print(markdown({name: found[name]}), flush=True)
        if args.stop_at_errors and any("error" in row for row in found[name]):
            raise SystemExit(f"{name}: {next(r['error'] for r in found[name] if 'error' in r)}")


def run_apart(name: str, device: str, seconds: float, known: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of a section in a process of its own, those before an end by force included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps(known) + "\n")
        words = ["--section", name, "--device", device, "--minutes", str(seconds / 60)]
        command = [sys.executable, str(Path(__file__).resolve()), *words, "--json", str(path)]
        began, reason = time.monotonic(), ""
        try:
            done = subprocess.run(command, timeout=seconds + 3, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            reason = f"ended after {seconds:.0f} s"
        rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
        rows += [{"error": reason}] if reason else []
        return [*rows, {"took s": round(time.monotonic() - began, 1)}]


def run_here(name: str, device: str, seconds: float, path: Path) -> None:
    """Append the rows of a section to the file whose first line says what is known."""
    known = json.loads(path.read_text().splitlines()[0])
    place = Place(torch.device(device), seconds, time.monotonic(), known)
    with path.open("a") as file:
        try:
            for row in SECTIONS[name].run(place):
                file.write(json.dumps(row) + "\n")
                file.flush()
        except Exception as error:
            file.write(json.dumps({"error": f"{type(error).__name__}: {_line(error)}"}) + "\n")


def markdown(found: Mapping[str, Sequence[Row]]) -> str:
    """Each section as a table; lists stay in the JSON."""
    lines = []
    for name, rows in found.items():
        said = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
        took = next((row["took s"] for row in said if "took s" in row), "")
        said = [row for row in said if "took s" not in row]
        columns = list(dict.fromkeys(column for row in said for column in row))
        lines += [f"**{name}** ({took} s)", ""]
        if columns:
            lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [
            f"| {' | '.join(str(row.get(c, '')).replace('|', '/') for c in columns)} |"
            for row in said
        ]
        lines.append("")
    return "\n".join(lines)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


if __name__ == "__main__":
    main()
