"""Opens mmif's results in OHIF over Orthanc's DICOMweb, and takes the pictures of docs/clients.md.

    npm pack @ohif/app@3.13.2 && tar xzf ohif-app-3.13.2.tgz
    python benchmarks/ohif.py --draw-mri mri       # the sample's MRI as DICOM
    mmif fuse --ct sample_data/ct --mri mri -o fused --save-registered
    python benchmarks/ohif.py --ohif package/dist -o pictures fused mri

Every DICOM file below the paths (one study) goes to an Orthanc of its own by STOW-RS and is read
back by WADO-RS: the pixels must be equal byte for byte. Then OHIF, in headless Chromium, opens the
study; each image series is shown, scrolled to its middle slice and photographed. A line a series:
its description, the letters at the top and left of the picture, the slice. Exit code 1 where a
series is not shown, or without its letters. A person compares the pictures.

Orthanc with its DICOMweb plug-in and Chromium are Debian's: apt-get install orthanc-dicomweb
chromium. On loopback alone.
"""

import argparse
import http.server
import json
import mimetypes
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dicomweb_client.api import DICOMwebClient
from playwright.sync_api import Page, sync_playwright
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage

from mmif.node.send import dicom_instances, stow

ROOT = Path(__file__).parents[1]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")
CHROMIUM = shutil.which("chromium")
# WebGL without a graphics card
GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WAIT_MS = 240_000
SETTINGS = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "orthanc",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "orthanc",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                **dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), "/dicom-web"),
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """An Orthanc with a storage in ``folder``; its address."""
    if ORTHANC is None or not PLUGIN.exists():
        raise SystemExit("Orthanc or its DICOMweb plug-in is not installed (orthanc-dicomweb)")
    port = free_port()
    settings = {
        "Name": "mmif",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        call = [ORTHANC, str(folder / "orthanc.json")]
        process = subprocess.Popen(call, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/system", timeout=20).read()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@contextmanager
def viewer(dist: Path, archive: str) -> Iterator[str]:
    """OHIF and the archive's DICOMweb behind one address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            code, kind, body = self._answer()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

        def _answer(self) -> tuple[int, str, bytes]:
            path = self.path.split("?")[0]
            file = dist / path.lstrip("/")
            if path.startswith("/dicom-web"):
                return self._passed_on()
            if path == "/app-config.js":
                return 200, "text/javascript", f"window.config={json.dumps(SETTINGS)};".encode()
            if file.is_file():
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                return 200, kind, file.read_bytes()
            return 200, "text/html", (dist / "index.html").read_bytes()

        def _passed_on(self) -> tuple[int, str, bytes]:
            headers = {"Accept": self.headers.get("Accept", "*/*")}
            request = urllib.request.Request(f"{archive}{self.path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=240) as answer:
                    return answer.status, answer.headers.get("Content-Type", ""), answer.read()
            except urllib.error.HTTPError as error:
                return error.code, "text/plain", error.read()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def store_and_compare(paths: list[Path], archive: str) -> list[Dataset]:
    """The headers of what was stored, once each image has come back with the same pixels."""
    root = f"{archive}/dicom-web"
    instances = [one for path in paths for one in dicom_instances(path)]
    refused = [reply for reply in stow(instances, root) if not reply.taken]
    if refused:
        raise SystemExit(f"{refused[0].instance.path}: {refused[0].words}")
    sent = {one.sop_instance_uid: dcmread(one.path) for one in instances}
    client, equal, images = DICOMwebClient(url=root), 0, 0
    for study, series in {(ds.StudyInstanceUID, ds.SeriesInstanceUID) for ds in sent.values()}:
        for ds in client.retrieve_series(study, series):
            ours = sent[ds.SOPInstanceUID]
            if "PixelData" in ours:
                images += 1
                equal += bytes(ds.PixelData) == bytes(ours.PixelData)
    print(
        f"STOW-RS took {len(sent)} instances; WADO-RS gave {equal} of {images} images bit for bit"
    )
    if equal < images:
        raise SystemExit("pixels differ")
    return [ds for ds in sent.values() if "PixelData" in ds]


def show(page: Page, headers: list[Dataset], address: str, out: Path) -> bool:
    """Photograph the middle slice of each series; whether all were shown as they must be."""
    series = {ds.SeriesInstanceUID: ds for ds in headers}
    (study,) = {ds.StudyInstanceUID for ds in series.values()}
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{address}/viewer?StudyInstanceUIDs={study}", timeout=WAIT_MS)
    first = page.get_by_text("Skip all")
    first.wait_for()
    first.click()
    good = True
    for ds in series.values():
        count = sum(one.SeriesInstanceUID == ds.SeriesInstanceUID for one in headers)
        words = str(ds.SeriesDescription)
        page.get_by_text(f"S:{ds.SeriesNumber}", exact=False).first.dblclick()
        overlay = page.locator("[class*=viewport-overlay], [data-cy=viewport-overlay-top-left]")
        overlay.filter(has_text=words[:20]).first.wait_for()
        page.locator("canvas").first.click()
        for _ in range(count // 2):
            page.keyboard.press("ArrowDown")
        time.sleep(5)
        letters = page.locator("[class*=rientation-marker], .ViewportOrientationMarkers")
        text = " ".join(letters.all_inner_texts())
        found = sorted(set(re.findall(r"\b[RLAPHFSI]{1,3}\b", text)))
        slices = re.findall(r"\(\d+/\d+\)", page.inner_text("body"))
        name = re.sub(r"\W+", "-", words).strip("-").lower()
        page.screenshot(path=out / f"ohif-{name}.png", timeout=WAIT_MS)
        print(f"{ds.Modality} {words!r}: letters {' '.join(found)}, slice {' '.join(slices[:1])}")
        good &= {"A", "R"} <= {one[0] for one in found}  # an oblique slice has more letters
    return good


def draw_mri(folder: Path) -> None:
    """The sample's MRI, which is NIfTI, as a DICOM series as a scanner writes it."""
    import mmif

    volume = mmif.load(ROOT / "sample_data" / "mri.nii.gz", role="mri")
    volume.meta["source"] = replace(volume.meta["source"], modality="MR")
    mmif.save(volume, folder)
    for path in sorted(folder.iterdir()):
        ds = dcmread(path)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        ds.PatientID, ds.PatientName = "SIMULATED-HEAD", "Simulated^Head"
        ds.SeriesDescription, ds.SeriesNumber = "Head T1 3 mm (simulated)", 3
        ds.ManufacturerModelName = "make_sample.py"
        ds.save_as(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--ohif", type=Path, help="the folder dist of @ohif/app")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--draw-mri", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.draw_mri is not None:
        draw_mri(given.draw_mri)
        return 0
    if not (given.paths and given.ohif and given.output):
        parser.error("expected paths, --ohif and -o")
    given.output.mkdir(parents=True, exist_ok=True)
    mimetypes.add_type("application/wasm", ".wasm")
    with tempfile.TemporaryDirectory() as folder, orthanc(Path(folder)) as archive:
        headers = store_and_compare(given.paths, archive)
        with viewer(given.ohif, archive) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--ignore-gpu-blocklist", *GL]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            good = show(page, headers, address, given.output)
            browser.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
