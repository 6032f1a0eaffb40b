"""Registration in figures: accuracy, verdicts, limits, speed. Seeds are fixed.

    python benchmarks/registration.py rire --runs 100
    python benchmarks/registration.py simulated --wheels WHEELS --library LIBRARY
    python benchmarks/registration.py verdict --wheels WHEELS --library LIBRARY --count 1000 -o RUNS
    python benchmarks/registration.py judge -o RUNS
    python benchmarks/registration.py limits -o RUNS
    python benchmarks/registration.py estimates --library LIBRARY --runs 5 -o RUNS
    python benchmarks/registration.py stripped --wheels WHEELS --library LIBRARY --runs 4 -o RUNS
    python benchmarks/registration.py sides --wheels WHEELS --library LIBRARY --runs 2 -o RUNS
    python benchmarks/registration.py headers --library LIBRARY --runs 6 -o RUNS
    python benchmarks/registration.py speed

WHEELS holds the two wheels that ``sample_data/make_sample.py`` names; LIBRARY (a .npz)
keeps the simulated scans between runs. Long runs append to a file of JSON lines and go on where
they stopped; ``judge`` applies the limits of today to what such a file holds.
"""

import argparse
import json
import re
import resource
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from elastix import RECIPE
from header_pairs import Motion, header_pairs, moved, sample_head, templates
from heads import random_pose
from monai.data import MetaTensor
from registration_pairs import (
    DATA,
    Pair,
    Scan,
    estimated_pairs,
    head_points,
    library,
    make,
    real_heads,
    rire_pair,
    rire_truth,
    stream,
    stripped_pairs,
)
from scipy.spatial.transform import Rotation

from mmif.config import RegistrationConfig
from mmif.errors import MmifError
from mmif.geometry import apply, rigid, world_ras_lps
from mmif.registration import register
from mmif.registration.measures import Measures
from mmif.registration.one_frame import (
    PoseMeasures,
    header_checks,
    measure_pose,
    prepare_whole,
)
from mmif.registration.prepare import Kind
from mmif.registration.verdict import (
    ALIKE,
    CT_MR,
    EMISSION,
    STRIPPED,
    Limit,
    checks_of,
    reasons_of,
    verdict_of,
)

SEED = 2025
UNHURRIED = RegistrationConfig(timeout_s=3600)  # a machine that others keep busy is no failure
Row = dict[str, object]


def run(pair: Pair) -> Row:
    """One registration and its error, as a row."""
    started, worked = time.perf_counter(), time.process_time()
    row: Row = {"family": pair.family}
    try:
        found = register(pair.fixed, pair.moving, UNHURRIED)
    except MmifError as error:
        row |= {"verdict": "fail", "error_mm": None, "refused": str(error), "checks": {}}
    else:
        error_mm = pair.error_mm(world_ras_lps(found.fixed_to_moving_lps))
        if pair.moving_points is not None:
            errors_mm = pair.errors_mm(world_ras_lps(found.fixed_to_moving_lps))
            both, either = pair.parts()
            row |= {"inside_mm": errors_mm[both].mean(), "far_mm": errors_mm[either].max()}
        row |= {
            "verdict": found.verdict,
            "error_mm": error_mm if np.isfinite(error_mm) else None,
            "estimate_mm": found.error_estimate_mm,
            "estimate_far_mm": found.error_farthest_mm,
            "checks": {c.name: c.value for c in found.checks},
            "reasons": found.reasons,
        }
    kinds = [v.meta["source"].modality for v in (pair.fixed, pair.moving)]
    row["kinds"] = "emission" if {"NM", "PT"} & set(kinds) else "-".join(sorted(set(kinds)))
    row["right"] = pair.moving_points is not None
    row["seconds"] = round(time.perf_counter() - started, 2)
    row["cpu_s"] = round(time.process_time() - worked, 2)
    return row


