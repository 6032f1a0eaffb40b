"""Feed the readers damaged inputs and hold what they make of them against the untouched volume.

    python benchmarks/fuzz_reader.py [--first 0] [--cases 100000] [--seed 2026] [--tally FILE]

A small valid input of every kind (`fuzz_inputs.py`) is damaged in one file: bytes changed, put in,
taken out or cut off, or an attribute changed, emptied or taken away. What comes out must be

- a refusal in one line, in bounded time and memory;
- the untouched volume, bit for bit;
- another volume with a warning that the untouched one has not;
- another volume without one, where nothing in the input can tell: only bytes of the pixels
  themselves were changed (no format here keeps a checksum of them), or the one header of the
  volume says another thing and contradicts nothing. Both are counted apart, by what changed.

Anything else is kept in --keep, and the exit code is 1. A case follows from its number and the
seed: 100,000 are run in slices, --first says where one begins, and --tally adds them up in a file.
One process reads all cases; it is replaced where a decoder ends it or a case takes too long.
"""

import argparse
import faulthandler
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from fuzz_inputs import write_kinds
from fuzz_judge import what_changed

SECONDS_A_CASE = 60
"""A case takes some 20 ms of CPU; on a machine at a load of 20 a second passes."""
MAX_MIB = 2048.0
SAME_MM = 0.2
"""Jitter of slice positions that readers even out; a qform and an sform may differ by 0.1 mm."""
TELLING = (0, 1, 0x30, 0x39, 0x5C, 0x7F, 0x80, 0xFE, 0xFF)
VALUES = ("", "0", "1", "2", "3.5", "-1", "1e9", "\\", "1\\2", "1.2.3", "M", "ORIGINAL\\PRIMARY\\P")
PASSING = ("refused", "the same", "warned", "only its own pixels", "says another")


def damage_bytes(data: bytes, chance: random.Random) -> bytes:
    """``data`` with some bytes changed, put in, taken out or cut off; mostly in the header."""
    broken = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 4, 16])):
        reach = len(broken) if chance.random() < 0.4 else min(len(broken), 1500)
        at = chance.randrange(reach)
        broken[at] = chance.choice(TELLING) if chance.random() < 0.6 else chance.randrange(256)
    if chance.random() < 0.1:
        at, size = chance.randrange(len(broken)), chance.randrange(1, 64)
        broken[at:at] = broken[max(at - size, 0) : at]
    if chance.random() < 0.1:
        at = chance.randrange(len(broken))
        del broken[at : at + chance.randrange(1, 64)]
    if chance.random() < 0.15:
        del broken[chance.randrange(len(broken)) :]
    return bytes(broken)


def damage_attribute(path: Path, chance: random.Random) -> None:
    """Change, empty or take away one attribute of a DICOM file, at any depth."""
    ds = pydicom.dcmread(path)
    holder: pydicom.Dataset = ds
    while True:
        element = chance.choice([e for e in holder if e.keyword != "PixelData"])
        if element.VR != "SQ" or not element.value or chance.random() < 0.1:
            break
        holder = chance.choice(list(element.value))
    way = chance.random()
    if way < 0.3:
        del holder[element.tag]
    elif element.VR == "SQ":
        element.value = element.value[:-1]
    elif isinstance(element.value, int | float) and element.VR not in {"DS", "IS"}:
        element.value = chance.choice([0, 1, 2, 3, 7, 8, 12, 15, 16, 32, 255, 4096])
    else:
        element.value = chance.choice(VALUES) if way < 0.9 else ""
    ds.save_as(path)


def damage(folder: Path, chance: random.Random) -> Path:
    """Damage one file of ``folder``; which."""
    path = chance.choice(sorted(folder.iterdir()))
    data = path.read_bytes()
    if data[128:132] == b"DICM" and chance.random() < 0.4:
        try:
            damage_attribute(path, chance)
        except Exception:  # pydicom writes no such value: bytes instead
            path.write_bytes(damage_bytes(data, chance))
    elif len(data) and chance.random() < 0.02 and len(list(folder.iterdir())) > 1:
        path.unlink()
    else:
        path.write_bytes(damage_bytes(data, chance))
    return path


Volume = tuple[np.ndarray, np.ndarray, tuple[str, ...]]


def read(folder: Path, role: str | None) -> Volume:
    """Voxels, affine and warnings of the one volume of ``folder``."""
    from mmif.io import load

    packed = folder / "study.zip"
    volume = load(packed if packed.exists() else folder, role=role)
    return volume.numpy(), np.asarray(volume.affine), volume.meta["source"].warnings


def is_same_grid(found: Volume, good: Volume) -> bool:
    """Whether two volumes lie at the same place, to what rounding of positions makes."""
    if found[0].shape != good[0].shape:
        return False
    corners = np.array([[(n >> bit) & 1 for bit in range(3)] for n in range(8)], dtype=float)
    ends = np.c_[corners * (np.array(good[0].shape[1:]) - 1), np.ones(8)]
    return bool(np.abs(ends @ (found[1] - good[1]).T).max() < SAME_MM)


def judge(found: Volume, good: Volume) -> str:
    """Whether a volume is the untouched one, or says that it is not; "" for neither."""
    if is_same_grid(found, good) and np.array_equal(found[0], good[0]):
        return "the same"
    return "warned" if set(found[2]) - set(good[2]) else ""


def role_of(kind: Path) -> str | None:
    """What a kind is read for."""
    modalities = {"ct": "ct", "pt": "pet", "nm": "spect", "zip": "ct"}
    return modalities.get(kind.name.split("_")[0], "mri")


