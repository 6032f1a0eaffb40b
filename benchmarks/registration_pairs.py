"""Pairs of volumes with known truth: right ones of every kind, and ones that have no right pose.

A library of scans is simulated once and kept in a folder; a pair takes two of them and gives
each a frame of its own. What is wrong on purpose is done to the second one.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from heads import CT, PET, SPECT, T1, Head, Scanner, bent, random_pose, scan, simulated_head
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mmif.geometry import apply, rigid, spacing_mm, world_ras_lps
from mmif.io import load
from mmif.io.transform_files import read_transform

DATA = Path(os.environ.get("MMIF_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

FEW_POINTS = 400
CORONAL = Scanner((200, 170, 60), (1.2, 1.2, 3.2), "coronal", noise=2.5, bias=0.2)
SAGITTAL = Scanner((210, 170, 54), (1.2, 1.2, 3.2), "sagittal", noise=2.5, bias=0.2)
THICK = Scanner((200, 200, 30), (1.2, 1.2, 5.0), noise=2.5, bias=0.2)
CT_THICK = Scanner((200, 200, 30), (1.2, 1.2, 5.0), noise=14)
PROTOCOLS = {
    "ct": ("hu", CT),
    "ct5": ("hu", CT_THICK),
    "t1": ("t1", T1),
    "t2": ("t2", T1),
    "cor": ("t1", CORONAL),
    "sag": ("t1", SAGITTAL),
    "t1_5": ("t1", THICK),
    "spect": ("activity", SPECT),
    "pet": ("activity", PET),
}
MODALITY = {"ct": "CT", "ct5": "CT", "spect": "NM", "pet": "PT"}


@dataclass(frozen=True)
class Said:
    """What a reader knows of a volume; stands in for `mmif.io.source.Source`."""

    modality: str
    frame_of_reference_uid: None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """One simulated scan, in the frame of its head."""

    name: str
    head: int
    values: np.ndarray
    affine: np.ndarray

    def in_frame(self, head_to_scan: np.ndarray) -> MetaTensor:
        """The volume in a frame of its own."""
        volume = MetaTensor(
            torch.from_numpy(self.values.astype(np.float32))[None],
            affine=torch.from_numpy(head_to_scan @ self.affine),
        )
        volume.meta["source"] = Said(MODALITY.get(self.name, "MR"))
        return volume


def library(wheels: Path, file: Path) -> tuple[dict[str, Scan], np.ndarray]:
    """All scans by protocol, and (n, 3) points of the brain; made once and kept in ``file``."""
    if not file.is_file():
        np.savez(file, **simulated_scans(simulated_head(wheels)))
    with np.load(file) as stored:
        scans = {
            name: Scan(name, 0, stored[f"{name}_values"], stored[f"{name}_affine"])
            for name in PROTOCOLS
        }
        return scans, stored["points"]


def simulated_scans(head: Head) -> dict[str, np.ndarray]:
    """The voxels and affines of every protocol, and points of the brain."""
    rng = np.random.default_rng(0)
    made = {}
    for name, (what, scanner) in PROTOCOLS.items():
        volume = scan(
            head, what, scanner, np.eye(4), rng.integers(1 << 30), tilt_deg=rng.uniform(-8, 8, 3)
        )
        values = volume[0].numpy() * (50 if what == "activity" else 1)
        made[f"{name}_values"] = np.round(values).astype(np.int16)
        made[f"{name}_affine"] = volume.affine.numpy()
    brain = np.argwhere(head.brain)
    made["points"] = apply(head.affine, brain[rng.integers(0, len(brain), FEW_POINTS)])
    return made


@dataclass(frozen=True, eq=False)
class Pair:
    """Two volumes, and where the brain's points lie in both (None where no pose is right)."""

    family: str
    fixed: MetaTensor
    moving: MetaTensor
    fixed_points: np.ndarray
    moving_points: np.ndarray | None

    def error_mm(self, fixed_to_moving_ras: np.ndarray) -> float:
        """Mean distance over the brain; infinite where no pose is right."""
        if self.moving_points is None:
            return float("inf")
        return float(self.errors_mm(fixed_to_moving_ras).mean())

    def errors_mm(self, fixed_to_moving_ras: np.ndarray) -> np.ndarray:
        """(n,) the distance at each point."""
        gap = apply(fixed_to_moving_ras, self.fixed_points) - self.moving_points
        return np.linalg.norm(gap, axis=1)

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) which points lie in both fields of view, and which in either."""
        a, b = seen_by(self.fixed, self.fixed_points), seen_by(self.moving, self.moving_points)
        return a & b, a | b


def seen_by(volume: MetaTensor, points: np.ndarray) -> np.ndarray:
    """(n,) which of ``points`` (n, 3) RAS mm lie in the field of view of ``volume``."""
    voxels = apply(np.linalg.inv(volume.affine.numpy()), points)
    return ((voxels >= -0.5) & (voxels <= np.array(volume.shape[1:]) - 0.5)).all(axis=1)


def framed(
    family: str,
    a: Scan,
    b: Scan,
    points: np.ndarray,
    rng: np.random.Generator,
    right: bool = True,
    turn: np.ndarray | None = None,
) -> Pair:
    """Both scans in frames of their own: up to 50 mm and 30 degrees apart, after ``turn``."""
    to_a, to_b = random_pose(rng, 5, 10), random_pose(rng, 30, 50)
    to_b = to_b if turn is None else to_b @ turn
    return Pair(
        family,
        a.in_frame(to_a),
        b.in_frame(to_b),
        apply(to_a, points),
        apply(to_b, points) if right else None,
    )


def another(s: Scan, person: int, strength: float) -> Scan:
    """The same scan of another person."""
    outside = float(s.values.min())
    values = bent(s.values, s.affine, outside, person, strength)
    return Scan(s.name, 1 + person, values, s.affine)


def cropped(s: Scan, axis: int, low: float, high: float) -> Scan:
    """``s`` with only the part from ``low`` to ``high`` (0..1) along a voxel axis."""
    n = s.values.shape[axis]
    first, last = int(low * n), max(int(low * n) + 3, int(high * n))
    cut = np.take(s.values, range(first, min(last, n)), axis)
    shift = np.eye(4)
    shift[axis, 3] = first
    return Scan(s.name, s.head, cut, s.affine @ shift)


def mirrored(s: Scan) -> Scan:
    """``s`` with left and right exchanged: what a wrong sign in a header does."""
    axis = int(np.argmax(np.abs(s.affine[0, :3])))
    return Scan(s.name, s.head, np.flip(s.values, axis).copy(), s.affine)


def half_turn(axis: int) -> np.ndarray:
    """The object turned by 180 degrees about a patient axis."""
    turn = -np.eye(3)
    turn[axis, axis] = 1
    return rigid(turn, np.zeros(3), np.array([0.0, -16.0, 18.0]))


def with_holder(s: Scan) -> Scan:
    """A CT with a head holder under the head and a table below it."""
    i, j, k = (np.arange(n) for n in s.values.shape)
    places = np.stack(np.meshgrid(i, j, k, indexing="ij"), axis=-1)
    x, y, _ = np.moveaxis(apply(s.affine, places), -1, 0)
    shell = np.abs(np.hypot(x / 1.0, (y + 18) / 1.15) - 104) < 2.5
    holder = shell & (y < -50)
    table = (np.abs(y + 138) < 4) & (np.abs(x) < 150)
    values = np.where((holder | table) & (s.values < -500), 150, s.values)
    return Scan(s.name, s.head, values.astype(np.int16), s.affine)


def padded(s: Scan, value: int) -> Scan:
    """A CT with ``value`` outside the round field of view."""
    i, j, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in s.values.shape), indexing="ij")
    return Scan(s.name, s.head, np.where(np.hypot(i, j) > 1, value, s.values), s.affine)


def noise_only(s: Scan, rng: np.random.Generator) -> Scan:
    """Noise with the values of ``s``, shuffled."""
    return Scan(s.name, s.head, rng.permutation(s.values.ravel()).reshape(s.values.shape), s.affine)


def real_heads(data: Path) -> list[Scan]:
    """Real heads of different people from the test data; RIRE's CT and MR, one head, come first."""
    volumes = data / "volumes"
    sources = [
        ("ct", 100, volumes / "rire_training_001" / "training_001_ct_on_mr_grid.nii.gz"),
        ("t1", 100, volumes / "rire_training_001" / "training_001_mr_T1.nii.gz"),
        ("t1", 101, volumes / "spm12_templates" / "single_subj_T1.nii"),
        ("t1", 102, data / "dicom" / "ctk_mrhead_coronal"),
        ("ct", 103, data / "dicom" / "slicer_cthead_64"),
        ("t1", 104, data / "dicom" / "papaya_oblique_pd"),
        ("t1", 105, data / "dicom" / "dcm_qa_frag_jpll"),
        ("t1", 106, volumes / "spm12_templates" / "T1.nii"),
    ]
    found = []
    for name, head, path in sources:
        volume = load(path)
        found.append(Scan(name, head, volume[0].numpy(), volume.affine.numpy().astype(float)))
    return found


