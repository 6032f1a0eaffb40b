"""Pairs that say one frame of reference, one of them off by a known motion.

Scanners' pairs are not given: the templates of MNI space are averages of different people, the
sample head, RIRE and the simulated scans lie where their truth puts them, the chest is drawn.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from body import section
from monai.data import MetaTensor
from registration_pairs import DATA, Said, Scan, rire_truth
from scipy.spatial.transform import Rotation

from mmif.geometry import FLIP_XY, Matrix, apply, rigid
from mmif.io import load

SAMPLE = Path(__file__).parent.parent / "sample_data"
SHIFTS_MM = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 25.0)
TURNS_DEG = (3.0, 5.0)
WAYS = np.concatenate([np.eye(3), -np.eye(3)])
"""To the right, front and top, and back: shifts along them, turns about them."""


@dataclass(frozen=True, eq=False)
class Motion:
    """What was done to the second volume: in words, and as a pose (RAS mm)."""

    name: str
    pose: Matrix


def motions(centre_ras: np.ndarray, ways: int) -> Iterator[Motion]:
    """None, shifts and turns in ``ways`` of the six `WAYS`, left and right exchanged."""
    yield Motion("0", np.eye(4))
    for way in WAYS[np.linspace(0, 5, ways).astype(int)]:
        for mm in SHIFTS_MM:
            yield Motion(f"{mm:g} mm", rigid(np.eye(3), mm * way, np.zeros(3)))
        for degrees in TURNS_DEG:
            turn = Rotation.from_rotvec(np.radians(degrees) * way).as_matrix()
            yield Motion(f"{degrees:g} deg", rigid(turn, np.zeros(3), centre_ras))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * centre_ras[0]
    yield Motion("mirrored", mirror)


def hounsfield(cormack: np.ndarray) -> np.ndarray:
    """HU of the units of the clinical toolbox (its ``clinical_h2c.m``), undone.

    -1000 to -100 HU are 0 to 900, -100 to 100 HU elevenfold up to 3100, bone lies above.
    """
    soft = (cormack - 900) / 11 - 100
    return np.where(cormack < 900, cormack - 1000, np.where(cormack < 3100, soft, cormack - 3000))


def placed(volume: MetaTensor, modality: str, to_frame: Matrix | None = None) -> MetaTensor:
    """``volume`` of ``modality``, brought into the pair's frame by ``to_frame`` (RAS mm)."""
    to_frame = np.eye(4) if to_frame is None else to_frame
    affine = torch.from_numpy(to_frame @ volume.affine.numpy())
    made = MetaTensor(volume.as_tensor(), affine=affine)
    made.meta["source"] = Said(modality)
    return made


def templates() -> dict[str, MetaTensor]:
    """The CT, T1, PET and SPECT of MNI space."""
    folder = DATA / "volumes"
    made = {
        name: placed(load(folder / "spm12_templates" / f"{name}.nii"), modality)
        for name, modality in (("T1", "MR"), ("PET", "PT"), ("SPECT", "NM"))
    }
    ct = load(folder / "clinical_ct_template" / "scct.nii")
    units = torch.from_numpy(hounsfield(ct.numpy()).astype(np.float32))
    return made | {"CT": placed(MetaTensor(units, affine=ct.affine), "CT")}


def sample_head() -> dict[str, MetaTensor]:
    """The sample's CT, MRI and SPECT, where its truth puts them in the MRI's frame."""
    truth = json.loads((SAMPLE / "truth.json").read_text())
    to_ct, to_spect = (FLIP_XY @ np.array(truth[f"mri_to_{r}"]) @ FLIP_XY for r in ("ct", "spect"))
    return {
        "CT": placed(load(SAMPLE / "ct"), "CT", np.linalg.inv(to_ct)),
        "MRI": placed(load(SAMPLE / "mri.nii.gz"), "MR"),
        "SPECT": placed(load(SAMPLE / "spect.dcm"), "NM", np.linalg.inv(to_spect)),
    }


def drawn_chest() -> tuple[MetaTensor, MetaTensor]:
    """CT and PET of the chest of `body`, 300 mm of it, in voxels of 3 and 4 mm."""
    rng = np.random.default_rng(0)
    made = []
    for pixels, step_mm, which, modality in ((160, 3.0, 0, "CT"), (125, 4.0, 1, "PT")):
        line = (np.arange(pixels) - (pixels - 1) / 2) * step_mm
        x, y = np.meshgrid(line, line)
        heights_mm = np.arange(300.0, 600.0, step_mm)
        values = np.stack([section(z / 1500, x, y)[which] for z in heights_mm])
        noisy = values + rng.normal(0, 12, values.shape) if which == 0 else rng.poisson(40 * values)
        affine = np.diag([-step_mm, -step_mm, -step_mm, 1.0])
        affine[:3, 3] = -x.min(), -y.min(), -heights_mm[0]
        array = np.ascontiguousarray(noisy.transpose(2, 1, 0), dtype=np.float32)
        volume = MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))
        made.append(placed(volume, modality))
    return made[0], made[1]


def header_pairs(
    scans: dict[str, Scan], real: list[Scan], ways: int
) -> Iterator[tuple[str, Motion, MetaTensor, MetaTensor]]:
    """Family, what was done to the second volume, both volumes.

    The given templates are moved in ``ways`` of the six `WAYS`, the others in half as many.
    """
    given, sample, none = templates(), sample_head(), np.eye(4)

    def simulated(*names: str) -> tuple[MetaTensor, ...]:
        return tuple(scans[name].in_frame(none) for name in names)

    families: dict[str, Callable[[], tuple[MetaTensor, ...]]] = {
        "given CT, PET": lambda: (given["CT"], given["PET"]),
        "given PET, CT": lambda: (given["PET"], given["CT"]),
        "given CT, SPECT": lambda: (given["CT"], given["SPECT"]),
        "given T1, PET": lambda: (given["T1"], given["PET"]),
        "given T1, SPECT": lambda: (given["T1"], given["SPECT"]),
        "sample CT, SPECT": lambda: (sample["CT"], sample["SPECT"]),
        "sample MRI, SPECT": lambda: (sample["MRI"], sample["SPECT"]),
        "sample MRI, CT": lambda: (sample["MRI"], sample["CT"]),
        "simulated CT, PET": lambda: simulated("ct", "pet"),
        "simulated CT, SPECT": lambda: simulated("ct", "spect"),
        "simulated T1, SPECT": lambda: simulated("t1", "spect"),
        "simulated T1, T2": lambda: simulated("t1", "t2"),
        "RIRE": lambda: (real[0].in_frame(rire_truth(DATA)), real[1].in_frame(none)),
        "drawn chest CT, PET": drawn_chest,
    }
    for family, make in families.items():
        fixed, moving = make()
        middle = apply(moving.affine.numpy(), (np.array(moving.shape[1:]) - 1) / 2)
        for motion in motions(middle, ways if family.startswith("given") else max(1, ways // 2)):
            yield family, motion, fixed, moved(moving, motion)


def moved(volume: MetaTensor, motion: Motion) -> MetaTensor:
    """``volume`` somewhere else, its modality kept."""
    return placed(volume, volume.meta["source"].modality, motion.pose)
