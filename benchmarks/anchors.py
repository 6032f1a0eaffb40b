"""What a reader still sees in the slices that another method fused, behind mmif's windows.

    python benchmarks/anchors.py --ct CT --mri MRI --slices DIR [--every 2]
    python benchmarks/anchors.py --ct CT --mri MRI --fused THEIRS=DIR [--fused ...] [--every 2]
    python benchmarks/anchors.py --ct CT --mri MRI --command THEIRS='python x.py {slices} {fused}'

The first line registers, resamples and windows as `mmif fuse` does, and writes the slices that its
network would be shown: ``DIR/CT`` and ``DIR/MRI``, 8-bit PNG of equal names. ``slice*`` are the
volume's; ``drawn*`` are four of them again with findings drawn into one source each. The folder is
a ``--data`` of `mmif evaluate` as well. The second line measures what another method made of them,
in PNG of the same names; the third runs the method itself on such a folder. Printed beside what
the shipped weights and the three simple rules make of the same slices: the figures of
`mmif.transforms.readability`, and the share of each finding's contrast that the fused slice keeps.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy import ndimage

from mmif.config import load_pipeline
from mmif.errors import InputError, MmifError
from mmif.evaluation.baselines import BASELINES, Stack
from mmif.fusion import fusion_transforms
from mmif.io.images import read_image
from mmif.metrics import to_uint8
from mmif.networks.inference import fuse_slices
from mmif.result import RegisteredSource
from mmif.transforms.brain import find_brain
from mmif.transforms.head import head_mask
from mmif.transforms.intensity import ScaleToUnitd
from mmif.transforms.readability import BRAIN_TOP, CT_RANGE, readability
from mmif.transforms.slices import to_slices
from mmif.transforms.step import study_of
from mmif.weights import load_weights

Spacing = tuple[float, float, float]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

COLUMNS = {
    "mri_gain": "MRI gain",
    "mri_correlation": "correlation",
    "not_mri": "not MRI",
    "ct_gain": "CT gain",
    "bone": "bone",
    "bleed": "bleed",
    "calcification": "calcification",
    "infarct": "infarct",
    "bright": "bright lesion",
    "dark": "dark lesion",
}
WIDTH = max(map(len, COLUMNS.values())) + 1

FINDINGS = {
    "infarct": ("ct", -10.0, 12.0),
    "bleed": ("ct", 30.0, 6.0),
    "bright": ("mri", 0.20, 5.0),
    "dark": ("mri", -0.25, 5.0),
    "calcification": ("ct", 150.0, 2.5),
}
"""What is drawn, as acute findings look: its source, HU or share of the value, and radius in mm."""

PLAIN, DRAWN = "slice", "drawn"
"""How the files of slices without and with findings are called."""

DRAWN_SLICES = 4
"""So many slices have findings, evenly spread over those with room for them."""

RIM_MM, APART_MM = 4.0, 10.0
"""A finding stands this far inside of the brain, and from the next one."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One finding in one slice.

    Attributes:
        kind: a key of `FINDINGS`.
        number: the slice of the volume that it is drawn into.
        spot: (X, Y), its weight, 0..1, with an edge of 1 mm.
        core: (X, Y), where it is measured.
    """

    kind: str
    number: int
    spot: Floats
    core: Mask


@dataclass(frozen=True, eq=False)
class Slices:
    """What the methods are shown, and what their slices are measured against.

    Attributes:
        mri: file name to (rows, columns) uint8: slices of the volume, and some with findings.
        ct: likewise.
        sources: the registered volumes (1, X, Y, slices of the volume).
        spacing: mm between voxels of them.
        findings: what is drawn, and by how much its source changes there as a reader would see it.
    """

    mri: dict[str, Stack]
    ct: dict[str, Stack]
    sources: Mapping[str, RegisteredSource]
    spacing: Spacing
    findings: list[tuple[Finding, float]]

    def write(self, folder: Path) -> None:
        """``folder/CT`` and ``folder/MRI``, a PNG a slice."""
        for role, images in (("CT", self.ct), ("MRI", self.mri)):
            (folder / role).mkdir(parents=True, exist_ok=True)
            for name, pixels in images.items():
                Image.fromarray(pixels).save(folder / role / name)

    def read(self, folder: Path) -> dict[str, Stack]:
        """The fused slices in ``folder``.

        Raises:
            InputError: one is missing, or of another size.
        """
        fused = {name: read_image(folder / name).grey for name in self.ct}
        for name, pixels in fused.items():
            (rows, columns), (r, c) = self.ct[name].shape, pixels.shape
            if (r, c) != (rows, columns):
                raise InputError(
                    f"{folder / name}: found {r} x {c} pixels, expected {rows} x {columns}"
                )
        return fused

    def fuse(self, rule: Callable[[Stack, Stack], Stack]) -> dict[str, Stack]:
        """What a rule for two stacks, the MRI's and the CT's, makes of them."""
        mri, ct = (np.stack(list(images.values())) for images in (self.mri, self.ct))
        return dict(zip(self.ct, rule(mri, ct), strict=True))

    def figures(self, fused: Mapping[str, Stack]) -> dict[str, float]:
        """`readability` of fused slices, and the mean share that findings of a kind keep."""
        of_volume = [pixels for name, pixels in fused.items() if name.startswith(PLAIN)]
        volume = np.stack(of_volume, -1).swapaxes(0, 1)[None] / 255
        kept: dict[str, list[float]] = {kind: [] for kind in FINDINGS}
        for one, change in self.findings:
            plain, drawn = (fused[file_name(kind, one.number)] for kind in (PLAIN, DRAWN))
            seen = (drawn.astype(float) - plain)[one.core.T].mean() / 255
            kept[one.kind].append(seen / change)
        means = {kind: float(np.mean(shares)) for kind, shares in kept.items()}
        return readability(volume, self.sources, self.spacing) | means


def file_name(kind: str, number: int) -> str:
    return f"{kind}{number:03d}.png"


def prepare(arguments: argparse.Namespace) -> Slices:
    """The slices as the network of `mmif fuse` would be shown them, and those with findings."""
    given = {} if arguments.transform is None else {"transform": arguments.transform}
    steps = fusion_transforms("ct-mri", register=arguments.register, **given)
    data = steps.up_to(ScaleToUnitd)({"ct": arguments.ct, "mri": arguments.mri})
    scale, study = steps.find(ScaleToUnitd), study_of(data)
    x, y, z = study.grid.spacing_mm
    spacing = (x, y, z * arguments.every)
    numbers = range(0, study.grid.shape[-1], arguments.every)
    sources = {role: every(source, arguments.every) for role, source in study.sources.items()}
    brain = brain_of(sources, spacing)
    findings = places(brain, spacing[:2], numbers)
    changed = {**data, **{role: draw(data[role], role, findings) for role in sources}}
    images: dict[str, dict[str, Stack]] = {}
    changes: dict[str, Floats] = {}
    for role, source in sources.items():
        plain, drawn = (to_uint8(to_slices(scale(one)[role]).numpy()) for one in (data, changed))
        images[role] = {file_name(PLAIN, n): plain[n] for n in numbers}
        images[role] |= {file_name(DRAWN, one.number): drawn[one.number] for one in findings}
        top = float(np.percentile(source.values[0].numpy()[brain], 99)) / BRAIN_TOP
        low, high = CT_RANGE if role == "ct" else (0.0, top)
        before, after = (one[role][0].numpy().clip(low, high) for one in (data, changed))
        changes[role] = (after - before) / (high - low)
    measured = [
        (one, float(changes[FINDINGS[one.kind][0]][..., one.number][one.core].mean()))
        for one in findings
    ]
    return Slices(images["mri"], images["ct"], sources, spacing, measured)


def every(source: RegisteredSource, step: int) -> RegisteredSource:
    """``source`` with every ``step``-th slice."""
    some = slice(None, None, step)
    head = None if source.head is None else source.head[..., some]
    coverage = source.coverage.part(some)
    return replace(source, values=source.values[..., some], coverage=coverage, head=head)


def draw(volume: MetaTensor, role: str, findings: Sequence[Finding]) -> MetaTensor:
    """``volume`` (1, X, Y, Z) of a role with the findings that are its own."""
    drawn = volume.clone()
    for one in findings:
        owner, amount, _ = FINDINGS[one.kind]
        if owner == role:
            plane = drawn[0, ..., one.number]
            spot = torch.from_numpy(one.spot).float()
            plane += spot * (amount if role == "ct" else amount * plane)
    return drawn


def brain_of(sources: Mapping[str, RegisteredSource], spacing: Spacing) -> Mask:
    """(X, Y, Z): the brain, as `mmif.transforms.readability` finds it."""
    covered = np.all([s.coverage[0].numpy() > 0.99 for s in sources.values()], axis=0)
    head = head_mask(sources["mri"].values)[0].numpy().astype(bool) & covered
    return find_brain(sources["ct"].values[0].numpy().astype(float), head, covered, spacing)


def places(brain: Mask, spacing: tuple[float, float], numbers: Sequence[int]) -> list[Finding]:
    """One finding of each kind in each of a few slices, none near another.

    Raises:
        InputError: no slice has room for all of them.
    """
    tried = (in_slice(brain[..., k], spacing, number) for k, number in enumerate(numbers))
    roomy = [found for found in tried if len(found) == len(FINDINGS)]
    if not roomy:
        raise InputError("the brain has no room for the findings in any slice")
    chosen = {int((i + 0.5) * len(roomy) / DRAWN_SLICES) for i in range(DRAWN_SLICES)}
    return [one for i in sorted(chosen) for one in roomy[i]]


def in_slice(brain: Mask, spacing: tuple[float, float], number: int) -> list[Finding]:
    """The findings that have room in one slice (X, Y), at places drawn by the slice's number."""
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing)[1:-1, 1:-1]
    grid = np.stack(np.indices(brain.shape), -1) * np.array(spacing)
    free, random = np.full(brain.shape, np.inf), np.random.default_rng(number)
    found: list[Finding] = []
    for kind, (_, _, radius) in FINDINGS.items():
        room = np.argwhere((depth > radius + RIM_MM) & (free > radius + APART_MM))
        if not len(room):
            break
        centre = room[random.integers(len(room))] * np.array(spacing)
        distance = np.linalg.norm(grid - centre, axis=-1)
        free = np.minimum(free, distance - radius)
        spot = np.clip(radius - distance + 0.5, 0, 1)
        found.append(Finding(kind, number, spot, distance < 0.8 * radius - 0.4))
    return found