def rire_truth(data: Path) -> np.ndarray:
    """The gold standard, CT point to MR point, RAS mm."""
    folder = data / "volumes" / "rire_training_001"
    return world_ras_lps(read_transform(folder / "training_001_ct_to_mr_T1_ground_truth.tfm"))


def head_points(ct: Scan) -> np.ndarray:
    """(n, 3) RAS mm of the CT: a 10 mm grid inside the head, skin and all."""
    body = np.argwhere(ndimage.binary_fill_holes(ct.values > -200))
    places = np.unique(np.round(apply(ct.affine, body) / 10), axis=0) * 10
    voxels = np.round(apply(np.linalg.inv(ct.affine), places)).astype(int)
    inside = np.zeros(ct.values.shape, bool)
    inside[tuple(body.T)] = True
    size = np.array(ct.values.shape)
    keep = ((voxels >= 0) & (voxels < size)).all(axis=1)
    keep[keep] = inside[tuple(voxels[keep].T)]
    return places[keep]


def rire_pair(
    family: str, real: list[Scan], rng: np.random.Generator, ct_fixed: bool | None = None
) -> Pair:
    """The real CT and MR of RIRE from a random start, either one as fixed; parts cut away."""
    ct, mr = real[0], real[1]
    points, truth = head_points(ct), rire_truth(DATA)
    if family == "RIRE cropped":
        ct = cropped(ct, 2, rng.uniform(0, 0.3), rng.uniform(0.8, 1))
        mr = cropped(mr, int(rng.integers(3)), rng.uniform(0, 0.25), rng.uniform(0.8, 1))
    to_a, to_b = random_pose(rng, 5, 10), random_pose(rng, 30, 50)
    if bool(rng.integers(2)) if ct_fixed is None else ct_fixed:
        return Pair(
            family,
            ct.in_frame(to_a),
            mr.in_frame(to_b),
            apply(to_a, points),
            apply(to_b @ truth, points),
        )
    return Pair(
        family,
        mr.in_frame(to_a),
        ct.in_frame(to_b),
        apply(to_a @ truth, points),
        apply(to_b, points),
    )


