"""``report.html``: all that a reader needs to trust a fusion or not, in one file."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmif.report import charts
from mmif.report.alignment import motion
from mmif.report.figures import (
    BeforeAfter,
    Picture,
    before_and_after,
    slice_row,
    thumbnails,
)
from mmif.report.page import render
from mmif.report.pictures import LOST_RGB
from mmif.report.readability import legend, readability_rows
from mmif.report.study_view import StudyView, is_blurred, registration_of
from mmif.report.text import (
    HEADLINES,
    all_reasons,
    check_rows,
    error_words,
    errors_words,
    flat_settings,
    input_facts,
    input_origin,
    loop_words,
    methods,
    weights_of,
    worst_words,
)
from mmif.report.viewer import ViewerData, viewer_data
from mmif.roles import label, labels

if TYPE_CHECKING:
    from mmif.result import FusionResult, RegisteredSource

PAGE_BYTES, WORDS_BYTES = 8_000_000, 60_000
"""The page, which any mail and browser takes, and of it what comes with the words of a study and
the descriptions of its volumes (45 kB of three sources of the sample head)."""

# Slices that are shown as the worst, a row of pictures each: what is seen against what is scrolled;
# chosen
WORST = 3
PACKAGES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "pydicom", "nibabel")
# Of a slice, covered by the moving volume: with less its figures are those of the gap; chosen
HALF = 0.5
METRIC_NAMES = ("EN", "AG", "MI", "SSIM", "PSNR", "Qabf", "SCD", "SF")


@dataclass(frozen=True)
class Pictures:
    """The still pictures of a page.

    Attributes:
        top: those of the sources and of the fused volume, by their names in the page.
        before_after: of each source that was moved, by its role.
        rows: of some axial slices, by their number from 0.
    """

    top: Mapping[str, Picture]
    before_after: Mapping[str, list[BeforeAfter]]
    rows: Mapping[int, list[Picture]]


@dataclass(frozen=True)
class DrawnReport:
    """The page of one study but for its words: what of it takes time.

    Attributes:
        view: the arrays of the result.
        pictures: its still pictures.
        viewer: its volumes, packed.
    """

    view: StudyView
    pictures: Pictures
    viewer: ViewerData

    def page(self, summary: Mapping[str, Any]) -> str:
        """The text of ``report.html``, at most `PAGE_BYTES`."""
        view, pictures = self.view, self.pictures
        context = {
            **_top(view, pictures.top, summary),
            "lost_rgb": LOST_RGB,
            **_registration(view, pictures, summary),
            **_readability(view, summary),
            **_fusion(view, pictures.rows),
            **_how(view, summary),
        }
        text = _render(context, self.viewer)
        beyond = len(text.encode(errors="replace")) - PAGE_BYTES
        if beyond <= 0:
            return text
        # pictures of noise, or a thousand warnings, take more than is reckoned with
        taken = sum(map(len, self.viewer.volumes.values()))
        return _render(context, viewer_data(view, taken - beyond))

    def write(self, summary: Mapping[str, Any], path: Path) -> None:
        """Write the page to ``path``.

        Args:
            summary: as ``summary.json`` has it, already without identity if none may be shown:
                every text of the page that names the study comes from here.
            path: the file to write.
        """
        path.write_text(self.page(summary), encoding="utf-8", errors="replace")


def draw_report(result: "FusionResult") -> DrawnReport:
    """The page of one study, of which the words are still missing.

    Its arrays, grid, windows and metrics are shown; the headers of its sources are not looked at.
    Its volumes take what pictures and words leave of the page.
    """
    view = StudyView(result)
    pictures = Pictures(
        top=thumbnails(view),
        before_after={source.role: before_and_after(view, source) for source in result.moving},
        rows={k: slice_row(view, k) for k in {view.cut.k, *_worst_slices(view)}},
    )
    nothing: dict[str, Any] = {"shape": view.shape, "volumes": {}, "legend": None}
    without = DrawnReport(view, pictures, ViewerData(nothing, {}, "", was_moved=True)).page({})
    budget = PAGE_BYTES - len(without.encode()) - WORDS_BYTES
    return DrawnReport(view, pictures, viewer_data(view, budget))


def write_report(result: "FusionResult", summary: Mapping[str, Any], path: Path) -> None:
    """Write the page of one study to ``path``; ``summary`` as `DrawnReport.write` takes it."""
    draw_report(result).write(summary, path)


def report_page(result: "FusionResult", summary: Mapping[str, Any]) -> str:
    """The text of ``report.html``; ``summary`` as `DrawnReport.write` takes it."""
    return draw_report(result).page(summary)


def _render(context: Mapping[str, Any], viewer: ViewerData) -> str:
    """The page with ``viewer``."""
    return render(
        "report.html",
        scripts=("volumes.js", "viewer.js", "table.js"),
        styles=("report.css",),
        context={**context, "viewer": viewer},
    )


def _top(
    view: StudyView, pictures: Mapping[str, Picture], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Verdict, inputs, warnings."""
    registration = summary.get("registration") or {}
    verdict = str(registration.get("verdict") or registration_of(view.moving).verdict)
    names = {source.role: name for name, source in view.sources.items()}
    inputs = [
        {
            "label": label(str(entry.get("role"))),
            "kind": names.get(str(entry.get("role")), ""),
            "picture": pictures.get(names.get(str(entry.get("role")), "")),
            "facts": input_facts(entry),
            "origin": input_origin(entry),
        }
        for entry in summary.get("inputs") or ()
    ]
    return {
        "title": f"{labels(view.result.sources)} fused: {verdict}",
        "heading": f"{labels(view.result.sources)}, fused",
        "reference_label": view.reference_label,
        "moving_label": view.moving_label,
        "labels": {name: label(source.role) for name, source in view.sources.items()},
        "moved": [(name, label(source.role)) for name, source in view.registered.items()],
        "verdict": verdict,
        "headline": HEADLINES.get(verdict, ""),
        "reasons": all_reasons(summary),
        "error": errors_words(summary),
        "covered": [
            (label(source.role), _mean(source.covered_fraction)) for source in view.result.moving
        ],
        "grid": view.result.grid,
        "fused_picture": pictures["fused"],
        "inputs": inputs,
        "warnings": list(summary.get("warnings") or ()) + oddities(view),
        "version": summary.get("mmif_version", ""),
    }


