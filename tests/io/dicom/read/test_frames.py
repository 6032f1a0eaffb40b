"""NM objects after PS3.3 C.8.4, built here: no public ones were found for these kinds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_corpus import Scan, landmark_error_mm, scan, write_nuclear

from mmif.errors import MmifError
from mmif.io import load


def write_several(path: Path, made: Scan, count: int, vector: str, **attributes: Any) -> None:
    """One object of ``count`` volumes that ``vector`` tells apart, the n-th n times as bright."""
    stored = np.round(made.slices()).astype("<u2")
    slices = len(stored)
    several = {
        "NumberOfFrames": slices * count,
        "NumberOfSlices": slices,
        "SliceVector": list(range(1, slices + 1)) * count,
        "PixelData": np.concatenate([stored * (n + 1) for n in range(count)]).tobytes(),
        vector: [n + 1 for n in range(count) for _ in range(slices)],
    }
    write_nuclear(path, made, **{**several, **attributes})


@pytest.mark.parametrize(
    ("vector", "word", "kind"),
    [
        ("TimeSlotVector", "TimeSlot", "RECON GATED TOMO"),
        ("RRIntervalVector", "RRInterval", "RECON GATED TOMO"),
        ("EnergyWindowVector", "EnergyWindow", "RECON TOMO"),
        ("DetectorVector", "Detector", "RECON TOMO"),
    ],
)
def test_several_volumes_of_one_object_are_a_choice(
    tmp_path: Path, vector: str, word: str, kind: str
) -> None:
    path, made = tmp_path / "nm.dcm", scan()
    write_several(path, made, 3, vector, ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"])
    with pytest.raises(MmifError, match=rf"--frame spect=2 \({word} 3"):
        load(path, role="spect")
    first, last = (load(path, role="spect", frame=n) for n in (0, 2))
    assert float(last.max()) == pytest.approx(3 * float(first.max()))
    assert landmark_error_mm(last) < 0.1


@pytest.mark.parametrize("kind", ["TOMO", "GATED TOMO", "WHOLE BODY", "STATIC", "DYNAMIC"])
def test_projections_and_planar_images_are_refused_as_such(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nm.dcm"
    write_nuclear(path, scan(), ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"])
    with pytest.raises(MmifError, match=f"NM image of type ‘{kind}’; expected RECON TOMO"):
        load(path, role="spect")


def test_slices_stored_from_the_last_to_the_first_lie_where_they_say(tmp_path: Path) -> None:
    """Vendors count the slices from either end: by SliceVector, or by a negative spacing."""
    made = scan()
    count = len(made.slices())
    reversed_order = np.round(made.slices()).astype("<u2")[::-1].tobytes()
    first = [float(v) for v in made.first_pixels[-1]]
    write_nuclear(tmp_path / "negative.dcm", made, negative=True)
    assert landmark_error_mm(load(tmp_path / "negative.dcm", role="spect")) < 0.1
    write_nuclear(
        tmp_path / "vector.dcm",
        made,
        at_top=True,
        SliceVector=list(range(count, 0, -1)),
        PixelData=reversed_order,
        ImagePositionPatient=first,
    )
    assert landmark_error_mm(load(tmp_path / "vector.dcm", role="spect")) < 0.1


def test_the_attenuation_map_beside_is_not_the_activity(tmp_path: Path) -> None:
    made = scan()
    write_nuclear(tmp_path / "em.dcm", made)
    kind = ["DERIVED", "PRIMARY", "RECON TOMO", "TRANSMISSION"]
    write_nuclear(tmp_path / "mu.dcm", made, ImageType=kind, SeriesDescription="CT AC map")
    taken = load(tmp_path, role="spect").meta["source"]
    assert taken.headers[0].ImageType[3] == "EMISSION"