def resumed(pairs: Iterator[Pair], path: Path | None) -> list[Row]:
    """The rows of all pairs; those already in ``path`` are not run again."""
    rows = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path and path.is_file()
        else []
    )
    for index, pair in enumerate(pairs):
        if index < len(rows):
            continue
        rows.append(run(pair))
        if path:
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    return rows


def summary(rows: list[Row], by: str = "family") -> None:
    """A Markdown table: errors, verdicts and seconds for each family."""
    print("| pairs | n | median mm | worst mm | pass | review | fail | seconds (CPU) |")
    print("|---|---|---|---|---|---|---|---|")
    groups = defaultdict(list)
    for row in rows:
        groups[row[by]].append(row)
    for name, group in groups.items():
        errors = [r["error_mm"] for r in group if r["error_mm"] is not None]
        figures = f"{np.median(errors):.2f} | {max(errors):.2f}" if errors else "no right pose |"
        verdicts = " | ".join(
            str(sum(r["verdict"] == v for r in group)) for v in ("pass", "review", "fail")
        )
        cpu = np.median([r["cpu_s"] for r in group])
        print(f"| {name} | {len(group)} | {figures} | {verdicts} | {cpu:.1f} |")


# --- RIRE ---------------------------------------------------------------------------------------


def rire(arguments: argparse.Namespace) -> None:
    """The real pair from random starts, both roles."""
    real = real_heads(DATA)[:2]
    for role, fixed_first in (("CT as reference", True), ("MR as reference", False)):

        def pairs(fixed_first: bool = fixed_first, role: str = role) -> Iterator[Pair]:
            for index in range(arguments.runs):
                rng = np.random.default_rng([SEED, index])
                yield rire_pair(role, real, rng, ct_fixed=fixed_first)

        path = arguments.output and arguments.output.with_name(
            f"{arguments.output.stem}_{'ct' if fixed_first else 'mr'}.jsonl"
        )
        summary(resumed(pairs(), path))


# --- simulated ----------------------------------------------------------------------------------


def simulated(arguments: argparse.Namespace) -> None:
    """The simulated head: every kind of pair of the list in the documentation."""
    scans, points = library(arguments.wheels, arguments.library)
    families = [
        "CT-T1", "T1-CT", "holder", "upper half CT", "SPECT-T1", "T1-SPECT", "PET-T1", "T1-T2",
        "5 mm slices", "sagittal", "coronal", "turned",
    ]  # fmt: skip

    def pairs() -> Iterator[Pair]:
        for family in families:
            for index in range(arguments.runs):
                yield make(family, scans, points, [], np.random.default_rng([SEED, index]))

    summary(resumed(pairs(), arguments.output))


# --- verdicts -----------------------------------------------------------------------------------


def verdict(arguments: argparse.Namespace) -> None:
    """Error against verdict over pairs with known truth, right and wrong ones."""
    scans, points = library(arguments.wheels, arguments.library)
    real = real_heads(DATA)
    rows = resumed(stream(scans, points, real, arguments.count, arguments.seed), arguments.output)
    summary(sorted(rows, key=lambda r: (not r["right"], r["family"])))
    against(rows)


def against(rows: list[Row]) -> None:
    """The table of error against verdict, and the two promises."""
    bands = (("below 2 mm", 0, 2), ("2 to 5 mm", 2, 5), ("above 5 mm", 5, np.inf))
    print("\n| error | n | pass | review | fail |\n|---|---|---|---|---|")
    for name, low, high in bands:
        group = [r for r in rows if r["error_mm"] is not None and low <= r["error_mm"] < high]
        print(f"| {name} | {len(group)} | {counted(group)} |")
    wrong = [r for r in rows if r["error_mm"] is None]
    print(f"| no right pose | {len(wrong)} | {counted(wrong)} |")


def counted(rows: list[Row]) -> str:
    """How many rows have each verdict."""
    return " | ".join(str(sum(r["verdict"] == v for r in rows)) for v in ("pass", "review", "fail"))


# --- limits -------------------------------------------------------------------------------------


