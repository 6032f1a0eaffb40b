"""The steps of a fusion as a MONAI Compose."""

from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose

import mmif
from mmif.errors import ConfigError, InputError
from mmif.options import UnknownOptionError
from mmif.result import StudyRecord
from mmif.transforms.fuse import FuseSlicesd
from mmif.transforms.register import RegisterToReferenced
from mmif.transforms.step import study_of


def inputs(sample_data: Path) -> dict[str, Path]:
    return {"ct": sample_data / "ct", "mri": sample_data / "mri.nii.gz"}


def test_the_list_is_monais_and_prints_its_steps() -> None:
    steps = mmif.fusion_transforms("ct-mri")
    assert isinstance(steps, Compose)
    assert repr(steps).index("LoadVolumed") < repr(steps).index("FuseSlicesd")


def test_the_list_gives_the_voxels_of_the_function(sample_data: Path) -> None:
    data = mmif.fusion_transforms("ct-mri", register=False)(inputs(sample_data))
    result = mmif.fuse(**inputs(sample_data), register=False)
    assert data["fused"].equal(result.fused)


def test_a_step_is_exchanged_in_one_line(sample_data: Path) -> None:
    given = mmif.register(*(mmif.load(inputs(sample_data)[r], role=r) for r in ("mri", "ct")))

    def mine(data: dict) -> dict:
        return {**data, "study": StudyRecord("mri", registrations={"ct": given})}

    steps = mmif.fusion_transforms("ct-mri").exchange(RegisterToReferenced, mine)
    study = study_of(steps.up_to(FuseSlicesd)(inputs(sample_data)))
    assert study.sources["ct"].registration is given
    assert np.isfinite(study.sources["ct"].unit[...].numpy()).all()


def test_a_refusal_stays_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        mmif.fusion_transforms("ct-mri")({"ct": tmp_path / "a", "mri": tmp_path / "b"})


def test_a_step_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no step ResampleMe"):
        mmif.fusion_transforms("ct-mri").up_to(type("ResampleMe", (), {}))


def test_a_misspelled_option_names_its_neighbour(sample_data: Path) -> None:
    with pytest.raises(UnknownOptionError, match="did you mean accept_registration"):
        mmif.fuse(**inputs(sample_data), acept_registration=True)
