"""Activity laid over the CT of other heads: pairs for tasks that no given data has.

The public slices have SPECT and PET with MRI, and CT with MRI, but no activity with CT. Each CT
slice gets an activity slice of the same relative height, of a case that the seed chooses; the head
that its MRI shows is stretched to that of the CT. What the two have in common is the outline alone,
as in life: nothing of the activity can be guessed from the CT. Names and cases are those of the CT,
so that a split by case holds.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage

from mmif.config import Pipeline
from mmif.errors import InputError
from mmif.images import join_grey
from mmif.io.images import Pixels, grey_of, read_image
from mmif.metrics import to_uint8
from mmif.roles import TASKS
from mmif.studies.slice_files import SliceFiles, find_slice_files, slice_folders
from mmif.training.pairs import Grey, Pair, find_pairs
from mmif.training.scanner import as_volume, noise
from mmif.training.targets import with_truth
from mmif.transforms.colour import shown_brightness
from mmif.weights import Weights

HEAD = 20
"""Grey levels of 255: what is brighter belongs to the head (the air of the slices is 0 to 8)."""

AS_HEAD, AS_BODY = (0.0, 0.75, 1.0), (0.2625, 0.4875, 0.948)
"""-20, 100 and 1000 HU behind the window of a head and behind that of a body (`pipelines`). No CT
of a body is given, so each slice is shown in both ways."""

NOISE = 0.02
"""Up to 3 HU behind a head's window, 11 HU behind a body's."""

SPECT_RANGE = (40.0, 220.0)
"""Brightness of no activity (teal, around the head) and of the hottest pixels of the given SPECT,
whose palette grows brighter all along."""

PET_KNOTS = (0.3, 0.75)
"""The given PET's palette: blue grows to the first, then red (and green), then green falls."""


def has_parts(task: str, data: Path) -> bool:
    """Whether ``task`` is of a CT and an activity, and ``data`` has each of them with MRI."""
    activity = TASKS[task].activity
    if activity is None or "ct" not in TASKS[task].roles:
        return False
    try:
        for part in ("ct-mri", f"{activity}-mri"):
            slice_folders(part, data)
    except InputError:
        return False
    return True


def lay_activity(pipeline: Pipeline, data: Path, grey: Weights | None = None) -> list[Pair]:
    """Each CT slice of ``data`` with the activity of some other head.

    Args:
        pipeline: of a CT and an activity, or of both with an MRI; its seed chooses whose.
        data: with CT-MRI and SPECT-MRI or PET-MRI pairs.
        grey: with an MRI, the weights of the first pass.

    Raises:
        InputError: images that cannot be used.
    """
    activity = TASKS[pipeline.task].activity
    random = np.random.default_rng(pipeline.training.seed)
    donors = _by_case(find_slice_files(f"{activity}-mri", data))
    pairs = []
    for slices in _by_case(with_truth(find_pairs("ct-mri", data))).values():
        for place, head in enumerate(slices):
            for shown, anatomy in _anatomies(head, grey, random):
                donor = donors[str(random.choice(sorted(donors)))]
                files = donor[round(place / max(len(slices) - 1, 1) * (len(donor) - 1))]
                laid = _activity(files, head.other, activity == "pet")
                pairs.append(Pair(f"{head.name}{shown}", head.case, anatomy, laid))
    return pairs


class _Placed(Protocol):
    """Anything of a case."""

    @property
    def case(self) -> str: ...


P = TypeVar("P", bound=_Placed)


def _by_case(placed: Iterable[P]) -> dict[str, list[P]]:
    """Those of each case, feet first."""
    cases: dict[str, list[P]] = defaultdict(list)
    for one in placed:
        cases[one.case].append(one)
    return cases


def _anatomies(
    pair: Pair, grey: Weights | None, random: np.random.Generator
) -> Iterator[tuple[str, Grey]]:
    """What lies below the activity, and what is said of it behind the slice's name."""
    if grey is not None:
        yield "", join_grey(grey.network, pair.anatomical[None], pair.other[None])[0]
        return
    clean = pair.other if pair.clean is None else pair.clean
    unit = (clean / 255).astype(np.float32)
    volume, _ = as_volume(unit, pair.parenchyma, random)
    for shown, knots in ((" as a head", AS_HEAD), (" as a body", AS_BODY)):
        noisy = np.interp(volume, AS_HEAD, knots) + noise(volume.shape, random, NOISE)
        yield shown, to_uint8(np.where(volume > 0, noisy, 0))


def _activity(donor: SliceFiles, ct: Grey, rainbow: bool) -> Grey:
    """The brightness of the activity of ``donor``, its head stretched to that of ``ct``."""
    mri, shown = (read_image(path).pixels for path in donor.paths)
    level = Image.fromarray(np.float32(_level(shown, rainbow)))
    own, wanted = _box(grey_of(mri)), _box(ct)
    scale = [(o[1] - o[0]) / max(w[1] - w[0], 1) for o, w in zip(own, wanted, strict=True)]
    (top, _), (left, _) = own
    (to_top, _), (to_left, _) = wanted
    matrix = (scale[1], 0, left - scale[1] * to_left, 0, scale[0], top - scale[0] * to_top)
    rows, columns = ct.shape
    laid = level.transform(
        (columns, rows), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    unit = torch.from_numpy(np.array(laid))[None]
    return to_uint8(shown_brightness(unit, "activity")[0].numpy())


def _level(shown: Pixels, rainbow: bool) -> npt.NDArray[np.float64]:
    """The activity, 0..1, that the palettes of the given SPECT and PET show."""
    if not rainbow or shown.ndim == 2:
        return np.interp(grey_of(shown), SPECT_RANGE, (0.0, 1.0))
    red, green, blue = np.moveaxis(shown / 255.0, -1, 0)
    first, second = PET_KNOTS
    hot = second + (1 - second) * (1 - green)
    warm = np.where(red < 1, first + (second - first) * red, hot)
    return np.asarray(np.where(red > 0, warm, first * blue))


def _box(grey: Grey) -> list[tuple[int, int]]:
    """First and last row and column of the head; the whole picture where there is none."""
    parts, count = ndimage.label(grey > HEAD)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    head = parts == 1 + int(np.argmax(sizes)) if count else parts == 0  # no holder, no table
    used = [np.flatnonzero(head.any(axis=axis)) for axis in (1, 0)]
    return [(int(line[0]), int(line[-1])) for line in used]
