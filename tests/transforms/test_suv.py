"""A PET is in SUV where its headers allow it, and its window may be asked for in SUV."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mmif.config import IntensityConfig, load_pipeline
from mmif.errors import ConfigError, InputError
from mmif.io.source import Source
from mmif.options import FuseOptions
from mmif.transforms.intensity import window_of
from mmif.transforms.suv import ConvertToSuvd


def pet(factor: float | None, units: str = "BQML") -> MetaTensor:
    values = torch.full((1, 6, 5, 4), 5000.0)
    volume = MetaTensor(values, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    volume.meta["source"] = Source(
        "pet", "dicom", "PT", (6, 5, 4), (2, 2, 2), units=units, suv_factor=factor
    )
    return volume


def test_values_become_suv_and_their_source_says_so() -> None:
    read = pet(0.001)
    step = ConvertToSuvd("pet")
    data = step({"pet": read})
    assert data["pet"].unique().item() == pytest.approx(5.0)
    assert torch.equal(data["pet"].affine, read.affine)
    assert data["pet"].meta["source"].units == "SUVBW"
    assert step.figures(data) == {"pet_unit": "SUVBW"}
    assert read.meta["source"].units == "BQML"  # what was read stays
    assert step(data)["pet"] is data["pet"]


def test_without_what_suv_needs_values_stay() -> None:
    read = pet(None)
    assert ConvertToSuvd("pet")({"pet": read})["pet"] is read


def test_a_window_in_suv_is_taken_or_refused() -> None:
    config = load_pipeline("pet-ct").with_options(FuseOptions(suv_max=7.0)).intensity_of("pet")
    assert config == IntensityConfig("suv", 0.0, 7.0)
    volume = ConvertToSuvd("pet")({"pet": pet(0.001)})["pet"]
    assert str(window_of(volume, config)) == "0..7 SUVBW"
    with pytest.raises(InputError, match="BQML and headers that do not give SUV"):
        window_of(pet(None), config)
    with pytest.raises(ConfigError, match="suv_max 7 in spect-ct; expected PET"):
        load_pipeline("spect-ct").with_options(FuseOptions(suv_max=7.0))
