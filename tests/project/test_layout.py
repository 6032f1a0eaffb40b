"""The tests are laid out as what they test."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
AROUND = {"project", "benchmarks", "examples"}
"""Folders of tests of what lies around the package."""


def subjects(test: Path) -> list[Path]:
    """What ``test`` may be the test of: a file of its name, or a folder as a whole."""
    parts = test.relative_to(ROOT / "tests").parts
    home = ROOT.joinpath("mmif", *parts[:-1])
    name = test.stem.removeprefix("test_")
    of_folder = [home] if name == home.name or name.startswith(f"{home.name}_") else []
    return [home / f"{name}.py", *of_folder]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_a_test_stands_where_what_it_tests_stands(test: Path) -> None:
    if test.relative_to(ROOT / "tests").parts[0] not in AROUND:
        found = [path for path in subjects(test) if path.exists()]
        assert found, f"{test}: no {' or '.join(map(str, subjects(test)))}"
