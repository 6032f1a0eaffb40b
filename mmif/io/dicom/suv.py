"""Standardised uptake values by body weight, where a PET's headers allow them."""

import math
import re
import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta

import pydicom
from pydicom.valuerep import DA, TM

from mmif.errors import InputError, MmifError, quote
from mmif.io.dicom.read.headers import code_strings, items, number, text
from mmif.io.dicom.read.nuclear import modality_code, private_numbers, private_value
from mmif.io.source import SuvScale

PET = "1.2.840.10008.5.1.4.1.1.128"
"""Positron Emission Tomography Image Storage, whose slices have a scale each at top level."""

# 13 half-lives of F-18, 2 of Cu-64: beyond, one of the dates is wrong. Late scans of Zr-89 and
# I-124, whose half-lives are days, stay in Bq/ml by it
MAX_UPTAKE = timedelta(hours=24)

# Where the injection has a time and no date, it may be of the day before; later scans have dates
MAX_OVERNIGHT = timedelta(hours=6)

# Beyond, the numbers are grams or pounds, and MBq: a newborn in an incubator and the heaviest known
# person; a microdose and ten times what Rb-82 is given
WEIGHTS_KG, DOSES_BQ = (0.4, 650.0), (1e5, 2e10)

# What the start that DecayFactor implies and that of the times may differ by, as a share of SUV;
# PET of the head and neck (qin_headneck_pet) agrees within 1e-4
SAME_START = 0.02

_DATE_TIME = re.compile(r"(?P<day>\d{8})(?P<time>[\d.]*)(?P<offset>[+-]\d{4})?")
_OFFSET = re.compile(r"[+-]\d{4}")
_ACQUISITION_TIME = 0x00080032  # by its tag: asked of every slice, which takes time by the keyword
_GE, _PHILIPS = "GEMS_PETD_01", "Philips PET Private Group"

_AGREED = ("PatientWeight", "CorrectedImage", "DecayCorrection", "Units", "SUVType")
"""Attributes that must be one for all slices: one factor is for all of them."""


def suv_scale(dataset: pydicom.Dataset, *others: pydicom.Dataset) -> SuvScale:
    """What makes SUV by body weight of a stored-and-rescaled PET value.

    As the QIBA profile computes it (vendor-neutral pseudo-code): body weight in g over the dose
    that is left at the time to which the image is decay corrected; Philips's own factor for counts;
    1 for images that already hold SUVbw. The beds of one acquisition are corrected to the start of
    the first, wherever its slices lie. Where DecayFactor says another start, neither is taken.

    Args:
        dataset: the header of one slice.
        others: those of the other slices of its volume.

    Raises:
        MmifError: what of it the headers do not give.
    """
    for keyword in _AGREED:
        if len({text(one, keyword) for one in (dataset, *others)}) > 1:
            raise InputError(f"{keyword} changes between the slices")
    datasets = (dataset, *_one_of_each_time(others))
    unit, kind = text(dataset, "Units").upper(), text(dataset, "SUVType").upper()
    _check_is_scaled_pet(dataset)
    if unit == "GML":
        if kind not in {"", "BW"}:
            raise InputError(f"SUVType is {quote(kind)}")
        return SuvScale(1.0, unit, "stored as SUVbw")
    if not {"ATTN", "DECY"} <= set(code_strings(dataset, "CorrectedImage")):
        raise InputError("CorrectedImage lacks ATTN or DECY")
    correction = text(dataset, "DecayCorrection").upper()
    if correction not in {"START", "ADMIN"}:
        raise InputError(f"DecayCorrection is {quote(correction) if correction else 'missing'}")
    if unit == "CNTS":
        return _of_counts(datasets, correction)
    if unit != "BQML":
        raise InputError(f"Units is {quote(unit) if unit else 'missing'}")
    return _of_activity(datasets, correction)


def _check_is_scaled_pet(dataset: pydicom.Dataset) -> None:
    """Refuse another modality, and a PET whose stored values have no scale."""
    if modality_code(dataset) != "PT":
        raise InputError("not a PET")
    if text(dataset, "SOPClassUID") == PET and "RescaleSlope" not in dataset:
        raise InputError("RescaleSlope is missing")


