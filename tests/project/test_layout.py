"""The tests are laid out as what they test."""

from pathlib import Path

import grimp
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


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = grimp.build_graph("mmif", exclude_type_checking_imports=True)
    left = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left