def judge(arguments: argparse.Namespace) -> None:
    """The tables of recorded runs, their checks judged by the limits of today."""
    rows = [rejudged(row) for row in recorded(arguments.output)]
    summary(sorted(rows, key=lambda r: (not r["right"], r["family"])))
    against(rows)
    print("\n| not right, yet not refused | error mm | verdict | reasons |\n|---|---|---|---|")
    for row in rows:
        if not good(row) and row["verdict"] != "fail":
            error = "no right pose" if row["error_mm"] is None else f"{row['error_mm']:.2f}"
            print(f"| {row['family']} | {error} | {row['verdict']} | {'; '.join(row['reasons'])} |")
    errors, estimates = (
        np.array([r[key] for r in rows if r["verdict"] == "pass" and r["error_mm"] is not None])
        for key in ("error_mm", "estimate_mm")
    )
    print(
        f"\nestimated error of the {len(errors)} right pairs that pass: median "
        f"{np.median(estimates):.2f} mm (true: {np.median(errors):.2f} mm); true error below "
        f"the estimate {np.mean(errors < estimates):.0%}, below twice the estimate "
        f"{np.mean(errors < 2 * estimates):.1%}"
    )


def rejudged(row: Row) -> Row:
    """``row`` with the verdict that its recorded measures get today."""
    if not row["checks"]:
        return row
    measures, limits = Measures(**row["checks"]), limits_of(row)
    checks = checks_of(measures, limits)
    return row | {
        "verdict": verdict_of(checks, limits),
        "reasons": reasons_of(checks),
    }


def limits(arguments: argparse.Namespace) -> None:
    """For each check and kind of pair: where right ones end, and what the check holds alone.

    A limit in ``mmif/registration/verdict.py`` belongs into the gap between the right
    pairs (`right`: their 98 %, and the one furthest out that keeps all the other limits) and the
    nearest wrong one that no other check holds (`wrong`).
    """
    rows = [r for r in recorded(arguments.output) if r["checks"]]
    print("| kinds | check | limit | right: 98 %, furthest | wrong: nearest, only held here | n |")
    print("|---|---|---|---|---|---|")
    for kinds in ("CT-MR", "MR", "emission"):
        mine = [r for r in rows if r["kinds"] == kinds]
        right = [r["checks"] for r in mine if good(r)]
        wrong = [r["checks"] for r in mine if bad(r)]
        for name, limit in limits_of({"kinds": kinds}).items():
            sign = -1 if limit.review > limit.fail else 1
            most = sign * np.quantile([sign * c[name] for c in right], 0.98)
            inner, outer = (
                sorted(sign * c[name] for c in some if keeps_others(c, name, kinds))
                for some in (right, wrong)
            )
            nearest = f"{sign * outer[0]:.3f}, {len(outer)}" if outer else "none"
            print(
                f"| {kinds} | {name} | {limit.review:g} | {most:.3f}, {sign * inner[-1]:.3f} | "
                f"{nearest} | {len(right)}, {len(wrong)} |"
            )


def recorded(path: Path) -> list[Row]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def limits_of(row: Row) -> Mapping[str, Limit]:
    """The limits for the kinds of a recorded pair."""
    known = {"emission": EMISSION, "CT-MR": CT_MR, "stripped": STRIPPED}
    return known.get(row["kinds"], ALIKE)


def keeps_others(checks: dict[str, float], name: str, kinds: str) -> bool:
    """Whether every check but ``name`` keeps its limit."""
    others = limits_of({"kinds": kinds}).items()
    return all(limit.passes(checks[other]) for other, limit in others if other != name)


def good(row: Row) -> bool:
    """An error below 2 mm."""
    return row["error_mm"] is not None and row["error_mm"] < 2


def bad(row: Row) -> bool:
    """An error above 5 mm, or no pose that is right."""
    return row["error_mm"] is None or row["error_mm"] > 5


# --- the estimate of the error ------------------------------------------------------------------