def outcome_of(folder: Path, kind: Path, changed: Path, good: Volume) -> str:
    """What the damaged ``folder`` gave, in words."""
    from mmif.errors import MmifError

    try:
        found = read(folder, role_of(kind))
    except MmifError as error:
        return "BUG two lines" if "\n" in str(error) else "refused"
    except BaseException as error:
        trace = traceback.extract_tb(error.__traceback__)[-1]
        return f"BUG {type(error).__name__} in {Path(trace.filename).name}:{trace.lineno}"
    told = judge(found, good)
    if told:
        return told
    before = (kind / changed.name).read_bytes()
    after = changed.read_bytes() if changed.exists() else b""
    alone = sum(1 for _ in kind.iterdir()) <= 2 and kind.name != "zip"
    return what_changed(before, after, alone=alone, same_grid=is_same_grid(found, good))


def child(kinds: Path, first: int, end: int, seed: int, keep: Path) -> None:
    """Read cases; print one a line: its number before, its outcome after."""
    warnings.simplefilter("ignore")  # pydicom's, over the values that are written here
    folders = sorted(path for path in kinds.iterdir() if path.is_dir())
    good = {kind: read(kind, role_of(kind)) for kind in folders}
    with tempfile.TemporaryDirectory() as name:
        for number in range(first, end):
            chance = random.Random(seed * 1_000_003 + number)
            kind, folder = chance.choice(folders), Path(name) / "case"
            shutil.copytree(kind, folder)
            changed = damage(folder, chance)
            print(f"start {number} {kind.name}", flush=True)
            faulthandler.dump_traceback_later(SECONDS_A_CASE, exit=True)
            start = time.process_time()
            outcome = outcome_of(folder, kind, changed, good[kind])
            seconds = time.process_time() - start
            faulthandler.cancel_dump_traceback_later()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if not outcome.startswith(PASSING) or peak > MAX_MIB:
                shutil.copytree(folder, keep / f"{number}_{kind.name}", dirs_exist_ok=True)
            shutil.rmtree(folder)
            print(f"done {seconds:.3f} {peak:.0f} {kind.name} {outcome}", flush=True)


def run_cases(kinds: Path, options: argparse.Namespace) -> Iterator[list[str]]:
    """Seconds, MiB, kind and outcome of each case; a process that dies is an outcome too."""
    first, end = options.first, options.first + options.cases
    while first < end:
        command = [sys.executable, __file__, "--child", str(kinds), str(first), str(end)]
        command += ["--seed", str(options.seed), "--keep", str(options.keep)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            kind = ""
            for line in process.stdout or ():
                word, *rest = line.rstrip("\n").split(" ", 4)
                if word == "start":
                    first, kind = int(rest[0]) + 1, rest[1]
                elif word == "done":
                    kind = ""
                    yield rest
        if process.returncode and not kind:
            raise SystemExit(f"the worker ended by itself ({process.returncode})")
        if process.returncode:
            yield ["0", "0", kind, f"BUG process ended ({process.returncode}) in case {first - 1}"]


def add(counts: dict[str, int], name: str, count: int) -> None:
    """``count`` more of ``name``."""
    counts[name] = counts.get(name, 0) + count


def report(tally: dict[str, Any]) -> int:
    """Print what came out; 1 if it was anything that may not be."""
    counted = Counter(tally["outcomes"])
    print(f"{counted.total()} cases of {len(tally['kinds'])} kinds")
    for outcome, count in counted.most_common():
        print(f"{count:8d}  {outcome}")
    for kind, outcomes in sorted(tally["kinds"].items()):
        print(f"{kind:18s}", *(f"{name} {outcomes.get(name, 0)}," for name in PASSING))
    print(f"slowest case {tally['seconds']:.2f} s of CPU, peak memory {tally['mib']:.0f} MiB")
    bad = [outcome for outcome in counted if not outcome.startswith(PASSING)]
    return int(bool(bad) or tally["mib"] > MAX_MIB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--tally", type=Path, help="adds this slice to those before it")
    parser.add_argument("--child", nargs=3, metavar=("KINDS", "FIRST", "END"))
    options = parser.parse_args()
    if options.child:
        kinds, first, end = options.child
        child(Path(kinds), int(first), int(end), options.seed, options.keep)
        return 0
    tally: dict[str, Any] = {"outcomes": {}, "kinds": {}, "seconds": 0.0, "mib": 0.0}
    with tempfile.TemporaryDirectory() as name:
        write_kinds(Path(name))
        for seconds, mib, kind, outcome in run_cases(Path(name), options):
            add(tally["outcomes"], outcome, 1)
            start = next((name for name in PASSING if outcome.startswith(name)), "BUG")
            add(tally["kinds"].setdefault(kind, {}), start, 1)
            tally["seconds"] = max(tally["seconds"], float(seconds))
            tally["mib"] = max(tally["mib"], float(mib))
    if options.tally and options.tally.exists():
        earlier = json.loads(options.tally.read_text())
        for outcome, count in earlier["outcomes"].items():
            add(tally["outcomes"], outcome, count)
        for kind, outcomes in earlier["kinds"].items():
            for outcome, count in outcomes.items():
                add(tally["kinds"].setdefault(kind, {}), outcome, count)
        for part in ("seconds", "mib"):
            tally[part] = max(tally[part], earlier[part])
    if options.tally:
        options.tally.write_text(json.dumps(tally, indent=1))
    return report(tally)


if __name__ == "__main__":
    raise SystemExit(main())
