"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent

settings.register_profile(
    "gates", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gates")  # the same examples each time, however slow the machine


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images, or a skip that says where it was looked for."""
    named = os.environ.get("MMIF_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test images are not at {folder}; set MMIF_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The simulated head that ships with the project."""
    return ROOT / "sample_data"
