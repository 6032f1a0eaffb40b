"""Training pairs from images or from studies: volumes registered and sliced by the fusion pipeline.

A folder of studies has one folder a study with both roles in it, told apart by their names (``ct``,
``mri.nii.gz``, ``case7_MR`` ...) or, in a folder of DICOM files, by their modality.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmif.config import Pipeline
from mmif.errors import InputError, MmifError
from mmif.studies.slice_pairs import pair_folders
from mmif.training.pairs import Pair, find_pairs

log = logging.getLogger(__name__)

WORDS = {"mri": "mri?|t[12]w?|flair", "ct": "ct", "spect": "spect|nm", "pet": "pet|pt"}


def find_training_pairs(pipeline: Pipeline, data: Path, cache: Path) -> list[Pair]:
    """The pairs in ``data``: images of equal names, else the slices of its studies.

    Args:
        cache: folder where the slices of studies are kept between trainings.

    Raises:
        MmifError: neither is there, or something there cannot be used.
    """
    studies = find_studies(pipeline.roles, data) if not _has_pairs(pipeline.task, data) else {}
    if not studies:
        return find_pairs(pipeline.task, data)
    return slice_studies(pipeline, studies, cache)


def find_studies(roles: tuple[str, ...], data: Path) -> dict[str, dict[str, Path]]:
    """Study name to role to path, of the folders in ``data`` that are studies.

    Raises:
        InputError: a folder has one of the roles by name, but not exactly one of each.
    """
    if not data.is_dir() or not set(roles) <= set(WORDS):
        return {}
    folders = sorted(p for p in data.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {folder.name: _inputs(roles, folder) for folder in folders}
    return {name: inputs for name, inputs in found.items() if inputs}


def slice_studies(
    pipeline: Pipeline, studies: Mapping[str, Mapping[str, Path]], cache: Path
) -> list[Pair]:
    """The slices of all studies as pairs; a study that is refused is left out with a warning.

    Raises:
        InputError: no study could be used.
    """
    from monai.data import PersistentDataset

    from mmif.training.slicing import StudySlicer

    recipe = hashlib.sha256(repr(_preparation(pipeline)).encode()).hexdigest()
    items = [
        {"study": name, "inputs": {r: str(p) for r, p in inputs.items()}, "recipe": recipe}
        | {"stamp": _stamp(inputs)}
        for name, inputs in studies.items()
    ]
    dataset = PersistentDataset(items, StudySlicer(pipeline), cache_dir=cache)
    pairs: list[Pair] = []
    for position, item in enumerate(items):
        try:
            stack = dataset[position]
        except RuntimeError as error:  # MONAI wraps what a transform raises
            if not isinstance(error.__cause__, MmifError):
                raise
            log.warning("study %s is left out: %s", item["study"], error.__cause__)
            continue
        pairs += _pairs(str(item["study"]), stack)
    if not pairs:
        raise InputError(f"none of {len(items)} studies could be registered and sliced")
    return pairs


def _has_pairs(task: str, data: Path) -> bool:
    try:
        pair_folders(task, data)
    except InputError:
        return False
    return True


def _inputs(roles: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Role to path in one study folder; none where it is no study."""
    named = {role: _named(role, folder) for role in roles}
    if not any(named.values()):
        holds_dicom = any(folder.rglob("*.dcm"))
        return dict.fromkeys(roles, folder) if holds_dicom else {}
    for role, paths in named.items():
        if len(paths) != 1:
            raise InputError(
                f"{folder}: found {len(paths)} entries named like {role.upper()}, expected one"
            )
    return {role: paths[0] for role, paths in named.items()}


def _named(role: str, folder: Path) -> list[Path]:
    pattern = re.compile(rf"(?<![a-z])({WORDS[role]})(?![a-z])", re.IGNORECASE)
    return sorted(p for p in folder.iterdir() if pattern.search(p.name))


def _preparation(pipeline: Pipeline) -> dict[str, Any]:
    """What of the pipeline decides the slices."""
    parts = asdict(pipeline)
    return {
        key: value for key, value in parts.items() if key not in ("network", "loss", "training")
    }


def _stamp(inputs: Mapping[str, Path]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the input files: a changed study is sliced again."""
    files = {f for p in inputs.values() for f in ([p] if p.is_file() else p.rglob("*"))}
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files) if f.is_file()]


def _pairs(study: str, stack: torch.Tensor) -> list[Pair]:
    anatomical, other = stack.numpy()
    return [
        Pair(f"{study} slice {number + 1}", study, a, b)
        for number, (a, b) in enumerate(zip(anatomical, other, strict=True))
    ]
