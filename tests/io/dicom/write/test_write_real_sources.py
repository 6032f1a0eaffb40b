"""Series derived from real scans of several vendors: conformant, whatever their headers hold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from mmif.io import load
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.registration import write_spatial_registration
from mmif.io.dicom.write.series import write_dicom_series
from mmif.io.source import source_of

# What a source itself says wrongly and an output must still repeat, to be found beside it
COPIED_FAULTS = ("Retired Person Name form", "Illegal root for UID")
FOLDERS = (
    "ctk_mrhead_coronal",
    "dcm_qa_ct_philips_straight/S2010",
    "dcm_qa_frag_jpll",
    *(f"dicom2nifti_dev/{name}/anatomical/001" for name in ("ge", "hitachi", "philips", "siemens")),
    "dicom2nifti_dev/generic/compressed_jpeg/001",
    "papaya_oblique_pd",
    "qin_headneck_pet",
    "slicer_cthead_64",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_faults_of_the_source_itself_remain(
    folder: str,
    shared_data: Path,
    recipe: Callable[..., DerivedSeries],
    faults: Callable[[Path], list[str]],
    tmp_path: Path,
) -> None:
    whole = load(shared_data / "dicom" / folder)
    source, crop = source_of(whole), whole[:, 20:44, 20:40, 1:4]
    assert source is not None
    unit = (crop - crop.min()) / max(float(crop.max() - crop.min()), 1.0)
    series: dict[str, tuple[MetaTensor, DerivedSeries]] = {
        "fused": (unit, recipe(source, source)),
        "colour": (MetaTensor(np.repeat(unit, 3, axis=0), affine=whole.affine), recipe(source)),
        "registered": (crop, recipe(source, source, kind="registered")),
    }
    for name, (volume, made) in series.items():
        write_dicom_series(volume, tmp_path / name, made)
    write_spatial_registration(tmp_path / "registration.dcm", recipe(source, source))
    objects = [*(tmp_path / name / "0002.dcm" for name in series), tmp_path / "registration.dcm"]
    found = [line for path in objects for line in faults(path)]
    assert [line for line in found if not any(known in line for known in COPIED_FAULTS)] == []