def slab(s: Scan, thick_mm: float, rng: np.random.Generator) -> Scan:
    """``thick_mm`` of the head in ``s`` along its slices, anywhere between vertex and neck."""
    step_mm = np.linalg.norm(s.affine[:3, 2])
    head = (s.values > (-200 if s.name.startswith("ct") else 30)).mean(axis=(0, 1)) > 0.05
    ends_mm = np.flatnonzero(head)[[0, -1]] * step_mm
    start_mm = rng.uniform(ends_mm[0] + 10, ends_mm[1] - thick_mm - 10)
    whole_mm = len(head) * step_mm
    return cropped(s, 2, start_mm / whole_mm, (start_mm + thick_mm) / whole_mm)


def noisier(s: Scan, deviation: float, rng: np.random.Generator) -> Scan:
    """``s`` with more noise: Gaussian in a CT, Rician in an MR."""
    first, second = rng.normal(0, deviation, (2, *s.values.shape))
    values = s.values + first if s.name.startswith("ct") else np.hypot(s.values + first, second)
    return Scan(s.name, s.head, values, s.affine)


def biased(s: Scan, strength: float) -> Scan:
    """An MR whose brightness falls off by ``strength`` from one side of the coil to the other."""
    i, _, k = (np.linspace(-1, 1, n) for n in s.values.shape)
    field = 1 + strength * (0.7 * i[:, None, None] + 0.5 * k - 0.2)
    return Scan(s.name, s.head, np.clip(s.values * field, 0, None), s.affine)


