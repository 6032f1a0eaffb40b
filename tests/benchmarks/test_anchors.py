"""The figures of another method's fused slices, on the sample head."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from mmif.errors import InputError
from mmif.evaluation.baselines import average

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def anchors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("anchors", ROOT / "benchmarks" / "anchors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def slices(anchors: ModuleType, sample_data: Path) -> Any:
    ct, mri = sample_data / "ct", sample_data / "mri.nii.gz"
    given = argparse.Namespace(ct=ct, mri=mri, transform=None, register=False, every=4)
    return anchors.prepare(given)


def test_slices_fused_elsewhere_have_the_figures_of_the_rule_that_fused_them(
    slices: Any, tmp_path: Path
) -> None:
    slices.write(tmp_path)
    (tmp_path / "fused").mkdir()
    for path in (tmp_path / "CT").iterdir():
        Image.blend(Image.open(path), Image.open(tmp_path / "MRI" / path.name), 0.5).save(
            tmp_path / "fused" / path.name
        )
    found = slices.figures(slices.read(tmp_path / "fused"))
    assert found == pytest.approx(slices.figures(slices.fuse(average)), abs=0.02)


def test_a_method_that_shows_the_mri_alone_keeps_its_lesions_and_loses_those_of_the_ct(
    anchors: ModuleType, slices: Any
) -> None:
    images = anchors.by_command(slices, "cp -r {slices}/MRI/. {fused}")
    found = slices.figures(images)
    assert found["mri_correlation"] > 0.99
    assert found["not_mri"] < 0.1
    assert min(found["bright"], found["dark"]) > 0.5
    assert max(abs(found[kind]) for kind in ("bleed", "calcification", "infarct")) < 0.01


def test_a_method_that_leaves_slices_out_or_fails_is_named(
    anchors: ModuleType, slices: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="found nothing"):
        slices.read(tmp_path)
    with pytest.raises(InputError, match="false: exit status 1, expected 0"):
        anchors.by_command(slices, "false")
