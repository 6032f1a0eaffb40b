"""A process of mmif's own starts and ends quickly: the command, and each worker of a batch.

Nothing here is for those who import mmif as a library: their process is theirs.
"""

import atexit
import ctypes
import gc
import importlib
import importlib.util
import os
import pkgutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

UNUSED = frozenset(
    {
        *("cucim", "cupy", "ignite", "matplotlib", "mlflow", "onnx", "onnxruntime", "pandas"),
        *("charset_normalizer", "psutil", "requests", "scipy.signal", "scipy.sparse.linalg"),
        *("skimage", "sklearn", "tensorboard", "tensorboardX", "tifffile"),
        *("torch.utils.tensorboard", "torchvision", "transformers", "zarr"),
    }
)
"""What MONAI imports as it starts, where it is installed, for parts that mmif never calls."""

FIRST = "monai.apps"
"""Where MONAI begins to import itself: only in this order do its circles close."""

COLLECT_EVERY = 100_000
"""New objects between two looks for garbage. Imports make a million and hardly any garbage; at
Python's 700 the looks took 0.7 s of 3.3 s of CPU, and 0.6 s more at the end of the process
(benchmarks/startup.py). While MONAI and PyTorch are imported there is none: four took 0.13 s."""

SPINS = "1000"
"""Turns that an OpenMP thread (libgomp, in PyTorch's wheels) waits for the others before it sleeps.
By its own 300000 each layer of the network waits away a time slice where the machine has other
work: 26 slices took 5 to 20 s of CPU at a load of 3.5; 0.9 s by these, and no less at rest."""

NUMPYS = "OPENBLAS_NUM_THREADS"
"""NumPy and SciPy multiply few rows by 3 or 4 columns here; each time OpenBLAS's second thread then
waits for more on a core of its own for 26 ms: 0.2 s of CPU in the registration of RIRE."""

KEPT = {-3: 32 << 20, -1: 2**31 - 1, -2: 64 << 20}
"""mallopt(3): M_MMAP_THRESHOLD (at the most that glibc takes), M_TRIM_THRESHOLD, M_TOP_PAD."""

DASKS = "MALLOC_TRIM_THRESHOLD_"
"""What Dask sets for its workers (to 65536), which hand it on: glibc gives every page back at once,
and a small study takes 1.7 times the CPU (benchmarks/batch.py speed)."""


def start_quickly() -> None:
    """Let this process import, wait and end with no work for what it never uses.

    Before NumPy and PyTorch are imported: their threads read the environment once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    os.environ.setdefault(NUMPYS, "1")
    gc.set_threshold(COLLECT_EVERY, 10, 10)
    atexit.register(gc.freeze)  # the end of the process frees what is left, not a collection
    if "monai" not in sys.modules:
        sys.meta_path.insert(0, _LeanMonai())


def end_quickly(status: int) -> None:
    """End this process once all that asked to be called at its end has been; see ``os._exit``.

    The system takes back what Python would free object by object: 0.15 s after a fusion. Returns
    where output cannot be written or another thread still runs: those are left to Python's own end.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (AttributeError, OSError, ValueError):  # none, full or closed
        return
    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    os._exit(status)


def keep_memory() -> None:
    """Let memory that this process frees stay with it, where the C library is glibc.

    A step of the training frees and takes the same tensors of up to 26 MB as the one before; given
    back to the system each time, their pages cost 15 % of the step (benchmarks/training.py).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, value in KEPT.items():
            libc.mallopt(parameter, value)


class _LeanMonai(MetaPathFinder):
    """Finds ``monai`` once, and has it start as if `UNUSED` were not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of ``monai``; None for all else."""
        if name != "monai":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _LeanLoader(spec.loader)
        return spec


class _LeanLoader(Loader):
    """The loader ``own``, while `UNUSED` is out of reach and MONAI imports what it needs alone."""

    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As ``own`` does."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; afterwards it is ``own``'s, and what was out of reach can be imported."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        module.__loader__ = self.own
        with _out_of_reach(UNUSED), _without_the_rest(), _without_collection():
            self.own.exec_module(module)
            importlib.import_module(FIRST)


class _Refusal(MetaPathFinder):
    """Says of ``names`` that they are not installed."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing.

        Raises:
            ModuleNotFoundError: one of ``names``.
        """
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


@contextmanager
def _out_of_reach(names: frozenset[str]) -> Iterator[None]:
    refusal = _Refusal(names)
    sys.meta_path.insert(0, refusal)
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)


@contextmanager
def _without_the_rest() -> Iterator[None]:
    """MONAI looks for all of its modules, to run each of them twice, and finds none.

    What is asked for is imported when it is asked for: 203 of 432, 0.2 s of CPU less.
    """
    every = pkgutil.walk_packages
    pkgutil.walk_packages = lambda *_, **__: iter(())
    try:
        yield
    finally:
        pkgutil.walk_packages = every
        if (finder := sys.modules.get("monai.utils.module")) is not None:
            finder.walk_packages = every  # type: ignore[attr-defined]


@contextmanager
def _without_collection() -> Iterator[None]:
    """No look for garbage, and none later among what was made meanwhile: it stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def isolated_command(call: str, *arguments: str) -> list[str]:
    """The command that runs ``call`` in an interpreter of its own, isolated (``python -I``).

    Neither the working folder nor a variable of the environment says what it imports. Our own
    import path follows behind the interpreter's, so that an editable or a user's install is found
    and nothing of it comes before the standard library or the installed packages.
    """
    home = str(Path(__file__).parent.parent)
    unwanted = {"", str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    paths = [home, *(p for p in sys.path if p not in unwanted)]
    script = f"import sys; sys.path += [p for p in {paths!r} if p not in sys.path]; {call}"
    return [sys.executable, "-I", "-c", script, *arguments]


def environment(threads: int) -> dict[str, str]:
    """The environment of a child, with a bound on every thread pool.

    Without Python's variables, and without `DASKS`.
    """
    pools = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    return {
        **{n: v for n, v in os.environ.items() if not n.startswith("PYTHON") and n != DASKS},
        **{f"{pool}_NUM_THREADS": str(threads) for pool in pools},
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait leave the core to other workers
    }
