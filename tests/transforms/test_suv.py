"""A PET is in SUV where its headers allow it, and its window may be asked for in SUV."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mmif.config import IntensityConfig, load_pipeline
from mmif.errors import ConfigError, InputError
from mmif.io.dicom.deidentify import UidMapper, deidentify_source
from mmif.io.source import Source, SuvScale
from mmif.options import FuseOptions
from mmif.report.text import input_origin
from mmif.summary import plain, summarise_input
from mmif.transforms.intensity import window_of
from mmif.transforms.suv import ConvertToSuvd


def pet(factor: float | None, units: str = "BQML") -> MetaTensor:
    values = torch.full((1, 6, 5, 4), 5000.0)
    volume = MetaTensor(values, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    suv = None if factor is None else SuvScale(factor, units, "drawn")
    volume.meta["source"] = Source(
        Path("pet"), "dicom", "PT", (6, 5, 4), (2, 2, 2), units=units, suv=suv
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


def test_the_summary_has_the_factor_of_a_converted_pet_and_where_it_is_from() -> None:
    read = pet(0.001)
    known = SuvScale(0.001, "BQML", "weight and dose", dose_bq=3e8, weight_kg=300.0)
    read.meta["source"] = replace(read.meta["source"], suv=known)
    source = ConvertToSuvd("pet")({"pet": read})["pet"].meta["source"]
    said = summarise_input("pet", source, (6, 5, 4))
    assert (said.units, said.suvbw_per_unit) == ("SUVBW", 0.001)
    assert said.suv == {
        "stored_unit": "BQML",
        "by": "weight and dose",
        "dose_bq": 3e8,
        "weight_kg": 300.0,
    }
    assert ("SUV by", "weight and dose") in input_origin(plain(said))


def test_without_identity_neither_weight_nor_what_tells_it_is_said() -> None:
    """PS3.15 Table E.1-1 removes PatientWeight; dose and factor together would tell it."""
    read = pet(0.001)
    known = SuvScale(0.001, "BQML", "weight and dose", 3e8, 300.0, 6586.2, 3600.0)
    source = deidentify_source(replace(read.meta["source"], suv=known), UidMapper())
    said = plain(summarise_input("pet", source, (6, 5, 4)))
    assert said["suvbw_per_unit"] is None
    assert said["suv"] == {"stored_unit": "BQML", "by": "weight and dose"}
    read.meta["source"] = source
    assert ConvertToSuvd("pet")({"pet": read})["pet"].unique().item() == pytest.approx(5.0)
