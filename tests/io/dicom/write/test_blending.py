"""Presentation states that lay a registered series over its reference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom import dcmread

from mmif.io.dicom.write.blending import Look, can_blend, write_blending
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.series import write_dicom_series
from mmif.io.source import Source

Recipe = Callable[..., DerivedSeries]
Faults = Callable[[Path], list[str]]
RAMP = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
LOOK = Look((0.0, 900.0), (10.0, 510.0), RAMP, "gray")


@pytest.fixture
def registered(sources, recipe: Recipe, tmp_path: Path) -> tuple[DerivedSeries, Path]:
    """A SPECT on an MR's grid, as a written series."""
    made = recipe(sources.dicom("MR", Rows=64, Columns=64), sources.dicom("NM"), kind="registered")
    values = np.random.default_rng(5).random((1, 12, 12, 4), dtype=np.float32) * 500
    write_dicom_series(MetaTensor(values, affine=np.eye(4)), tmp_path / "registered", made)
    return made, tmp_path / "registered"


def test_the_object_has_no_error_and_no_warning(registered, faults: Faults, tmp_path: Path) -> None:
    write_blending(tmp_path / "b.dcm", *registered, LOOK)
    assert faults(tmp_path / "b.dcm") == []


def test_the_registered_series_lies_over_the_reference(registered, tmp_path: Path) -> None:
    recipe, folder = registered
    write_blending(tmp_path / "b.dcm", recipe, folder, LOOK)
    ds = dcmread(tmp_path / "b.dcm")
    under, over = ds.BlendingSequence
    assert (under.BlendingPosition, over.BlendingPosition) == ("UNDERLYING", "SUPERIMPOSED")
    for item, headers in (
        (under, recipe.reference.headers),
        (over, [dcmread(path) for path in sorted(folder.iterdir())]),
    ):
        (series,) = item.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == headers[0].SeriesInstanceUID
        named = [i.ReferencedSOPInstanceUID for i in series.ReferencedImageSequence]
        assert named == [header.SOPInstanceUID for header in headers]
    (shown,) = over.SoftcopyVOILUTSequence
    assert (shown.WindowCenter, shown.WindowWidth) == (260, 500)
    assert over.RescaleSlope == dcmread(folder / "0001.dcm").RescaleSlope
    assert ds.StudyInstanceUID == recipe.reference.headers[0].StudyInstanceUID
    assert np.frombuffer(ds.RedPaletteColorLookupTableData, "<u2").tolist() == [
        257 * value for value in range(256)
    ]


def test_a_rerun_has_the_same_uids_and_another_look_others(registered, tmp_path: Path) -> None:
    uids = []
    for look in (LOOK, LOOK, replace(LOOK, registered_window=(0.0, 1.0))):
        write_blending(tmp_path / "b.dcm", *registered, look)
        uids.append(dcmread(tmp_path / "b.dcm").SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def several_slopes(source: Source) -> Source:
    source.headers[3].RescaleSlope = 2
    return source


@pytest.mark.parametrize(
    ("modality", "change", "can"),
    [
        ("MR", lambda source: source, True),
        ("CT", lambda source: source, True),
        ("NM", lambda source: source, False),
        ("MR", lambda source: replace(source, moved=True), False),
        ("MR", lambda source: replace(source, headers=()), False),
        ("MR", several_slopes, False),
    ],
)
def test_only_slices_as_they_lie_in_the_archive_are_blended(modality, change, can, sources) -> None:
    assert can_blend(change(sources.dicom(modality))) is can
    assert can_blend(None) is False
