"""OHIF over Orthanc's DICOMweb: needs the folder ``dist`` of @ohif/app, from npm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

import mmif

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.browser
def test_a_series_opens_in_ohif_with_its_letters(tmp_path: Path) -> None:
    dist = os.environ.get("MMIF_TEST_OHIF")
    if dist is None:
        pytest.skip("set MMIF_TEST_OHIF to the folder dist of the npm package @ohif/app")
    for program in ("Orthanc", "chromium"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed")
    values = np.random.default_rng(1).random((1, 64, 64, 9), dtype=np.float32)
    mmif.save(MetaTensor(values, affine=np.diag([-2.0, -2, 3, 1])), tmp_path / "series")
    script = ROOT / "benchmarks" / "ohif.py"
    call = [sys.executable, str(script), "--ohif", dist, "-o", str(tmp_path / "pictures")]
    done = subprocess.run(
        [*call, str(tmp_path / "series")], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WADO-RS gave 9 of 9 images bit for bit" in done.stdout
    assert "letters A R" in done.stdout
    assert list((tmp_path / "pictures").glob("ohif-*.png"))
