"""One study in memory: two files in, a fused volume as an array, no file out unless asked.

python examples/fuse_in_memory.py --ct sample_data/ct --mri sample_data/mri.nii.gz
"""

import argparse
from pathlib import Path

import mmif


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--mri", type=Path, required=True)
    parser.add_argument("--save", type=Path, help="Also write the fused volume: X.nii.gz")
    options = parser.parse_args()

    ct = mmif.load(options.ct, role="ct")  # (1, X, Y, Z) in HU, affine to RAS mm
    mri = mmif.load(options.mri, role="mri")
    result = mmif.fuse(ct=ct, mri=mri)

    registration = result.sources["ct"].registration
    print(f"fused {tuple(result.fused.shape)}, {result.fused.min():.2f}..{result.fused.max():.2f}")
    print(f"registration: {registration.verdict}, about {registration.error_estimate_mm:.1f} mm")
    print("  ".join(f"{name} {result.metrics[name]:.3f}" for name in mmif.METRICS))
    for warning in result.warnings:
        print(f"warning: {warning}")
    if options.save:
        mmif.save(result.fused, options.save)


if __name__ == "__main__":
    main()
