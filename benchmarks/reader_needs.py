"""What a reader needs of fused images: bright bone, black air, no ringing, true hues, no flicker.

    python benchmarks/reader_needs.py --task ct-mri --data DIR [--weights NAME | --fused DIR] [--cases 32,34]
    python benchmarks/reader_needs.py --volume OUT     # what `mmif fuse -o OUT` wrote, DICOM or NIfTI

Each figure stands beside its limit:

bone        fused brightness over the CT's, mean of the pixels where the CT is above 90 %
air         mean of the fused image where both sources are 0, in grey levels of 255
ringing     overshoot next to a synthetic skull, in % of the CT's step there (with shipped weights or
            --weights)
hue         median turn of the hue where source and fused image both have a colour, degrees
flicker     mean step of the slice brightness (the mean of a slice) between neighbouring slices of
            one case, over that of the source that steps more; and the same for the mean step of
            single pixels
"""  # fmt: skip  # noqa: E501

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from mmif.errors import MmifError
from mmif.io.dicom.write.values import FUSED_WHITE
from mmif.io.images import grey_of
from mmif.metrics import to_uint8
from mmif.roles import PAIR_TASKS, TASKS

BONE, AIR, RINGING, HUE, FLICKER = 0.85, 2.0, 3.0, 3.0, 1.1
CT_LEVELS = (0.0, 1.0, 0.35)  # air, skull, brain
EDGE = 96
CHROMA = 8  # grey levels: less colour than this has no hue to speak of


@dataclass(frozen=True)
class Sample:
    """Fused slices and their sources, uint8.

    Attributes:
        fused: (s, rows, columns) or (s, rows, columns, 3).
        anatomical: (s, rows, columns).
        other: (s, rows, columns).
        colour: (s, rows, columns, 3), the source of the colour, or None.
        neighbours: index pairs of slices that follow each other in one case.
    """

    task: str
    fused: np.ndarray
    anatomical: np.ndarray
    other: np.ndarray
    colour: np.ndarray | None
    neighbours: list[tuple[int, int]]

    @property
    def brightness(self) -> np.ndarray:
        return grey_of(self.fused) if self.colour is not None else self.fused


@dataclass(frozen=True)
class Figure:
    name: str
    value: float | None
    limit: float
    at_least: bool = False
    unit: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None or np.isnan(self.value):
            return "not measured"
        good = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "met" if good else "MISSED"


def bone(sample: Sample) -> Figure:
    marked = sample.other > 0.9 * 255
    ratio = sample.brightness[marked].mean() / sample.other[marked].mean() if marked.any() else None
    return Figure("bone over CT", ratio, BONE, at_least=True, note=f"{marked.mean():.1%} of pixels")


def air(sample: Sample) -> Figure:
    marked = (sample.anatomical == 0) & (sample.other == 0)
    level = float(sample.brightness[marked].mean()) if marked.any() else None
    return Figure("air", level, AIR, unit="/255", note=f"{marked.mean():.1%} of pixels")


def hue(sample: Sample) -> Figure:
    if sample.colour is None:
        return Figure("hue turn", None, HUE, note="no colour source")
    before, after = chroma(sample.colour), chroma(sample.fused)
    clear = (np.abs(before) > CHROMA) & (np.abs(after) > CHROMA)
    if not clear.any():
        return Figure("hue turn", None, HUE, note="the fused images have no colour")
    turn = np.abs(np.angle(after[clear] * before[clear].conj(), deg=True))
    note = f"{clear.mean():.1%} of pixels; 95th percentile {np.percentile(turn, 95):.1f}"
    return Figure("hue turn", float(np.median(turn)), HUE, unit=" deg", note=note)


def chroma(rgb: np.ndarray) -> np.ndarray:
    """U + iV of each pixel."""
    y = rgb @ np.array([0.299, 0.587, 0.114])
    return (rgb[..., 2] - y) / 1.772 + 1j * (rgb[..., 0] - y) / 1.402


def flicker(sample: Sample) -> list[Figure]:
    if not sample.neighbours:
        return [Figure("flicker", None, FLICKER, note="no neighbouring slices")]
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "flicker of slices": lambda a, b: abs(a.mean() - b.mean()),
        "flicker of pixels": lambda a, b: np.abs(a - b).mean(),
    }
    figures = []
    for name, measure in measures.items():
        fused, *sources = (
            np.mean([measure(stack[i].astype(float), stack[j]) for i, j in sample.neighbours])
            for stack in (sample.brightness, sample.anatomical, sample.other)
        )
        note = (
            f"steps: fused {fused:.2f}, anatomical {sources[0]:.2f}, other {sources[1]:.2f};"
            f" over their mean {fused / np.mean(sources):.2f}"
        )
        figures.append(Figure(name, fused / max(sources), FLICKER, note=note))
    return figures


