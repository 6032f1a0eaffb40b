"""Known vulnerabilities of what mmif installs, looked up offline.

    git clone https://github.com/pypa/advisory-database
    python benchmarks/advisories.py advisory-database

Prints the advisories that hold for a version of ``requirements-hashed.txt``, and the date of the
newest one in the database, for a database says nothing of what came later. Exit code 1 where one
holds. It is what ``pip-audit`` asks a service for, where that cannot be reached.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

PINS = Path(__file__).parents[1] / "requirements-hashed.txt"


def pinned(text: str) -> dict[str, Version]:
    """Package to version of a file of requirements."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def holds(advisory: Mapping[str, Any], name: str, version: Version) -> bool:
    """Whether an advisory (OSV, https://ossf.github.io/osv-schema) is of this version."""
    if "withdrawn" in advisory:
        return False
    for one in advisory.get("affected", []):
        if canonicalize_name(one["package"]["name"]) != name:
            continue
        ranges = (r for r in one.get("ranges", []) if r["type"] == "ECOSYSTEM")
        if str(version) in one.get("versions", []) or any(_within(r, version) for r in ranges):
            return True
    return False


def _within(span: Mapping[str, Any], version: Version) -> bool:
    """Whether a range of introduced and fixed versions holds ``version``."""
    inside = False
    for event in span["events"]:
        (kind, text), *_ = event.items()
        try:
            bound = Version(text)
        except InvalidVersion:
            continue
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind == "fixed" and version >= bound) or (
            kind == "last_affected" and version > bound
        ):
            inside = False
    return inside


def advisories(database: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """All of one package."""
    for path in sorted((database / "vulns" / name).glob("*.yaml")):
        yield yaml.safe_load(path.read_text(encoding="utf-8"))


def main() -> int:
    """Print what holds; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path, help="a checkout of pypa/advisory-database")
    database = parser.parse_args().database
    if not (database / "vulns").is_dir():
        parser.error(f"{database}: no folder vulns; expected pypa/advisory-database")
    pins, known, bad, newest = pinned(PINS.read_text()), 0, 0, ""
    for name, version in pins.items():
        for advisory in advisories(database, name):
            known += 1
            newest = max(newest, str(advisory.get("published", "")))
            if holds(advisory, name, version):
                bad += 1
                print(f"{name} {version}: {advisory['id']} {advisory.get('summary', '')}".rstrip())
    print(f"{bad} of {known} advisories hold for {len(pins)} packages; the newest is of {newest}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