def by_mmif(mri: Stack, ct: Stack) -> Stack:
    """What the shipped weights make of 8-bit slices."""
    network = load_weights(load_pipeline("ct-mri").weights, "ct-mri").network
    sides = (torch.from_numpy(stack).float() / 255 for stack in (mri, ct))
    return to_uint8(fuse_slices(network, *sides, device="cpu", precision="fp32")[0].numpy())


def by_command(slices: Slices, command: str) -> dict[str, Stack]:
    """What ``command`` makes of them, in a folder of its own.

    Raises:
        InputError: it fails, or leaves a slice out.
    """
    with tempfile.TemporaryDirectory() as folder:
        shown, fused = Path(folder) / "slices", Path(folder) / "fused"
        slices.write(shown)
        fused.mkdir()
        done = subprocess.run(shlex.split(command.format(slices=shown, fused=fused)), check=False)
        if done.returncode:
            raise InputError(f"{command}: exit status {done.returncode}, expected 0")
        return slices.read(fused)


def named(value: str) -> tuple[str, str]:
    """NAME=VALUE in two."""
    name, sign, rest = value.partition("=")
    if not (name and sign and rest):
        raise argparse.ArgumentTypeError(f"{value!r}: expected NAME=VALUE")
    return name, rest


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--mri", type=Path, required=True)
    parser.add_argument("--transform", type=Path, help="as of mmif fuse")
    parser.add_argument("--no-register", dest="register", action="store_false")
    parser.add_argument("--every", type=int, default=1, help="take every N-th slice only")
    parser.add_argument("--slices", type=Path, help="write what the methods are to be shown")
    parser.add_argument("--fused", type=named, action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--command", type=named, action="append", default=[], metavar="NAME=LINE")
    arguments = parser.parse_args()
    try:
        slices = prepare(arguments)
        if arguments.slices is not None:
            slices.write(arguments.slices)
            print(f"{arguments.slices}: {len(slices.ct)} slices of CT and MRI")
            return 0
        fused = {name: slices.read(Path(folder)) for name, folder in arguments.fused}
        fused |= {name: by_command(slices, line) for name, line in arguments.command}
        fused |= {name: slices.fuse(rule) for name, rule in {"mmif": by_mmif, **BASELINES}.items()}
    except MmifError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{len(slices.ct)} slices\n{'':18}" + "".join(f"{c:>{WIDTH}}" for c in COLUMNS.values()))
    for name, images in fused.items():
        figures = slices.figures(images)
        print(f"{name:18}" + "".join(f"{figures.get(k, np.nan):{WIDTH}.3f}" for k in COLUMNS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