def _mean(fractions: npt.NDArray[np.float64]) -> float:
    """Over the slices (Z,); NaN where none is known."""
    known = fractions[np.isfinite(fractions)]
    return float(known.mean()) if known.size else float("nan")


def oddities(view: StudyView) -> list[str]:
    """What is unusual about the volumes themselves, in words."""
    found = []
    slices = view.shape[2]
    if slices == 1:
        found.append("The fused volume has one slice: coronal and sagittal planes are one line.")
    flat = [k + 1 for k in range(slices) if view.survey.contrast[k] < 1 / 255]
    if flat:
        found.append(f"Slices without any structure in the fused volume: {runs(flat)}.")
    missed = [k + 1 for k in slices_without_metrics(view) if view.covered[k] > 0]
    if missed:
        found.append(f"Metrics are not defined in slice {runs(missed)}.")
    return found


def slices_without_metrics(view: StudyView) -> list[int]:
    """The slices (from 0) for which a metric has no finite value."""
    named = [np.asarray(v, dtype=np.float64) for v in view.result.metrics_per_slice.values()]
    if not named:
        return []
    return [int(k) for k in np.flatnonzero(~np.isfinite(np.stack(named)).all(axis=0))]


def runs(numbers: list[int]) -> str:
    """Sorted whole numbers, neighbours drawn together.

    >>> runs([1, 2, 3, 7, 9, 10])
    '1 to 3, 7, 9 to 10'
    """
    groups: list[list[int]] = []
    for n in numbers:
        if groups and n == groups[-1][-1] + 1:
            groups[-1].append(n)
        else:
            groups.append([n])
    return ", ".join(f"{g[0]} to {g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)


def _registration(
    view: StudyView, pictures: Pictures, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Each registration, and whether those of three sources agree."""
    found = summary.get("registrations") or {}
    single = summary.get("registration") or {}
    legs = [
        _leg(view, source, found.get(source.role) or single)
        | {"before_after": pictures.before_after[source.role]}
        for source in view.result.moving
    ]
    return {"legs": legs, "loop_closure": loop_words(summary.get("loop_closure"))}


def _leg(
    view: StudyView, source: "RegisteredSource", registration: Mapping[str, Any]
) -> dict[str, Any]:
    """One registration: verdict, checks, the transform."""
    matrix = registration_of(source).fixed_to_moving_lps
    return {
        "label": label(source.role),
        "verdict": str(registration.get("verdict") or registration_of(source).verdict),
        "error": error_words(registration),
        "method": registration.get("method") or "",
        "checks": check_rows(registration),
        "blurred": is_blurred(source.role),
        "motion": motion(matrix, view.result.grid),
        "matrix": np.asarray(matrix).tolist(),
    }


def _readability(view: StudyView, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of each source a reader still sees, and the legend of the colours."""
    sources = view.result.sources
    return {
        "readable": readability_rows(summary.get("readability") or {}, len(sources)),
        "legend": legend(view.result),
    }


def _worst_slices(view: StudyView) -> tuple[int, ...]:
    """The slices (from 0) that the metrics like least, of those that every source covers."""
    usable = view.filled_slices & (view.covered >= HALF)
    return charts.worst_slices(view.result.metrics_per_slice, WORST, usable)


def _fusion(view: StudyView, rows: Mapping[int, list[Picture]]) -> dict[str, Any]:
    """Metrics per slice, worst slices, source shares."""
    per_slice = view.result.metrics_per_slice
    names = [name for name in (*METRIC_NAMES, "SSIM255") if name in per_slice]
    slices = view.shape[2]
    covered, worst = view.covered, _worst_slices(view)
    return {
        "chart_box": charts,
        "charts": [charts.chart(name, per_slice[name]) for name in names],
        "metric_names": names,
        "unmeasured": runs([k + 1 for k in slices_without_metrics(view)]),
        "means": {name: view.result.metrics.get(name) for name in names},
        "slice_rows": [
            [k + 1, float(covered[k]), *(float(per_slice[name][k]) for name in names)]
            for k in range(slices)
        ],
        "slices": slices,
        "covered_mean": _mean(covered),
        "worst": [
            {
                "k": k,
                "pictures": rows[k],
                "values": {n: float(per_slice[n][k]) for n in names},
            }
            for k in worst
        ],
        "worst_words": worst_words(len(worst)),
        "share_mean": view.share.mean,
        "share_explained": view.share.explained,
        "lost_shares": view.share.lost_shares,
        "typical": rows[view.cut.k],
        "typical_k": view.cut.k,
    }


def versions() -> dict[str, str]:
    """What this runs on: Python and the packages that decide a result."""
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _how(view: StudyView, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Methods, versions, parameters, seconds, command."""
    seconds = {
        k: v for k, v in (summary.get("seconds") or {}).items() if isinstance(v, int | float)
    }
    steps = {k: v for k, v in seconds.items() if k != "total"}
    fusion = summary.get("fusion") or {}
    facts = {k: v for k, v in fusion.items() if k not in ("weights", "grey_weights")}
    return {
        "methods": methods(view, summary),
        "weights": weights_of(fusion),
        "settings": [
            *flat_settings(facts, "fusion"),
            *((f"windows.{role}", str(window)) for role, window in view.result.windows.items()),
            *flat_settings(summary.get("pipeline") or {}, "pipeline"),
        ],
        "versions": list(flat_settings(summary.get("versions") or versions())),
        "steps": steps,
        "longest": max(steps.values(), default=1.0) or 1.0,
        "total": seconds.get("total", sum(steps.values())),
        "command": summary.get("command") or "",
        "outputs": [str(output) for output in summary.get("outputs") or ()],
    }
