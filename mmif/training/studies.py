"""Training pairs from images or from studies: volumes registered and sliced by the fusion pipeline.

Studies are found as `mmif batch` finds them: in a folder tree, or by a list.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmif.config import Pipeline
from mmif.errors import InputError, MmifError
from mmif.images import join_grey, load_grey
from mmif.roles import VOLUME_ROLES, label
from mmif.studies.discover import find_studies
from mmif.studies.slice_files import slice_folders
from mmif.studies.study import Input, Study, unique_names
from mmif.training.laid_over import has_parts, lay_activity
from mmif.training.pairs import Pair, find_pairs
from mmif.weights import Weights

log = logging.getLogger(__name__)


def find_training_pairs(pipeline: Pipeline, data: Path, cache: Path) -> list[Pair]:
    """The pairs in ``data``: images of equal names, else the slices of its studies.

    Args:
        pipeline: what the pairs are of, and how studies become slices.
        data: a folder of images a role, a folder tree of studies, or a CSV or JSON list of them;
            for an activity with a CT also the pairs of each with an MRI (`lay_activity`).
        cache: folder where the slices of studies are kept between trainings.

    Raises:
        MmifError: neither is there, or something there cannot be used.
    """
    first = pipeline.grey_weights
    grey = None if first is None else load_grey(first, pipeline.task)
    if _has_images(pipeline.task, data) or not set(pipeline.roles) <= set(VOLUME_ROLES):
        return find_pairs(pipeline.task, data, grey)
    if has_parts(pipeline.task, data):
        log.warning("no images of %s in the data: activity is laid over other CT", pipeline.task)
        return lay_activity(pipeline, data, grey)
    studies = training_studies(pipeline.roles, data)
    if not studies:
        return find_pairs(pipeline.task, data, grey)
    return slice_studies(pipeline, studies, cache, grey)


def training_studies(roles: Sequence[str], data: Path) -> list[Study]:
    """The studies in ``data`` that have all ``roles``; what is left out is said, and why.

    Raises:
        InputError: nothing there, or a list that is not right.
    """
    found, rejected = find_studies(data)
    for one in rejected:
        log.warning("study %s is left out: %s", one.id, one.reason)
    usable = []
    for study in unique_names(found):
        lacking = [role for role in roles if role not in study.inputs]
        if not lacking:
            usable.append(study)
            continue
        why = [study.problems.get(role, f"no {label(role)}") for role in lacking]
        log.warning("study %s is left out: %s", study.name, "; ".join(why))
    return usable


def slice_studies(
    pipeline: Pipeline, studies: Sequence[Study], cache: Path, grey: Weights | None = None
) -> list[Pair]:
    """The slices of all studies as pairs; a study that is refused is left out with a warning.

    Args:
        pipeline: how studies become slices.
        studies: with a source for each role of the pipeline.
        cache: folder where the slices are kept.
        grey: of three sources the weights of the first pass.

    Raises:
        InputError: no study could be used.
    """
    from monai.data import PersistentDataset

    from mmif.training.slicing import StudySlicer

    recipe = hashlib.sha256(repr(_preparation(pipeline)).encode()).hexdigest()
    items = [_item(pipeline.roles, study, recipe) for study in studies]
    dataset = PersistentDataset(
        items,
        StudySlicer(pipeline),
        cache_dir=cache,
        weights_only=True,  # a file in the cache is data: nothing in it is run
    )
    pairs: list[Pair] = []
    for position, study in enumerate(studies):
        try:
            slices = dataset[position]
        except RuntimeError as error:  # MONAI wraps what a transform raises
            if not isinstance(error.__cause__, MmifError):
                raise
            log.warning("study %s is left out: %s", study.name, error.__cause__)
            continue
        for warning in slices["warnings"]:
            log.warning("study %s: %s", study.name, warning)
        pairs += _pairs(study.name, slices["stack"].numpy(), grey)
    if not pairs:
        raise InputError(f"none of {len(items)} studies could be registered and sliced")
    return pairs


def _has_images(task: str, data: Path) -> bool:
    try:
        slice_folders(task, data)
    except InputError:
        return False
    return True


def _item(roles: Sequence[str], study: Study, recipe: str) -> dict[str, Any]:
    """What one study is sliced of, and what its slices in the cache are known by."""
    inputs = {role: study.inputs[role] for role in roles}
    return {
        "study": study.name,
        "inputs": {role: str(source.path) for role, source in inputs.items()},
        "series_uid": {role: s.series_uid for role, s in inputs.items() if s.series_uid},
        "recipe": recipe,
        "stamp": _stamp(inputs),
    }


def _preparation(pipeline: Pipeline) -> dict[str, Any]:
    """What of the pipeline decides the slices."""
    parts = asdict(pipeline)
    return {
        key: value for key, value in parts.items() if key not in ("network", "loss", "training")
    }


def _stamp(inputs: Mapping[str, Input]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the input files: a changed study is sliced again."""
    files = sorted({path for source in inputs.values() for path in source.paths()})
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]


def _pairs(study: str, stack: npt.NDArray[np.uint8], grey: Weights | None) -> list[Pair]:
    """The slices of a study, (roles, slices, rows, columns), as the pairs of the last pass."""
    *anatomies, other = stack
    joined = anatomies[0] if grey is None else join_grey(grey.network, *anatomies)
    return [
        Pair(f"{study} slice {number + 1}", study, a, b)
        for number, (a, b) in enumerate(zip(joined, other, strict=True))
    ]
