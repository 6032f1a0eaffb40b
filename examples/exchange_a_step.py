"""The Compose of a fusion with a step of one's own: the mean of both sources for the network.

    python examples/exchange_a_step.py --ct sample_data/ct --mri sample_data/mri.nii.gz

Any callable that takes the dictionary and gives it back will do. One that gives only another
network, as here, can also go in as ``mmif.fusion_transforms("ct-mri", weights=network)``.
"""

import argparse
from pathlib import Path

import torch

import mmif
from mmif.transforms.fuse import FuseSlicesd


class Mean(torch.nn.Module):
    """Slices (n, 2, h, w) in 0..1 to their mean (n, 1, h, w)."""

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        return pair.mean(dim=1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--mri", type=Path, required=True)
    options = parser.parse_args()

    steps = mmif.fusion_transforms("ct-mri")
    steps = steps.exchange(FuseSlicesd, FuseSlicesd(["mri", "ct"], [Mean()]))
    print(steps)
    data = steps({"ct": options.ct, "mri": options.mri})

    inside = data["study"].sources["ct"].coverage[...] == 1  # where both sources count in full
    mean = (data["ct"] + data["mri"]) / 2
    equal = torch.allclose(data["fused"][inside], mean[inside], atol=1e-6)
    print(f"fused is the mean: {equal}, in {inside.float().mean():.0%} of the volume")


if __name__ == "__main__":
    main()
