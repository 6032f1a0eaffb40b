"""What a reader still sees of findings in the sample head, by `benchmarks/findings.py`."""

import json
import sys
from pathlib import Path

import pytest

import mmif

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from findings import SAMPLE, against_truth, is_met, limits_of, measure


@pytest.mark.parametrize("roles", [("ct", "spect"), ("ct", "mri", "spect")])
def test_findings_of_each_source_are_kept_under_an_activity(
    sample_data: Path, roles: tuple[str, ...]
) -> None:
    sources = {role: mmif.load(sample_data / SAMPLE[role], role=role) for role in roles}
    base = mmif.fuse(**sources)
    assert against_truth(base, json.loads((sample_data / "truth.json").read_text()))
    seen, limits = measure(sources, base, [0], {}), limits_of(roles)
    assert {
        name: seen[name] for name, least in limits.items() if not is_met(seen[name], least)
    } == {}
