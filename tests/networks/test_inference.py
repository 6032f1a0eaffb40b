"""Slices through a network: batches, memory that gives out, devices and precision."""

import pytest
import torch
from torch import nn

from mmif.errors import ConfigError, InputError, WeightsError
from mmif.networks.inference import choose_device, choose_precision, fuse_slices
from mmif.weights import load_weights


class Mean(nn.Module):
    """The mean of both channels; remembers the batches that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pair))
        return pair.mean(dim=1, keepdim=True)


class Hungry(Mean):
    """Fits ``limit`` slices at once on its device and no more."""

    def __init__(self, limit: int, error: RuntimeError) -> None:
        super().__init__()
        self.limit, self.error = limit, error

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        if len(pair) > self.limit:
            raise self.error
        return super().forward(pair)


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.fixture
def stacks() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(7, 12, 16, generator=generator), torch.rand(7, 12, 16, generator=generator)


def test_slices_come_back_in_order_whatever_the_batch(
    stacks: tuple[torch.Tensor, torch.Tensor],
) -> None:
    expected = (stacks[0] + stacks[1]) / 2
    for batch in (1, 3, 7, 50):
        fused, info = fuse_slices(Mean(), *stacks, device="cpu", batch=batch)
        torch.testing.assert_close(fused, expected)
        assert info.slice_batch == batch
        assert info.warnings == ()
        assert info.device == "cpu"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("can't allocate memory: 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(
    stacks: tuple[torch.Tensor, torch.Tensor], error: RuntimeError, one_core: None
) -> None:
    network = Hungry(limit=2, error=error)
    fused, info = fuse_slices(network, *stacks, device="cpu", batch=6)
    torch.testing.assert_close(fused, (stacks[0] + stacks[1]) / 2)
    assert info.slice_batch == 1
    assert network.batches == [1] * 7  # 6 -> 3 -> 1
    assert [w.split("at ")[1] for w in info.warnings] == [
        "6 slices a batch; went on with 3",
        "3 slices a batch; went on with 1",
    ]


def test_out_of_memory_on_several_cores_first_goes_on_with_one_batch_at_once(
    stacks: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    network = Hungry(limit=2, error=RuntimeError("can't allocate memory"))
    fused, info = fuse_slices(network, *stacks, device="cpu", batch=3)
    torch.testing.assert_close(fused, (stacks[0] + stacks[1]) / 2)
    assert info.slice_batch == 1
    assert info.warnings == (
        "cpu ran out of memory; went on with one batch at once",
        "cpu ran out of memory at 3 slices a batch; went on with 1",
    )


def test_cores_that_share_no_layer_give_the_same_slices_bit_for_bit() -> None:
    network = load_weights("ct-mri").network
    drawn = torch.rand(5, 2, 40, 48, generator=torch.Generator().manual_seed(5))
    threads = torch.get_num_threads()
    fused, _ = fuse_slices(network, drawn[:, 0], drawn[:, 1], device="cpu", precision="fp32")
    assert torch.get_num_threads() == threads
    with torch.inference_mode():
        alone = [network(pair[None]).clamp(0, 1)[0, 0] for pair in drawn]
    assert torch.equal(fused, torch.stack(alone))


def test_a_gpu_that_cannot_hold_one_slice_gives_way_to_the_cpu(
    stacks: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDevice(Mean):
        def forward(self, pair: torch.Tensor) -> torch.Tensor:
            if pair.device.type == "meta":
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(pair)

    monkeypatch.setattr("mmif.networks.inference.choose_device", lambda _: torch.device("meta"))
    fused, info = fuse_slices(FullDevice(), *stacks, device="cuda", precision="fp32", batch=2)
    torch.testing.assert_close(fused, (stacks[0] + stacks[1]) / 2)
    assert info.device == "cpu"
    assert len(info.warnings) == 2
    assert "went on on cpu" in info.warnings[-1]


def test_one_slice_too_large_for_the_cpu_is_refused(
    stacks: tuple[torch.Tensor, torch.Tensor],
) -> None:
    network = Hungry(limit=0, error=RuntimeError("can't allocate memory"))
    with pytest.raises(InputError, match="12 x 16 pixels does not fit"):
        fuse_slices(network, *stacks, device="cpu")


def test_another_error_of_the_network_is_not_hidden(
    stacks: tuple[torch.Tensor, torch.Tensor],
) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        fuse_slices(Hungry(limit=0, error=RuntimeError("size mismatch")), *stacks, device="cpu")


def test_nan_from_the_network_is_refused(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    class Broken(nn.Module):
        def forward(self, pair: torch.Tensor) -> torch.Tensor:
            return pair[:, :1] * float("nan")

    with pytest.raises(WeightsError, match="NaN"):
        fuse_slices(Broken(), *stacks, device="cpu")


def test_values_beyond_the_range_are_clipped(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    class Loud(nn.Module):
        def forward(self, pair: torch.Tensor) -> torch.Tensor:
            return pair[:, :1] * 4 - 1

    fused, _ = fuse_slices(Loud(), *stacks, device="cpu")
    assert float(fused.min()) == 0.0
    assert float(fused.max()) == 1.0


def test_progress_counts_the_slices(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    seen: list[tuple[int, int]] = []
    fuse_slices(
        Mean(), *stacks, device="cpu", batch=3, progress=lambda done, n: seen.append((done, n))
    )
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_an_empty_stack_gives_an_empty_stack() -> None:
    fused, _ = fuse_slices(Mean(), torch.empty(0, 8, 8), torch.empty(0, 8, 8), device="cpu")
    assert fused.shape == (0, 8, 8)


def test_bf16_is_used_where_it_is_asked_for(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = nn.Conv2d(2, 1, 1, bias=False)
    nn.init.constant_(network.weight, 0.3)
    exact, _ = fuse_slices(network, *stacks, device="cpu", precision="fp32")
    coarse, info = fuse_slices(network, *stacks, device="cpu", precision="bf16")
    assert info.precision == "bf16"
    assert 0 < float((exact - coarse).abs().max()) < 1 / 128


def test_different_stacks_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(2, 8, 8\) and \(2, 8, 9\)"):
        fuse_slices(Mean(), torch.zeros(2, 8, 8), torch.zeros(2, 8, 9), device="cpu")


def test_a_batch_of_nothing_is_refused(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="found 0, expected at least 1"):
        fuse_slices(Mean(), *stacks, device="cpu", batch=0)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "CPU", "", "mps"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_devices_are_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="found 0 CUDA devices"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="found 2 CUDA devices"):
        choose_device("cuda:2")


def test_a_stated_precision_is_kept() -> None:
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("auto", torch.device("cpu")) in {"fp32", "bf16"}
