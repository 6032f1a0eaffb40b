"""What a command imports before its work, and what that costs.

    python benchmarks/startup.py [--runs 5]

First the wall and CPU seconds of whole processes, medians: commands, and the imports of ``fuse``
as a library imports them and as the command does (`mmif.startup`). Then the packages that ``mmif
fuse`` imports of two volumes, each with its modules, its own milliseconds (``-X importtime``
slows them down by about a third) and who asks for it first.
"""

import argparse
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample_data"
FUSE = "import mmif.study, mmif.report"
QUICK = "from mmif.startup import start_quickly; start_quickly()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    print("| process | wall s | CPU s |", "|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        fuse = ["-m", "mmif", "-q", "fuse", "--ct", SAMPLE / "ct", "--mri", SAMPLE / "mri.nii.gz"]
        fuse += ["-o", Path(folder) / "out", "--overwrite"]
        for name, words in {
            "python -c pass": ["-c", "pass"],
            "mmif --help": ["-m", "mmif", "--help"],
            "mmif weights list": ["-m", "mmif", "weights", "list"],
            "mmif info CT": ["-m", "mmif", "info", SAMPLE / "ct"],
            "import torch": ["-c", "import torch"],
            "imports of fuse, as a library": ["-c", FUSE],
            "imports of fuse, as the command": ["-c", f"{QUICK}; {FUSE}"],
            "mmif fuse, the sample head": fuse,
            "the same again": fuse,
        }.items():
            wall, cpu = zip(*(seconds(words) for _ in range(args.runs)), strict=True)
            print(f"| {name} | {statistics.median(wall):.2f} | {statistics.median(cpu):.2f} |")
        print("\n| package | modules | ms | asked for by |", "|---|---|---|---|", sep="\n")
        for row in packages(["-c", f"{QUICK}; import mmif.cli.fuse; {FUSE}.document"]):
            print("| {} | {} | {:.0f} | {} |".format(*row))


def seconds(words: list[str | Path]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = [use.ru_utime + use.ru_stime for use in (before, after)]
    return wall, used[1] - used[0]


def packages(words: list[str | Path]) -> list[tuple[str, int, float, str]]:
    """Each package above 5 ms: its modules, its own milliseconds, the first to ask for it."""
    command = [sys.executable, "-X", "importtime", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    rows = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| (\s*)(\S+)$", done.stderr, re.M)
    took, count, asked = defaultdict(float), defaultdict(int), dict[str, str]()
    open_at: dict[int, str] = {}
    for own, indent, name in reversed(rows):  # a module is told after those that it imports
        depth, package = len(indent), package_of(name)
        open_at[depth] = package
        parents = [open_at[d] for d in range(depth - 2, -1, -2) if d in open_at]
        other = next((parent for parent in parents if parent != package), "the interpreter")
        took[package] += int(own) / 1000
        count[package] += 1
        asked[package] = other
    found = sorted(took, key=took.__getitem__, reverse=True)
    return [(name, count[name], took[name], asked[name]) for name in found if took[name] >= 5]


def package_of(module: str) -> str:
    """The installed package of a module; one name for Python's own."""
    top = module.split(".")[0]
    return "Python's own" if top in sys.stdlib_module_names else top


if __name__ == "__main__":
    main()
