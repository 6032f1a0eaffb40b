"""Activity over the CT of other heads."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmif.config import load_pipeline
from mmif.errors import InputError
from mmif.training.laid_over import has_parts, lay_activity
from mmif.training.studies import find_training_pairs
from mmif.transforms.colour import palette

Y, X = np.mgrid[:64, :64]


def head(rows: int, columns: int, value: int, rim: int) -> np.ndarray:
    """An ellipse of half axes ``rows`` and ``columns``: ``value`` within a rim."""
    from_centre = np.hypot((Y - 31.5) / rows, (X - 31.5) / columns)
    image = np.where(from_centre < 1, rim, 0)
    image[from_centre < 0.8] = value
    return image.astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """CT and MRI of one head, SPECT and PET of a wider one whose right half is hot."""
    wide, hot = head(16, 28, 120, 120), X > 31
    inside = head(16, 28, 1, 0) > 0
    spect = np.where(inside, np.where(hot, 220, 130), 0).astype(np.uint8)
    pet = np.zeros((64, 64, 3), np.uint8)
    pet[inside & ~hot], pet[inside & hot] = (127, 160, 127), (255, 0, 0)
    pictures = {
        "CT-MRI/CT": head(28, 16, 120, 255),
        "CT-MRI/MRI": head(28, 16, 120, 60),
        "SPECT-MRI/MRI": wide,
        "SPECT-MRI/SPECT": spect,
        "PET-MRI/MRI": wide,
        "PET-MRI/PET": pet,
    }
    for folder, picture in pictures.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in ("1001.png", "1002.png", "2001.png"):
            Image.fromarray(picture).save(tmp_path / folder / name)
    return tmp_path


@pytest.mark.parametrize("task", ["spect-ct", "pet-ct"])
def test_the_activity_fills_the_head_of_the_ct(data: Path, task: str) -> None:
    pairs = find_training_pairs(load_pipeline(task), data, data / "cache")
    assert [pair.case for pair in pairs] == ["1", "1", "1", "1", "2", "2"]
    assert [pair.name for pair in pairs[:2]] == ["1001.png as a head", "1001.png as a body"]
    laid = pairs[0].other
    rows, columns = (np.flatnonzero((laid > 60).any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == pytest.approx((2 * 0.8 * 28, 2 * 0.8 * 16), abs=3)
    brightest = palette("activity")[255] @ [0.299, 0.587, 0.114]
    assert laid[32, 40] == pytest.approx(brightest, abs=3)
    assert 60 < laid[32, 24] < brightest - 50


def test_a_ct_is_shown_behind_the_windows_of_a_head_and_of_a_body(data: Path) -> None:
    as_head, as_body = (
        p.anatomical / 255 for p in lay_activity(load_pipeline("spect-ct"), data)[:2]
    )
    brain, bone = np.s_[30:34, 26:38], np.s_[5:7, 31:33]
    assert 0.2 < as_head[brain].mean() < 0.65
    assert 0.26 < as_body[brain].mean() < 0.45
    assert min(as_head[bone].mean(), as_body[bone].mean()) > 0.5
    assert as_head[0, 0] == as_body[0, 0] == 0


def test_with_an_mri_the_activity_lies_over_what_ct_and_mri_become(data: Path) -> None:
    pairs = find_training_pairs(load_pipeline("ct-mri-spect"), data, data / "cache")
    assert [pair.name for pair in pairs] == ["1001.png", "1002.png", "2001.png"]
    assert pairs[0].anatomical[5:7, 31:33].mean() > 200  # the CT's bone


def test_what_is_no_part_of_it_is_not_taken(data: Path) -> None:
    assert has_parts("pet-ct", data)
    assert not has_parts("ct-mri", data)
    assert not has_parts("spect-ct", data / "CT-MRI")
    (data / "SPECT-MRI" / "SPECT" / "1001.png").unlink()
    with pytest.raises(InputError, match="stand alone"):
        lay_activity(load_pipeline("spect-ct"), data)
