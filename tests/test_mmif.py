"""The public face: what is promised can be imported, and nothing heavy comes along."""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmif

ROOT = Path(__file__).parents[1]


def test_every_public_name_can_be_imported() -> None:
    for name in mmif.__all__:
        assert getattr(mmif, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(mmif, "no_such_name")


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from mmif.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'pydicom', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fuse" in done.stdout


def documented() -> list[str]:
    """The objects of which ``docs/api.md`` shows the docstring."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"^::: (\S+)$", page, flags=re.M)


@pytest.mark.parametrize("name", [n for n in mmif.__all__ if n != "__version__"])
def test_every_public_name_stands_in_the_reference(name: str) -> None:
    thing = getattr(mmif, name)
    homes = {"METRICS": "mmif.metrics.METRICS", "MmifError": "mmif.errors"}
    home = homes.get(name) or f"{thing.__module__}.{thing.__qualname__}"
    assert home in documented()


@pytest.mark.parametrize("path", documented())
def test_the_reference_says_each_argument(path: str) -> None:
    module, _, name = path.rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    if not callable(thing) or not inspect.getdoc(thing):
        return
    said = inspect.getdoc(thing)
    if dataclasses.is_dataclass(thing):
        names = {f.name for f in dataclasses.fields(thing) if "option" not in f.metadata}
    else:
        code = thing.__init__ if isinstance(thing, type) else thing
        names = set(code.__code__.co_varnames[: code.__code__.co_argcount]) - {"self"}
    missing = [one for one in sorted(names) if not re.search(rf"\b{one}\b", said)]
    assert not missing