def ringing(network: torch.nn.Module) -> list[Figure]:
    """Overshoot on both sides of the edges of a skull, in % of the CT's step there.

    The skull is a straight band, 8 and 64 pixels wide, between air and brain; in the MRI it is as
    bright as the brain (only the CT steps) or dark (both step, in opposite directions).
    """
    figures = []
    for name, mri_bone in {"ringing, CT alone": 0.5, "ringing, MRI dark": 0.05}.items():
        found = {}
        for width in (8, 64):
            profile = skull_profile(network, width, mri_bone)
            outer, inner, reach = EDGE, EDGE + width, min(12, width // 2)
            bone_outside, bone_inside = (
                profile[outer : outer + reach],
                profile[inner - reach : inner],
            )
            found[f"outer table of {width} pixels"] = overshoot(
                profile[outer - 12 : outer], bone_outside, CT_LEVELS[1] - CT_LEVELS[0]
            )
            found[f"inner table of {width} pixels"] = overshoot(
                profile[inner : inner + 12], bone_inside, CT_LEVELS[1] - CT_LEVELS[2]
            )
        worst = max(found, key=found.__getitem__)
        figures.append(Figure(name, found[worst], RINGING, unit=" %", note=worst))
    return figures


def overshoot(one: np.ndarray, other: np.ndarray, step: float) -> float:
    """By how much the sides of an edge leave their plateaus away from each other, % of ``step``."""
    low, high = sorted((one, other), key=np.median)
    beyond = max(np.median(low) - low.min(), high.max() - np.median(high))
    return float(100 * beyond / step)


def skull_profile(network: torch.nn.Module, width: int, mri_bone: float) -> np.ndarray:
    """The fused brightness across air, a skull of ``width`` pixels from ``EDGE``, and brain."""
    ct, mri = np.zeros((2, 256, 256), np.float32)
    for image, levels in ((ct, CT_LEVELS), (mri, (0.0, mri_bone, 0.5))):
        image[:, EDGE : EDGE + width], image[:, EDGE + width :] = levels[1:]
    return fused_profile(network, mri, ct)


def fused_profile(network: torch.nn.Module, mri: np.ndarray, ct: np.ndarray) -> np.ndarray:
    from mmif.networks.inference import fuse_slices

    fused, _ = fuse_slices(
        network,
        torch.from_numpy(mri)[None],
        torch.from_numpy(ct)[None],
        device="cpu",
        precision="fp32",
    )
    return fused[0, 100:156].mean(dim=0).double().numpy()


def from_pairs(arguments: argparse.Namespace) -> tuple[Sample, torch.nn.Module | None]:
    """The fused images of weights or of a folder, on the pairs of a data folder."""
    from mmif.config import load_pipeline
    from mmif.evaluation import choose_pairs, folder_method, weights_method
    from mmif.evaluation.methods import load_pair
    from mmif.studies.slice_files import find_slice_files
    from mmif.weights import load_weights

    task = arguments.task
    weights = None
    if arguments.fused is None:
        weights = load_weights(
            arguments.weights or load_pipeline(task).weights, TASKS[task].passes[-1]
        )
    cases = tuple(filter(None, (arguments.cases or "").split(",")))
    found = find_slice_files(task, arguments.data)
    selection = choose_pairs(found, cases, weights.card if weights else None)
    method = (
        weights_method(weights)
        if weights is not None
        else folder_method("fused", arguments.fused, selection.pairs)
    )
    print(f"{task}: {selection.reason}")
    pairs = [load_pair(files) for files in selection.pairs]
    size = pairs[0].images[0].size
    if any(pair.images[0].size != size for pair in pairs):
        raise MmifError(f"{arguments.data}: images of several sizes; expected slices of one size")
    source = TASKS[task].colour
    kept = None if source is None else TASKS[task].roles.index(source)
    colour = None
    if kept is not None:
        colour = np.stack([as_rgb(pair.images[kept].pixels) for pair in pairs])
    fused = method.fuse(pairs)
    if colour is not None:
        fused = [as_rgb(image) for image in fused]
    sample = Sample(
        task,
        np.stack(fused),
        np.stack([pair.images[0].grey for pair in pairs]),
        np.stack([pair.images[1].grey for pair in pairs]),
        colour,
        neighbours([(pair.files.case, pair.files.name) for pair in pairs]),
    )
    return sample, weights.network if weights else None


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)


def neighbours(slices: list[tuple[str, str]]) -> list[tuple[int, int]]:
    """Index pairs of (case, name) whose slice numbers, the last three digits, follow each other."""

    def number(name: str) -> int:
        digits = Path(name).stem[-3:]
        return int(digits) if digits.isdecimal() else -10

    steps = pairwise(enumerate(slices))
    return [
        (i, j)
        for (i, (case, name)), (j, (other, following)) in steps
        if case == other and number(following) == number(name) + 1
    ]


