"""MONAI's own transforms in place of mmif's: values, seconds, and what they do not do.

    python benchmarks/monai_transforms.py

On the sample head, with the same grid, windows and network for both. Each row names MONAI's
transform, mmif's step, and what was measured; `docs/architecture.md` has the table.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import torch
from monai.inferers import SliceInferer
from monai.transforms import (
    LoadImage,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    SpatialResample,
)

import mmif
from mmif.config import GridConfig
from mmif.networks.inference import fuse_slices
from mmif.transforms.axial_grid import fused_grid
from mmif.transforms.head import head_mask
from mmif.transforms.intensity import apply_window, window_of
from mmif.transforms.slices import to_grid, to_slices

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"


def main() -> None:
    ct = mmif.load(SAMPLE / "ct", role="ct")
    mri = mmif.load(SAMPLE / "mri.nii.gz", role="mri")
    loading(ct)
    resampling(mri, ct)
    windows(mri, ct)
    slices(mri, ct)


def say(name: str, *figures: str) -> None:
    print(f"{name:58} {'; '.join(figures)}", flush=True)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What ``call`` gives, and the best of three, in seconds."""
    best, result = np.inf, None
    for _ in range(3):
        began = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - began)
    return result, best


def loading(ct: Any) -> None:
    """LoadImage by its own reader, on the series alone and on a folder of two."""
    theirs, seconds = timed(
        lambda: LoadImage(reader="PydicomReader", ensure_channel_first=True)(SAMPLE / "ct")
    )
    _, ours = timed(lambda: mmif.load(SAMPLE / "ct", role="ct"))
    # voxel orders differ: the same places are compared through both affines
    index = np.array([[40, 50, 20, 1], [60, 30, 10, 1]]).T
    place = np.asarray(theirs.affine) @ index
    back = np.linalg.inv(np.asarray(ct.affine)) @ place
    off = np.abs(back - np.round(back)).max()
    at = [tuple(round(v) for v in column[:3]) for column in back.T]
    same = all(
        float(theirs[0][tuple(i[:3])]) == float(ct[0][j]) for i, j in zip(index.T, at, strict=True)
    )
    say(
        "LoadImage(PydicomReader) | LoadVolumed",
        f"same voxels {same}, off the grid {off:.1e}",
        f"{seconds:.2f} s, mmif {ours:.2f} s",
    )
    with tempfile.TemporaryDirectory() as name:
        copytree(SAMPLE / "ct", Path(name) / "both")
        (Path(name) / "both" / "spect.dcm").write_bytes((SAMPLE / "spect.dcm").read_bytes())
        for role, label in (("ct", "CT and SPECT in one folder"),):
            found = mmif.load(Path(name) / "both", role=role)
            try:
                other = LoadImage(reader="PydicomReader", ensure_channel_first=True)(
                    Path(name) / "both"
                )
                said = f"shape {tuple(other.shape)}, nothing said"
            except Exception as error:  # any of a foreign library
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:70]}"
            say(f"LoadImage | LoadVolumed, {label}", f"MONAI {said}", f"mmif {tuple(found.shape)}")


def resampling(mri: Any, ct: Any) -> None:
    """SpatialResample onto the fused grid against one trilinear interpolation by SimpleITK."""
    grid = fused_grid(mri, GridConfig())
    ours, seconds = timed(lambda: to_grid(ct, grid))
    step = SpatialResample(mode="bilinear", padding_mode="border", align_corners=True)
    theirs, slow = timed(
        lambda: step(ct, dst_affine=torch.as_tensor(grid.affine_ras), spatial_size=grid.shape)
    )
    inside = to_grid(ct.new_ones(ct.shape), grid, fill=0.0).numpy() == 1
    apart = np.abs(ours.numpy() - theirs.numpy())
    say(
        "SpatialResample | ResampleToAxialGridd",
        f"{slow:.2f} s, mmif {seconds:.2f} s",
        f"apart inside the CT {apart[inside].max():.2f} HU at most",
        f"outside of it up to {theirs.numpy()[~inside].max():.0f} HU, "
        f"mmif {ours.numpy()[~inside].max():.0f}",
    )


def windows(mri: Any, ct: Any) -> None:
    """Windows by stated values, and by percentiles."""
    config = mmif.load_pipeline("ct-mri").intensity_of("ct")
    window = window_of(ct, config)
    slope = ScaleIntensityRange(window.low, window.high, 0, 1, clip=True)(ct)
    one = ((ct - window.low) / (window.high - window.low)).clamp(0, 1)
    two = apply_window(ct, window)
    say(
        "ScaleIntensityRange | ScaleToUnitd, one slope",
        f"apart {float((slope - one).abs().max()):.1e}",
    )
    say(
        "ScaleIntensityRange | ScaleToUnitd, soft tissue and bone",
        f"grey levels above {window.high:.0f} HU: MONAI {len(slope[ct > window.high].unique())}, "
        f"mmif {len(two[ct > window.high].unique())}",
    )
    config = mmif.load_pipeline("ct-mri").intensity_of("mri")
    brain = window_of(mri, config)
    whole = ScaleIntensityRangePercentiles(0, 99.5, 0, 1, clip=True)(mri)
    ours = apply_window(mri, brain)
    head = head_mask(mri).numpy().astype(bool)
    spreads = [float(np.subtract(*np.percentile(x.numpy()[head], [90, 10]))) for x in (whole, ours)]
    say(
        "ScaleIntensityRangePercentiles | ChooseWindowsd, MRI",
        f"10..90 % of the head take {spreads[0]:.2f} of 0..1, mmif {spreads[1]:.2f}",
    )


def slices(mri: Any, ct: Any) -> None:
    """SliceInferer against fuse_slices, the same network in fp32."""
    grid = fused_grid(mri, GridConfig())
    network = mmif.load_weights("ct-mri").network
    pair = [(to_grid(v, grid) - v.min()) / (v.max() - v.min()) for v in (mri, ct)]
    pair = [volume.as_tensor().float().clamp(0, 1) for volume in pair]
    (ours, _), seconds = timed(
        lambda: fuse_slices(network, *(to_slices(v) for v in pair), device="cpu", precision="fp32")
    )
    both = torch.cat(pair)[None].permute(0, 1, 3, 2, 4)  # rows, columns, slices
    inferer = SliceInferer(roi_size=both.shape[2:4], sw_batch_size=1, spatial_dim=2)
    with torch.inference_mode():
        theirs, slow = timed(lambda: inferer(both, network))
    apart = float((theirs[0, 0].permute(2, 0, 1).clamp(0, 1) - ours).abs().max())
    say("SliceInferer | FuseSlicesd", f"{slow:.2f} s, mmif {seconds:.2f} s", f"apart {apart:.1e}")


if __name__ == "__main__":
    main()
