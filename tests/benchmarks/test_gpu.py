"""The benchmark of a GPU, in its reduced form on the CPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
Sections = dict[str, list[dict[str, Any]]]

WITHOUT = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"monai", "SimpleITK", "pydicom", "nibabel", "scipy"}:
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, *more: str) -> tuple[Sections, str]:
    files = ["--json", str(folder / "gpu.json"), "--table", str(folder / "gpu.md")]
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", *files, *more]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    result = json.loads((folder / "gpu.json").read_text())
    return result["sections"], (folder / "gpu.md").read_text()


def test_the_sections_that_need_only_pytorch_give_their_figures(tmp_path: Path) -> None:
    sections, table = run(tmp_path, "--only", "machine,network,throughput,memory,compiled")
    assert not [row for rows in sections.values() for row in rows if "error" in row]
    rates = [row for row in sections["throughput"] if "slices/s" in row]
    assert {(row["variant"], row["batch"]) for row in rates} >= {("bf16 channels last", 1)}
    assert all(row["slices/s"] > 0 and row["of bandwidth"].endswith("%") for row in rates)
    (shrunk, _, _) = sections["memory"]
    assert (shrunk["batch asked"], shrunk["batch in the end"]) == (4, 1)
    assert shrunk["largest /255"] == 0
    assert sections["compiled"][0]["skipped"] == "on a GPU only"
    assert "**throughput**" in table
    assert "| bf16 channels last | 1 |" in table


def test_a_section_whose_libraries_are_missing_says_so_and_keeps_what_it_has(
    tmp_path: Path,
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    words = ["benchmarks/gpu.py", "--section", "volume", "--device", "cpu", "--json", str(rows)]
    subprocess.run([sys.executable, "-c", WITHOUT, *words], cwd=ROOT, check=True)
    *figures, last = map(json.loads, rows.read_text().splitlines()[1:])
    assert [row["precision"] for row in figures] == ["fp32", "bf16"]
    assert last == {"error": "ModuleNotFoundError: No module named 'monai'"}


def test_a_section_that_takes_too_long_is_ended_and_says_so() -> None:
    """In the tenth of a second that is left it cannot even import PyTorch, on any machine."""
    import gpu

    (ended, took) = gpu.run_apart("batch", "cpu", -2.9, {})
    assert ended == {"error": "ended after -3 s"}
    assert took["took s"] < 60


@pytest.mark.long
def test_every_section_runs_on_a_cpu(tmp_path: Path) -> None:
    sections, _ = run(tmp_path)
    assert not [row for rows in sections.values() for row in rows if "error" in row]
    assert [
        row["largest /255"] for row in sections["volume"] if row.get("precision") == "fp32"
    ] == [
        0,
        0,
    ]
    assert all(row["from the CPU's, mm"] == 0 for row in sections["registration"][:-1])
    assert all(len(row["losses"]) == row["steps"] > 1 for row in sections["training"][:-1])
    (studies, _) = sections["batch"]
    assert (studies["done"], studies["network on"]) == (2, "cpu")
