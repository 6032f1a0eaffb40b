"""A Gaussian over a volume, slice by slice in buffers that stay in a core's cache.

SciPy's filter goes through lines of numbers in double precision and takes seven times as long
(benchmarks/resampling.py); the two agree to the precision of float32.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TRUNCATE = 3.0
"""The smoothing ends this many standard deviations out: 0.3 % of a Gaussian lie beyond."""

Floats = npt.NDArray[np.float32]


def smoothed(planes: Floats, sigma: tuple[float, float, float]) -> Floats:
    """``planes`` (Z, Y, X) under a Gaussian of ``sigma`` voxels (x, y, z).

    Beyond its ends the volume goes on as its last voxels.
    """
    along_x, along_y, along_z = (half_gaussian(width) for width in sigma)
    (count, rows, columns), x, y = planes.shape, len(along_x) - 1, len(along_y) - 1
    result = np.empty(planes.shape, np.float32)
    tall = np.empty((rows + 2 * y, columns), np.float32)
    wide = np.empty((rows, columns + 2 * x), np.float32)
    spare = np.empty((rows, columns), np.float32)
    from_rows = [tall[n : n + rows] for n in range(2 * y + 1)]
    from_columns = [wide[:, n : n + columns] for n in range(2 * x + 1)]
    for k, plane in enumerate(result):
        near = range(k + 1 - len(along_z), k + len(along_z))
        _weigh([planes[min(max(n, 0), count - 1)] for n in near], along_z, from_rows[y], spare)
        tall[:y], tall[y + rows :] = tall[y], tall[y + rows - 1]
        _weigh(from_rows, along_y, from_columns[x], spare)
        wide[:, :x], wide[:, x + columns :] = wide[:, x, None], wide[:, x + columns - 1, None]
        _weigh(from_columns, along_x, plane, spare)
    return result


def half_gaussian(sigma: float) -> list[float]:
    """A Gaussian's weights from its middle outwards, in sum (both halves) 1; [1] for no width."""
    if sigma <= 0:
        return [1.0]
    places = np.arange(int(TRUNCATE * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    return list((weights / (2 * weights.sum() - weights[0])).tolist())


def _weigh(shifted: Sequence[Floats], weights: list[float], out: Floats, spare: Floats) -> None:
    """The sum of what is ``shifted`` (from one end to the other) by ``weights``, into ``out``."""
    middle = len(weights) - 1
    np.multiply(shifted[middle], weights[0], out=out)
    for n, weight in enumerate(weights[1:], start=1):
        np.add(shifted[middle - n], shifted[middle + n], out=spare)
        np.multiply(spare, weight, out=spare)
        np.add(out, spare, out=out)
