"""Whether two checkouts give the same outputs, bit for bit.

    git worktree add ../before COMMIT
    python benchmarks/same_outputs.py ../before . [--only fuse register batch train]

``fuse`` (NIfTI, DICOM and colour), ``register``, ``batch`` and ``train --max-steps`` run on the
sample data, once by each checkout's code. Voxels, places, transforms and weights are compared to
the last bit; of every ``summary.json`` all but times, versions and paths. Prints each output with
``same``, or what differs and how far, and the fields that only one of them has; exit code 1 where
one differs. ``--ct`` and ``--mri`` take another pair for ``fuse`` and ``register``: the large one
of ``end_to_end.py --keep``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom import dcmread
from safetensors.numpy import load_file

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
CT, MRI, SPECT = SAMPLE / "ct", SAMPLE / "mri.nii.gz", SAMPLE / "spect.dcm"
PATIENCE = "--registration-timeout 600"  # a busy machine's clock decides nothing
JOBS: dict[str, tuple[str, ...]] = {
    "fuse": ("fuse --ct {ct} --mri {mri} -o {out} --format nifti --save-registered",),
    "colour": ("fuse --spect {spect} --mri {mri} -o {out} --no-report",),
    "dicom": ("fuse --ct {ct} --mri {mri} --reference ct -o {out} --format both --no-report",),
    "register": ("register --fixed {mri} --moving {ct} -o {out}/t.tfm",),
    "batch": ("batch {studies} -o {out} --jobs 1 --task ct-mri --no-report",),
    "train": (
        "train --task ct-mri --data {studies} -o {out} --max-steps 2 --device cpu --threads 1",
    ),
}
MADE = frozenset({"register"})  # commands that write into a folder that must be there
CHANGING = frozenset(
    {
        "seconds",
        "seconds_per_slice",
        "mmif_version",
        "command",
        "path",
        "created",
        "commit",
        "torch",
        "files",  # sizes of what is compared itself, and of the page, which says seconds and paths
        "sha256",  # of the same files
        "seal",  # of all this
    }
)
"""Fields that may differ between two runs of the same code."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--ct", type=Path, default=CT)
    parser.add_argument("--mri", type=Path, default=MRI)
    options = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as name:
        inputs = {"ct": options.ct.resolve(), "mri": options.mri.resolve(), "spect": SPECT}
        inputs["studies"] = make_studies(Path(name) / "studies")
        for job in options.only:
            outs = [Path(name) / side / job for side in ("before", "after")]
            for checkout, out in zip((options.before, options.after), outs, strict=True):
                run(checkout.resolve(), JOBS[job], out, inputs, made=job in MADE)
            for file, found in compare(*outs):
                print(f"{job:9} {file:42} {found or 'same'}", flush=True)
                different += bool(found) and not found.startswith("same")
    sys.exit(1 if different else 0)


def make_studies(folder: Path) -> Path:
    """Two studies, copies of the sample head under the names of two cases."""
    for case in ("one", "two"):
        shutil.copytree(CT, folder / case / "ct")
        shutil.copy(MRI, folder / case / "mri.nii.gz")
    return folder


def run(
    checkout: Path, commands: tuple[str, ...], out: Path, inputs: dict[str, Path], made: bool
) -> None:
    """The commands by the code of ``checkout``."""
    (out if made else out.parent).mkdir(parents=True, exist_ok=True)
    places = inputs | {"out": out}
    for command in commands:
        patience = () if command.startswith("train") else PATIENCE.split()
        done = subprocess.run(
            [sys.executable, "-m", "mmif", *command.format(**places).split(), *patience],
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{checkout}: mmif {command}\n{done.stderr}")


def compare(before: Path, after: Path) -> Iterator[tuple[str, str]]:
    """Each output with what differs; "" where nothing does."""
    sides = [
        {str(p.relative_to(d)): p for p in d.rglob("*") if p.is_file()} for d in (before, after)
    ]
    slices: dict[str, list[str]] = {}
    for name in sorted(sides[0].keys() | sides[1].keys()):
        judge = next((j for ending, j in JUDGES.items() if name.endswith(ending)), None)
        if judge is None:
            continue
        if name not in sides[0] or name not in sides[1]:
            yield name, f"only {'after' if name in sides[1] else 'before'}"
            continue
        found = judge(sides[0][name], sides[1][name])
        if name.endswith(".dcm") and "/" in name:
            slices.setdefault(f"{Path(name).parent}/*.dcm", []).append(found)
        else:
            yield name, found
    for name, all_found in slices.items():
        yield name, "; ".join(dict.fromkeys(filter(None, all_found)))


def nifti(a: Path, b: Path) -> str:
    one, two = nibabel.load(a), nibabel.load(b)
    voxels = [stored(image) for image in (one, two)]
    apart = np.abs(voxels[0] - voxels[1]) if voxels[0].shape == voxels[1].shape else np.inf
    words = f"voxels differ by at most {np.max(apart):.2g}, on average {np.mean(apart):.1g}"
    return _unless(not np.any(apart), words) or _unless(
        np.array_equal(one.affine, two.affine), "affine differs"
    )


def stored(image: nibabel.Nifti1Image) -> np.ndarray:
    """The values of ``image``; of colours the channels as a last axis."""
    if image.get_data_dtype().names is None:
        return image.get_fdata(dtype=np.float32)
    voxels = np.asanyarray(image.dataobj)
    return np.stack([voxels[name].astype(np.float32) for name in voxels.dtype.names], axis=-1)


def dicom(a: Path, b: Path) -> str:
    one, two = dcmread(a), dcmread(b)
    if "PixelData" in one and one.PixelData != two.PixelData:
        apart = np.abs(one.pixel_array.astype(float) - two.pixel_array.astype(float))
        return f"pixels differ by at most {apart.max():.2g} stored values"
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "WindowCenter")
    return _unless(all(one.get(k) == two.get(k) for k in keywords), "place or window differs")


def text(a: Path, b: Path) -> str:
    """Transforms, but for their comments: one of them is a checksum."""
    one, two = (
        [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for path in (a, b)
    )
    return _unless(one == two, "text differs")


def tensors(a: Path, b: Path) -> str:
    one, two = load_file(a), load_file(b)
    same = one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)
    return _unless(same, "tensors differ")


def summary(a: Path, b: Path) -> str:
    one, two = (dict(_leaves(json.loads(path.read_text()))) for path in (a, b))
    differing = sorted(k for k in one.keys() & two.keys() if one[k] != two[k])
    if differing:
        return "differs in " + ", ".join(differing[:6])
    news = [
        sorted({k.partition("[")[0] for k in x.keys() - y.keys()})
        for x, y in ((two, one), (one, two))
    ]
    said = [
        f"{word} {', '.join(keys[:6])}"
        for word, keys in zip(("new", "gone"), news, strict=True)
        if keys
    ]
    return f"same but for {'; '.join(said)}" if said else ""


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Path of keys to number or text, without what may change."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in CHANGING:
                yield from _leaves(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{where}[{index}]")
    else:
        yield where, value


def _unless(same: bool, reason: str) -> str:
    return "" if same else reason


JUDGES: dict[str, Callable[[Path, Path], str]] = {
    ".nii.gz": nifti,
    ".dcm": dicom,
    ".tfm": text,
    ".safetensors": tensors,
    "summary.json": summary,
}

if __name__ == "__main__":
    main()
