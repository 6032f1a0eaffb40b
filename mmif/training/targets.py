"""What a reader should see of a CT and an MRI slice: the target of the training.

The MRI in full, what the CT shows of the brain that departs from its parenchyma (a bleed, a
calcification, an infarct), and bone as the CT has it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mmif.training.pairs import Grey, Pair

Image = npt.NDArray[np.float32]

STRENGTH, FAINT = 1.6, 0.05
"""Fused brightness for one unit of the CT's departure beyond what is faint. The volume window gives
soft tissue 0.75 of the range: 30 HU are shown as 0.22, nearly as a plain window of 120 HU would; up
to 8 HU are not shown: grey and white matter, 4 HU apart and shown by the MRI, and the noise of a CT
(RIRE's is 0.02), which at 0.03 makes 0.43 of `not_mri` where 0.40 is wanted."""

DARK_LIMIT = 0.07
"""Departures below the parenchyma level off here: an infarct (-10 HU is -0.06) is shown nearly in
full, while cerebrospinal fluid (-30 HU), which the MRI shows in its own way, does not undo it."""

DARK_STRENGTH = 1.3
"""The same for departures below the parenchyma, faint ones included: at 1.7 an infarct is
kept to 0.59 on RIRE and `not_mri` is 0.46, at 1.3 to 0.53 and 0.40."""

NO_TISSUE = 0.06
"""The CT's window ends here: fat and air below it say nothing about tissue."""

BONE = (0.78, 0.88)
"""Between these values of the CT the fused slice goes over from the MRI to bone (the window of
volumes has 200 and 570 HU there; the training slices saturate)."""

EMPTY_MRI = 0.03
"""Where the MRI is darker than this all around, it shows nothing and the CT stands alone."""

AROUND = 6.0
"""Pixels of the Gaussian that says how dark the MRI is around a place."""

LEVELS = (40, 200)
"""Grey levels of 255 between which the parenchyma of the training slices lies (measured: 82 to
165)."""


def reader_target(mri: Image, ct: Image, parenchyma: float) -> Image:
    """What the fused slice of a clean pair should be, (rows, columns) in 0..1.

    Args:
        mri, ct: (rows, columns) in 0..1, without noise.
        parenchyma: the value of the brain in ``ct``.
    """
    departure = ct - parenchyma
    dark = -DARK_LIMIT * np.tanh(np.minimum(departure, 0) / -DARK_LIMIT)
    dark = dark * np.clip(ct / NO_TISSUE - 1, 0, 1)
    tissue = mri + STRENGTH * np.maximum(departure - FAINT, 0) + DARK_STRENGTH * dark
    around = ndimage.gaussian_filter(mri, AROUND, mode="nearest")
    seen = np.clip(2 * around / EMPTY_MRI - 1, 0, 1)
    tissue = seen * tissue + (1 - seen) * np.maximum(ct, mri)
    bone = np.clip((ct - BONE[0]) / (BONE[1] - BONE[0]), 0, 1)
    shown = bone * np.maximum(ct, np.minimum(tissue, 1)) + (1 - bone) * tissue
    return np.asarray(shown.clip(0, 1), dtype=np.float32)


def with_truth(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """``pairs`` with their CT denoised and the level of its parenchyma, one for each case."""
    counts: dict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(256))
    for pair in pairs:
        brain = ndimage.binary_erosion(pair.anatomical > 40, iterations=3)
        counts[pair.case] += np.bincount(pair.other[brain], minlength=256)
    levels = {case: _mode(count) for case, count in counts.items()}
    return tuple(
        pair
        if pair.clean is not None
        else replace(pair, clean=denoise(pair.other), parenchyma=levels[pair.case])
        for pair in pairs
    )


def denoise(grey: Grey) -> Grey:
    """A slice behind a bilateral filter: noise goes, edges stay."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(grey.astype(np.float32))
    smooth = sitk.GetArrayFromImage(sitk.Bilateral(image, 1.5, 14.0))
    return np.asarray(smooth.round().clip(0, 255), dtype=np.uint8)


def _mode(counts: npt.NDArray[np.float64]) -> float:
    """The most frequent grey level of tissue, in 0..1; the middle where there is none."""
    low, high = LEVELS
    smooth = ndimage.gaussian_filter1d(counts, 3.0)[low:high]
    return float(low + np.argmax(smooth)) / 255 if smooth.any() else 0.4
