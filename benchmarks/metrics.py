"""Slices a second for all eight metrics and SSIM255, on two CPU cores.

    python benchmarks/metrics.py [--slices 200] [--threads 2]

The bar is 50 slices of 256 x 256 a second. The slices are brain-like: smooth blobs with noise
inside, an empty background, a bright rim; and the maximum of both as the fused image.
"""

import argparse
import time

import numpy as np

from mmif.evaluation.baselines import maximum
from mmif.metrics import REPORTED, evaluate_stack

BAR = 50


def head(slices: int, seed: int) -> np.ndarray:
    """(slices, 256, 256) uint8: a noisy disc with a bright rim on black."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    radius = np.hypot(y, x * 1.2)
    brain = 90 + 60 * np.sin(5 * x + seed) * np.cos(4 * y)
    image = np.where(radius < 0.75, brain, np.where(radius < 0.82, 255, 0))
    noise = random.normal(0, 9, (slices, 256, 256)) * (radius < 0.8)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    a, b = head(arguments.slices, 0), head(arguments.slices, 1)
    fused = maximum(a, b)
    evaluate_stack(fused[:4], a[:4], b[:4], threads=arguments.threads)
    print(f"{'metric':10} slices a second, one thread")
    for name, metric in REPORTED.items():
        started = time.perf_counter()
        for index in range(20):
            metric(fused[index], a[index], b[index])
        print(f"{name:10} {20 / (time.perf_counter() - started):8.0f}")
    started, worked = time.perf_counter(), time.process_time()
    evaluate_stack(fused, a, b, threads=arguments.threads)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    speed = arguments.slices / seconds
    print(
        f"all {len(REPORTED)} on {arguments.threads} threads: {speed:.0f} slices a second"
        f" (bar {BAR}: {'met' if speed >= BAR else 'MISSED'});"
        f" {1000 * cpu_seconds / arguments.slices:.1f} ms of processor time a slice"
    )


if __name__ == "__main__":
    main()