def _one_of_each_time(datasets: Sequence[pydicom.Dataset]) -> tuple[pydicom.Dataset, ...]:
    """One data set of each stored AcquisitionTime: the slices of a bed share all that counts."""
    found: dict[str, pydicom.Dataset] = {}
    for dataset in datasets:
        stored = dataset.get_item(_ACQUISITION_TIME)
        found.setdefault(str(stored.value) if stored is not None else "", dataset)
    return tuple(found.values())


def _of_counts(datasets: Sequence[pydicom.Dataset], correction: str) -> SuvScale:
    """By Philips's private factors: (7053,xx00) makes SUVbw of counts, else (7053,xx09) Bq/ml."""
    suv, activity = (
        [one for dataset in datasets for one in private_numbers(dataset, 0x7053, _PHILIPS, element)]
        for element in (0x00, 0x09)
    )
    if len(set(suv)) == 1 and suv[0] > 0:
        return SuvScale(suv[0], "CNTS", "Philips's private SUV Scale Factor")
    if len(set(activity)) != 1 or not activity[0] > 0:
        raise InputError("Units is CNTS, without one private factor of Philips")
    known = _of_activity(datasets, correction)
    return SuvScale(
        activity[0] * known.factor,
        "CNTS",
        f"{known.by}; Philips's private Activity Concentration Scale Factor",
        *(known.dose_bq, known.weight_kg, known.half_life_s, known.uptake_s),
    )


def _of_activity(datasets: Sequence[pydicom.Dataset], correction: str) -> SuvScale:
    """By weight, dose and times, for values in Bq/ml."""
    weight = number(datasets[0], "PatientWeight") or 0.0
    if not WEIGHTS_KG[0] <= weight <= WEIGHTS_KG[1]:
        raise InputError("PatientWeight is missing, or not in kg")
    tracer = _tracer(datasets)
    dose = number(tracer, "RadionuclideTotalDose") or 0.0
    if not DOSES_BQ[0] <= dose <= DOSES_BQ[1]:
        raise InputError("RadionuclideTotalDose is missing, or not in Bq")
    if correction == "ADMIN":
        by = "weight and dose: decay is corrected to the injection"
        return SuvScale(1000.0 * weight / dose, "BQML", by, dose, weight)
    half_life_s = number(tracer, "RadionuclideHalfLife") or 0.0
    if half_life_s <= 0:
        raise InputError("RadionuclideHalfLife is missing")
    start = _scan_start(datasets, half_life_s)
    uptake_s = (start - _injection(datasets[0], tracer, start)).total_seconds()
    left = 2.0 ** (-uptake_s / half_life_s)
    by = "weight, dose, half-life and the time from injection to scan"
    factor = 1000.0 * weight / (dose * left)
    return SuvScale(factor, "BQML", by, dose, weight, half_life_s, uptake_s)


def _tracer(datasets: Sequence[pydicom.Dataset]) -> pydicom.Dataset:
    """The item of the radiopharmaceutical."""
    found = [items(dataset, "RadiopharmaceuticalInformationSequence") for dataset in datasets]
    if any(len(tracers) != 1 for tracers in found):
        raise InputError("RadiopharmaceuticalInformationSequence does not hold one tracer")
    if len({text(tracers[0], "RadionuclideTotalDose") for tracers in found}) > 1:
        raise InputError("RadionuclideTotalDose changes between the slices")
    return found[0][0]


def _scan_start(datasets: Sequence[pydicom.Dataset], half_life_s: float) -> datetime:
    """When the scan began, to which its decay is corrected.

    The earliest of series and acquisition times, a series time can be that of reprocessing, and
    GE's own (GEMS_PETD_01, scan date and time).
    """
    stated = {
        (text(dataset, f"{of}Date"), text(dataset, f"{of}Time"))
        for dataset in datasets
        for of in ("Series", "Acquisition")
    } | {_ge_scan_time(dataset) for dataset in datasets}
    start = min((time for day, at in stated if (time := _moment(day, at))), default=None)
    if start is None:
        raise InputError("SeriesDate, SeriesTime, AcquisitionDate and AcquisitionTime give no time")
    implied = [one for dataset in datasets if (one := _implied_start(dataset, half_life_s))]
    if implied:
        middle = statistics.median((one - start).total_seconds() for one in implied)
        if abs(2.0 ** (middle / half_life_s) - 1) > SAME_START:
            raise InputError(
                f"DecayFactor is of a start {middle:+.0f} s from that of the times in the header"
            )
    return start


