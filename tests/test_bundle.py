"""A task as a MONAI bundle, run as MONAI runs one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from monai.bundle import verify_net_in_out

import mmif
from mmif.bundle import write_bundle
from mmif.cli import main
from mmif.config import load_pipeline
from mmif.errors import OutputError

TRUSTED = "ignore:parsing config_file"  # MONAI's word at every bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(load_pipeline("ct-mri"), tmp_path_factory.mktemp("bundle") / "ct-mri")


def test_monai_runs_it_to_the_voxels_of_the_function(
    bundle: Path, sample_data: Path, tmp_path: Path
) -> None:
    inputs = {"ct": sample_data / "ct", "mri": sample_data / "mri.nii.gz"}
    command = "-m monai.bundle run --config_file configs/inference.json --bundle_root ."
    words = [word for role, path in inputs.items() for word in (f"--{role}", str(path))]
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, *command.split(), *words, "--output", str(out)],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    fused = mmif.load(out / "fused.nii.gz")
    assert fused.equal(mmif.fuse(**inputs).fused)
    assert (out / "registration.tfm").is_file()


@pytest.mark.filterwarnings(TRUSTED)
def test_the_network_takes_and_gives_what_the_metadata_says(bundle: Path) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.json"),
        any=64,
    )


def test_the_folder_is_what_monai_specifies(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    required = "version monai_version pytorch_version numpy_version required_packages_version task"
    required += " description authors copyright network_data_format"
    assert set(required.split()) <= set(metadata)
    config = json.loads((bundle / "configs/inference.json").read_text())
    assert {"ct", "mri", "output"} <= set(config)
    assert "Apache License" in (bundle / "LICENSE").read_text()
    assert "--mri MRI --ct CT --output OUT" in (bundle / "docs/README.md").read_text()


def test_three_sources_have_the_weights_of_both_passes(tmp_path: Path) -> None:
    folder = write_bundle(load_pipeline("ct-mri-pet"), tmp_path / "bundle")
    models = sorted(path.parent.name for path in folder.glob("models/*/model.safetensors"))
    assert models == ["ct-mri", "ct-mri-pet"]
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    channels = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    assert channels == {"0": "MRI and CT, fused", "1": "PET"}


def test_a_bundle_that_stands_is_kept_without_overwrite(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        write_bundle(load_pipeline("ct-mri"), bundle)
    write_bundle(load_pipeline("ct-mri"), bundle, overwrite=True)
    edited = tmp_path / "edited"
    shutil.copytree(bundle, edited)
    config = edited / "configs" / "inference.json"
    config.write_text(config.read_text().replace("256", "384", 1))
    with pytest.raises(OutputError, match=r"configs/inference\.json has been changed"):
        write_bundle(load_pipeline("ct-mri"), edited, overwrite=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    with pytest.raises(OutputError, match=r"without a summary\.json"):
        write_bundle(load_pipeline("ct-mri"), tmp_path / "theirs", overwrite=True)


def test_the_command_writes_it(tmp_path: Path) -> None:
    out = str(tmp_path / "bundle")
    done = CliRunner().invoke(main, ["bundle", "--task", "spect-ct", "-o", out])
    assert (done.exit_code, done.output) == (0, f"{out}: a MONAI bundle of spect-ct\n")
