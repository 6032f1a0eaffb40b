"""Pairs of 2-D images, fused at their own size with their colour kept."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from mmif.cli import main
from mmif.config import Pipeline, load_pipeline
from mmif.errors import InputError, OutputError, WeightsError
from mmif.images import fuse_images, fuse_pixels
from mmif.io.images import read_image, write_image
from mmif.metrics import luminance
from mmif.weights import Weights

ROWS, COLUMNS = 37, 52
Y, X = np.mgrid[:ROWS, :COLUMNS]
GREY = (40 + 3 * X + Y).astype(np.uint8)
COLOUR = np.stack([120 + 2 * X, 60 + 3 * Y, 200 - 2 * X], axis=-1).astype(np.uint8)


class Brighter(nn.Module):
    """The maximum of both channels."""

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        return pair.amax(dim=1, keepdim=True)


def weights(task: str) -> Weights:
    return Weights("toy", Path("toy"), "0" * 64, task, {}, Brighter())  # type: ignore[arg-type]


def fuse(tmp_path: Path, task: str, anatomical: np.ndarray, other: np.ndarray) -> np.ndarray:
    first, second = load_pipeline(task).roles
    write_image(anatomical, tmp_path / "anatomical.png")
    write_image(other, tmp_path / "other.png")
    fuse_images(
        {first: tmp_path / "anatomical.png", second: tmp_path / "other.png"},
        tmp_path / "fused.png",
        load_pipeline(task),
        weights=weights(task),
        device="cpu",
    )
    return read_image(tmp_path / "fused.png").pixels


def hue_vector(rgb: np.ndarray) -> np.ndarray:
    """(..., 2) of B - Y and R - Y."""
    y = rgb @ [0.299, 0.587, 0.114]
    return np.stack([rgb[..., 2] - y, rgb[..., 0] - y], axis=-1)


def test_ct_and_mri_give_a_grey_image_of_their_size(tmp_path: Path) -> None:
    fused = fuse(tmp_path, "ct-mri", GREY, 255 - GREY)
    np.testing.assert_array_equal(fused, np.maximum(GREY, 255 - GREY))


@pytest.mark.parametrize("task", ["spect-mri", "pet-mri", "ir-vis"])
def test_the_colour_source_keeps_its_hue_under_the_fused_brightness(
    tmp_path: Path, task: str
) -> None:
    pair = (COLOUR, GREY) if task == "ir-vis" else (GREY, COLOUR)
    fused = fuse(tmp_path, task, *pair)
    assert fused.shape == (ROWS, COLUMNS, 3)
    expected = np.maximum(GREY, luminance(COLOUR)).astype(int)
    assert np.abs(luminance(fused).astype(int) - expected).max() <= 1
    before, after = hue_vector(COLOUR.astype(float)), hue_vector(fused.astype(float))
    lengths = np.linalg.norm(before, axis=-1), np.linalg.norm(after, axis=-1)
    clear = (lengths[0] > 15) & (lengths[1] > 15)
    cosine = (before * after).sum(axis=-1)[clear] / (lengths[0] * lengths[1])[clear]
    assert clear.mean() > 0.5
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 3


def test_three_images_are_fused_grey_ones_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {"ct": GREY // 2, "mri": GREY[::-1, ::-1], "spect": COLOUR // 2}
    for role, pixels in images.items():
        write_image(np.ascontiguousarray(pixels), tmp_path / f"{role}.png")
    monkeypatch.setattr("mmif.images.load_weights", lambda name, tasks: weights("ct-mri"))
    monkeypatch.chdir(tmp_path)
    named = [word for role in images for word in (f"--{role}", f"{role}.png")]
    result = CliRunner().invoke(main, ["fuse", *named, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    fused = read_image(tmp_path / "fused.png")
    grey = np.maximum(images["ct"], images["mri"])
    expected = np.maximum(grey, luminance(images["spect"])).astype(int)
    assert fused.is_colour
    assert np.abs(fused.grey.astype(int) - expected).max() <= 1


def test_a_grey_spect_image_is_fused_as_it_is(tmp_path: Path) -> None:
    fused = fuse(tmp_path, "spect-mri", GREY, 255 - GREY)
    assert fused.ndim == 2


def test_a_colour_that_is_lost_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mmif"):
        fused = fuse(tmp_path, "ct-mri", COLOUR, GREY)
    assert fused.ndim == 2
    assert "a colour image as mri; its brightness alone was fused" in caplog.text


def test_the_summary_says_what_was_done(tmp_path: Path) -> None:
    write_image(COLOUR, tmp_path / "v.png")
    write_image(GREY, tmp_path / "i.tif")
    summary = fuse_images(
        {"visible": tmp_path / "v.png", "ir": tmp_path / "i.tif"},
        tmp_path / "f.png",
        load_pipeline("ir-vis"),
        weights=weights("ir-vis"),
        device="cpu",
    )
    assert summary["task"] == "ir-vis"
    assert [item["role"] for item in summary["inputs"]] == ["visible", "ir"]
    assert [item["format"] for item in summary["inputs"]] == ["PNG", "TIFF"]
    assert summary["inputs"][0]["shape"] == [ROWS, COLUMNS]
    assert summary["fusion"]["weights"]["sha256"] == "0" * 64
    assert summary["outputs"] == [str(tmp_path / "f.png")]
    assert 0 < summary["metrics"]["Qabf"] <= 1


def test_pairs_of_several_sizes_come_back_in_order(tmp_path: Path) -> None:
    pairs = []
    for index, size in enumerate([20, 20, 31, 20]):
        write_image(GREY[:size], tmp_path / f"{index}.png")
        write_image(255 - GREY[:size] - index, tmp_path / f"{index}o.png")
        pairs.append(
            (read_image(tmp_path / f"{index}.png"), read_image(tmp_path / f"{index}o.png"))
        )
    fused, _ = fuse_pixels(Brighter(), "ct-mri", pairs, device="cpu")
    for image, (anatomical, other) in zip(fused, pairs, strict=True):
        np.testing.assert_array_equal(image, np.maximum(anatomical.pixels, other.pixels))


def test_verbose_says_the_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mmif"):
        fuse(tmp_path, "ct-mri", GREY, 255 - GREY)
    fusing, metrics = (record.message for record in caplog.records)
    assert fusing.startswith("fuse: ")
    assert "Qabf 0." in metrics


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    write_image(GREY, tmp_path / "a.png")
    write_image(GREY[:, :-1], tmp_path / "b.png")
    return tmp_path / "a.png", tmp_path / "b.png"


def attempt(first: Path, second: Path, output: Path, pipeline: Pipeline, **options: object) -> None:
    inputs = dict(zip(pipeline.roles, (first, second), strict=True))
    fuse_images(inputs, output, pipeline, **{"weights": weights("ct-mri"), **options})  # type: ignore[arg-type]


def test_refusals_leave_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = files
    pipeline, output = load_pipeline("ct-mri"), tmp_path / "out.png"
    with pytest.raises(InputError, match="37 x 51 pixels, expected 37 x 52"):
        attempt(first, second, output, pipeline)
    with pytest.raises(InputError, match="found nothing"):
        attempt(first, tmp_path / "none.png", output, pipeline)
    with pytest.raises(WeightsError, match="no weights nowhere"):
        attempt(first, first, output, pipeline, weights="nowhere")
    with pytest.raises(OutputError, match="expected an image's ending"):
        attempt(first, first, tmp_path / "out", pipeline)
    with pytest.raises(OutputError, match="exists"):
        attempt(first, first, second, pipeline)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["fuse", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_fuses_two_images_into_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmif.images.load_weights", lambda name, task: weights(task))
    monkeypatch.chdir(tmp_path)
    write_image(COLOUR, tmp_path / "v.png")
    write_image(GREY, tmp_path / "i.png")
    roles = ["--ir", "i.png", "--visible", "v.png"]
    code, text = run(*roles, "--dry-run")
    assert code == 0
    assert "visible: v.png (PNG, 37 x 52, colour)" in text
    assert "would write fused.png" in text
    assert not (tmp_path / "fused.png").exists()
    assert run(*roles)[0] == 0
    assert read_image(tmp_path / "fused.png").is_colour
    code, text = run(*roles)
    assert code == 1
    assert text == "Error: fused.png exists; expected a new path, or --overwrite\n"
    assert run(*roles, "-o", "f.tif")[0] == 0
    write_image(GREY[1:], tmp_path / "i.png", overwrite=True)
    code, text = run(*roles, "-o", "g.png")
    assert code == 1
    assert text.count("\n") == 1
