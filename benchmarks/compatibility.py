"""Write docs/compatibility.md: what mmif makes of every folder of real images, in one table.

    python benchmarks/compatibility.py [--data DIR] [-o docs/compatibility.md]

Each DICOM folder that holds files, and each file that is not DICOM, is loaded once. A line is
either the geometry that was read or the refusal, word for word. Anything else is a bug, and the
exit code is then 1.
"""

import argparse
import os
import traceback
from pathlib import Path

import numpy as np

from mmif.errors import MmifError
from mmif.io import load
from mmif.io.archive import MAX_UNPACKED_BYTES
from mmif.io.checks import MAX_RATIO, MAX_VOXELS, SPACING_RANGE_MM
from mmif.io.dicom.read.frames import MAX_FRAMES, MAX_SIDE
from mmif.io.dicom.read.geometry import JITTER_FRACTION, JITTER_MM, MAX_GAP_MM, orientation_code
from mmif.io.dicom.read.headers import MAX_DEFLATED_BYTES, MAX_HEADER_BYTES
from mmif.io.files import MAX_FILES

ROOT = Path(__file__).parent.parent
HEAD = """# What mmif reads

Made by `python benchmarks/compatibility.py` from the real images that the project is tested with
(`MMIF_TEST_DATA`; their origins and terms stand in the `SOURCE.txt` beside them). Each folder of
DICOM files and each other file was given to `mmif.load` without a role or a choice. *Axes* are the
patient directions that columns, rows and slices grow towards. A refusal is quoted as it is said.

"""
LIMITS = f"""## Limits

What is larger is refused in one line; nothing that a scanner makes comes near.

| limit | value |
|---|---|
| files in one tree, members of one zip | {MAX_FILES:,} |
| bytes in front of the pixels of one DICOM file | {MAX_HEADER_BYTES >> 20} MiB |
| bytes that a deflated DICOM file unpacks to | {MAX_DEFLATED_BYTES >> 30} GiB |
| bytes that a zip unpacks to | {MAX_UNPACKED_BYTES >> 30} GiB, and {MAX_RATIO} times its size |
| rows or columns of one slice | {MAX_SIDE:,} |
| slices of one series | {MAX_FRAMES:,} |
| voxels of one volume | {MAX_VOXELS:,} |
| spacing | {SPACING_RANGE_MM[0]:g} to {SPACING_RANGE_MM[1]:g} mm |
| gap between two slices where the spacing varies | {MAX_GAP_MM:g} mm |
| jitter of slice positions | {JITTER_FRACTION:.0%} of the spacing and {JITTER_MM:g} mm |

"""
REPORTS = "## What users of other readers met"
"""The heading of the part that is written by hand and kept."""

COLUMNS = "| input | read as | voxels | spacing mm | axes | values | notes |\n" + "|---" * 7 + "|\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("MMIF_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "compatibility.md")
    options = parser.parse_args()
    text, bugs = HEAD + LIMITS, 0
    for title, inputs in (
        ("DICOM folders", dicom_folders(options.data / "dicom")),
        ("DICOM files of the compressed set, one slice each", nema(options.data / "dicom")),
        ("NIfTI and other volumes", volume_files(options.data)),
    ):
        lines = [line(path, options.data) for path in inputs]
        read = sum("| refused |" not in row and "**BUG**" not in row for row in lines)
        bugs += sum("**BUG**" in row for row in lines)
        text += f"## {title}\n\n{read} of {len(lines)} read, the others refused.\n\n"
        text += COLUMNS + "\n".join(lines) + "\n\n"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    before = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    _, heading, reports = before.partition(REPORTS)
    text += heading + reports
    options.output.write_text(text.rstrip() + "\n", encoding="utf-8")
    return int(bugs > 0)


def dicom_folders(data: Path) -> list[Path]:
    """The folders named in data/README.md, and every folder in them that holds files."""
    found = [path for path in sorted(data.iterdir()) if path.is_dir()]
    for top in list(found):
        found += [
            path
            for path in sorted(top.rglob("*"))
            if path.is_dir() and any(child.is_file() for child in path.iterdir())
        ]
    return sorted(found)


def nema(data: Path) -> list[Path]:
    """Single files of which each is a series of its own."""
    folders = ("nema_wg04_compressed", "nm_recon_tomo", "qin_headneck_pet/SEG")
    return [
        path
        for name in folders
        for path in sorted((data / name).iterdir())
        if path.is_file() and path.suffix != ".txt"
    ]


def volume_files(data: Path) -> list[Path]:
    """Files of other formats."""
    endings = (".nii", ".nii.gz", ".mnc", ".mha", ".hdr.gz", ".img.gz")
    files = [*(data / "nifti").rglob("*"), *(data / "volumes").rglob("*")]
    return sorted(path for path in files if path.name.endswith(endings))


def line(path: Path, data: Path) -> str:
    """One row of the table."""
    name = f"`{path.relative_to(data)}`"
    try:
        volume = load(path)
    except MmifError as error:
        said = str(error).replace(str(data) + "/", "").replace("|", "\\|")
        return f"| {name} | refused |  |  |  |  | {said} |"
    except Exception:
        trace = traceback.format_exc().strip().splitlines()[-1]
        return f"| {name} | **BUG** |  |  |  |  | {trace} |"
    source = volume.meta["source"]
    kind = source.modality or ("NIfTI" if source.format == "nifti" else "other")
    size = " x ".join(map(str, volume.shape[1:])) + (" colour" if len(volume) == 3 else "")
    spacing = " x ".join(f"{step:.4g}" for step in source.spacing_mm)
    axes = orientation_code(np.asarray(volume.affine))
    values = f"{float(volume.min()):.5g} to {float(volume.max()):.5g} {source.units}".strip()
    notes = "; ".join(source.warnings)
    return f"| {name} | {kind} | {size} | {spacing} | {axes} | {values} | {notes} |"


if __name__ == "__main__":
    raise SystemExit(main())