def counted_again(s: Scan, most: float, rng: np.random.Generator) -> Scan:
    """SPECT or PET of so few counts that its brightest voxel holds ``most`` of them."""
    expected = np.clip(s.values / s.values.max(), 0, None) * most
    return Scan(s.name, s.head, rng.poisson(expected), s.affine)


def gantry_tilted(s: Scan, rng: np.random.Generator) -> Scan:
    """A slab of 60 mm whose slices lie 15 to 25 degrees off: its ends are cut obliquely."""
    tilt = Rotation.from_euler("x", rng.uniform(15, 25) * rng.choice([-1, 1]), degrees=True)
    middle = apply(s.affine, (np.array(s.values.shape) - 1) / 2)
    affine = rigid(tilt.as_matrix(), np.zeros(3), middle) @ s.affine
    to_voxel = np.linalg.inv(s.affine) @ affine
    values = ndimage.affine_transform(
        s.values.astype(np.float32), to_voxel[:3, :3], to_voxel[:3, 3], order=1, mode="nearest"
    )
    return slab(Scan(s.name, s.head, values, affine), 60, rng)


ESTIMATED = {
    "CT slab 32 mm": lambda s, r: (slab(s["ct"], 32, r), s[("t1", "t2")[r.integers(2)]]),
    "CT slab 40 mm": lambda s, r: (slab(s["ct"], 40, r), s[("t1", "t2")[r.integers(2)]]),
    "CT slab 60 mm": lambda s, r: (slab(s["ct"], 60, r), s[("t1", "t2")[r.integers(2)]]),
    "MR slab 40 mm": lambda s, r: (s["ct"], slab(s["t1"], 40, r)),
    "T2 slab with T1": lambda s, r: (s["t1"], slab(s["t2"], 40, r)),
    "tilted slab": lambda s, r: (gantry_tilted(s["ct"], r), s["t1"]),
    "5 mm slab": lambda s, r: (slab(s["ct5"], 40, r), s["t1_5"]),
    "5 mm slices": lambda s, r: (s["ct5"], s["t1_5"]),
    "noise": lambda s, r: (noisier(s["ct"], 60, r), noisier(s["t1"], 12, r)),
    "bias": lambda s, r: (s["ct"], biased(s["t1"], 0.7)),
    "low counts": lambda s, r: (s["t1"], counted_again(s["spect"], r.uniform(10, 50), r)),
    "SPECT-CT": lambda s, r: (s["ct"], s["spect"]),
    "PET-CT": lambda s, r: (s["ct"], s["pet"]),
    "SPECT with CT slab": lambda s, r: (slab(s["ct"], 60, r), s["spect"]),
}
"""Family to the two scans of a pair, of the library and a generator."""


def estimated_pairs(
    scans: dict[str, Scan], real: list[Scan], runs: int, seed: int
) -> Iterator[Pair]:
    """``runs`` pairs of each of `ESTIMATED`, and as many slabs of RIRE's real CT; known poses."""
    points = head_points(scans["ct"])
    for index, (family, make_scans) in enumerate(ESTIMATED.items()):
        for run in range(runs):
            rng = np.random.default_rng([seed, index, run])
            yield framed(family, *make_scans(scans, rng), points, rng)
    points, truth = head_points(real[0]), rire_truth(DATA)
    for thick_mm in (32, 40, 60, 200):
        for run in range(runs):
            rng = np.random.default_rng([seed, thick_mm, run])
            ct = slab(real[0], thick_mm, rng) if thick_mm < 100 else real[0]
            to_a, to_b = random_pose(rng, 5, 10), random_pose(rng, 30, 50)
            yield Pair(
                f"RIRE slab {thick_mm} mm" if thick_mm < 100 else "RIRE",
                ct.in_frame(to_a),
                real[1].in_frame(to_b),
                apply(to_a, points),
                apply(to_b @ truth, points),
            )


