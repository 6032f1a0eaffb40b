"""The figures of other methods on 24 Harvard pairs a task, all measured with one definition.

Columns: EN AG MI SSIM PSNR Qabf SCD SF. The pairs themselves are not given, so that a rank of our
validation pairs among these rows is indicative only: `shifted` moves our figures by what the
pixel maximum and the pixel average differ between both sets of pairs.
"""

import numpy as np

NAMES = ("EN", "AG", "MI", "SSIM", "PSNR", "Qabf", "SCD", "SF")
ROWS: dict[str, dict[str, tuple[float, ...]]] = {
    "ct-mri": {
        "GeSeNet": (5.217, 8.758, 3.000, 0.539, 61.762, 0.629, 1.467, 35.734),
        "IFCNN": (4.605, 8.280, 2.809, 1.318, 62.951, 0.572, 1.365, 33.568),
        "EMFusion": (4.847, 6.210, 3.134, 1.277, 62.522, 0.494, 1.359, 22.720),
        "GIFNet": (5.023, 10.367, 2.603, 0.481, 62.404, 0.441, 1.165, 41.789),
        "U2Fusion": (4.918, 6.414, 2.550, 0.514, 63.474, 0.438, 0.760, 22.135),
        "MATR": (4.852, 5.556, 4.051, 0.491, 61.343, 0.529, -0.170, 18.386),
        "MUFusion": (5.333, 6.176, 2.578, 0.458, 61.308, 0.391, 1.094, 19.593),
        "DILRAN": (4.247, 5.171, 3.521, 1.273, 62.718, 0.485, 0.553, 28.101),
        "ASFE": (5.486, 4.972, 3.146, 0.508, 63.988, 0.343, 1.018, 19.124),
        "maximum": (3.460, 6.793, 4.146, 1.325, 61.108, 0.583, 1.546, 31.230),
        "average": (4.181, 4.765, 3.686, 1.282, 64.118, 0.349, 1.060, 19.194),
        "laplacian pyramid": (4.461, 7.965, 2.673, 1.272, 62.527, 0.573, 1.195, 34.037),
    },
    "spect-mri": {
        "GeSeNet": (5.464, 6.888, 3.332, 0.651, 65.888, 0.721, 1.448, 21.871),
        "EMFusion": (5.072, 6.677, 3.263, 1.191, 66.081, 0.705, 1.482, 21.252),
        "IFCNN": (4.899, 6.918, 2.987, 1.230, 67.434, 0.669, 1.004, 22.550),
        "GIFNet": (5.078, 6.733, 2.775, 0.527, 66.822, 0.483, 1.076, 23.780),
        "MATR": (5.049, 5.843, 4.064, 0.554, 66.124, 0.718, -0.010, 18.569),
        "MUFusion": (5.442, 5.968, 3.082, 0.616, 65.981, 0.613, 1.105, 18.467),
        "U2Fusion": (4.672, 3.954, 2.706, 0.505, 67.367, 0.395, -0.201, 12.564),
        "ASFE": (6.235, 4.910, 3.088, 0.586, 66.122, 0.533, 1.372, 14.657),
        "maximum": (4.400, 5.850, 5.083, 1.233, 65.942, 0.660, 1.332, 19.715),
        "average": (4.758, 3.727, 3.971, 1.158, 68.951, 0.389, 0.750, 11.707),
        "laplacian pyramid": (4.637, 6.558, 2.755, 1.181, 67.381, 0.690, 0.922, 21.585),
    },
    "pet-mri": {
        "EMFusion": (5.736, 10.635, 2.939, 1.219, 61.435, 0.703, 1.517, 31.814),
        "IFCNN": (5.361, 11.432, 2.761, 1.224, 62.285, 0.679, 1.221, 36.404),
        "MATR": (5.666, 9.026, 4.119, 0.641, 61.586, 0.740, 0.103, 27.493),
        "MUFusion": (6.178, 9.966, 2.818, 0.685, 61.103, 0.656, 0.821, 29.625),
        "U2Fusion": (5.189, 5.067, 2.584, 0.477, 62.342, 0.250, -0.065, 15.018),
        "ASFE": (6.074, 6.800, 3.622, 0.635, 63.563, 0.489, 1.181, 19.958),
        "maximum": (4.727, 10.568, 5.218, 1.244, 60.838, 0.745, 1.376, 34.062),
        "average": (5.225, 6.295, 4.416, 1.125, 63.848, 0.430, 0.964, 18.793),
        "laplacian pyramid": (5.024, 10.396, 2.456, 1.145, 62.657, 0.685, 1.135, 33.171),
    },
}


def ranks(task: str, means: dict[str, float]) -> dict[str, int]:
    """Our place in each column among the published rows; 1 is first."""
    rows = ROWS[task].values()
    return {
        name: 1 + sum(row[column] > means[name] for row in rows)
        for column, name in enumerate(NAMES)
    }


def mean_rank(task: str, means: dict[str, float]) -> float:
    """The mean of the eight ranks."""
    return float(np.mean(list(ranks(task, means).values())))


def shifted(
    task: str, means: dict[str, float], baselines: dict[str, dict[str, float]]
) -> dict[str, float]:
    """Our figures, moved by the mean difference of maximum and average between the pairs."""
    moved = {}
    for column, name in enumerate(NAMES):
        steps = [ROWS[task][b][column] - baselines[b][name] for b in ("maximum", "average")]
        moved[name] = means[name] + float(np.mean(steps))
    return moved
