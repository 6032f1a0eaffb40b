"""What depends on the constants that were chosen: each halved and doubled, and the data they judge.

    python benchmarks/constants.py registration [--only NAME ...]
    python benchmarks/constants.py heads
    python benchmarks/constants.py geometry [FOLDER ...]

``registration`` brings RIRE's CT and MR together from a random start, and the sample head's SPECT
and MRI, with one constant of `mmif.registration` at half and at twice its value at a time: the
error against the truth, how far the pose moved, CPU seconds and verdicts. ``heads`` says of real
and drawn CTs of heads how much of the volume is body, and around how many mm and ml a skull closes
where bone begins at half of `mmif.registration.anatomy.SKULL_HU`, at it and above.
``geometry`` says of the
real DICOM series (of the test data, or below FOLDER) how far slices lie from a regular row, how
their directions differ, how wide gaps are, and how much stands before the pixels: what the limits
of `mmif.io.dicom.read` have to let through.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
from registration_pairs import DATA, MODALITY, Pair, Said, real_heads, rire_pair

from mmif.config import RegistrationConfig
from mmif.errors import MmifError
from mmif.geometry import apply, spacing_mm, world_ras_lps
from mmif.io import load
from mmif.registration import anatomy, refine, register, search
from mmif.registration.prepare import prepare

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
UNHURRIED = RegistrationConfig(timeout_s=3600)
SCALARS = (
    *("ROTATIONS", "TRANSLATION_STEP_MM", "AIR_MARGIN_MM", "ATTEMPTS", "POOL", "BORDER_MM"),
    *("FINEST_MM", "TISSUE_HU", "MARGIN_MM", "BLOCK_SAMPLES", "OFFSETS_MM"),
)
ASCENTS = ("FIRST", "SECOND", "MIDDLE", "MIRRORED", "FINE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = parser.add_subparsers(required=True)
    one = sections.add_parser("registration")
    one.add_argument("--only", nargs="+", default=[*SCALARS, *ASCENTS])
    one.set_defaults(run=lambda options: registration(options.only))
    sections.add_parser("heads").set_defaults(run=lambda options: heads())
    two = sections.add_parser("geometry")
    two.add_argument("folders", nargs="*", type=Path, default=[DATA / "dicom", SAMPLE / "ct"])
    two.set_defaults(run=lambda options: geometry(options.folders))
    options = parser.parse_args()
    options.run(options)


# --- registration ---------------------------------------------------------------------------------


def registration(names: list[str]) -> None:
    """A row for each constant at half and at twice its value."""
    pairs = [rire_pair("RIRE", real_heads(DATA)[:2], np.random.default_rng(1), True), spect_pair()]
    print("| constant | value | RIRE mm | moved mm | SPECT mm | moved mm | CPU s | verdicts |")
    print("|---|---|---|---|---|---|---|---|")
    plain = [pose_of(pair) for pair in pairs]
    row("as they are", "", pairs, plain, plain)
    for name in names:
        for label, value in variations(name):
            with constant(name, value):
                row(name, label, pairs, plain, [pose_of(pair) for pair in pairs])


def row(name: str, label: str, pairs: list[Pair], plain: list[Any], found: list[Any]) -> None:
    cells = []
    for pair, (before, _, _), (pose, _, _) in zip(pairs, plain, found, strict=True):
        if pose is None:
            cells += ["refused", ""]
            continue
        moved = np.linalg.norm(
            apply(pose, pair.fixed_points) - apply(before, pair.fixed_points), axis=1
        )
        cells += [f"{pair.error_mm(pose):.2f}", f"{moved.mean():.2f}"]
    seconds = sum(one[1] for one in found)
    verdicts = ", ".join(one[2] for one in found)
    print(f"| {name} | {label} | {' | '.join(cells)} | {seconds:.1f} | {verdicts} |", flush=True)


def pose_of(pair: Pair) -> tuple[np.ndarray | None, float, str]:
    """Fixed to moving in RAS mm, CPU seconds, verdict."""
    start = time.process_time()
    try:
        found = register(pair.fixed, pair.moving, UNHURRIED)
    except MmifError:
        return None, time.process_time() - start, "refused"
    return world_ras_lps(found.fixed_to_moving_lps), time.process_time() - start, found.verdict


def spect_pair() -> Pair:
    """The sample head's MRI and SPECT, with their truth."""
    truth = json.loads((SAMPLE / "truth.json").read_text(encoding="utf-8"))["mri_to_spect"]
    mri, spect = load(SAMPLE / "mri.nii.gz"), load(SAMPLE / "spect.dcm")
    mri.meta["source"], spect.meta["source"] = Said("MR"), Said(MODALITY["spect"])
    voxels = np.argwhere(mri[0].numpy() > float(mri.mean()))[::997]
    points = apply(np.asarray(mri.affine), voxels)
    return Pair("sample", mri, spect, points, apply(world_ras_lps(np.array(truth)), points))


def variations(name: str) -> Iterator[tuple[str, Any]]:
    """What a constant may be instead, each with its label."""
    value = getattr(homes(name)[0], name)
    if name not in ASCENTS:
        for factor in (0.5, 2):
            other = type(value)(value * factor) if np.ndim(value) == 0 else value * factor
            yield (f"{other:g}" if np.ndim(value) == 0 else f"times {factor:g}"), other
        return
    for factor in (0.5, 2):
        steps = {part: int(getattr(value, part) * factor) for part in ("iterations", "batch")}
        yield f"{steps['iterations']} steps of {steps['batch']}", replace(value, **steps)
    for factor in (0.5, 2):
        bins = int(value.bins * factor)
        yield f"{bins} bins", replace(value, bins=bins)
    for factor in (0.5, 2):
        sizes = {part: getattr(value, part) * factor for part in ("first_mm", "last_mm")}
        yield f"{sizes['first_mm']:g} to {sizes['last_mm']:g} mm", replace(value, **sizes)


