"""`mmif node` under load and under SIGKILL, between dcmtk's storescu and storescp on loopback.

    python benchmarks/node.py kills            ten kills at random moments, three studies
    python benchmarks/node.py many             50 studies over four associations at a time

Each study is the sample's CT and SPECT under UIDs and a PatientID of its own. Of ``kills`` every
study must be at the archive once, or again with identical UIDs and pixels; of ``many`` nothing
may be lost and the node (without its workers) must stay below 500 MB. Exit code 1 otherwise.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

ROOT = Path(__file__).parents[1]
SAMPLE = [*sorted((ROOT / "sample_data/ct").glob("*.dcm")), ROOT / "sample_data/spect.dcm"]
# by path: pynetdicom installs programs of the same names
DCMTK = "/usr/bin:/usr/local/bin"
MAX_MIB = 500


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while not listens(port):
        if time.monotonic() > end:
            raise SystemExit(f"nothing listens at port {port}")
        time.sleep(0.05)


def draw_study(folder: Path, number: int) -> Path:
    """The sample as patient ``number``, in a folder of its own."""
    folder.mkdir(parents=True)
    for count, path in enumerate(SAMPLE):
        ds = dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            ds[keyword].value = generate_uid(entropy_srcs=[str(number), str(ds[keyword].value)])
        ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(number), str(ds.SOPInstanceUID)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.PatientID = f"BENCHMARK-{number}"
        ds.save_as(folder / f"{count}.dcm")
    return folder


@contextmanager
def archive(folder: Path, port: int) -> Iterator[None]:
    """dcmtk's storescp; each instance it takes is a file of its own, a repeated one too."""
    folder.mkdir()
    call = [program("storescp"), "--fork", "-aet", "ARCHIVE", "-od", str(folder), "+uf", "+xa"]
    process = subprocess.Popen([*call, str(port)])
    wait_for(port)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def program(name: str) -> str:
    found = shutil.which(name, path=DCMTK)
    if found is None:
        raise SystemExit(f"{name} is not installed (Debian: apt-get install dcmtk)")
    return found


class Rig:
    """A node between a sender and an archive, below one folder."""

    def __init__(self, folder: Path, quiet_s: float, **options: bool) -> None:
        self.out, self.kept = folder / "node", folder / "archive"
        self.port, self.archive_port = free_port(), free_port()
        self.log = (folder / "node.log").open("w")
        self.config = folder / "node.yaml"
        settings = {
            "output": str(self.out),
            "accept": ["SCANNER"],
            "send_to": [f"ARCHIVE@127.0.0.1:{self.archive_port}"],
            "port": self.port,
            "quiet_s": quiet_s,
            "options": {"report": False, **options},
            "deliver": {"first_pause_s": 1.0},
        }
        self.config.write_text(json.dumps(settings))  # JSON is YAML

    def start(self) -> subprocess.Popen[bytes]:
        call = [sys.executable, "-m", "mmif", "node", str(self.config)]
        process = subprocess.Popen(call, stdout=self.log, stderr=self.log, cwd=ROOT)
        wait_for(self.port)
        return process

    def send(self, study: Path, tries: int = 60) -> None:
        """By storescu, again and again until all of the study is taken, as a scanner does."""
        call = [program("storescu"), "-aet", "SCANNER", "-aec", "MMIF", "+sd"]
        for _ in range(tries):
            done = subprocess.run(
                [*call, "127.0.0.1", str(self.port), str(study)], check=False, capture_output=True
            )
            if done.returncode == 0:
                return
            time.sleep(0.5)
        raise SystemExit(f"{study} was not taken")

    def arrived(self) -> dict[str, dict[str, list[str]]]:
        """StudyInstanceUID to SOPInstanceUID to a hash of each copy that the archive took."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path in self.kept.iterdir():
            try:
                ds = dcmread(path)
            except Exception:  # half written, just now
                continue
            pixels = hashlib.sha256(ds.get("PixelData", b"")).hexdigest()
            found[ds.StudyInstanceUID][ds.SOPInstanceUID].append(pixels)
        return found

    def sent(self) -> set[str]:
        """The jobs that the node's record calls delivered."""
        lines = (self.out / "sent" / "ledger.jsonl").read_text().splitlines()
        return {line["job"] for text in lines if (line := _line(text)).get("state") == "done"}

    def wait(self, studies: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while len(self.sent()) < studies:
            if time.monotonic() > end:
                raise SystemExit(f"{len(self.sent())} of {studies} studies after {seconds} s")
            time.sleep(0.5)


def _line(text: str) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def kills(folder: Path, seed: int, count: int = 10, studies: int = 3) -> bool:
    """SIGKILL at random moments of receiving, waiting, fusing and sending."""
    moments = random.Random(seed)
    rig = Rig(folder, quiet_s=2)
    drawn = [draw_study(folder / "drawn" / str(n), n) for n in range(studies)]
    with archive(rig.kept, rig.archive_port), ThreadPoolExecutor(studies) as senders:
        node = rig.start()
        sending = [senders.submit(rig.send, study) for study in drawn]
        for number in range(count):
            after = moments.uniform(0.2, 25)  # a study takes about 20 s
            time.sleep(after)
            node.send_signal(signal.SIGKILL)
            node.wait()
            print(f"kill {number + 1:2} after {after:4.1f} s: {len(rig.sent())} delivered")
            node = rig.start()
        for one in sending:
            one.result()
        rig.wait(studies, 1800)
        arrived = rig.arrived()
        node.terminate()
        ended = node.wait()
    instances = {uid: len(found) for uid, found in arrived.items()}
    copies = [copy for found in arrived.values() for copy in found.values()]
    repeated = sum(len(copy) > 1 for copy in copies)
    alike = all(len(set(copy)) == 1 for copy in copies)
    whole = set(instances.values()) == {45}  # 44 slices and the registration
    print(
        f"studies at the archive: {len(arrived)} of {studies}; instances: {[*instances.values()]}"
    )
    print(f"instances sent more than once: {repeated}, all with identical pixels: {alike}")
    print(f"exit code after SIGTERM: {ended}")
    return len(arrived) == studies and whole and alike and ended == 0


def many(folder: Path, studies: int = 50, associations: int = 4) -> bool:
    """Many studies at once; unregistered, for it is the node that is measured."""
    rig = Rig(folder, quiet_s=5, register=False)
    drawn = [draw_study(folder / "drawn" / str(n), n) for n in range(studies)]
    with archive(rig.kept, rig.archive_port), ThreadPoolExecutor(associations) as senders:
        node = rig.start()
        start = time.perf_counter()
        for one in [senders.submit(rig.send, study) for study in drawn]:
            one.result()
        received = time.perf_counter() - start
        rig.wait(studies, 120 * studies)
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{node.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
        arrived = rig.arrived()
        node.terminate()
        node.wait()
    instances = sorted({len(found) for found in arrived.values()})
    print(f"{studies} studies, {associations} associations: received in {received:.0f} s")
    print(f"at the archive: {len(arrived)} studies of {instances} instances in {seconds:.0f} s")
    print(f"peak memory of the node without its workers: {peak} MiB (bar: {MAX_MIB} MB)")
    return len(arrived) == studies and instances == [45] and peak * 1.048576 < MAX_MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("kills", "many"))
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--studies", type=int, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.part == "kills":
            good = kills(Path(folder), given.seed, studies=given.studies or 3)
        else:
            good = many(Path(folder), studies=given.studies or 50)
        if not good:
            print((Path(folder) / "node.log").read_text()[-4000:])
    print("met" if good else "NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