def kept(s: Scan, brain: np.ndarray, brain_affine: np.ndarray) -> Scan:
    """``s`` with nothing left outside of ``brain`` (X, Y, Z)."""
    to_voxel = np.linalg.inv(brain_affine) @ s.affine
    share = ndimage.affine_transform(
        brain.astype(np.float32), to_voxel[:3, :3], to_voxel[:3, 3], s.values.shape, order=1
    )
    return Scan(s.name, s.head, np.where(share > 0.5, s.values, 0), s.affine)


def rire_stripped(real: list[Scan], less_mm: float) -> Scan:
    """RIRE's MR with what its CT's skull closes around, by the gold standard, ``less_mm`` of it."""
    ct, mr = real[0], real[1]
    spacing = spacing_mm(ct.affine)
    reach = max(1, round(5 / spacing[0]))
    cavity = np.zeros(ct.values.shape, bool)
    for k in range(ct.values.shape[2]):
        bone = np.pad(ct.values[..., k] > 250, reach)
        shell = ndimage.binary_closing(bone, iterations=reach)
        parts, count = ndimage.label(ndimage.binary_fill_holes(shell) & ~shell)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        if count and sizes.max() * spacing[0] * spacing[1] > 3000:
            cavity[..., k] = (parts == 1 + sizes.argmax())[reach:-reach, reach:-reach]
    cavity = ndimage.distance_transform_edt(cavity, sampling=spacing) > less_mm
    return kept(mr, cavity, rire_truth(DATA) @ ct.affine)


def own_brain(mr: Scan) -> np.ndarray:
    """(X, Y, Z) of an MR the brain by its own brightness alone, with some of what lies about it.

    A threshold, opened by 7 mm, its largest part: what no CT has seen.
    """
    steps = spacing_mm(mr.affine)
    smooth = ndimage.gaussian_filter(mr.values.astype(np.float32), [1 / step for step in steps])
    bright = smooth > 0.45 * np.percentile(smooth, 98)
    parts, _ = ndimage.label(ndimage.distance_transform_edt(bright, sampling=steps) > 7)
    core = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    grown = ndimage.distance_transform_edt(~core, sampling=steps) <= 7.5
    return np.stack([ndimage.binary_fill_holes(part) for part in grown.transpose(2, 0, 1)], axis=2)


