import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from mmif.geometry import Grid
from mmif.report.document import report_page, write_report

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
OWN_SCRIPTS = ("volumes.js", "viewer.js", "table.js")


class Elements(HTMLParser):
    """The tags of a page with their attributes, and the text of one element by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def words(page: str) -> str:
    """The text of a page without its scripts and styles."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


def described(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="study">(.*?)</script>', page, re.S).group(1))


@pytest.fixture(scope="module")
def page(report_file) -> str:
    return report_file.read_text(encoding="utf-8")


def test_the_top_says_verdict_error_reasons_inputs_and_warnings(page) -> None:
    text = words(page)[:2500]
    for expected in (
        *("review", "≈ 1.4 mm", "the two head outlines overlap less than expected"),
        *("For research use only.", "256 × 256 × 26", "0.65 × 0.65 × 4 mm", "NIfTI", "DICOM"),
        *("does not cover the top 4 slices", "1 warning"),
    ):
        assert expected in text


def test_checks_stand_with_values_limits_and_failures_first(page) -> None:
    text = words(page)
    failed = text.index("head dice 0.81 ≥ 0.85 not met")
    assert failed < text.index("spread mm 0.8 ≤ 2 pass")


def test_methods_weights_seconds_and_command_are_there(page) -> None:
    text = words(page)
    for expected in (
        *("0123456789abcdef" * 4, "mmif fuse --ct moving --mri mri.nii.gz -o fused"),
        *("The CT was registered rigidly to the MRI", "estimated error 1.4 mm", "3.20 s"),
        *("Python 3.", "SimpleITK 2."),
        *("the CT from -20..100 HU", "bf16 on cpu", "A turn of 9.0°"),
    ):
        assert expected in text


def test_nothing_is_loaded_from_outside(page) -> None:
    for tag, attributes in Elements(page).tags:
        for name in ("src", "href", "data", "action", "srcset"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    assert "@import" not in page
    assert "url(" not in page


def poisoned(
    value: Any, keep: tuple[str, ...] = ("verdict", "role", "format", "colour_map")
) -> Any:
    """``value`` with markup in every text, keys of free naming included."""
    if isinstance(value, dict):
        return {
            key: inner if key in keep else poisoned(inner, keep) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [poisoned(inner, keep) for inner in value]
    return MARKUP if isinstance(value, str) or value is None else value


def poisoned_study(study: Any) -> Any:
    summary = poisoned(study.summary)
    summary["seconds"][MARKUP] = 1.0
    summary["pipeline"] = {"colour_map": None, MARKUP: {MARKUP: [MARKUP]}}
    summary["registration"]["checks"][MARKUP] = {"value": 1.0, "limit": 2.0, "passed": True}
    summary["versions"] = {MARKUP: MARKUP}
    windows = {role: replace(w, unit=MARKUP) for role, w in study.result.windows.items()}
    return replace(study, result=replace(study.result, windows=windows), summary=summary)


def test_markup_in_every_text_is_shown_as_text(study) -> None:
    page = report_page(*vars(poisoned_study(study)).values())
    tags = Elements(page).tags
    scripts = [a for tag, a in tags if tag == "script" and not a.get("type")]
    assert len(scripts) == len(OWN_SCRIPTS)
    assert not [a for tag, a in tags if any(name.startswith("on") for name in a)]
    assert all(a["src"].startswith("data:") for tag, a in tags if tag == "img")
    assert "alert(1)" in words(page)


def test_a_path_that_is_no_unicode_still_gets_a_report(study, tmp_path: Path) -> None:
    """A file name on disk is bytes; Python holds the odd ones as lone surrogates."""
    summary = {**study.summary, "warnings": ["/studies/caf\udce9/ct: odd"]}
    write_report(study.result, summary, tmp_path / "report.html")
    assert "/studies/caf?/ct: odd" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_headers_of_the_sources_never_reach_the_page(study) -> None:
    header = Dataset()
    header.PatientName = "Quarrington^Zebulon"
    header.PatientID = "SECRET-PATIENT-4711"
    reference = study.result.reference.clone()
    reference.meta["source"] = {"headers": (header,)}
    page = report_page(replace(study.result, reference=reference), study.summary)
    assert "Quarrington" not in page
    assert "SECRET-PATIENT" not in page


def one_slice(study: Any) -> Any:
    result = study.result
    names = ("fused", "reference", "moving", "reference_unit", "moving_unit", "coverage")
    return study.replaced(
        **{name: getattr(result, name).numpy()[..., 10:11] for name in names},
        grid=Grid((*result.grid.shape[:2], 1), result.grid.affine_ras),
        covered_fraction=result.covered_fraction[10:11],
        metrics_per_slice={n: v[10:11] for n, v in result.metrics_per_slice.items()},
    )


def constant_slice(study: Any) -> Any:
    result = study.result
    fused = result.fused.numpy().copy()
    fused[..., 5] = 0.25
    per_slice = {n: v.copy() for n, v in result.metrics_per_slice.items()}
    for values in per_slice.values():
        values[5] = np.nan
    return study.replaced(fused=fused, metrics_per_slice=per_slice)


def no_metrics(study: Any) -> Any:
    nothing = {n: np.full_like(v, np.nan) for n, v in study.result.metrics_per_slice.items()}
    return study.replaced(metrics_per_slice=nothing, metrics={n: float("nan") for n in nothing})


def black(study: Any) -> Any:
    return no_metrics(study.replaced(fused=np.zeros(study.result.fused.shape)))


def no_coverage(study: Any) -> Any:
    result = study.result
    undefined = np.full_like(result.covered_fraction, np.nan)
    return study.replaced(coverage=np.zeros(result.coverage.shape), covered_fraction=undefined)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_slice, "has one slice"),
        (constant_slice, "without any structure in the fused volume: 6."),
        (constant_slice, "Metrics are not defined in slice 6."),
        (no_metrics, "Metrics are not defined in slice 1 to 20."),
        (no_metrics, "Without a value: slices 1 to 24."),
        (no_metrics, "not defined for any slice"),
        (black, "none can be shared out: it is flat"),
        (no_coverage, "Head covered by the CT not defined"),
    ],
)
def test_odd_volumes_are_shown_and_said(study, change, said) -> None:
    page = report_page(*vars(change(study)).values())
    assert said in words(page)
    assert "NaN" not in re.search(r'id="study">(.*?)</script>', page, re.S).group(1)


