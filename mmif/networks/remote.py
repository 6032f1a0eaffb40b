"""The network in another process: one that owns the GPU, fed by many that prepare and write.

Each worker of a batch holds a `RemoteNetwork` in place of the network; `mmif.networks.inference`
hands it whole stacks of slices. The owner (`serve`) fuses one stack at a time, so that the memory
of the GPU holds one network and one batch of slices, however many workers there are.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import TYPE_CHECKING, Any

from mmif.errors import MmifError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mmif.networks.inference import InferenceInfo

# As a batch tries a job
MAX_TRIES = 3
# The owner imports PyTorch and loads its weights first (chosen, not measured)
CONNECT_TIMEOUT_S = 120


@dataclass(frozen=True)
class GpuAddress:
    """Where the owner of the GPU listens.

    Attributes:
        path: a Unix socket.
        key: the shared secret of `multiprocessing.connection`.
    """

    path: str
    key: bytes


class RemoteNetwork:
    """Stands for a network that another process holds; fuses whole stacks.

    If the owner ends, the stack is sent again to the one that takes its place.
    """

    def __init__(self, address: GpuAddress, name: str) -> None:
        """Connect to the owner.

        Args:
            address: where it listens.
            name: which of its networks is meant: the name of its weights in the pipeline.
        """
        self._address = address
        self._name = name
        self._connection = self._connect()

    def fuse_stack(
        self, anatomical: "torch.Tensor", other: "torch.Tensor", precision: str, batch: int
    ) -> "tuple[torch.Tensor, InferenceInfo]":
        """As `mmif.networks.inference.fuse_slices`, on the device of the owner.

        Raises:
            MmifError: what the owner refuses, or an owner that ends time and again.
        """
        import torch

        for _ in range(MAX_TRIES):
            try:
                stacks = anatomical.numpy(), other.numpy()
                self._connection.send((self._name, *stacks, precision, batch))
                fused, info = self._connection.recv()
            except (EOFError, ConnectionError):
                self._connection.close()
                self._connection = self._connect()
                continue
            if isinstance(info, MmifError):
                raise info
            return torch.from_numpy(fused), info
        raise WeightsError(f"the process that owns the GPU ended {MAX_TRIES} times at this study")

    def _connect(self) -> "Connection[Any, Any]":
        """A connection to the owner, which may just be starting.

        Raises:
            WeightsError: nobody listens in time.
        """
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            try:
                return Client(self._address.path, "AF_UNIX", authkey=self._address.key)
            except (FileNotFoundError, ConnectionError, EOFError) as error:
                if time.monotonic() > deadline:
                    where = f"the GPU's owner at {self._address.path}"
                    raise WeightsError(
                        f"{where}: nobody there after {CONNECT_TIMEOUT_S} s"
                    ) from error
                time.sleep(0.1)


def serve(listener: Listener, networks: "Mapping[str, nn.Module]", device: str) -> None:
    """Fuse for whoever connects, one stack at a time; never returns.

    Args:
        listener: the open socket.
        networks: name to network.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
    """
    one_at_a_time = threading.Lock()
    while True:
        try:
            connection = listener.accept()
        except (AuthenticationError, EOFError, OSError):  # a stranger, or one that gave up
            continue
        arguments = (connection, networks, device, one_at_a_time)
        threading.Thread(target=_fuse_for, args=arguments, daemon=True).start()


def _fuse_for(
    connection: "Connection[Any, Any]",
    networks: "Mapping[str, nn.Module]",
    device: str,
    one_at_a_time: threading.Lock,
) -> None:
    """Fuse what comes through one connection until it closes."""
    import torch

    from mmif.networks.inference import fuse_slices

    with connection, suppress(EOFError, ConnectionError):
        while True:
            name, anatomical, other, precision, batch = connection.recv()
            try:
                with one_at_a_time:
                    fused, info = fuse_slices(
                        networks[name],
                        torch.from_numpy(anatomical),
                        torch.from_numpy(other),
                        device=device,
                        precision=precision,
                        batch=batch,
                    )
                connection.send((fused.numpy(), info))
            except MmifError as error:
                connection.send((None, error))
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                connection.send((None, WeightsError(f"{device}: the network stopped ({reason})")))
