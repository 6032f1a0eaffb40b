"""SUV by body weight, after the QIBA profile's pseudo-code; where a header is unclear, none."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_corpus import PT, base, part, scan, write_series
from pydicom import Dataset
from pydicom.uid import generate_uid

from mmif.errors import MmifError
from mmif.io import load
from mmif.io.dicom.suv import suv_scale

F18_S = 6586.2
ONE_HOUR = 70e3 / (370e6 * 0.5 ** (3600 / F18_S))
"""70 kg over 370 MBq that decayed for one hour."""


def header() -> Dataset:
    ds = base(PT, generate_uid(), generate_uid())
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 370e6, F18_S
    tracer.RadiopharmaceuticalStartTime = "100000"
    ds.RadiopharmaceuticalInformationSequence = [tracer]
    ds.PatientWeight, ds.Units, ds.DecayCorrection = 70.0, "BQML", "START"
    ds.CorrectedImage = ["ATTN", "DECY", "SCAT"]
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.SeriesDate = ds.AcquisitionDate = "20260102"
    ds.SeriesTime = ds.AcquisitionTime = "110000"
    return ds


def changed(**attributes: object) -> Dataset:
    ds = header()
    for keyword, value in attributes.items():
        of_tracer = keyword.startswith("Radio")
        setattr(ds.RadiopharmaceuticalInformationSequence[0] if of_tracer else ds, keyword, value)
    return ds


def in_utc(given: str, local: str) -> Dataset:
    """An injection by another clock than that of the scan, one hour east of Greenwich."""
    return changed(
        TimezoneOffsetFromUTC="+0100",
        RadiopharmaceuticalStartDateTime=given,
        RadiopharmaceuticalStartTime=local,
    )


def philips(*elements: tuple[int, str]) -> Dataset:
    ds = changed(Units="CNTS")
    block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
    for element, value in elements:
        block.add_new(element, "DS", value)
    return ds


def ge_scan(at: str) -> Dataset:
    """A bed of a scan that began before, reprocessed the day after."""
    ds = changed(SeriesDate="20260103", SeriesTime="080000", AcquisitionTime="111500")
    ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", at)
    return ds


def legacy_converted() -> Dataset:
    """A multi-frame object, whose slopes stand in its functional groups."""
    ds = changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.128.1")
    del ds.RescaleSlope, ds.RescaleIntercept
    return ds


def at_midnight(given: str, scanned: str) -> Dataset:
    return changed(RadiopharmaceuticalStartTime=given, SeriesTime=scanned, AcquisitionTime=scanned)


@pytest.mark.parametrize(
    ("ds", "factor"),
    [
        (header(), ONE_HOUR),
        (legacy_converted(), ONE_HOUR),
        (changed(SeriesDate="20260109"), ONE_HOUR),  # reprocessed a week later
        (changed(RadiopharmaceuticalStartDateTime="20260102100000.00+0100"), ONE_HOUR),
        (changed(RadiopharmaceuticalStartTime="1000"), ONE_HOUR),  # hours and minutes: PS3.5 6.2
        (changed(RadiopharmaceuticalStartDateTime="202601021000"), ONE_HOUR),
        (changed(RadiopharmaceuticalStartDateTime="2026010210"), ONE_HOUR),  # the time alone then
        (in_utc("20260102090000+0000", "100000"), ONE_HOUR),
        (in_utc("20260102043000.0-0430", "100000"), ONE_HOUR),
        (at_midnight("233000", "003000"), ONE_HOUR),
        (ge_scan("20260102110000.00"), ONE_HOUR),
        (changed(DecayCorrection="ADMIN"), 70e3 / 370e6),
        (changed(Units="GML"), 1.0),
        (changed(Units="GML", SUVType="BW"), 1.0),
        (philips((0x00, "0.00042")), 0.00042),
        (philips((0x09, "2.5")), 2.5 * ONE_HOUR),
        # three minutes that begin a quarter of an hour after the start: exp(kt) kT / (1-exp(-kT))
        (
            changed(AcquisitionTime="111500", ActualFrameDuration=180000, DecayFactor=1.10973),
            ONE_HOUR,
        ),
    ],
)
def test_the_factor_is_the_profiles(ds: Dataset, factor: float) -> None:
    assert suv_scale(ds).factor == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(
    ("ds", "reason"),
    [
        (changed(PatientWeight=None), "PatientWeight is missing"),
        (changed(PatientWeight=0), "PatientWeight is missing"),
        (changed(PatientWeight=70000), "not in kg"),
        (changed(RadionuclideTotalDose=370), "not in Bq"),
        (changed(RadionuclideHalfLife=None), "RadionuclideHalfLife is missing"),
        (changed(RadiopharmaceuticalStartTime=""), "give no time"),
        (changed(Units="CNTS"), "without one private factor"),
        (changed(Units="GML", SUVType="LBM"), "SUVType is ‘LBM’"),
        (changed(Units=""), "Units is missing"),
        (changed(CorrectedImage=["ATTN"]), "lacks ATTN or DECY"),
        (changed(DecayCorrection="NONE"), "DecayCorrection is ‘NONE’"),
        (changed(SeriesTime="090000"), "given after the scan, or long before"),
        (at_midnight("100000", "090000"), "given after the scan, or long before"),
        (changed(RadiopharmaceuticalStartDateTime="20251230100000"), "long before"),
        (changed(SeriesTime="", AcquisitionTime=""), "give no time"),
        (changed(RadiopharmaceuticalStartTime="10"), "give no time"),
        (
            changed(RadiopharmaceuticalStartDateTime="20260102093000"),
            "of two times: 09:30:00 and 10:00:00",
        ),
        (in_utc("20260102090000+0000", "090000"), "of two times: 10:00:00 and 09:00:00"),
        (
            changed(SeriesTime="103000", ActualFrameDuration=180000, DecayFactor=1.0095),
            r"DecayFactor is of a start \+1800 s from",
        ),
        (changed(Modality="MR"), "not a PET"),
    ],
)
def test_what_leaves_it_open_is_named(ds: Dataset, reason: str) -> None:
    with pytest.raises(MmifError, match=reason):
        suv_scale(ds)


def test_slices_of_several_weights_or_tracers_have_none() -> None:
    with pytest.raises(MmifError, match="PatientWeight changes"):
        suv_scale(header(), header(), changed(PatientWeight=71))
    two = header()
    two.RadiopharmaceuticalInformationSequence.append(Dataset())
    with pytest.raises(MmifError, match="one tracer"):
        suv_scale(two)


def write_pet(folder: Path, change: Callable[[Dataset], object] = lambda ds: None) -> None:
    def fill(ds: Dataset, k: int) -> None:
        for element in header():
            if element.VR != "UI":
                ds[element.tag] = element
        change(ds)

    write_series(
        folder, part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(6, 22)), PT, change=fill
    )


def test_the_source_says_what_its_factor_follows_from_or_why_it_has_none(tmp_path: Path) -> None:
    write_pet(tmp_path / "a")
    source = load(tmp_path / "a").meta["source"]
    assert (source.suv.dose_bq, source.suv.weight_kg) == (370e6, 70.0)
    assert (source.suv.half_life_s, source.suv.uptake_s) == (F18_S, 3600.0)
    assert source.warnings == ()
    write_pet(tmp_path / "b", lambda ds: setattr(ds, "PatientWeight", None))
    source = load(tmp_path / "b").meta["source"]
    assert source.suv is None
    assert source.warnings == ("no SUV by body weight: PatientWeight is missing, or not in kg",)


def test_beds_of_a_real_pet_are_corrected_to_the_start_of_its_series(shared_data: Path) -> None:
    """Beds 3 to 21 minutes later: their DecayFactor agrees with SeriesTime."""
    suv = load(shared_data / "dicom" / "qin_headneck_pet", role="pet").meta["source"].suv
    assert suv.uptake_s == pytest.approx(5024.678)  # 11:39:00 to 13:02:44.678
    left = 381.47e6 * 0.5 ** (5024.678 / F18_S)
    assert suv.factor == pytest.approx(66.2e3 / left)