def pierced(brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``brain`` (X, Y, Z), 1 mm, with 25 round holes of 3 to 9 mm radius."""
    places = np.argwhere(brain)
    whole = np.ones(brain.shape, bool)
    for place in places[rng.integers(0, len(places), 25)]:
        low = np.maximum(place - 9, 0)
        part = tuple(slice(a, b) for a, b in zip(low, place + 10, strict=True))
        away = np.indices(whole[part].shape).transpose(1, 2, 3, 0) - (place - low)
        whole[part] &= np.linalg.norm(away, axis=-1) > rng.uniform(3, 9)
    return brain & whole


def with_eyes_and_neck(brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """``brain`` (X, Y, Z) with what a mask that leaked keeps: both eyes, and the neck."""
    x, y, z = np.moveaxis(apply(affine, np.indices(brain.shape).transpose(1, 2, 3, 0)), -1, 0)
    leaked = (z < -55) & (np.hypot(x, y + 40) < 40)
    for side in (-33, 33):
        leaked |= np.sqrt((x - side) ** 2 + (y - 58) ** 2 + (z + 38) ** 2) < 13
    return brain | leaked


def otherwise_emptied(s: Scan, background: float, normalised: bool) -> Scan:
    """A stripped MR whose surroundings have another value; ``normalised``: mean 0, deviation 1."""
    brain = s.values != 0
    values = s.values.astype(np.float32)
    if normalised:
        values = (values - values[brain].mean()) / values[brain].std()
    return Scan(s.name, s.head, np.where(brain, values, background), s.affine)


def stripped_pairs(
    scans: dict[str, Scan], points: np.ndarray, arguments: argparse.Namespace
) -> Iterator[Pair]:
    """Stripped MR with CT, SPECT and PET; RIRE's; and kinds that have no right pose."""
    head = simulated_head(arguments.wheels, arguments.library.with_name("head.npz"))
    rng = np.random.default_rng(arguments.seed)
    brain = ndimage.binary_dilation(head.brain, iterations=2)
    t1, t2 = (kept(scans[name], brain, head.affine) for name in ("t1", "t2"))
    ct, mirror = scans["ct"], mirrored(scans["ct"])
    tight, leaked = head.brain, with_eyes_and_neck(brain, head.affine)
    right = {
        "CT, stripped T1": (ct, t1),
        "stripped T1, CT": (t1, ct),
        "stripped T2, CT": (t2, ct),
        "stripped T1, 5 mm CT": (t1, scans["ct5"]),
        "stripped T1, SPECT": (t1, scans["spect"]),
        "stripped T1, PET": (t1, scans["pet"]),
        "brain alone, CT": (kept(scans["t1"], tight, head.affine), ct),
        "with holes, CT": (kept(scans["t1"], pierced(brain, rng), head.affine), ct),
        "background -1000, CT": (otherwise_emptied(t1, -1000, False), ct),
        "mean 0, background 0, CT": (otherwise_emptied(t1, 0, True), ct),
        "eyes and neck kept, CT": (kept(scans["t1"], leaked, head.affine), ct),
        "eyes and neck kept, SPECT": (kept(scans["t1"], leaked, head.affine), scans["spect"]),
    }
    real = real_heads(DATA)[:2]
    places = apply(real[0].affine, np.argwhere(real[0].values > 20)[::5003])
    of_rire = {f"RIRE, {mm:g} mm less": rire_stripped(real, mm) for mm in (0.0, 2.0, 4.0)}
    of_rire["RIRE, by itself"] = kept(real[1], own_brain(real[1]), real[1].affine)
    for run in range(arguments.runs):
        rng = np.random.default_rng([arguments.seed, run])
        for family, (a, b) in right.items():
            yield framed(family, a, b, points, rng)
        for family, mr in of_rire.items():
            to_a, to_b = random_pose(rng, 5, 10), random_pose(rng, 30, 50)
            yield Pair(
                family,
                mr.in_frame(to_a),
                real[0].in_frame(to_b),
                apply(to_a @ rire_truth(DATA), places),
                apply(to_b, places),
            )
        other = another(ct, int(rng.integers(1 << 30)), rng.uniform(0.7, 1.5))
        wrong = {
            "wrong patient, T1": (t1, other),
            "wrong patient, T2": (t2, other),
            "mirrored, T1": (t1, mirror),
            "mirrored, T2": (t2, mirror),
            "RIRE mirrored": (of_rire["RIRE, 0 mm less"], mirrored(real[0])),
            "RIRE's brain, another CT": (of_rire["RIRE, 0 mm less"], ct),
        }
        for family, (a, b) in wrong.items():
            yield framed(family, a, b, points, rng, right=False)


RIGHT = [
    ("CT-T1", 14), ("T1-CT", 8), ("CT-T2", 6), ("T1-T2", 8), ("SPECT-T1", 8), ("T1-SPECT", 4),
    ("PET-T1", 4), ("holder", 6), ("padding", 3), ("upper half CT", 4), ("upper half MR", 3),
    ("5 mm slices", 4), ("coronal", 4), ("sagittal", 4), ("turned", 6), ("no lower third", 4),
    ("RIRE", 8), ("RIRE cropped", 6),
]  # fmt: skip
WRONG = [
    ("wrong patient CT-T1", 14), ("wrong patient T1-T2", 6), ("wrong patient SPECT-T1", 4),
    ("wrong real head", 6), ("mirrored CT", 6), ("mirrored T1", 4), ("noise", 3), ("empty", 1),
    ("thin crop", 5), ("side crop", 4), ("no overlap", 3), ("half wrong", 4),
]  # fmt: skip


def stream(
    scans: dict[str, Scan], points: np.ndarray, real: list[Scan], count: int, seed: int
) -> Iterator[Pair]:
    """``count`` pairs; their families in the proportions of `RIGHT` and `WRONG`."""
    names = [n for n, weight in RIGHT + WRONG for _ in range(weight)]
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        yield make(names[rng.integers(len(names))], scans, points, real, rng)


def make(
    family: str,
    scans: dict[str, Scan],
    points: np.ndarray,
    real: list[Scan],
    rng: np.random.Generator,
) -> Pair:
    """One pair of ``family``."""
    get = scans
    mr = get[("t1", "t2")[rng.integers(2)]]
    person, strength = int(rng.integers(1 << 30)), rng.uniform(0.7, 1.5)
    simple = {
        "CT-T1": ("ct", "t1"), "T1-CT": ("t1", "ct"), "CT-T2": ("ct", "t2"), "T1-T2": ("t1", "t2"),
        "SPECT-T1": ("spect", "t1"), "T1-SPECT": ("t1", "spect"), "PET-T1": ("pet", "t1"),
        "5 mm slices": ("ct5", "t1_5"), "coronal": ("ct", "cor"), "sagittal": ("ct", "sag"),
    }  # fmt: skip
    if family in simple:
        return framed(family, *(get[n] for n in simple[family]), points, rng)
    if family == "holder":
        return framed(family, mr, with_holder(get["ct"]), points, rng)
    if family == "padding":
        return framed(family, mr, padded(get["ct"], int(rng.choice([-2000, -3024]))), points, rng)
    if family == "upper half CT":
        return framed(family, mr, cropped(get["ct"], 2, 0.5, 1), points, rng)
    if family == "upper half MR":
        return framed(family, get["ct"], cropped(mr, 2, 0.5, 1), points, rng)
    if family == "no lower third":
        part = cropped(get["ct"], 2, rng.uniform(0.1, 0.35), 1)
        return framed(family, cropped(mr, 2, 0, rng.uniform(0.75, 1)), part, points, rng)
    if family == "turned":
        return framed(family, get["ct"], mr, points, rng, turn=half_turn(int(rng.integers(3))))
    if family == "wrong patient CT-T1":
        a, b = (
            (get["ct"], another(get["t1"], person, strength))
            if rng.integers(2)
            else (another(get["ct"], person, strength), get["t1"])
        )
        return framed(family, a, b, points, rng, right=False)
    if family == "wrong patient T1-T2":
        return framed(
            family, get["t1"], another(get["t2"], person, strength), points, rng, right=False
        )
    if family == "wrong patient SPECT-T1":
        return framed(
            family, another(get["spect"], person, strength), get["t1"], points, rng, right=False
        )
    if family == "wrong real head":
        while True:
            a, b = (real[n] for n in rng.choice(len(real), 2, replace=False))
            if a.head != b.head:
                return framed(family, a, b, points, rng, right=False)
    if family.startswith("RIRE"):
        return rire_pair(family, real, rng)
    if family == "mirrored CT":
        return framed(family, mirrored(get["ct"]), mr, points, rng, right=False)
    if family == "mirrored T1":
        return framed(family, get["t1"], mirrored(get["t2"]), points, rng, right=False)
    if family == "noise":
        return framed(family, get["ct"], noise_only(mr, rng), points, rng, right=False)
    if family == "empty":
        none = Scan("t1", 0, np.zeros_like(mr.values), mr.affine)
        return framed(family, get["ct"], none, points, rng, right=False)
    if family == "thin crop":
        start = rng.uniform(0.1, 0.8)
        return framed(family, get["ct"], cropped(mr, 2, start, start + 0.1), points, rng)
    if family == "side crop":
        return framed(family, cropped(get["ct"], 0, 0, 0.4), cropped(mr, 1, 0, 0.45), points, rng)
    if family == "no overlap":
        return framed(
            family, cropped(get["ct"], 2, 0, 0.3), cropped(mr, 2, 0.7, 1), points, rng, False
        )
    if family == "half wrong":
        return framed(
            family,
            cropped(another(get["ct"], person, strength), 2, 0.5, 1),
            get["t1"],
            points,
            rng,
            right=False,
        )
    raise ValueError(family)