def from_volume(output: Path) -> tuple[Sample, torch.nn.Module | None]:
    """What `mmif fuse` wrote to ``output``, and its sources brought to the same grid again.

    With the network of the same weights, where these are shipped ones.
    """
    from mmif.config import Pipeline, build
    from mmif.fusion import fusion_transforms
    from mmif.io import load
    from mmif.transforms.colour import shown, shown_brightness
    from mmif.transforms.fuse import FuseSlicesd
    from mmif.transforms.register import RegisterToReferenced
    from mmif.transforms.slices import to_slices
    from mmif.transforms.step import study_of

    fused_path, summary_path = written(output)
    if not summary_path.is_file():
        raise MmifError(f"{output}: no {summary_path.name}, expected an output of mmif fuse")
    summary = json.loads(summary_path.read_text(encoding="utf-8"))
    pipeline = build(Pipeline, summary["pipeline"], str(summary_path))
    volumes = {
        item["role"]: load(Path(item["path"]), role=item["role"], series_uid=item["series_uid"])
        for item in summary["inputs"]
    }
    reference = summary["reference"]
    moving = next(role for role in volumes if role != reference)
    transform = np.array(summary["registration"]["fixed_to_moving_lps"])
    registration = SimpleNamespace(fixed_to_moving_lps=transform)

    def use_registration(data: dict) -> dict:
        return {**data, "study": replace(study_of(data), registrations={moving: registration})}

    steps = fusion_transforms(pipeline).exchange(RegisterToReferenced, use_registration)
    data = steps.up_to(FuseSlicesd)(volumes)
    grid = study_of(data).grid
    anatomical, other = (data[role] for role in pipeline.roles)
    fused = np.asarray(load(fused_path))  # (channels, X, Y, Z)
    if fused.shape[1:] != tuple(grid.shape):
        raise MmifError(f"{output}: fused volume of {fused.shape}, expected {grid.shape}")
    if fused.max() > 1:  # grey DICOM
        fused = fused / FUSED_WHITE
    colour = None
    colour_map = study_of(data).sources[pipeline.roles[-1]].colour_map
    if colour_map is not None:
        colour = to_uint8(shown(other, colour_map).numpy().transpose(3, 2, 1, 0))
    pixels = to_uint8(fused.transpose(3, 2, 1, 0))  # (s, rows, columns, channels)
    print(f"{summary['task']}: {output}, {pixels.shape[0]} slices")
    sample = Sample(
        summary["task"],
        pixels if colour is not None else pixels[..., 0],
        to_uint8(to_slices(anatomical).numpy()),
        to_uint8(to_slices(shown_brightness(other, colour_map)).numpy()),
        colour,
        list(pairwise(range(pixels.shape[0]))),
    )
    return sample, same_network(summary["fusion"]["weights"])


def written(output: Path) -> tuple[Path, Path]:
    """The fused volume and the summary that `mmif fuse -o OUTPUT` wrote."""
    if output.is_dir():
        nifti = output / "fused.nii.gz"
        return nifti if nifti.exists() else output / "fused", output / "summary.json"
    name = output.name.removesuffix(".gz").removesuffix(".nii")
    return output, output.with_name(f"{name}.json")


def same_network(weights: dict[str, str]) -> torch.nn.Module | None:
    """The network of the shipped weights that have the name and sha256 of ``weights``."""
    from mmif.weights import list_weights, load_weights

    known = {(status.name, status.sha256) for status in list_weights()}
    if (weights["name"], weights["sha256"]) not in known:
        return None
    return load_weights(weights["name"]).network


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=sorted(PAIR_TASKS), default="ct-mri")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--fused", type=Path)
    parser.add_argument("--cases")
    parser.add_argument("--volume", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.volume is None):
        parser.error("expected --data or --volume")
    try:
        sample, network = from_pairs(arguments) if arguments.data else from_volume(arguments.volume)
        figures = [air(sample), hue(sample), *flicker(sample)]
        if sample.task == "ct-mri":
            figures.insert(0, bone(sample))
            if network is not None:
                figures[2:2] = ringing(network)
    except MmifError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:.3f}{figure.unit}"
        sign = ">=" if figure.at_least else "<="
        limit = f"{sign} {figure.limit:g}{figure.unit}"
        print(f"{figure.name:18} {value:>12}  {limit:>10}  {figure.verdict:12}  {figure.note}")
    if arguments.json:
        rows = {f.name: {"value": f.value, "limit": f.limit, "met": f.verdict} for f in figures}
        arguments.json.write_text(json.dumps(rows, indent=2, default=float) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
