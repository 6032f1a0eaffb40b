"""The report in a real browser: it opens from disk, offline, and does what it says."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from mmif.study import fuse
from mmif.transforms.colour import shown

try:  # now, not in the test: it reads its script in the locale, which other libraries may reset
    import axe_playwright_python.sync_playwright as axe
except ImportError:
    axe = None

pytestmark = pytest.mark.browser

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
BUSY_MS = 300_000
"""How long a step may take on a busy machine; a page is ready within a second on an idle one."""

LESION, BLEEDING, SLICE = (88, 50), (40, 80), 10
MARKUP = "<script>window.ran = 1</script>\"'><img src=x onerror='window.ran = 1'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """An open page, and all that it said or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.page.set_default_timeout(BUSY_MS)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    @property
    def asked(self) -> list[str]:
        """The addresses that were asked for."""
        return [url for url in self.requests if not url.startswith("data:")]

    def serious(self) -> list[Any]:
        """What axe finds against it that is serious."""
        if axe is None:
            pytest.skip("axe-playwright-python is not installed")
        found = axe.Axe().run(self.page).response["violations"]
        return [
            (v["id"], [n["target"] for n in v["nodes"]])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]


class Report(Opened):
    """An open report, ready to be used."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        super().__init__(browser, path, **options)
        self.page.wait_for_selector("#viewer[data-ready]")
        self.described = json.loads(self.page.text_content("#study"))

    def choose(self, mode: str) -> None:
        self.page.check(f'input[value="{mode}"]', force=True)
        self.settle()

    def settle(self) -> None:
        self.page.evaluate("() => new Promise((r) => requestAnimationFrame(() => setTimeout(r)))")

    def toggle(self, name: str) -> None:
        self.page.locator(f'[data-set="{name}"]').click()
        self.settle()

    def slide(self, selector: str, value: float) -> None:
        self.page.eval_on_selector(
            selector,
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }",
            value,
        )
        self.settle()

    def place(self, plane: str, column: int, row: int) -> tuple[float, float]:
        """The middle of a pixel of a plane, in the page."""
        box = self.page.locator(f'[data-plane="{plane}"] .stage').bounding_box()
        count, first = self.described["shape"], self.described["first"]
        across = {"axial": 0, "coronal": 0, "sagittal": 1}[plane]
        down = {"axial": 1, "coronal": 2, "sagittal": 2}[plane]
        x = box["x"] + (column + 0.5 - first[across]) / count[across] * box["width"]
        y = box["y"] + (row + 0.5 - first[down]) / count[down] * box["height"]
        return x, y

    def pixels(self, places: list[tuple[int, int]]) -> list[list[int]]:
        """RGB of the axial picture (not of the crosshair over it) at its pixels (i, j)."""
        return self.page.evaluate(
            """([places, [width, height], [left, top]]) => {
                const canvas = document.querySelector('[data-plane="axial"] canvas.image');
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                const context = copy.getContext('2d', { willReadFrequently: true });
                context.drawImage(canvas, 0, 0);
                return places.map(([i, j]) => {
                    const u = Math.floor((i + 0.5 - left) / width * canvas.width);
                    const v = Math.floor((j + 0.5 - top) / height * canvas.height);
                    return [...context.getImageData(u, v, 1, 1).data].slice(0, 3);
                });
            }""",
            [
                [list(place) for place in places],
                self.described["shape"][:2],
                self.described["first"][:2],
            ],
        )

    def pixel(self, place: tuple[int, int]) -> list[int]:
        """RGB of the axial picture at its pixel (i, j)."""
        return self.pixels([place])[0]

    def read(self, name: str) -> str:
        return self.page.text_content(f'[data-read="{name}"]').replace("−", "-")

    def caption(self, plane: str) -> str:
        return self.page.text_content(f'[data-plane="{plane}"] output')


@pytest.fixture
def report(browser, report_file) -> Iterator[Report]:
    opened = Report(browser, report_file)
    opened.page.locator("#viewer").scroll_into_view_if_needed()
    opened.toggle("smooth")
    yield opened
    assert opened.messages == []
    opened.page.close()


def brightness(unit: float) -> int:
    return round(255 * float(np.clip(unit, 0, 1)))


def test_it_opens_offline_without_a_message_or_a_request(browser, report_file) -> None:
    report = Report(browser, report_file)
    assert report.messages == []
    assert report.asked == [report_file.as_uri()]
    report.page.close()


def test_the_first_picture_is_there_within_two_seconds(browser, report_file) -> None:
    times = []
    for _ in range(3):
        report = Report(browser, report_file)
        times.append(int(report.page.get_attribute("#viewer", "data-first-picture-ms")))
        report.page.close()
    assert min(times) < 2000


def test_each_volume_shows_its_own_values(report, study) -> None:
    result = study.result
    for mode, unit in (
        ("reference", result.sources["mri"].unit),
        ("moving", result.moving[0].unit),
    ):
        report.choose(mode)
        for i, j in (LESION, BLEEDING, (64, 64), (64, 6)):
            expected = brightness(unit[0, i, j, SLICE])
            assert report.pixel((i, j)) == pytest.approx([expected] * 3, abs=2)
    report.choose("fused")
    for i, j in (LESION, BLEEDING):
        expected = brightness(result.fused[0, i, j, SLICE])
        assert report.pixel((i, j)) == pytest.approx([expected] * 3, abs=1)


def test_the_crosshair_tells_position_and_source_values(report, study) -> None:
    result = study.result
    for i, j in (LESION, BLEEDING):
        report.page.mouse.click(*report.place("axial", i, j))
        report.settle()
        assert report.read("voxel") == f"{i}, {j}, {SLICE}"
        ras = np.array([float(part) for part in report.read("ras").split(",")])
        truth = result.grid.affine_ras @ [i, j, SLICE, 1]
        assert np.abs(ras - truth[:3]).max() <= 0.5 * min(result.grid.spacing_mm)
        mri, ct = (
            float(v[0, i, j, SLICE])
            for v in (result.sources["mri"].values, result.moving[0].values)
        )
        assert float(report.read("reference").split()[0]) == pytest.approx(mri, abs=0.5)
        assert float(report.read("moving").removesuffix(" HU")) == pytest.approx(ct, abs=1)
    x, y, _ = truth[:3]
    side, front = ("R" if x > 0 else "L"), ("A" if y > 0 else "P")
    assert report.read("position").startswith(f"{side} {abs(x):.1f}  {front} {abs(y):.1f}")


def test_the_sample_head_reads_as_its_files_do(browser, sample_data, tmp_path) -> None:
    """Landmarks of the shipped head: what the page tells is what other readers find there."""
    out = tmp_path / "fused"
    fuse(ct=sample_data / "ct", mri=sample_data / "mri.nii.gz", output=out, save_registered=True)
    fused, registered = (nibabel.load(out / f"{name}.nii.gz") for name in ("fused", "registered"))
    mri = SimpleITK.ReadImage(str(sample_data / "mri.nii.gz"))
    report = Report(browser, out / "report.html")
    report.toggle("smooth")
    truth = json.loads((sample_data / "truth.json").read_text())
    for landmark in truth["brain_points_mri_lps"][:8]:
        voxel = np.linalg.inv(fused.affine) @ [-landmark[0], -landmark[1], landmark[2], 1]
        i, j, k = (int(n) for n in voxel[:3].round())
        ras = (fused.affine @ [i, j, k, 1])[:3]
        report.slide('[data-plane="axial"] input', k)
        report.page.locator('[data-plane="axial"] .stage').scroll_into_view_if_needed()
        report.page.mouse.click(*report.place("axial", i, j))
        report.settle()
        assert report.read("voxel") == f"{i}, {j}, {k}"
        told = np.array([float(part) for part in report.read("ras").split(",")])
        assert np.abs(told - ras).max() <= 0.5 * min(fused.header.get_zooms()[:3])
        at = mri.TransformPhysicalPointToContinuousIndex([-ras[0], -ras[1], ras[2]])
        expected = mri.EvaluateAtContinuousIndex(at, SimpleITK.sitkLinear)
        assert float(report.read("reference").split()[0]) == pytest.approx(expected, abs=1)
        hounsfield = float(registered.dataobj[i, j, k])
        assert float(report.read("moving").removesuffix(" HU")) == pytest.approx(hounsfield, abs=1)
        report.choose("fused")
        shown = float(fused.dataobj[i, j, k]) / float(np.max(fused.dataobj)) * 255
        assert report.pixel((i, j)) == pytest.approx([shown] * 3, abs=2)
    assert report.messages == []
    report.page.close()


def test_a_click_in_another_plane_moves_the_axial_slice(report) -> None:
    report.page.mouse.click(*report.place("coronal", 50, 24 - 1 - 15))
    report.settle()
    assert report.read("voxel") == "50, 64, 15"
    assert report.caption("axial") == "16 of 24"


def test_outside_the_coverage_no_value_is_made_up(report) -> None:
    report.slide('[data-plane="axial"] input', 22)
    assert report.read("moving") == "outside the CT"


def test_slider_and_wheel_change_the_slice(report, study) -> None:
    report.slide('[data-plane="axial"] input', 5)
    assert report.caption("axial") == "6 of 24"
    report.choose("reference")
    expected = brightness(study.result.sources["mri"].unit[0, 64, 64, 5])
    assert report.pixel((64, 64)) == pytest.approx([expected] * 3, abs=2)
    report.page.mouse.move(*report.place("axial", 64, 64))
    report.page.mouse.wheel(0, -100)
    report.page.wait_for_function(
        "document.querySelector('[data-plane=axial] output').textContent === '7 of 24'"
    )
    report.settle()
    expected = brightness(study.result.sources["mri"].unit[0, 64, 64, 6])
    assert report.pixel((64, 64)) == pytest.approx([expected] * 3, abs=2)


def test_blend_goes_from_one_source_to_the_other(report, study) -> None:
    i, j = LESION
    result = study.result
    a, b = (float(v[0, i, j, SLICE]) for v in (result.sources["mri"].unit, result.moving[0].unit))
    report.choose("blend")
    for share in (0, 25, 100):
        report.slide('[data-set="blend"]', share)
        expected = brightness(a + share / 100 * (b - a))
        assert report.pixel(LESION)[0] == pytest.approx(expected, abs=2)


def test_flicker_swaps_the_sources(report, study) -> None:
    i, j = LESION
    result = study.result
    a, b = (
        brightness(v[0, i, j, SLICE]) for v in (result.sources["mri"].unit, result.moving[0].unit)
    )
    report.choose("flicker")
    report.page.wait_for_timeout(1100)
    report.toggle("flickering")
    seen = {report.pixel(LESION)[0]}
    report.page.click('[data-do="swap"]')
    report.settle()
    seen.add(report.pixel(LESION)[0])
    assert sorted(seen) == pytest.approx(sorted((a, b)), abs=2)


def test_the_checkerboard_alternates_in_squares_of_the_stated_size(report, study) -> None:
    result = study.result
    report.choose("checker")
    report.slide('[data-set="cell"]', 30)
    assert report.page.text_content('[data-shown="cell"]') == "30"
    spacing = result.grid.spacing_mm
    found = set()
    for i, j in ((40, 60), (55, 60), (64, 64), (75, 80), LESION, BLEEDING):
        column, row = i - report.described["first"][0], j - report.described["first"][1]
        odd = (int(column * spacing[0] // 30) + int(row * spacing[1] // 30)) % 2
        volume = result.moving[0].unit if odd else result.sources["mri"].unit
        expected = brightness(volume[0, i, j, SLICE])
        assert report.pixel((i, j)) == pytest.approx([expected] * 3, abs=2)
        found.add(odd)
    assert found == {0, 1}


def test_edges_of_one_source_lie_over_the_other(report, study) -> None:
    report.choose("edges")
    edge = [255, 150, 50]
    first, width = report.described["first"][0], report.described["shape"][0]
    row = report.pixels([(i, 64) for i in range(first, first + width)])
    marked = [first + n for n, pixel in enumerate(row) if pixel == edge]
    bone = np.asarray(study.result.moving[0].unit[0, :, 64, SLICE])
    steps = np.flatnonzero(np.abs(np.diff(bone)) > 0.25)
    assert len(marked) >= 4
    assert all(np.abs(steps - i).min() <= 2 for i in marked if i < 30 or i > 98)


def test_before_registration_moves_the_moving_volume(report) -> None:
    report.choose("moving")
    after = report.pixel(BLEEDING)
    report.toggle("before")
    assert report.pixel(BLEEDING) != pytest.approx(after, abs=5)
    report.toggle("before")
    assert report.pixel(BLEEDING) == after


def test_window_and_level_change_the_brightness(report, study) -> None:
    report.choose("moving")
    report.page.select_option('[data-window="source"]', "moving")
    report.page.select_option('[data-window="preset"]', label="bone")
    report.settle()
    hu = float(study.result.moving[0].values[0, 64, 64, SLICE])
    expected = brightness((hu + 500) / 2000)
    assert report.pixel((64, 64))[0] == pytest.approx(expected, abs=2)
    assert report.page.text_content('[data-shown="level"]') == "500 HU"
    report.slide('[data-window="width"]', 1000)
    shown = float(report.page.text_content('[data-shown="width"]').split()[0])
    assert shown == pytest.approx(1000, abs=5)
    expected = brightness((hu - 500 + shown / 2) / shown)
    assert report.pixel((64, 64))[0] == pytest.approx(expected, abs=2)


def test_the_window_is_of_what_is_shown(report, study) -> None:
    source = report.page.locator('[data-window="source"]')
    for mode, windowed in (("reference", "reference"), ("moving", "moving"), ("fused", "fused")):
        report.choose(mode)
        assert source.input_value() == windowed
    report.slide('[data-window="level"]', 0.25)
    shown = float(report.page.text_content('[data-shown="width"]'))
    expected = brightness((study.result.fused[0, 64, 64, SLICE] - 0.25) / shown + 0.5)
    assert report.pixel((64, 64))[0] == pytest.approx(expected, abs=2)


def test_zoom_keeps_the_crosshair_in_the_middle_and_its_place_true(report, study) -> None:
    report.choose("reference")
    report.page.mouse.click(*report.place("axial", *LESION))
    report.slide('[data-set="zoom"]', 4)
    assert report.page.text_content('[data-shown="zoom"]') == "4"
    box = report.page.locator('[data-plane="axial"] .stage').bounding_box()
    pixel = box["width"] / (report.described["shape"][0] / 4)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    report.page.mouse.click(x + 2 * pixel, y - 3 * pixel)
    report.settle()
    i, j = LESION[0] + 2, LESION[1] - 3
    assert report.read("voxel") == f"{i}, {j}, {SLICE}"
    value = float(study.result.sources["mri"].values[0, i, j, SLICE])
    assert float(report.read("reference").split()[0]) == pytest.approx(value, abs=0.5)


def test_no_plane_is_ever_seen_empty(report) -> None:
    """A new size empties a canvas: it is drawn again before the frame is shown."""
    report.page.set_viewport_size({"width": 900, "height": 900})
    lit = report.page.evaluate(
        """() => new Promise((done) => {
            const found = [];
            const canvas = document.querySelector('[data-plane="axial"] canvas.image');
            const look = () => {
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                const context = copy.getContext('2d');
                context.drawImage(canvas, 0, 0);
                const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
                found.push(data.some((byte, n) => n % 4 < 3 && byte > 60));
                if (found.length > 20) return done(found);
                document.querySelector('#viewer').style.width = `${600 + 10 * found.length}px`;
                requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        })"""
    )
    assert all(lit)


def test_source_share_is_blue_or_orange(report) -> None:
    report.choose("share")
    assert report.page.locator("#viewer .legend").is_visible()
    red, _, blue = report.pixel((LESION[0] + 3, LESION[1] + 3))
    assert blue > red
    assert "% MRI" in report.read("share") or "no structure" in report.read("share")


def test_planes_have_the_patients_proportions(report) -> None:
    x, y, z = report.described["shape"]
    for plane, wide, high in (
        ("axial", x, y),
        ("coronal", x * 1.8, z * 4),
        ("sagittal", y * 1.8, z * 4),
    ):
        box = report.page.locator(f'[data-plane="{plane}"] .stage').bounding_box()
        assert box["width"] / box["height"] == pytest.approx(wide / high, rel=0.02)


def test_a_chart_and_a_worst_slice_lead_to_the_viewer(report) -> None:
    report.page.locator('.chart circle[data-slice="3"]').first.dispatch_event("click")
    report.settle()
    assert report.caption("axial") == "4 of 24"
    button = report.page.locator(".worst button[data-slice]").first
    button.click()
    report.settle()
    assert report.caption("axial") == f"{int(button.get_attribute('data-slice')) + 1} of 24"


@pytest.mark.parametrize("mode", ["fused", "blend", "flicker", "checker", "edges"])
def test_tab_reaches_every_control_that_is_seen(report, mode) -> None:
    report.choose(mode)
    expected = report.page.evaluate(
        """() => {
            const wanted = 'a, button, input, select, summary, [tabindex]';
            const controls = document.querySelectorAll(wanted);
            const seen = [...controls].filter((e) => e.checkVisibility() && !e.disabled);
            const stops = seen.filter((e) => e.type !== 'radio' || e.checked);
            stops.forEach((e, n) => { e.dataset.stop = n; });
            return stops.length;
        }"""
    )
    reached = set()
    for _ in range(expected + 1):  # once round, past the window's own stop
        report.page.keyboard.press("Tab")
        reached.add(report.page.evaluate("document.activeElement.dataset.stop"))
    assert reached == {*map(str, range(expected)), None}
    assert expected > 20


def test_the_keyboard_works_the_planes(report) -> None:
    report.page.focus('[data-plane="axial"] .stage')
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "PageUp"):
        report.page.keyboard.press(key)
    report.settle()
    assert report.read("voxel") == "65, 66, 11"
    report.page.keyboard.press("End")
    report.page.keyboard.press("3")
    report.settle()
    assert report.caption("axial") == "24 of 24"
    assert report.page.is_checked('input[value="moving"]')


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_it_fits_the_screen(browser, report_file, tmp_path, width) -> None:
    report = Report(browser, report_file, viewport={"width": width, "height": 900})
    assert report.page.evaluate("document.documentElement.scrollWidth") <= width
    from PIL import Image

    report.page.screenshot(path=tmp_path / "page.png", full_page=True)
    report.page.locator("#viewer").screenshot(path=tmp_path / "viewer.png")
    with Image.open(tmp_path / "page.png") as whole, Image.open(tmp_path / "viewer.png") as viewer:
        assert whole.width == width
        assert np.asarray(viewer.convert("L")).std() > 30
    assert report.messages == []
    report.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, report_file, scheme) -> None:
    report = Report(browser, report_file, color_scheme=scheme)
    assert report.serious() == []
    report.page.close()


def test_it_prints_its_pictures_and_not_its_controls(browser, report_file) -> None:
    report = Report(browser, report_file)
    report.page.emulate_media(media="print")
    assert report.page.locator(".modes").is_hidden()
    assert report.page.locator(".verdict-head .badge").is_visible()
    assert report.page.locator('[data-plane="axial"] canvas.image').is_visible()
    report.page.evaluate(
        """() => window.addEventListener('beforeprint', () => {
            const parts = [...document.querySelectorAll('details.on-paper')];
            window.printed = parts.filter((part) => part.open).map((part) => part.innerText);
        })"""
    )
    assert len(report.page.pdf()) > 50_000
    printed = "".join(report.page.evaluate("window.printed"))
    for text in ("Matrix, fixed to moving", "torch", "SimpleITK"):
        assert text in printed
    assert report.page.locator("details.on-paper[open]").count() == 0
    report.page.close()


def test_captions_of_charts_do_not_run_into_their_means_on_paper(browser, report_file) -> None:
    report = Report(browser, report_file, viewport={"width": 690, "height": 900})  # A4
    report.page.emulate_media(media="print")
    crossed = report.page.evaluate(
        """() => [...document.querySelectorAll('.chart figcaption')].filter((caption) => {
            const title = document.createRange();
            title.selectNode(caption.childNodes[1]);
            const mean = caption.querySelector('.mean').getBoundingClientRect();
            const crosses = (line) => line.right > mean.left && line.left < mean.right
                && line.bottom > mean.top + 1 && line.top < mean.bottom - 1;
            return [...title.getClientRects()].some(crosses);
        }).map((caption) => caption.innerText)"""
    )
    assert crossed == []
    report.page.close()


def test_markup_from_a_header_does_not_run(browser, study, tmp_path) -> None:
    from mmif.report import write_report

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            kept = ("role", "verdict", "colour_map")
            return {k: v if k in kept else poisoned(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(inner) for inner in value]
        return MARKUP if isinstance(value, str) else value

    write_report(study.result, poisoned(study.summary), tmp_path / "report.html")
    report = Report(browser, tmp_path / "report.html")
    assert report.page.evaluate("window.ran") is None
    assert report.messages == []
    assert report.asked == [(tmp_path / "report.html").as_uri()]
    report.page.close()


@pytest.mark.parametrize("moving", ["ct", "pet"])
def test_markup_in_every_text_field_of_dicom_does_not_run(browser, fuse_texts, moving) -> None:
    long = "<script>window.ran=1</script>"
    out = fuse_texts(long, "<SVG ONLOAD=R()>", "<img src=x onerror=r()>", moving)
    report = Report(browser, out / "report.html")
    assert report.page.evaluate("window.ran") is None
    assert report.messages == []
    assert report.asked == [(out / "report.html").as_uri()]
    report.page.close()


def test_colours_of_spect_are_shown_in_colour(browser, colour_study, tmp_path) -> None:
    from mmif.report import write_report

    write_report(colour_study.result, colour_study.summary, tmp_path / "report.html")
    report = Report(browser, tmp_path / "report.html")
    report.toggle("smooth")
    for mode, volume in (
        ("moving", shown(colour_study.result.moving[0].unit, "hot-iron")),
        ("fused", colour_study.result.fused),
    ):
        report.choose(mode)
        i, j = (60, 70)
        expected = [brightness(volume[c, i, j, SLICE]) for c in range(3)]
        assert report.pixel((i, j)) == pytest.approx(expected, abs=5)
    report.choose("moving")
    scale = report.page.locator(".colour-scale")
    assert scale.is_visible()
    assert scale.locator('[data-shown="low"]').text_content() == "0 counts"
    assert scale.locator('[data-shown="high"]').text_content() == "60 counts"
    report.choose("edges")
    assert scale.is_hidden()
    assert [255, 150, 50] in report.pixels([(i, 64) for i in range(20, 108)])
    assert report.messages == []
    report.page.close()


def test_of_three_sources_the_third_is_seen_read_and_held_against_the_first(
    browser, three_sources, tmp_path
) -> None:
    from mmif.report import write_report

    result = three_sources.result
    mri, spect = result.sources["mri"].unit, shown(result.moving[1].unit, "hot-iron")
    write_report(result, three_sources.summary, tmp_path / "report.html")
    report = Report(browser, tmp_path / "report.html")
    report.page.locator("#viewer").scroll_into_view_if_needed()
    report.toggle("smooth")
    i, j = place = (60, 70)
    own = [float(spect[c, i, j, SLICE]) for c in range(3)]
    report.choose("third")
    assert report.pixel(place) == pytest.approx([brightness(one) for one in own], abs=5)
    report.page.mouse.click(*report.place("axial", *place))
    report.settle()
    value = float(result.moving[1].values[0, i, j, SLICE])
    assert float(report.read("third").removesuffix(" counts")) == pytest.approx(value, abs=1)
    assert report.read("moving").endswith(" HU")
    report.choose("blend")
    report.page.select_option('[data-set="against"]', "third")
    report.settle()
    assert report.page.text_content('[data-shown="against"]') == "SPECT"
    grey = float(mri[0, i, j, SLICE])
    halves = [brightness((grey + one) / 2) for one in own]
    assert report.pixel(place) == pytest.approx(halves, abs=5)
    report.choose("edges")
    report.page.select_option('[data-set="edges"]', "third-on-reference")
    report.settle()
    assert [255, 150, 50] in report.pixels([(i, 64) for i in range(20, 108)])
    assert report.messages == []
    assert report.serious() == []
    report.page.close()


def test_the_crosshair_reads_the_activity_by_the_legend(browser, sample_data, tmp_path) -> None:
    """The colour alone, by the legend, says the SPECT's own value to a tenth of its scale."""
    out = tmp_path / "fused"
    fuse(spect=sample_data / "spect.dcm", mri=sample_data / "mri.nii.gz", output=out)
    report = Report(browser, out / "report.html")
    x, y, _ = report.described["shape"]
    low, high = report.described["legend"]["window"]
    told = 0
    for i, j in [(x // 2 + dx, y // 2 + dy) for dx in (-20, 0, 20) for dy in (-25, 0, 25)]:
        report.page.mouse.click(*report.place("axial", i, j))
        report.settle()
        legend, true = report.read("legend"), float(report.read("moving").split()[0])
        if legend == "too dark to tell":
            continue
        assert legend.startswith("SPECT ")
        ends = [float(word) for word in legend.split() if word.replace(".", "").isdigit()]
        assert min(ends) - 0.1 * (high - low) <= true <= max(ends) + 0.1 * (high - low)
        assert max(ends) - min(ends) < 0.4 * (high - low)
        told += 1
    assert told >= 6
    assert report.messages == []
    report.page.close()


@pytest.mark.parametrize(
    "change", ["one_slice", "constant_slice", "no_metrics", "black", "no_coverage"]
)
def test_odd_studies_open_and_show_every_mode(browser, odd, change, tmp_path) -> None:
    from mmif.report import write_report

    changed = odd(change)
    write_report(changed.result, changed.summary, tmp_path / "report.html")
    report = Report(browser, tmp_path / "report.html")
    assert report.caption("axial").endswith(f" of {changed.result.grid.shape[2]}")
    for mode in ("blend", "flicker", "checker", "edges", "share", "moving"):
        report.choose(mode)
    assert report.messages == []
    report.page.close()


def test_the_page_of_a_batch_sorts_by_its_heads_and_leads_to_the_reports(
    browser, report_file, tmp_path
) -> None:
    opened = Opened(browser, batch_page(report_file, tmp_path))
    table = opened.page.locator("table", has_text="What was done").last

    def order() -> list[str]:
        return table.locator("tbody td:nth-child(2)").all_inner_texts()

    assert order() == ["case9", "case10", "case2", "case11"]
    head = table.get_by_role("button", name="Error (mm)")
    head.click()
    assert order() == ["case10", "case2", "case9", "case11"]  # figures as figures, blanks last
    assert table.locator("th[aria-sort=ascending]").inner_text() == "Error (mm)"
    head.press("Enter")
    assert order() == ["case9", "case2", "case10", "case11"]
    table.get_by_role("button", name="Registration").click()
    assert order() == ["case2", "case10", "case9", "case11"]  # fail, pass, review, skipped
    assert opened.asked == [(tmp_path / "index.html").as_uri()]
    assert opened.page.evaluate("window.ran") is None
    table.get_by_role("link", name="case9").click()
    opened.page.wait_for_selector("#viewer[data-ready]")
    assert opened.messages == []
    opened.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_page_of_a_batch(
    browser, report_file, tmp_path, scheme
) -> None:
    page = batch_page(report_file, tmp_path)
    opened = Opened(browser, page, color_scheme=scheme, viewport={"width": 390, "height": 800})
    assert opened.serious() == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.close()


def batch_page(report_file: Path, out: Path) -> Path:
    """``index.html`` of a batch with four studies done and one refused."""
    from PIL import Image

    from mmif.batch.results import Row, page

    def done(study: str, verdict: str, error: float | None) -> Row:
        folder = out / "studies" / study / "ct-mri"
        folder.mkdir(parents=True)
        shutil.copy(report_file, folder)
        Image.new("L", (64, 64), 90).save(folder / "thumbnail.jpg")
        figures = {"verdict": verdict, "registration_error_mm": error, "metrics": {}, "seconds": 9}
        return Row(study, "ct-mri", "done", "", "", figures)

    rows = [
        done("case9", "review", 11.5),
        done("case10", "pass", 0.8),
        done("case2", "fail", 9.25),
        done("case11", "skipped", None),
        Row("case1", "ct-mri", "failed", "refused", f"{MARKUP}: expected one patient", {}),
    ]
    (out / "index.html").write_text(page(out, rows), encoding="utf-8")
    return out / "index.html"
