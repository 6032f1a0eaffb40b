"""What the report says in words: verdict, checks, methods, parameters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmif.report.charts import JUDGED_BY
from mmif.report.page import number
from mmif.report.study_view import StudyView
from mmif.roles import label, labels

HEADLINES = {
    "pass": "The scans line up: every check of the registration passed.",
    "review": "Look before you rely on this: the registration is doubtful.",
    "fail": "Do not rely on this: the registration failed its checks.",
    "skipped": "Not searched: the alignment was taken as given.",
}


@dataclass(frozen=True)
class CheckRow:
    """One check of the registration, ready to be read."""

    name: str
    value: str
    limit: str
    tone: str
    verdict: str
    meaning: str


def input_facts(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of one input, as (name, value)."""
    shape, spacing = entry.get("shape"), entry.get("spacing_mm")
    facts = [
        ("Modality", entry.get("modality") or "not stated"),
        (
            "Format",
            {"dicom": "DICOM", "nifti": "NIfTI"}.get(str(entry.get("format")), entry.get("format")),
        ),
        ("Matrix", " × ".join(str(n) for n in shape) if shape else None),
        ("Spacing", f"{' × '.join(f'{s:.3g}' for s in spacing)} mm" if spacing else None),
        ("Unit", entry.get("units")),
    ]
    return _drop_empty(facts)


def input_origin(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where one input came from, as (name, value)."""
    facts = [
        ("Path", entry.get("path")),
        ("Series", entry.get("series_uid")),
        ("Selection", entry.get("selection")),
        ("SUV by", (entry.get("suv") or {}).get("by")),
    ]
    return _drop_empty(facts)


def _drop_empty(facts: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def check_rows(registration: Mapping[str, Any]) -> list[CheckRow]:
    """The registration's checks, those that did not pass first."""
    checks = registration.get("checks") or {}
    rows = [_check_row(name, check) for name, check in checks.items()]
    return sorted(rows, key=lambda row: row.tone == "pass")


def _check_row(name: str, check: Mapping[str, Any]) -> CheckRow:
    value, limit, passed = check.get("value"), check.get("limit"), bool(check.get("passed"))
    bare, unit = (name.removesuffix("_mm"), " mm") if name.endswith("_mm") else (name, "")
    sign = ""
    if _finite(value) and _finite(limit):
        below = float(value) <= float(limit)  # type: ignore[arg-type]
        sign = "≤ " if below == passed else "≥ "
    return CheckRow(
        bare.replace("_", " "),
        _short(value, unit),
        f"{sign}{_short(limit, unit)}",
        "pass" if passed else "review",
        "pass" if passed else "not met",
        str(check.get("meaning") or ""),
    )


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: object, unit: str) -> str:
    return f"{value:.3g}{unit}".replace("-", "−") if _finite(value) else number(value)


def error_words(registration: Mapping[str, Any]) -> str:
    """The estimated error of the registration, where both scans look and at the far end."""
    near, far = (registration.get(f"error_{where}_mm") for where in ("estimate", "farthest"))
    if not _finite(near):
        return "not estimated"
    return f"≈ {number(near, 1)} mm" + (f", {number(far, 1)} mm far out" if _finite(far) else "")


def errors_words(summary: Mapping[str, Any]) -> str:
    """The estimated error of each registration, by its source where there are several."""
    found = summary.get("registrations") or {}
    if len(found) < 2:
        return error_words(summary.get("registration") or {})
    return "; ".join(f"{label(role)} {error_words(one)}" for role, one in found.items())


def all_reasons(summary: Mapping[str, Any]) -> list[str]:
    """Why registrations are doubtful, of which source where there are several."""
    found = summary.get("registrations") or {}
    if len(found) < 2:
        return list((summary.get("registration") or {}).get("reasons") or ())
    return [
        f"{label(role)}: {reason}"
        for role, one in found.items()
        for reason in one.get("reasons") or ()
    ]


def loop_words(loop: Mapping[str, Any] | None) -> str:
    """Whether three registrations agree, in a sentence; "" of two sources."""
    if not loop:
        return ""
    way = " to ".join(label(str(role)) for role in loop["path"])
    agree = "The registrations agree" if loop["closed"] else "The registrations do not agree"
    return (
        f"{agree}: the loop from {way} leads {loop['residue_mm']:.1f} mm away from its start "
        f"(expected of their errors: at most {loop['expected_mm']:.1f} mm; the way without the "
        f"reference by {'the images' if loop['directly'] == 'images' else 'their headers'})."
    )