def estimates(arguments: argparse.Namespace) -> None:
    """The estimated error beside the true one, where both scans look and at the far end."""
    scans, _ = library(arguments.wheels, arguments.library)
    pairs = estimated_pairs(scans, real_heads(DATA)[:2], arguments.runs, arguments.seed)
    rows = resumed(pairs, arguments.output)
    print(
        "| pairs | n | pass | review | fail | inside: estimate, true mm | far: estimate, true mm |"
    )
    print("|---|---|---|---|---|---|---|")
    groups = defaultdict(list)
    for row in rows:
        groups[row["family"]].append(row)
    for name, group in groups.items():
        known = [r for r in group if r["verdict"] != "fail"]
        inside, far = (
            ", ".join(f"{np.median([r[k] for r in known]):.2f}" for k in keys) if known else "-"
            for keys in (("estimate_mm", "inside_mm"), ("estimate_far_mm", "far_mm"))
        )
        print(f"| {name} | {len(group)} | {counted(group)} | {inside} | {far} |")
    for what, kept in (
        ("not refused", [r for r in rows if r["verdict"] != "fail"]),
        ("passed", [r for r in rows if r["verdict"] == "pass"]),
    ):
        near = np.array([r["inside_mm"] / r["estimate_mm"] for r in kept])
        far = np.array([r["far_mm"] / r["estimate_far_mm"] for r in kept])
        below, under = ([f"{np.mean(r < k):.1%}" for r in (near, far)] for k in (2, 1))
        print(
            f"\n{len(kept)} of {len(rows)} pairs {what}: true error where both scans look, far end"
        )
        print(f"  below twice the estimate {', '.join(below)}; below it {', '.join(under)}")
        print(f"  worst {near.max():.2f}, {far.max():.2f} times the estimate")
        largest = [max(r[k] for r in kept) for k in ("inside_mm", "far_mm")]
        print(f"  largest {largest[0]:.1f}, {largest[1]:.1f} mm")


# --- stripped brains ----------------------------------------------------------------------------


def stripped(arguments: argparse.Namespace) -> None:
    """MR of which only the brain was kept, with CT, SPECT and PET: right pairs and wrong ones."""
    scans, points = library(arguments.wheels, arguments.library)
    pairs = stripped_pairs(scans, points, arguments)
    rows = [
        rejudged(row | {"kinds": row["kinds"].replace("CT-MR", "stripped")})
        for row in resumed(pairs, arguments.output)
    ]
    summary(rows)
    against(rows)
    for right in (True, False):
        ratios = [r["checks"]["mirrored"] for r in rows if r["right"] is right and r["checks"]]
        print(f"mirrored, {'right' if right else 'no right pose'}: {np.round(sorted(ratios), 2)}")


# --- left and right -----------------------------------------------------------------------------

SIDED = (
    "CT-T1", "CT-T2", "upper half CT", "upper half MR", "5 mm slices", "coronal", "sagittal",
    "holder", "no lower third", "RIRE", "RIRE cropped",
)  # fmt: skip


def sides(arguments: argparse.Namespace) -> None:
    """The check `mirrored` of right pairs of CT and MR, and with the sides of one exchanged."""
    scans, points = library(arguments.wheels, arguments.library)
    pairs = sided_pairs(scans, points, arguments.runs, arguments.seed)
    rows = resumed(pairs, arguments.output)
    print(
        "| pair | right: mirrored | pass, review, fail | exchanged: mirrored | pass, review, fail |"
    )
    print("|---|---|---|---|---|")
    for family in dict.fromkeys(row["family"] for row in rows):
        mine = [row for row in rows if row["family"] == family]
        cells = []
        for group in (mine[::2], mine[1::2]):
            values = [row["checks"]["mirrored"] for row in group if row["checks"]]
            verdicts = counted(group).replace(" | ", ", ")
            cells.append(
                f"{min(values, default=0):.2f} to {max(values, default=0):.2f} | {verdicts}"
            )
        print(f"| {family} | {' | '.join(cells)} |")