def homes(name: str) -> list[ModuleType]:
    """The modules of the registration that have the constant."""
    rooms = [m for n, m in sorted(sys.modules.items()) if n.startswith("mmif.registration.")]
    return [m for m in rooms if hasattr(m, name)]


@contextmanager
def constant(name: str, value: Any) -> Iterator[None]:
    """The constant at ``value``, in every module and default that has it."""
    before = getattr(homes(name)[0], name)
    functions = [f for f in vars(refine).values() if getattr(f, "__defaults__", None)]
    functions += [f for m in homes(name) for f in vars(m).values() if hasattr(f, "__defaults__")]
    kept = {f: f.__defaults__ for f in functions if f.__defaults__}
    for module in homes(name):
        setattr(module, name, value)
    for function, defaults in kept.items():
        function.__defaults__ = tuple(value if one is before else one for one in defaults)
    try:
        yield
    finally:
        for module in homes(name):
            setattr(module, name, before)
        for function, defaults in kept.items():
            function.__defaults__ = defaults


# --- heads ----------------------------------------------------------------------------------------


def heads() -> None:
    """A row for each CT of a head."""
    volumes = DATA / "volumes"
    files = {
        "RIRE": volumes / "rire_training_001" / "training_001_ct_on_mr_grid.nii.gz",
        "template": next((volumes / "clinical_ct_template").glob("*.nii*")),
        "slicer_cthead_64": DATA / "dicom" / "slicer_cthead_64",
        "sample": SAMPLE / "ct",
    }
    levels = [anatomy.SKULL_HU * factor for factor in (0.5, 1, 1.6, 2)]
    print(f"| head | body | {' | '.join(f'{hu:g} HU: mm, ml' for hu in levels)} |")
    print("|---|---|" + "---|" * len(levels))
    for name, path in files.items():
        volume = load(path, role="ct")
        volume.meta["source"] = Said("CT")
        ct = prepare(volume, name)
        steps = np.array(spacing_mm(np.linalg.inv(ct.levels[anatomy.FINE_LEVEL].to_voxel)))
        cells = []
        for hu in levels:
            with constant("SKULL_HU", hu):
                cavity = anatomy.skull_cavity(ct)
            height = cavity.any(axis=(0, 1)).sum() * steps[2]
            cells.append(f"{height:.0f}, {cavity.sum() * steps.prod() / 1000:.0f}")
        print(f"| {name} | {ct.body.mean():.2f} | {' | '.join(cells)} |", flush=True)


# --- geometry -------------------------------------------------------------------------------------


def geometry(folders: list[Path]) -> None:
    """A row for each series of single-frame slices that have places."""
    print("| series | slices | jitter mm | of a step | directions differ | widest gap mm |", end="")
    print(" gap / thickness | nearest mm | bytes before the pixels |")
    print("|---|---|---|---|---|---|---|---|---|")
    series: dict[str, list[tuple[pydicom.Dataset, int]]] = defaultdict(list)
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.is_file()):
        try:
            with path.open("rb") as file:
                ds = pydicom.dcmread(file, stop_before_pixels=True)
                series[f"{path.parent.name} {ds.SeriesInstanceUID[-8:]}"].append((ds, file.tell()))
        except (pydicom.errors.InvalidDicomError, AttributeError, OSError):
            continue
    for name, files in series.items():
        placed = [one for one in files if one[0].get("ImagePositionPatient")]
        if len(placed) >= search.ATTEMPTS and all(
            one[0].get("ImageOrientationPatient") for one in placed
        ):
            print(f"| {name} | {len(placed)} | {' | '.join(figures(placed))} |", flush=True)


def figures(files: list[tuple[pydicom.Dataset, int]]) -> list[str]:
    """Of one series: see the head of the table."""
    sides = np.array([ds.ImageOrientationPatient for ds, _ in files], float)
    normals = np.cross(sides[:, :3], sides[:, 3:])
    turned = np.abs(sides - sides[0]).max()
    places = np.array([ds.ImagePositionPatient for ds, _ in files], float) @ normals[0]
    places = np.sort(places)
    steps = np.diff(places)
    apart = steps[steps > 1e-6]
    if not len(apart):
        return ["", "", f"{turned:.1e}", "", "", "0", f"{max(end for _, end in files)}"]
    # slices seen more than once stand in one place: the row is that of the places
    row = places[np.r_[True, steps > 1e-6]]
    regular = np.linspace(row[0], row[-1], len(row))
    jitter = np.abs(row - regular).max()
    step = (row[-1] - row[0]) / max(len(row) - 1, 1)
    thickness = float(files[0][0].get("SliceThickness") or 0)
    return [
        f"{jitter:.3f}",
        f"{jitter / step:.3f}",
        f"{turned:.1e}",
        f"{apart.max():.2f}",
        f"{apart.max() / thickness:.2f}" if thickness else "",
        f"{apart.min():.3f}",
        f"{max(end for _, end in files)}",
    ]


if __name__ == "__main__":
    main()
