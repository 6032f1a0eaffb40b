import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    assert failed < text.index("spread 0.8 mm ≤ 2 mm pass")


def test_methods_weights_seconds_and_command_are_there(page) -> None:
    text = words(page)
    for expected in (
        *("0123456789abcdef" * 4, "mmif fuse --ct moving --mri mri.nii.gz -o fused"),
        *("The CT was registered rigidly to the MRI", "estimated error 1.4 mm", "3.20 s"),
        *("Python 3.", "SimpleITK 2."),
        *("the CT from -20..100 HU", "bf16 on cpu", "A turn of 9.0°"),
        *("Shift to the left", "Shift to the front", "Shift to the head"),
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
    sources = {
        role: replace(source, window=replace(source.window, unit=MARKUP))
        for role, source in study.result.sources.items()
    }
    return replace(study, result=replace(study.result, sources=sources), summary=summary)


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


@pytest.mark.parametrize("moving", ["ct", "pet"])
def test_markup_in_every_text_field_of_dicom_is_shown_as_text(fuse_texts, moving) -> None:
    out = fuse_texts("<script>r()</script>", "<SVG ONLOAD=R()>", "<img src=x onerror=r()>", moving)
    page = (out / "report.html").read_text(encoding="utf-8")
    tags = Elements(page).tags
    assert len([a for tag, a in tags if tag == "script" and not a.get("type")]) == len(OWN_SCRIPTS)
    assert not [a for _, a in tags if any(name.startswith("on") for name in a)]
    assert all(a["src"].startswith("data:") for tag, a in tags if tag == "img")
    assert "&lt;img src=x onerror=r()&gt;/mri" in page  # the path
    assert "&lt;script&gt;r()&lt;/script&gt;" in page  # the description of the series


NAME, ID = "Quarrington^Zebulon", "ID-4711-SECRET"
IDENTITY = ("Quarrington", "Zebulon", "4711-SECRET", "1.2.826.0.1.77", "19600214", "20240305")


def test_no_field_of_a_header_that_names_the_patient_reaches_the_page(fuse_texts) -> None:
    page = (fuse_texts(NAME, ID, "study") / "report.html").read_text(encoding="utf-8")
    found = {text for text in IDENTITY if text in page.replace(f"‘{NAME}’", "")}
    assert found == {"1.2.826.0.1.77"}  # what tells the series: its UID, and its description


@pytest.mark.parametrize("moving", ["ct", "pet"])
def test_a_deidentified_report_holds_no_identity(fuse_texts, moving) -> None:
    out = fuse_texts(NAME, ID, "Quarrington_Zebulon", moving, deidentify=True)
    for name in ("report.html", "summary.json"):
        text = (out / name).read_text(encoding="utf-8")
        assert [word for word in IDENTITY if word in text] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("one_slice", "has one slice"),
        ("constant_slice", "without any structure in the fused volume: 6."),
        ("constant_slice", "Metrics are not defined in slice 6."),
        ("no_metrics", "Metrics are not defined in slice 1 to 20."),
        ("no_metrics", "Without a value: slices 1 to 24."),
        ("no_metrics", "not defined for any slice"),
        ("black", "none can be shared out: it is flat"),
        ("no_coverage", "Patient covered by the CT not defined"),
    ],
)
def test_odd_volumes_are_shown_and_said(odd, change, said) -> None:
    page = report_page(*vars(odd(change)).values())
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
    volumes = study.volumes()

    def grown(name: str, noise: float) -> Any:
        values = volumes[name].repeat(2, 1).repeat(2, 2)[..., k]
        grain = generator.standard_normal(values.shape[1:], np.float32)
        return values + noise * (values != 0) * grain

    scale = {"reference": 6.0, "moving": 4.0, "fused": 0.01, "coverage": 0.0}
    scale |= {"reference_unit": 0.007, "moving_unit": 0.01}
    return study.replaced(
        **{name: grown(name, noise) for name, noise in scale.items()},
        grid=Grid((256, 256, slices), result.grid.affine_ras),
        covered_fraction=result.moving[0].covered_fraction[k],
        metrics_per_slice={n: v[k] for n, v in result.metrics_per_slice.items()},
    )


@pytest.mark.parametrize("name", ["study", "colour_study"])
def test_a_page_of_40_noisy_slices_stays_below_8_mb(name, request) -> None:
    page = report_page(*vars(large(request.getfixturevalue(name), 40)).values())
    assert len(page.encode()) < 8e6
    study_json = described(page)
    assert study_json["factors"] == [1, 1, 1]
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


@pytest.mark.parametrize("change", ["one_slice", "black"])
def test_a_preview_of_odd_volumes_is_made(odd, change, tmp_path) -> None:
    from mmif.report import write_preview

    write_preview(odd(change).result, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 500


def test_three_sources_are_named_and_pictured(three_sources, study) -> None:
    page = report_page(three_sources.result, three_sources.summary)
    text = words(page)
    assert "MRI, CT and SPECT, fused" in text
    assert "MRI, CT and SPECT volumes of one patient were fused" in text
    assert text.count("was moved") == 2
    assert 'alt="SPECT, registered, axial slice' in page
    assert 'value="third"' in page
    assert 'value="third"' not in report_page(study.result, study.summary)


def test_of_three_sources_each_has_its_verdict_and_the_loop_its_sentence(
    study, three_sources
) -> None:
    found = study.summary["registration"]
    doubt = {"verdict": "fail", "error_farthest_mm": 2.6, "reasons": ["the skins lie apart"]}
    registrations = {"ct": found, "spect": {**found, **doubt}}
    path = ["ct", "mri", "spect", "ct"]
    loop = {"path": path, "residue_mm": 7.2, "expected_mm": 3.1, "closed": False}
    summary = {
        **three_sources.summary,
        "registration": registrations["spect"],
        "registrations": registrations,
        "loop_closure": {**loop, "directly": "images"},
        "fusion": {
            "grey_weights": {"name": "ct-mri", "sha256": "ab" * 32},
            "weights": {"name": "spect-mri", "sha256": "cd" * 32},
        },
    }
    page = report_page(three_sources.result, summary)
    assert "Registration of each source" in page
    assert "2.6 mm far out" in page
    assert (
        "The registrations do not agree: the loop from CT to MRI to SPECT to CT leads 7.2" in page
    )
    assert "fused: fail" in page
    text = words(page)
    assert "SPECT: the skins lie apart" in text
    assert "Weights ct-mri, then spect-mri" in text
    assert "weights ct-mri, sha256 abababababab and then by spect-mri, sha256 cdcdcdcdcdcd" in text
    assert text.count("was registered rigidly to the MRI") == 2
    assert "Registration of each source" not in report_page(study.result, study.summary)


def test_of_three_sources_each_has_its_pictures_checks_and_transform(three_sources) -> None:
    page = report_page(three_sources.result, three_sources.summary)
    for told in (
        *("CT before and after", "SPECT before and after", "Checks of the CT"),
        *("Transform of the CT", "shift of <strong>25.0 mm</strong>", "Checks of the SPECT"),
        *("Patient covered by the CT", "Patient covered by the SPECT", "No checks were made."),
        *("SPECT, registered, axial slice", "lines of equal brightness of the SPECT over the MRI"),
        "The SPECT was registered rigidly to the MRI",
    ):
        assert told in page, told
    volumes = json.loads(page.split('id="study">')[1].split("</script>")[0])["volumes"]
    assert volumes["third"]["label"] == "SPECT"
    assert "palette" in volumes["third"]
    assert "palette" not in volumes["moving"]
    assert {"moving-coverage", "third-coverage"} <= set(volumes)