def sided_pairs(scans: dict[str, Scan], points: np.ndarray, runs: int, seed: int) -> Iterator[Pair]:
    """Right pairs, each followed by itself with the moving volume's sides exchanged."""
    real = real_heads(DATA)
    sample, given = sample_head(), templates()
    near = {
        "sample MRI, CT": (sample["MRI"], sample["CT"]),
        "templates": (given["T1"], given["CT"]),
    }
    for run in range(runs):
        for index, family in enumerate(SIDED):
            pair = make(family, scans, points, real, np.random.default_rng([seed, run, index]))
            yield from (pair, exchanged(pair))
        for family, (fixed, moving) in near.items():
            motion = Motion("", random_pose(np.random.default_rng([seed, run]), 30, 50))
            pair = Pair(family, fixed, moved(moving, motion), np.zeros((0, 3)), None)
            yield from (pair, exchanged(pair))


def exchanged(pair: Pair) -> Pair:
    """``pair`` with the moving volume's left and right exchanged."""
    axis = 1 + int(np.argmax(np.abs(pair.moving.affine.numpy()[0, :3])))
    mirror = MetaTensor(pair.moving.as_tensor().flip(axis), affine=pair.moving.affine)
    mirror.meta["source"] = pair.moving.meta["source"]
    return replace(pair, moving=mirror, moving_points=None)


# --- headers of one frame -----------------------------------------------------------------------


def headers(arguments: argparse.Namespace) -> None:
    """Whether the check of one frame's headers tells a patient who moved from one who did not.

    Of each pair and motion: how many of `--runs` directions are to be reviewed.
    """
    scans, _ = library(arguments.wheels, arguments.library)
    rows = header_rows(header_pairs(scans, real_heads(DATA)[:2], arguments.runs), arguments.output)
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["family"]][row["motion"]].append(row)
    names = list(next(iter(groups.values())))
    print(f"| pair | still: mm, information, mirrored | {' | '.join(names)} | CPU s |")
    print("|---" * (len(names) + 3) + "|")
    for family, motions in groups.items():
        (still,) = motions["0"]
        figures = f"{still['moved_mm']:.1f}, {still['better']:.2f}, {still['mirrored']:.2f}"
        reviewed = " | ".join(
            f"{sum(r['verdict'] == 'review' for r in motions[n])} of {len(motions[n])}"
            for n in names
        )
        cpu = np.median([r["cpu_s"] for some in motions.values() for r in some])
        print(f"| {family} | {figures} | {reviewed} | {cpu:.1f} |")
    for name in names:
        found = [r for motions in groups.values() for r in motions[name]]
        moved = [r["moved_mm"] for r in found]
        gains = [r["better"] for r in found]
        print(
            f"{name}: found {min(moved):.1f} to {max(moved):.1f} mm away, "
            f"information {min(gains):.2f} to {max(gains):.2f} times that of the headers"
        )


def header_rows(
    pairs: Iterator[tuple[str, Motion, MetaTensor, MetaTensor]], path: Path | None
) -> list[Row]:
    """A row for each of ``pairs``; those already in ``path`` are judged by the limits of today."""
    rows = recorded(path) if path and path.is_file() else []
    for index, (family, motion, fixed, moving) in enumerate(pairs):
        if index < len(rows):
            continue
        worked = time.process_time()
        pair = prepare_whole(fixed, moving)
        measures = measure_pose(pair, pair.headers)
        rows.append(
            {"family": family, "motion": motion.name}
            | {f.name: getattr(measures, f.name) for f in fields(measures) if f.name != "best"}
            | {"emission": Kind.EMISSION in (pair.fixed.kind, pair.moving.kind)}
            | {"cpu_s": time.process_time() - worked}
        )
        if path:
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    names = [f.name for f in fields(PoseMeasures) if f.name != "best"]
    for row in rows:
        measures = PoseMeasures(
            best=np.eye(4), **{name: row[name] for name in names if name in row}
        )
        checks = header_checks(measures, row["emission"])
        row["verdict"] = "pass" if all(check.passed for check in checks) else "review"
        row["better"] = next(check.value for check in checks if check.name == "better")
    return rows


