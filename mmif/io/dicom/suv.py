"""Standardised uptake values by body weight, where a PET's headers allow them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pydicom

from mmif.errors import MmifError
from mmif.io.dicom.read.headers import code_strings, first_item, number, text

# 13 half-lives of F-18, 2 of Cu-64: beyond, one of the dates is wrong. Late scans of Zr-89 and
# I-124, whose half-lives are days, stay in Bq/ml by it
MAX_UPTAKE = timedelta(hours=24)

_ACQUISITION_TIME = 0x00080032  # by its tag: asked of every slice, which takes time by the keyword

_AGREED = ("PatientWeight", "CorrectedImage", "DecayCorrection", "Units", "SUVType")
"""Attributes that must be one for all slices: one factor is for all of them."""


def suv_factor(dataset: pydicom.Dataset, *others: pydicom.Dataset) -> float | None:
    """SUVbw per unit of a stored-and-rescaled PET value; None where attributes are missing.

    As the QIBA profile computes it: body weight in g over the dose that is left at the time to
    which the image is decay corrected. 1 for images that already hold SUVbw. The beds of one
    acquisition are corrected to the start of the first, wherever its slices lie.

    Args:
        dataset: the header of one slice.
        others: those of the other slices of its volume.
    """
    others = _one_of_each_time(others)
    try:
        agreed = all(len({text(d, key) for d in (dataset, *others)}) == 1 for key in _AGREED)
        return _factor(dataset, others) if agreed else None
    except MmifError:
        return None


def _one_of_each_time(datasets: Sequence[pydicom.Dataset]) -> tuple[pydicom.Dataset, ...]:
    """One data set of each stored AcquisitionTime: the slices of a bed share all that counts."""
    found: dict[str, pydicom.Dataset] = {}
    for dataset in datasets:
        stored = dataset.get_item(_ACQUISITION_TIME)
        found.setdefault(str(stored.value) if stored is not None else "", dataset)
    return tuple(found.values())


def _factor(dataset: pydicom.Dataset, others: Sequence[pydicom.Dataset]) -> float | None:
    """As `suv_factor`; unreadable attributes raise."""
    if text(dataset, "Modality").upper() != "PT":
        return None
    unit = text(dataset, "Units").upper()
    if unit == "GML" and text(dataset, "SUVType").upper() in {"", "BW"}:
        return 1.0
    weight = number(dataset, "PatientWeight") or 0.0
    tracer = _tracer(dataset)
    dose = number(tracer, "RadionuclideTotalDose") or 0.0
    corrected = {"ATTN", "DECY"} <= set(code_strings(dataset, "CorrectedImage"))
    if unit != "BQML" or not corrected or weight <= 0 or dose <= 0:
        return None
    doses = {text(_tracer(other), "RadionuclideTotalDose") for other in (dataset, *others)}
    left = _share_left(dataset, others) if len(doses) == 1 else None
    return None if left is None else 1000.0 * weight / (dose * left)


def _tracer(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The item of the radiopharmaceutical."""
    return first_item(dataset, "RadiopharmaceuticalInformationSequence")


def _share_left(dataset: pydicom.Dataset, others: Sequence[pydicom.Dataset]) -> float | None:
    """The share of the dose that is left at the time of decay correction."""
    tracer = _tracer(dataset)
    correction = text(dataset, "DecayCorrection").upper()
    if correction == "ADMIN":
        return 1.0
    half_life_s = number(tracer, "RadionuclideHalfLife") or 0.0
    scan, injection = _scan_start((dataset, *others)), _injection(dataset, tracer)
    if correction != "START" or half_life_s <= 0 or scan is None or injection is None:
        return None
    uptake = scan - injection
    if not timedelta(0) <= uptake <= MAX_UPTAKE:
        return None
    return float(2.0 ** (-uptake.total_seconds() / half_life_s))


def _scan_start(datasets: Sequence[pydicom.Dataset]) -> datetime | None:
    """The earliest of series and acquisition times: a series time can be that of reprocessing."""
    stated = {
        (text(dataset, f"{of}Date"), text(dataset, f"{of}Time"))
        for dataset in datasets
        for of in ("Series", "Acquisition")
    }
    return min((time for day, at in stated if (time := _moment(day, at))), default=None)


def _injection(dataset: pydicom.Dataset, tracer: pydicom.Dataset) -> datetime | None:
    """When the tracer was given; on the day of the scan where only a time is stated."""
    stated = text(tracer, "RadiopharmaceuticalStartDateTime")
    if stated:
        return _moment(stated[:8], stated[8:])
    day = text(dataset, "SeriesDate") or text(dataset, "AcquisitionDate")
    return _moment(day, text(tracer, "RadiopharmaceuticalStartTime"))


def _moment(day: str, time: str) -> datetime | None:
    """A DICOM date and time, to the second."""
    try:
        return datetime.strptime(day + time[:6], "%Y%m%d%H%M%S")
    except ValueError:
        return None
