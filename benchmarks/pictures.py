"""The pictures of the README and the documentation, from a fused study.

    mmif fuse --ct sample_data/ct --mri sample_data/mri.nii.gz -o fused --preview fused.png
    python benchmarks/pictures.py fused/report.html fused.png

writes ``docs/images/report.jpg`` (the top of the report as a browser shows it),
``docs/images/report-dark.jpg`` (the viewer in dark, edges on) and ``docs/images/fused.jpg``.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def shot(report: Path, scheme: str, mode: str | None) -> Image.Image:
    """The report at 1280 pixels: its top, or its viewer in a mode."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1330}, color_scheme=scheme)
        page.goto(report.absolute().as_uri())
        page.wait_for_selector("#viewer[data-ready]")
        if mode:
            page.check(f'input[value="{mode}"]', force=True)
        page.wait_for_timeout(500)
        taken = page.locator("#viewer").screenshot() if mode else page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(taken)).convert("RGB")


def main() -> None:
    """Write the three pictures."""
    report, sheet = (Path(argument) for argument in sys.argv[1:3])
    IMAGES.mkdir(exist_ok=True)
    shot(report, "light", None).save(IMAGES / "report.jpg", quality=82)
    shot(report, "dark", "edges").save(IMAGES / "report-dark.jpg", quality=82)
    with Image.open(sheet) as picture:
        picture.convert("RGB").save(IMAGES / "fused.jpg", quality=82)


if __name__ == "__main__":
    main()
