"""``report.html``: all that a reader needs to trust a fusion or not, in one file."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmif.report import charts
from mmif.report.alignment import motion
from mmif.report.figures import before_and_after, slice_row, thumbnails
from mmif.report.page import render
from mmif.report.pictures import LOST_RGB
from mmif.report.readability import legend, readability_rows
from mmif.report.study_view import StudyView, is_blurred
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
from mmif.report.viewer import PAGE_BYTES, ViewerData, viewer_data
from mmif.roles import label, labels

if TYPE_CHECKING:
    from mmif.result import FusionResult

# Slices that are shown as the worst, a row of pictures each: what is seen against what is scrolled;
# chosen
WORST = 3
PACKAGES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "pydicom", "nibabel")
# Of a slice, covered by the moving volume: with less its figures are those of the gap; chosen
HALF = 0.5
METRIC_NAMES = ("EN", "AG", "MI", "SSIM", "PSNR", "Qabf", "SCD", "SF")


@dataclass(frozen=True)
class DrawnReport:
    """The page of one study but for its words: what of it takes time.

    Attributes:
        view: the arrays of the result.
        viewer: its volumes, packed.
    """

    view: StudyView
    viewer: ViewerData

    def page(self, summary: Mapping[str, Any]) -> str:
        """The text of ``report.html``, at most `PAGE_BYTES`."""
        view = self.view
        context = {
            **_top(view, summary),
            "lost_rgb": LOST_RGB,
            **_registration(view, summary),
            **_readability(view, summary),
            **_fusion(view),
            **_how(view, summary),
        }
        text = _render(context, self.viewer)
        beyond = len(text.encode(errors="replace")) - PAGE_BYTES
        if beyond <= 0:
            return text
        # pictures of noise, or a thousand warnings, take more than is reckoned with
        taken = sum(map(len, self.viewer.volumes.values()))
        return _render(context, viewer_data(view, most=taken - beyond))

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
    """
    view = StudyView(result)
    return DrawnReport(view, viewer_data(view))


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


def _top(view: StudyView, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Verdict, inputs, warnings."""
    registration = summary.get("registration") or {}
    verdict = str(registration.get("verdict") or view.registration.verdict)
    pictures = thumbnails(view)
    third = view.shown_sources.get("third")
    names = {source.role: name for name, source in view.shown_sources.items()}
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
    covered = np.asarray(view.moving.covered_fraction, dtype=np.float64)
    known = covered[np.isfinite(covered)]
    return {
        "title": f"{labels(view.result.sources)} fused: {verdict}",
        "heading": f"{labels(view.result.sources)}, fused",
        "reference_label": view.reference_label,
        "moving_label": view.moving_label,
        "third_label": label(third.role) if third else "",
        "verdict": verdict,
        "headline": HEADLINES.get(verdict, ""),
        "reasons": all_reasons(summary),
        "error": errors_words(summary),
        "covered": float(known.mean()) if known.size else float("nan"),
        "grid": view.result.grid,
        "fused_picture": pictures["fused"],
        "inputs": inputs,
        "warnings": list(summary.get("warnings") or ()) + oddities(view),
        "version": summary.get("mmif_version", ""),
    }


def oddities(view: StudyView) -> list[str]:
    """What is unusual about the volumes themselves, in words."""
    found = []
    slices = view.shape[2]
    if slices == 1:
        found.append("The fused volume has one slice: coronal and sagittal planes are one line.")
    flat = [k + 1 for k in range(slices) if view.survey.contrast[k] < 1 / 255]
    if flat:
        found.append(f"Slices without any structure in the fused volume: {runs(flat)}.")
    covered = np.asarray(view.moving.covered_fraction, dtype=np.float64) > 0
    missed = [k + 1 for k in slices_without_metrics(view) if covered[k]]
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


def _registration(view: StudyView, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Checks, before and after, the transform, of the moving source."""
    own = (summary.get("registrations") or {}).get(view.moving.role)
    registration = own or summary.get("registration") or {}
    return {
        "checks": check_rows(registration),
        "blurred": is_blurred(view.moving.role),
        "method": registration.get("method") or "",
        "before_after": before_and_after(view),
        "motion": motion(view.registration.fixed_to_moving_lps, view.result.grid),
        "matrix": np.asarray(view.registration.fixed_to_moving_lps).tolist(),
        **_several(summary),
    }


def _several(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of three sources: verdict and error of each registration, and whether they agree."""
    found = summary.get("registrations") or {}
    loop = summary.get("loop_closure")
    rows = [
        (label(role), str(one.get("verdict")), error_words(one), str(one.get("method") or ""))
        for role, one in found.items()
    ]
    return {"registrations": rows if len(rows) > 1 else [], "loop_closure": loop_words(loop)}


def _readability(view: StudyView, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of each source a reader still sees, and the legend of the colours."""
    sources = view.result.sources
    return {
        "readable": readability_rows(summary.get("readability") or {}, len(sources)),
        "legend": legend(view.result),
    }


def _fusion(view: StudyView) -> dict[str, Any]:
    """Metrics per slice, worst slices, source shares."""
    per_slice = view.result.metrics_per_slice
    names = [name for name in (*METRIC_NAMES, "SSIM255") if name in per_slice]
    slices = view.shape[2]
    covered = np.asarray(view.moving.covered_fraction, dtype=np.float64)
    worst = charts.worst_slices(per_slice, WORST, view.filled_slices & (covered >= HALF))
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
        "worst": [
            {
                "k": k,
                "pictures": slice_row(view, k),
                "values": {n: float(per_slice[n][k]) for n in names},
            }
            for k in worst
        ],
        "worst_words": worst_words(len(worst)),
        "share_mean": view.share.mean,
        "share_explained": view.share.explained,
        "lost_shares": view.share.lost_shares,
        "typical": slice_row(view, view.cut.k),
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
