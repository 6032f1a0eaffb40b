from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmif.errors import InputError, TrainingError
from mmif.studies.slice_files import case_of
from mmif.training.pairs import Pair, find_pairs, split_by_case
from mmif.weights import Weights


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    grey = np.arange(144, dtype=np.uint8).reshape(12, 12)
    for name in ("1001.png", "1002.png", "2001.png"):
        write(tmp_path / "CT-MRI" / "MRI" / name, grey)
        write(tmp_path / "CT-MRI" / "CT" / name, grey + 100)
    return tmp_path


def pair(name: str) -> Pair:
    image = np.zeros((12, 12), dtype=np.uint8)
    return Pair(name, case_of(name), image, image)


def test_pairs_are_read_with_their_cases(folder: Path) -> None:
    pairs = find_pairs("ct-mri", folder)
    assert [(p.name, p.case) for p in pairs] == [
        ("1001.png", "1"),
        ("1002.png", "1"),
        ("2001.png", "2"),
    ]
    assert (pairs[0].anatomical[0, 1], pairs[0].other[0, 1]) == (1, 101)


def test_the_inner_folder_serves_as_well(folder: Path) -> None:
    assert len(find_pairs("ct-mri", folder / "CT-MRI")) == 3


def test_three_images_are_the_pair_of_their_second_pass(folder: Path) -> None:
    inner = (folder / "CT-MRI").rename(folder / "CT-MRI-SPECT")
    for name in ("1001.png", "1002.png", "2001.png"):
        write(inner / "SPECT" / name, np.full((12, 12), 7, np.uint8))
    grey = Weights("toy", Path("toy"), "", "ct-mri", {}, Other())  # type: ignore[arg-type]
    pair = find_pairs("ct-mri-spect", folder, grey)[0]
    assert (pair.anatomical[0, 1], pair.other[0, 1]) == (101, 7)


class Other(nn.Module):
    """The second channel."""

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        return pair[:, 1:]


def test_colour_becomes_luminance(folder: Path) -> None:
    colour = np.full((12, 12, 3), (200, 100, 50), dtype=np.uint8)
    write(folder / "CT-MRI" / "CT" / "1001.png", colour)
    assert find_pairs("ct-mri", folder)[0].other[0, 0] == round(0.299 * 200 + 58.7 + 5.7)


def test_unpaired_names_are_refused(folder: Path) -> None:
    (folder / "CT-MRI" / "CT" / "2001.png").unlink()
    with pytest.raises(InputError, match=r"MRI/2001.png: found no image .*1 stand alone"):
        find_pairs("ct-mri", folder)


def test_different_sizes_are_refused(folder: Path) -> None:
    write(folder / "CT-MRI" / "CT" / "2001.png", np.zeros((13, 12), dtype=np.uint8))
    with pytest.raises(InputError, match=r"CT/2001.png: found 13 x 12 pixels, expected 12 x 12"):
        find_pairs("ct-mri", folder)


def test_images_too_small_to_be_measured_are_refused(folder: Path) -> None:
    for side in ("MRI", "CT"):
        write(folder / "CT-MRI" / side / "2001.png", np.zeros((12, 10), dtype=np.uint8))
    with pytest.raises(InputError, match=r"2001\.png: found 12 x 10 pixels, expected at least 11"):
        find_pairs("ct-mri", folder)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folders CT and MRI"):
        find_pairs("ct-mri", tmp_path)
    (tmp_path / "MRI").mkdir()
    (tmp_path / "CT").mkdir()
    with pytest.raises(InputError, match="found no images"):
        find_pairs("ct-mri", tmp_path)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((12, 12), dtype=np.uint16), "more than 8 bits a channel"),
        (np.zeros((12, 12, 4), dtype=np.uint8), "transparency"),
    ],
)
def test_deep_and_transparent_images_are_refused(
    folder: Path, image: np.ndarray, reason: str
) -> None:
    write(folder / "CT-MRI" / "CT" / "1001.png", image)
    with pytest.raises(InputError, match=f"{reason}.*, expected an 8-bit grey or RGB"):
        find_pairs("ct-mri", folder)


def test_a_corrupt_image_is_refused(folder: Path) -> None:
    path = folder / "CT-MRI" / "CT" / "1001.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"1001.png: not a readable image"):
        find_pairs("ct-mri", folder)


def test_no_case_is_on_both_sides() -> None:
    pairs = [pair(f"{case}{slice_:03}.png") for case in range(1, 8) for slice_ in range(4)]
    split = split_by_case(pairs, (), seed=5)
    sides = [{p.case for p in side} for side in (split.training, split.validation)]
    assert not sides[0] & sides[1]
    assert len(split.validation) >= 0.2 * len(pairs)
    assert split.cases()["validation"] == dict.fromkeys(sorted(sides[1]), 4)


def test_named_cases_are_held_out() -> None:
    split = split_by_case([pair("1001.png"), pair("2001.png"), pair("3001.png")], ["2"], 0)
    assert [p.name for p in split.validation] == ["2001.png"]


def test_one_case_cannot_be_split() -> None:
    with pytest.raises(TrainingError, match=r"found one case \(1\)"):
        split_by_case([pair("1001.png"), pair("1002.png")], (), 0)


def test_an_unknown_case_beside_a_known_one_is_refused() -> None:
    with pytest.raises(TrainingError, match="validation case 9 is not in the data"):
        split_by_case([pair("1001.png"), pair("2001.png")], ["2", "9"], 0)


def test_data_without_the_named_cases_is_split_by_the_seed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs = [pair(f"{case}001.png") for case in range(1, 8)]
    split = split_by_case(pairs, ["32", "34"], seed=5)
    assert split.cases() == split_by_case(pairs, (), seed=5).cases()
    held = ", ".join(split.cases()["validation"])
    assert f"none of the recipe's validation cases (32, 34); held out by the seed: {held}" in (
        caplog.text
    )


def test_all_cases_held_out_is_refused() -> None:
    with pytest.raises(TrainingError, match="all cases are held out"):
        split_by_case([pair("1001.png"), pair("2001.png")], ["1", "2"], 0)
