"""Seconds and bytes of the report: made from a real fusion, opened in a real browser.

    python benchmarks/report.py --ct CT --mri MRI [--browser chromium] [--keep report.html]

The study is fused in memory first (not timed); then the report is made three times and the best is
given, with the seconds of the processor, which a busy machine does not stretch. Bars: 3 s to
make it for RIRE on two cores, 8 MB for 40 slices, 2 s to the first picture.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import mmif
from mmif.report import write_preview, write_report
from mmif.summary import summarise


def fused(role: str, moving: Path, mri: Path) -> tuple[Any, dict[str, Any]]:
    """A fusion of two files, and its summary."""
    volumes = {role: mmif.load(moving, role=role), "mri": mmif.load(mri, role="mri")}
    result = mmif.fuse(**volumes, device="cpu", accept_registration=True)
    pipeline = mmif.load_pipeline(f"{role}-mri")
    return result, summarise(result, pipeline, "benchmarks/report.py").plain()


def best_of(repeats: int, job: Any) -> tuple[float, float]:
    """(wall clock, processor) seconds of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        job()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(times)


def first_picture_ms(page: Path, chromium: str) -> list[int]:
    """Milliseconds from the start of loading to the first picture, three times."""
    from playwright.sync_api import sync_playwright

    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        found = []
        for _ in range(3):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.absolute().as_uri())
            tab.wait_for_selector("#viewer[data-ready]")
            found.append(int(tab.get_attribute("#viewer", "data-first-picture-ms") or -1))
            tab.close()
        browser.close()
    return sorted(found)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for role in ("ct", "spect", "pet"):
        parser.add_argument(f"--{role}", type=Path)
    parser.add_argument("--mri", type=Path, required=True)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--keep", type=Path, help="keep the report here")
    options = parser.parse_args()
    role = next(role for role in ("ct", "spect", "pet") if getattr(options, role))
    result, summary = fused(role, getattr(options, role), options.mri)
    with tempfile.TemporaryDirectory() as folder:
        page = options.keep or Path(folder) / "report.html"
        wall, processor = best_of(3, lambda: write_report(result, summary, page))
        x, y, slices = result.grid.shape
        verdict = result.moving[0].registration.verdict
        print(f"grid                  {x} x {y} x {slices}, verdict {verdict}")
        print(f"report                {wall:.2f} s ({processor:.2f} s of processor)   bar 3 s")
        print(f"size                  {page.stat().st_size / 1e6:.2f} MB   bar 8 MB for 40 slices")
        wall, processor = best_of(3, lambda: write_preview(result, Path(folder) / "sheet.png"))
        print(f"preview               {wall:.2f} s ({processor:.2f} s of processor)")
        if options.browser:
            times = ", ".join(str(ms) for ms in first_picture_ms(page, options.browser))
            print(f"first picture         {times} ms   bar 2000 ms")
        else:
            print("first picture         not measured: chromium is not installed")


if __name__ == "__main__":
    main()
