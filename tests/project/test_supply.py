"""What is installed is pinned, by the hashes of its files, and looked up among known faults."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
HASHED = (ROOT / "requirements-hashed.txt").read_text()


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_hashes_are_of_the_versions_that_are_known_to_work() -> None:
    known, hashed = pins((ROOT / "constraints.txt").read_text()), pins(HASHED)
    assert {name: v for name, v in hashed.items() if known.get(name, v) != v} == {}


def test_everything_that_mmif_needs_has_a_hash() -> None:
    """torch among it, and what builds the package."""
    hashed = pins(HASHED)
    needed = module_at(Path(__file__).with_name("test_licences.py")).runtime_closure()
    assert set(map(canonicalize_name, needed)) - hashed.keys() == set()
    assert {"torch", "hatchling"} <= hashed.keys()


def test_every_line_names_a_version_and_the_sha256_of_a_file() -> None:
    blocks = re.split(r"\n(?=\S)", HASHED.strip())
    blocks = [block for block in blocks if not block.startswith("#")]
    assert len(blocks) == len(pins(HASHED))
    for block in blocks:
        first, *hashes = block.replace("\\\n", "").split("--hash=")
        assert "==" in first
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text.strip()) for text in hashes)


@pytest.mark.parametrize(
    ("version", "found"),
    [("1.0", True), ("1.9", True), ("2.0", False), ("2.5", True), ("3.0", False)],
)
def test_an_advisory_holds_for_its_versions(version: str, found: bool) -> None:
    advisories = module_at(ROOT / "benchmarks" / "advisories.py")
    events = [{"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "2.1"}, {"fixed": "2.6"}]
    affected = {"package": {"name": "Pillow"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    advisory = {"affected": [affected]}
    assert advisories.holds(advisory, "pillow", Version(version)) == found
    assert not advisories.holds(advisory, "numpy", Version(version))
    assert not advisories.holds({**advisory, "withdrawn": "2024"}, "pillow", Version(version))
