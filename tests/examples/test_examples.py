"""Each example runs as its own first lines say."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from mmif.io.images import write_image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *words: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in here for path in EXAMPLES.glob("*.py"))


def test_a_study_is_fused_in_memory(sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused.nii.gz"
    inputs = ["--ct", sample_data / "ct", "--mri", sample_data / "mri.nii.gz"]
    said = run("fuse_in_memory.py", *inputs, "--save", out)
    assert "registration: pass" in said
    assert out.is_file()


def test_a_step_is_exchanged(sample_data: Path) -> None:
    inputs = ["--ct", sample_data / "ct", "--mri", sample_data / "mri.nii.gz"]
    said = run("exchange_a_step.py", *inputs)
    assert "weights=['Mean']" in said
    share = re.search(r"fused is the mean: True, in (\d+)%", said)
    assert share
    assert int(share[1]) > 50  # 74: the CT ends below, in front


def test_a_folder_is_trained_on(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    for role in ("CT", "MRI"):
        for number in range(6):
            image = random.integers(0, 256, (40, 40), dtype=np.uint8)
            write_image(image, tmp_path / "data" / role / f"{1 + number // 3}{number:03}.png")
    where = ["--data", tmp_path / "data", "-o", tmp_path / "trained"]
    said = run("train_on_a_folder.py", *where, "--steps", 2, "--crop", 32)
    assert "3 pairs to learn from, 3 held out" in said
    assert (tmp_path / "trained" / "weights" / "model.safetensors").is_file()