# --- speed --------------------------------------------------------------------------------------


def speed(arguments: argparse.Namespace) -> None:
    """Seconds of elastix's one start (two threads) against a search from anywhere (one thread)."""
    print("| pair | run | elastix s (CPU s) | mmif s (CPU s) | elastix mm | mmif mm |")
    print("|---|---|---|---|---|---|")
    real = real_heads(DATA)[:2]
    truth, points = rire_truth(DATA), head_points(real[0])
    small = Pair("RIRE", *(s.in_frame(np.eye(4)) for s in real), points, apply(truth, points))
    large = Pair("512x512x400 and 256x256x180", *enlarged(small), points, apply(truth, points))
    for pair in (small, large):
        for number in range(arguments.runs):
            theirs, ours = run_elastix(pair), run(pair)
            print(
                f"| {pair.family} | {number} | {theirs['seconds']} ({theirs['cpu_s']}) | "
                f"{ours['seconds']} ({ours['cpu_s']}) | {theirs['error_mm']:.2f} | "
                f"{ours['error_mm']:.2f} |",
                flush=True,
            )


def enlarged(pair: Pair) -> list[MetaTensor]:
    """RIRE's volumes on grids as large as today's scanners make."""
    made = []
    for volume, shape in ((pair.fixed, (512, 512, 400)), (pair.moving, (256, 256, 180))):
        size = tuple(volume.shape[1:])
        fine = torch.nn.functional.interpolate(
            volume.as_tensor()[None], shape, mode="trilinear", align_corners=True
        )[0]
        scale = np.diag([*((np.array(size) - 1) / (np.array(shape) - 1)), 1.0])
        other = MetaTensor(fine, affine=torch.from_numpy(volume.affine.numpy() @ scale))
        other.meta["source"] = volume.meta["source"]
        made.append(other)
    return made


def run_elastix(pair: Pair) -> Row:
    """Debian's elastix on the pair: its seconds with reading, and its error."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for name, volume in (("fixed", pair.fixed), ("moving", pair.moving)):
            names.append(Path(folder) / f"{name}.nii")
            image = nibabel.Nifti1Image(volume[0].numpy(), volume.affine.numpy())
            nibabel.save(image, names[-1])
        parameters = Path(folder) / "parameters.txt"
        parameters.write_text(RECIPE.replace(") (", ")\n("))
        command = ["elastix", "-f", names[0], "-m", names[1], "-p", parameters, "-out", folder]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*map(str, command), "-threads", "2"], check=True, capture_output=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        text = (Path(folder) / "TransformParameters.0.txt").read_text()
    values, centre = (
        [float(v) for v in re.search(rf"\({key} ([^)]*)\)", text)[1].split()]
        for key in ("TransformParameters", "CenterOfRotationPoint")
    )
    x, y, z = values[:3]
    turn = Rotation.from_euler("yxz", [y, x, z]).as_matrix()  # ITK: Rz Rx Ry
    matrix = world_ras_lps(rigid(turn, np.array(values[3:]), np.array(centre)))
    return {
        "seconds": round(seconds, 1),
        "cpu_s": round(after.ru_utime - before.ru_utime, 1),
        "error_mm": pair.error_mm(matrix),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    jobs = {
        f.__name__: f
        for f in (
            rire,
            simulated,
            verdict,
            judge,
            limits,
            estimates,
            stripped,
            sides,
            headers,
            speed,
        )
    }
    for name, job in jobs.items():
        command = commands.add_parser(name)
        command.add_argument("--wheels", type=Path, default=Path("wheels"))
        command.add_argument("--library", type=Path, default=Path("library.npz"))
        command.add_argument("--runs", type=int, default=10)
        command.add_argument("--count", type=int, default=1000)
        command.add_argument("--seed", type=int, default=SEED)
        command.add_argument("-o", "--output", type=Path)
        command.set_defaults(job=job)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.job(arguments)


if __name__ == "__main__":
    main()
