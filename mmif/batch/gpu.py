"""The one process that owns the GPU, started for a batch and started anew if it ends."""

import logging
import os
import secrets
import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING

from mmif.batch.worker import START_TIMEOUT_S, WorkerError
from mmif.config import Pipeline
from mmif.errors import MmifError
from mmif.io.atomic import private_folder
from mmif.networks.remote import GpuAddress, serve
from mmif.startup import environment, isolated_command

if TYPE_CHECKING:
    from mmif.batch.fuse_job import FuseWork

log = logging.getLogger(__name__)


def own_gpu(work: "FuseWork", stack: ExitStack) -> None:
    """Start the one process that owns the GPU, where there is a GPU and it is wanted.

    Raises:
        MmifError: the GPU was asked for by name and cannot be had.
    """
    if work.device == "cpu" or (work.device == "auto" and not has_gpu()) or not work.pipelines:
        return
    try:
        device = "cuda" if work.device == "auto" else work.device
        owner = stack.enter_context(GpuOwner(work.pipelines, device))
    except MmifError as error:
        if work.device != "auto":
            raise
        log.warning("%s; going on on the CPU", error)
        work.device = "cpu"
    else:
        work.gpu, work.device = owner.address, "cpu"


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA device; asks no library that is slow to import."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


class GpuOwner:
    """The process that owns the GPU, while inside a ``with`` block."""

    def __init__(self, pipelines: Mapping[str, Pipeline], device: str) -> None:
        """Nothing is started before the ``with`` block.

        Args:
            pipelines: task to pipeline; its networks are loaded.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        self._pipelines = dict(pipelines)
        self._device = device
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(private_folder())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._lock = threading.Lock()
        self.address = GpuAddress(str(self._folder / "gpu"), secrets.token_bytes(32))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "GpuOwner":
        try:
            self._start()
        except WorkerError:
            self._stack.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._ended.set()
            if self.process is not None:
                self.process.kill()
                self.process.wait()
        self._thread.join()
        self._stack.close()

    def _keep_alive(self) -> None:
        """Start the process again whenever it ends before the batch does."""
        while not self._ended.is_set():
            if self.process is not None:
                self.process.wait()
            with self._lock:
                if not self._ended.is_set():
                    try:
                        self._start()
                    except WorkerError:
                        return  # the workers say so: nobody listens

    def _start(self) -> None:
        """Start the process and wait until it listens.

        Raises:
            WorkerError: it refuses or ends.
        """
        Path(self.address.path).unlink(missing_ok=True)
        ours, theirs = Pipe()
        self.process = subprocess.Popen(
            isolated_command(f"from mmif.batch.gpu import main; main({theirs.fileno()})"),
            pass_fds=[theirs.fileno()],
            env=environment(threads=os.cpu_count() or 1 if self._device == "cpu" else 1),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        with ours:
            ours.send((self._pipelines, self._device, self.address))
            try:
                reason = ours.recv() if ours.poll(START_TIMEOUT_S) else "not ready in time"
            except (EOFError, ConnectionError):
                reason = f"ended with status {self.process.wait()}"
        if reason:
            self.process.kill()
            self.process.wait()
            raise WorkerError(f"the process for {self._device} cannot start ({reason})")


def main(descriptor: int) -> None:
    """Load the networks, listen, say "" through the pipe ``descriptor``, serve."""
    from mmif.batch.run_job import error_line
    from mmif.batch.worker_main import die_with
    from mmif.networks.inference import choose_device
    from mmif.weights import load_passes

    die_with(os.getppid())
    with Connection(descriptor) as pipe:
        pipelines, device, address = pipe.recv()
        try:
            place = choose_device(device)
            networks = {
                name: weights.network.to(place)
                for one in pipelines.values()
                for name, weights in zip(one.passes, load_passes(one), strict=True)
            }
            listener = Listener(address.path, "AF_UNIX", authkey=address.key)
        except Exception as error:
            pipe.send(error_line(error)[1])
            return
        pipe.send("")
    serve(listener, networks, device)
