"""The pictures of the README and the documentation, from a fused study.

    mmif fuse --ct sample_data/ct --mri sample_data/mri.nii.gz -o fused --preview fused.png
    python benchmarks/pictures.py fused/report.html fused.png [../shared/data]

writes ``docs/images/report.jpg`` (the top of the report as a browser shows it),
``docs/images/report-dark.jpg`` (the viewer in dark, edges on), ``docs/images/fused.jpg``, and
of the sample head's three sources ``docs/images/three.jpg``; with RIRE training_001 in
``volumes/`` of the last folder also ``docs/panels/rire.png``, its contact sheet, and
``docs/panels/rire-top.png``, the slices in which its CT ends.
"""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import mmif
from mmif.report.preview import contact_sheet

DOCS = Path(__file__).parent.parent / "docs"
IMAGES = DOCS / "images"
SAMPLES = DOCS.parent / "sample_data"


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


def write_rire(folder: Path) -> None:
    """RIRE's contact sheet, and six slices around the one from which on the CT shows nothing."""
    ct, mri = folder / "training_001_ct_on_mr_grid.nii.gz", folder / "training_001_mr_T1.nii.gz"
    result = mmif.fuse(ct=ct, mri=mri)
    end = int(np.flatnonzero(result.moving[0].covered_fraction > 0)[-1])
    for name, slices in {"rire": (), "rire-top": range(end - 2, end + 4)}.items():
        sheet = Image.fromarray(contact_sheet(result, slices)).quantize(128)
        sheet.save(DOCS / "panels" / f"{name}.png", optimize=True)


def write_three() -> None:
    """The contact sheet of the sample head's CT, MRI and SPECT, without its top and bottom."""
    files = {"ct": "ct", "mri": "mri.nii.gz", "spect": "spect.dcm"}
    result = mmif.fuse(**{role: SAMPLES / name for role, name in files.items()})
    sheet = Image.fromarray(contact_sheet(result, (9, 15, 22, 29, 36)))
    sheet.save(IMAGES / "three.jpg", quality=82)


def main() -> None:
    """Write the pictures."""
    report, sheet, *data = (Path(argument) for argument in sys.argv[1:])
    IMAGES.mkdir(exist_ok=True)
    shot(report, "light", None).save(IMAGES / "report.jpg", quality=82)
    shot(report, "dark", "edges").save(IMAGES / "report-dark.jpg", quality=82)
    with Image.open(sheet) as picture:
        picture.convert("RGB").save(IMAGES / "fused.jpg", quality=82)
    write_three()
    for folder in data:
        write_rire(folder / "volumes" / "rire_training_001")


if __name__ == "__main__":
    main()
