"""One process that owns the GPU; the processor stands in for it, for no test needs a GPU."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmif.batch.gpu import GpuOwner
from mmif.config import NetworkConfig, Pipeline, load_pipeline
from mmif.errors import InputError
from mmif.networks.inference import fuse_slices
from mmif.networks.remote import RemoteNetwork
from mmif.networks.s3imfusion import S3IMFusion
from mmif.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_weights(S3IMFusion(NetworkConfig()), folder, {"task": "ct-mri"})
    return replace(load_pipeline("ct-mri"), weights=str(folder))


@pytest.fixture(scope="module")
def owner(pipeline: Pipeline) -> Iterator[GpuOwner]:
    with GpuOwner({"ct-mri": pipeline}, "cpu") as process:
        yield process


def remote(owner: GpuOwner) -> RemoteNetwork:
    """The owner's only network, by the name of its weights."""
    return RemoteNetwork(owner.address, owner._pipelines["ct-mri"].weights)


def stacks() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 5, 32, 24, generator=generator)
    return first, second


def test_what_the_owner_fuses_is_what_the_network_here_fuses(
    owner: GpuOwner, pipeline: Pipeline
) -> None:
    network = load_weights(pipeline.weights).network
    here, _ = fuse_slices(network, *stacks(), device="cpu", precision="fp32", batch=2)
    there, info = fuse_slices(remote(owner), *stacks(), precision="fp32", batch=2)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-6)
    assert (info.device, info.precision, info.slice_batch) == ("cpu", "fp32", 2)


def test_many_workers_share_one_owner(owner: GpuOwner) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(_: int) -> torch.Tensor:
        return fuse_slices(remote(owner), *stacks(), batch=2)[0]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(4)))
    assert all(torch.equal(result, results[0]) for result in results)


def test_an_owner_that_is_killed_is_replaced_and_the_stack_sent_again(owner: GpuOwner) -> None:
    network = remote(owner)
    before, _ = fuse_slices(network, *stacks(), batch=2)
    assert owner.process is not None
    os.kill(owner.process.pid, signal.SIGKILL)
    after, _ = fuse_slices(network, *stacks(), batch=2)
    assert torch.equal(before, after)


def test_what_the_owner_refuses_is_refused_here(owner: GpuOwner) -> None:
    first, second = stacks()
    with pytest.raises(InputError, match="expected two of one shape"):
        remote(owner).fuse_stack(first, second[:2], "auto", 2)


def test_a_key_of_another_batch_is_turned_away(owner: GpuOwner, tmp_path: Path) -> None:
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client

    with pytest.raises(AuthenticationError):
        Client(owner.address.path, "AF_UNIX", authkey=b"other")
    assert fuse_slices(remote(owner), *stacks(), batch=5)[0].shape == (
        5,
        32,
        24,
    )
