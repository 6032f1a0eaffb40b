"""The module of 3D Slicer: its description, and a run as Slicer starts it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner

from mmif.cli import main

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "deploy" / "slicer" / "MmifFuse"

# Of the Slicer execution schema: the elements that a parameter may have, and must have
ABOUT = {"category", "title", "description", "version", "license", "contributor"}
REQUIRED = {"name", "longflag", "label", "description"}
KINDS = {
    "image": REQUIRED | {"channel"},
    "transform": REQUIRED | {"channel"},
    "string-enumeration": REQUIRED | {"default", "element"},
    "boolean": REQUIRED | {"default"},
}


def module(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The file in ``deploy/slicer``, in the environment that Slicer gives to what it starts."""
    mmif = Path(sys.executable).parent / "mmif"
    if not mmif.exists():
        pytest.skip("the command mmif is not installed beside this Python")
    spoilt = {"PYTHONHOME": "/opt/slicer/lib/Python", "LD_LIBRARY_PATH": "/opt/slicer/lib"}
    return subprocess.run(
        [str(MODULE), *map(str, words)],
        env={**os.environ, **spoilt, "MMIF": str(mmif)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def test_the_description_fits_the_execution_schema() -> None:
    done = module("--xml")
    assert done.returncode == 0, done.stderr
    root = ElementTree.fromstring(done.stdout)
    assert root.tag == "executable"
    assert {child.tag for child in root} == ABOUT | {"parameters"}
    names = []
    for group in root.findall("parameters"):
        first, second, *parameters = group
        assert (first.tag, second.tag) == ("label", "description")
        for parameter in parameters:
            assert {child.tag for child in parameter} == KINDS[parameter.tag]
            name = parameter.findtext("name") or ""
            assert name.isidentifier()  # Slicer makes variables of names and flags
            assert parameter.findtext("longflag") == f"--{name}"
            assert parameter.findtext("channel", "input") in ("input", "output")
            names.append(name)
    assert len(names) == len(set(names))
    help_text = CliRunner().invoke(main, ["slicer", "--help"]).output
    assert all(f"--{name}" in help_text for name in names)


def test_two_volume_nodes_become_three(sample_data: Path, tmp_path: Path) -> None:
    """By NRRD files, as Slicer hands nodes over."""
    ct = sitk.ReadImage([str(path) for path in sorted((sample_data / "ct").iterdir())])
    mri = sitk.ReadImage(str(sample_data / "mri.nii.gz"))
    for name, image in (("ct", ct), ("mri", mri)):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    out = {name: tmp_path / f"{name}.nrrd" for name in ("fused", "registered")}
    transform_file = tmp_path / "t.tfm"
    done = module(
        *("--fixed", tmp_path / "mri.nrrd", "--fixedrole", "mri"),
        *("--moving", tmp_path / "ct.nrrd", "--movingrole", "ct"),
        *("--fused", out["fused"], "--registered", out["registered"]),
        *("--transform", transform_file),
    )
    assert done.returncode == 0, done.stderr
    assert "<filter-progress>1.00</filter-progress>" in done.stdout
    fused, registered = (sitk.ReadImage(str(path)) for path in out.values())
    assert fused.GetNumberOfComponentsPerPixel() == 1
    assert fused.GetSize() == registered.GetSize() == (256, 256, 52)
    # Slicer resamples the moving node under the transform just so
    transform = sitk.ReadTransform(str(transform_file))
    again = sitk.Resample(ct, registered, transform, sitk.sitkLinear, -1024.0)
    ours, theirs = (sitk.GetArrayFromImage(image) for image in (registered, again))
    inside = theirs[2:-2] > -500
    assert inside.sum() > 100_000
    assert np.abs(ours[2:-2] - theirs[2:-2])[inside].mean() < 5  # HU


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "expected --fixed and --moving"),
        (["--fixed", "a", "--moving", "b"], 2, "at least one of --fused"),
        (["--fixed", "a", "--moving", "b", "--fused", "f.png"], 1, "ending in .nrrd"),
        (
            ["--fixed", "a", "--moving", "b", "--fused", "f.nrrd", "--movingrole", "mri"],
            1,
            "both volumes are MRI",
        ),
    ],
)
def test_what_cannot_be_is_said(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["slicer", *words])
    assert done.exit_code == code
    assert said in done.output


def test_the_module_is_one_plain_executable() -> None:
    assert os.access(MODULE, os.X_OK)
    assert MODULE.suffix == ""  # Slicer takes an executable without an ending for such a module
    shell = shutil.which("sh")
    assert shell
    assert subprocess.run([shell, "-n", str(MODULE)], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["input", "link", "pipe", "folder"])
def test_what_slicer_did_not_name_is_not_replaced(tmp_path: Path, kind: str) -> None:
    """Before anything is read."""
    (tmp_path / "mri.nrrd").write_text("mine")
    out = tmp_path / ("mri.nrrd" if kind == "input" else "out.nrrd")
    make = {"link": lambda: out.symlink_to(tmp_path / "mri.nrrd"), "pipe": lambda: os.mkfifo(out)}
    make.get(kind, out.mkdir if kind == "folder" else out.exists)()
    words = ["--fixed", tmp_path / "mri.nrrd", "--moving", tmp_path, "--fused", out]
    done = CliRunner().invoke(main, ["slicer", *map(str, words)])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {out}")
    assert (tmp_path / "mri.nrrd").read_text() == "mine"