def test_a_summary_without_most_of_its_keys_still_makes_a_page(study) -> None:
    page = report_page(study.result, {"mmif_version": "0.1.0"})
    assert "review" in words(page)


def test_colour_studies_carry_their_colour_map(colour_study) -> None:
    page = report_page(colour_study.result, colour_study.summary)
    volumes = described(page)["volumes"]
    assert volumes["fused"]["channels"] == 3
    assert "palette" in volumes["moving"]
    assert "palette" not in volumes["reference"]
    assert "hot-iron colour map" in words(page)


def large(study: Any, slices: int) -> Any:
    """The study at 256 x 256 x ``slices`` with a scanner's noise all over."""
    result = study.result
    generator = np.random.default_rng(1)
    k = np.arange(slices) * result.grid.shape[2] // slices

    def grown(name: str, noise: float) -> Any:
        values = getattr(result, name).numpy().repeat(2, 1).repeat(2, 2)[..., k]
        grain = generator.standard_normal(values.shape[1:], np.float32)
        return values + noise * (values != 0) * grain

    scale = {"reference": 6.0, "moving": 4.0, "fused": 0.01, "coverage": 0.0}
    scale |= {"reference_unit": 0.007, "moving_unit": 0.01}
    return study.replaced(
        **{name: grown(name, noise) for name, noise in scale.items()},
        grid=Grid((256, 256, slices), result.grid.affine_ras),
        covered_fraction=result.covered_fraction[k],
        metrics_per_slice={n: v[k] for n, v in result.metrics_per_slice.items()},
    )


@pytest.mark.parametrize("name", ["study", "colour_study"])
def test_a_page_of_40_noisy_slices_stays_below_8_mb(name, request) -> None:
    page = report_page(*vars(large(request.getfixturevalue(name), 40)).values())
    assert len(page.encode()) < 8e6
    study_json = described(page)
    assert study_json["factor"] == 1
    assert study_json["shape"][2] == 40


def test_a_preview_shows_each_volume_in_a_row(study, tmp_path) -> None:
    from PIL import Image

    from mmif.report import write_preview

    write_preview(study.result, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.ndim == 3
    rows = np.array_split(pixels, 3)
    assert all(row.max() > 150 and row.std() > 20 for row in rows)


@pytest.mark.parametrize("change", [one_slice, black])
def test_a_preview_of_odd_volumes_is_made(study, change, tmp_path) -> None:
    from mmif.report import write_preview

    write_preview(change(study).result, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 500