def _ge_scan_time(dataset: pydicom.Dataset) -> tuple[str, str]:
    """Date and time of GE's private scan start; empty where there is none."""
    stated = str(private_value(dataset, 0x0009, _GE, 0x0D) or "")
    return stated[:8], stated[8:]


def _implied_start(dataset: pydicom.Dataset, half_life_s: float) -> datetime | None:
    """The start to which DecayFactor (PS3.3 C.8.9.4) corrects; None where it says nothing.

    A frame of length T that begins t later is corrected by exp(kt) kT / (1 - exp(-kT)). A factor
    of 1 is what writers fill in.
    """
    factor = number(dataset, "DecayFactor") or 1.0
    length_s = (number(dataset, "ActualFrameDuration") or 0.0) / 1000
    began = _moment(text(dataset, "AcquisitionDate"), text(dataset, "AcquisitionTime"))
    if factor <= 1.0 or length_s <= 0 or began is None:
        return None
    rate = math.log(2) / half_life_s
    later_s = math.log(factor * -math.expm1(-rate * length_s) / (rate * length_s)) / rate
    return began - timedelta(seconds=later_s)


def _injection(dataset: pydicom.Dataset, tracer: pydicom.Dataset, start: datetime) -> datetime:
    """When the tracer was given; where only a time is stated, on the last such before the scan."""
    full = _local(text(tracer, "RadiopharmaceuticalStartDateTime"), dataset)
    alone = _moment(start.strftime("%Y%m%d"), text(tracer, "RadiopharmaceuticalStartTime"))
    if full is not None and alone is not None:
        apart = abs(full - alone) % timedelta(days=1)
        if min(apart, timedelta(days=1) - apart) >= timedelta(minutes=1):  # as fine as by hand
            raise InputError(
                "RadiopharmaceuticalStartDateTime and -StartTime are of two times: "
                f"{full:%H:%M:%S} and {alone:%H:%M:%S}"
            )
    given, most = full or alone, MAX_UPTAKE
    if given is None:
        raise InputError("RadiopharmaceuticalStartDateTime and -StartTime give no time")
    if full is None and given > start:
        given, most = given - timedelta(days=1), MAX_OVERNIGHT
    if not timedelta(0) <= start - given <= most:
        raise InputError("the tracer was given after the scan, or long before")
    return given


def _local(stated: str, dataset: pydicom.Dataset) -> datetime | None:
    """A DICOM date-time by the clock of the dates and times of ``dataset``.

    Its offset from UTC is that clock's own, unless Timezone Offset From UTC (PS3.3 C.12.1) says
    another one.
    """
    parts = _DATE_TIME.fullmatch(stated)
    local = _moment(*parts.group("day", "time")) if parts else None
    there = _OFFSET.fullmatch(text(dataset, "TimezoneOffsetFromUTC"))
    if parts is None or local is None or there is None or not parts["offset"]:
        return local
    own, clock = (datetime.strptime(one, "%z").utcoffset() for one in (parts["offset"], there[0]))
    return local - (own or timedelta(0)) + (clock or timedelta(0))


def _moment(day: str, time: str) -> datetime | None:
    """A DICOM date and time; None where they do not say the minute."""
    if len(time) < len("HHMM"):
        return None
    try:
        return datetime.combine(DA(day), TM(time))
    except (TypeError, ValueError):
        return None


def suv_or_reason(
    dataset: pydicom.Dataset, *others: pydicom.Dataset
) -> tuple[SuvScale | None, tuple[str, ...]]:
    """`suv_scale`, or why a PET has none; neither for another modality."""
    if modality_code(dataset) != "PT":
        return None, ()
    try:
        return suv_scale(dataset, *others), ()
    except MmifError as error:
        return None, (f"no SUV by body weight: {error}",)
