"""What a user installs with mmif is licensed permissively."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
WEAK = re.compile(r"LGPL|Lesser General Public|Library General Public", re.IGNORECASE)
"""LGPL and MPL bind their own files alone, and mmif imports such libraries unchanged: allowed."""


def runtime_closure() -> set[str]:
    """Names of all that mmif needs, and what those need."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    left = [Requirement(text) for text in project["project"]["dependencies"]]
    names: set[str] = set()
    while left:
        need = left.pop()
        if need.name.lower() in names or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        try:
            requires = distribution(need.name).requires or []
        except PackageNotFoundError:
            continue
        names.add(need.name.lower())
        left += map(Requirement, requires)
    return names


def licence(name: str) -> str:
    """What a distribution's metadata says of its licence, the first line of a long text."""
    meta = distribution(name).metadata
    said = [meta.get("License-Expression") or "", (meta.get("License") or "").split("\n")[0]]
    said += [text for text in meta.get_all("Classifier") or [] if text.startswith("License ::")]
    return "; ".join(filter(None, said))


def is_copyleft(said: str) -> bool:
    """Whether a licence binds what is linked with it; a choice (OR) of another does not."""
    return bool(COPYLEFT.search(WEAK.sub("", said))) and " OR " not in said


def test_no_dependency_is_copyleft() -> None:
    found = {name: licence(name) for name in sorted(runtime_closure())}
    assert len(found) > 15
    assert {name: said for name, said in found.items() if is_copyleft(said)} == {}


def test_gpl_is_seen_and_lgpl_is_let_pass() -> None:
    assert is_copyleft("License :: OSI Approved :: GNU General Public License v3 (GPLv3)")
    assert is_copyleft("AGPL-3.0-only")
    assert not is_copyleft("GNU Lesser General Public License v3 (LGPLv3)")
    assert not is_copyleft("MPL-2.0")