def methods(view: StudyView, summary: Mapping[str, Any]) -> str:
    """A paragraph for a paper: what was done, by what, with which settings."""
    result, fusion = view.result, summary.get("fusion") or {}
    shape, spacing = result.grid.shape, result.grid.spacing_mm
    windows = " and ".join(f"the {label(role)} from {w}" for role, w in result.windows.items())
    used = " and then by ".join(f"{name}, sha256 {sha[:12]}" for name, sha in weights_of(fusion))
    parts = [
        f"{labels(result.sources)} volumes of one patient were fused with mmif "
        f"{summary.get('mmif_version', '')}.",
        *(_input_sentence(entry) for entry in summary.get("inputs") or ()),
        *_registration_sentences(view, summary),
        f"Each volume was resampled once (trilinear) to {shape[2]} axial slices of {shape[0]} × "
        f"{shape[1]} pixels, {' × '.join(f'{mm:.3g}' for mm in spacing)} mm, in the frame of the "
        f"{view.reference_label}.",
        f"Intensities were scaled to 0..1 by one window for each volume: {windows}.",
        f"Slices were fused by the S3IMFusion network (weights {used}; "
        f"{fusion.get('precision', 'precision not stated')} on "
        f"{fusion.get('device', 'an unstated device')}).",
        "Where a moving volume has no data it is left out.",
    ]
    colour_map = (summary.get("pipeline") or {}).get("colour_map")
    if colour_map:
        parts.append(
            f"The functional volume was shown with the {colour_map} colour map; its luminance was "
            "fused, and the fused volume has its hue."
        )
    return " ".join(part for part in parts if part)


def weights_of(fusion: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and sha256 of the weights of each pass in the summary's ``fusion``."""
    passes = [
        fusion[key] for key in ("grey_weights", "weights") if isinstance(fusion.get(key), dict)
    ]
    named = [
        (str(one.get("name", "not stated")), str(one.get("sha256", "not stated")))
        for one in passes
        if isinstance(one, Mapping)
    ]
    return named or [("not stated", "not stated")]


def _input_sentence(entry: Mapping[str, Any]) -> str:
    shape, spacing = entry.get("shape"), entry.get("spacing_mm")
    if not shape or not spacing:
        return ""
    voxels, mm = " × ".join(map(str, shape)), " × ".join(f"{s:.3g}" for s in spacing)
    return f"The {label(str(entry.get('role')))} had {voxels} voxels of {mm} mm."


def _registration_sentences(view: StudyView, summary: Mapping[str, Any]) -> list[str]:
    """One for each source that was brought to the reference."""
    several = summary.get("registrations") or {}
    if len(several) < 2:
        several = {view.moving.role: summary.get("registration") or {}}
    return [_registration_sentence(view, label(role), one) for role, one in several.items()]


def _registration_sentence(view: StudyView, moving: str, registration: Mapping[str, Any]) -> str:
    method = str(registration.get("method") or "").rstrip(".")
    error, far = (registration.get(f"error_{where}_mm") for where in ("estimate", "farthest"))
    estimated = f"; estimated error {error:.1f} mm" if isinstance(error, int | float) else ""
    if estimated and isinstance(far, int | float):
        estimated += f" where both scans look, {far:.1f} mm at the far end"
    if registration.get("verdict") == "skipped":
        return f"No registration was searched ({method or 'the headers were trusted'})."
    return (
        f"The {moving} was registered rigidly to the {view.reference_label} "
        f"({method or 'method not stated'}{estimated})."
    )


def worst_words(count: int) -> str:
    """How the worst slices were chosen."""
    names = ", ".join(JUDGED_BY)
    return (
        f"The {count} slices with the lowest mean rank in {names}, the metrics that compare the "
        "fused slice with its sources; of those that both sources cover and that hold at least a "
        "quarter of the anatomy of the fullest slice."
    )


def flat_settings(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat_settings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield path, ", ".join(str(inner) for inner in value)
    else:
        yield path, "none" if value is None else str(value)
