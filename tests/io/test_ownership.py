"""Only what mmif wrote is replaced, and nothing that is read, linked or mounted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmif.errors import OutputError
from mmif.io import ownership
from mmif.io.images import check_image_output, save_pixels
from mmif.io.ownership import (
    foreign_file,
    foreign_in_folder,
    foreign_names,
    foreign_study,
    mount_points,
    record_files,
    refuse_existing,
)
from mmif.io.seals import is_sealed_text, seal_lines, sealed_json

TRANSFORM = (
    "#Insight Transform File V1.0\n#Transform 0\nTransform: Euler3DTransform_double_3_3\n"
    "Parameters: 0 0 0 1 2 3\nFixedParameters: 0 0 0 0\n"
)
"""As any tool of ITK's writes it."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An earlier output."""
    folder = tmp_path / "out"
    (folder / "fused").mkdir(parents=True)
    (folder / "fused" / "1.dcm").write_text("pixels")
    (folder / "report.html").write_text("page")
    record_files(folder, "0")
    return folder


def test_what_mmif_wrote_is_replaced(out: Path) -> None:
    refuse_existing(out, overwrite=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda out: (out / "notes.txt").touch(), "notes.txt is not among"),
        (lambda out: (out / "fused" / "mine.dcm").touch(), "fused/mine.dcm is not among"),
        (lambda out: (out / "fused" / "1.dcm").write_text("edited"), "has been changed"),
        (lambda out: (out / "fused" / "1.dcm").write_text("pixels"), None),
        (
            lambda out: (out / "summary.json").write_text(
                (out / "summary.json").read_text().replace('"0"', '"1"')
            ),
            "as it was written",
        ),
        (lambda out: (out / "fused" / "1.dcm").write_text("longer pixels"), "has 13 bytes"),
        (lambda out: (out / "empty").mkdir(), "empty is not among"),
        (lambda out: (out / "link").symlink_to(out), "link is not among"),
        (lambda out: (out / "dead").symlink_to(out / "no"), "dead is not among"),
        (lambda out: os.mkfifo(out / "pipe"), "pipe is not among"),
        (lambda out: (out / "summary.json").unlink(), "without a summary.json"),
        (lambda out: (out / "report.html").unlink(), None),
    ],
)
def test_what_the_user_put_there_keeps_the_folder(out: Path, change, named: str | None) -> None:
    change(out)
    if named is None:
        refuse_existing(out, overwrite=True)
        return
    with pytest.raises(OutputError, match=named):
        refuse_existing(out, overwrite=True)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"files": 3}', '{"files": [1]}', '{"files": {"a": "1"}}', "[" * 100_000, "\xff"],
)
def test_a_tampered_summary_lists_nothing(out: Path, text: str) -> None:
    (out / "summary.json").write_text(text, encoding="latin-1")
    assert "without a summary.json" in foreign_in_folder(out)


def test_a_summary_that_is_a_pipe_is_not_opened(out: Path) -> None:
    (out / "summary.json").unlink()
    os.mkfifo(out / "summary.json")
    assert "without a summary.json" in foreign_in_folder(out)


def test_links_pipes_and_mounts_are_never_replaced(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(out)
    os.mkfifo(tmp_path / "pipe")
    for place, named in ((tmp_path / "link", "is a link"), (tmp_path / "pipe", "a pipe")):
        with pytest.raises(OutputError, match=named):
            refuse_existing(place, overwrite=True)
    for mounted in (out, out / "fused"):
        monkeypatch.setattr(ownership, "mount_points", lambda mounted=mounted: [mounted.resolve()])
        with pytest.raises(OutputError, match="mount point"):
            refuse_existing(out, overwrite=True)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_real_mount_keeps_the_output(out: Path, what: str) -> None:
    """In a namespace of its own, so that no right is needed and nothing stays mounted."""
    mount = {
        "folder": f"mount -t tmpfs none '{out}/fused'",
        "file": f"touch '{out}.mine' && mount --bind '{out}.mine' '{out}/report.html'",
    }[what]
    code = (
        "import sys; from pathlib import Path; from mmif.io.ownership import refuse_existing\n"
        "refuse_existing(Path(sys.argv[1]), overwrite=True)"
    )
    run = f'{mount} || exit 77; exec "$0" -c "$1" "$2"'
    try:
        done = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", run, sys.executable, code, out],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare(1)")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no namespace in which something may be mounted")
    assert "is or holds a mount point" in done.stderr


def test_mount_points_are_known() -> None:
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("no /proc/self/mountinfo")
    assert Path("/proc") in mount_points()
    assert all(path.is_absolute() for path in mount_points())


def test_inputs_are_never_replaced(tmp_path: Path, out: Path) -> None:
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "1.dcm").symlink_to(out / "fused" / "1.dcm")
    (tmp_path / "way").symlink_to(out / "fused")
    for read in (out, out / "fused", tmp_path / "way"):
        with pytest.raises(OutputError, match="holds the input"):
            refuse_existing(out, overwrite=True, inputs=[read])
    with pytest.raises(OutputError, match="holds what ct links to"):
        refuse_existing(out, overwrite=True, inputs=[tmp_path / "ct"])
    (tmp_path / "ct" / "1.dcm").unlink()
    (tmp_path / "way").unlink()
    refuse_existing(out, overwrite=True, inputs=[tmp_path])  # a parent of the output is no matter


def test_a_single_file_and_its_record_belong_together(tmp_path: Path) -> None:
    volume, record = tmp_path / "x.nii.gz", tmp_path / "x.json"
    foreign = foreign_study(volume)
    volume.write_text("voxels")
    record.write_text(json.dumps({"files": {"x.nii.gz": 6}}))
    assert (foreign(volume), foreign(record)) == ("", "")
    volume.write_text("other voxels")
    assert "has 12 bytes" in foreign(volume)
    record.write_text(json.dumps({"EchoTime": 0.03}))  # a sidecar by BIDS
    assert "no summary of x.nii.gz" in foreign(record)
    record.unlink()
    assert foreign(volume) != ""


@pytest.mark.parametrize(
    ("name", "own", "strange"),
    [
        ("a.json", '{"mmif_version": "1"}', '{"a": 1}'),
        ("b.json", sealed_json({"mmif_version": "1", "a": 1}), '{"mmif_version": "1", "seal": ""}'),
        ("a.tex", "\n".join([*seal_lines(["x"], "%"), ""]), "\\documentclass{article}"),
        ("a.tfm", "\n".join([*seal_lines(["x", "y"], "#", 1), ""]), TRANSFORM),
        ("a", None, "x"),
    ],
)
def test_a_single_file_says_who_wrote_it(
    tmp_path: Path, name: str, own: str | None, strange: str
) -> None:
    path = tmp_path / name
    path.write_text(strange)
    assert foreign_file(path) != ""
    if own is not None:
        path.write_text(own)
        assert foreign_file(path) == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_picture_says_who_made_it(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    ours, theirs = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_pixels(pixels, ours)
    Image.fromarray(pixels).save(theirs)
    assert foreign_file(ours) == ""
    assert foreign_file(theirs) != ""
    with Image.open(ours) as image:
        assert image.size == (8, 8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_picture_that_was_drawn_on_is_the_users(tmp_path: Path, suffix: str) -> None:
    """By a program that keeps what a picture says of itself."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3)).astype(np.uint8)
    save_pixels(pixels, tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        drawn = image.convert("RGB")
        kept = {key: image.info[key] for key in ("comment",) if key in image.info}
        if suffix == ".tif":
            kept["software"] = image.tag_v2[305]
        if suffix == ".png":
            kept["pnginfo"] = PngInfo()
            kept["pnginfo"].add_text("Software", image.info["Software"])
    drawn.putpixel((3, 3), (1, 2, 3))
    drawn.save(tmp_path / f"b{suffix}", **kept)
    assert foreign_file(tmp_path / f"b{suffix}") != ""
    if suffix == ".bmp":
        content = bytearray((tmp_path / "a.bmp").read_bytes())
        content[60] ^= 1
        (tmp_path / "b.bmp").write_bytes(content)
        assert foreign_file(tmp_path / "b.bmp") != ""


def test_a_picture_that_is_read_is_never_replaced(tmp_path: Path) -> None:
    save_pixels(np.zeros((8, 8), np.uint8), tmp_path / "a.png")
    check_image_output(tmp_path / "a.png", overwrite=True)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    for read in ("a.png", "link.png"):
        with pytest.raises(OutputError, match="holds the input"):
            check_image_output(tmp_path / "a.png", overwrite=True, inputs=[tmp_path / read])


def test_a_line_that_seals_a_text_is_broken_by_any_change() -> None:
    text = "\n".join([*seal_lines(TRANSFORM.splitlines(), "#", 1), ""])
    assert is_sealed_text(text)
    for changed in (
        text.replace("1 2 3", "1 2 4"),
        text + "\n",
        text[:-1],
        text.replace("\n", "\r\n"),
    ):
        assert not is_sealed_text(changed)


def test_folders_without_a_summary_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "1.png").touch()
    assert foreign_names(tmp_path, ["samples/*.png"]) == ""
    (tmp_path / "samples" / "x").mkdir()
    (tmp_path / "samples" / "x" / "2.png").touch()
    assert foreign_names(tmp_path, ["samples/*.png"]).startswith("samples/x/2.png")


@pytest.mark.parametrize("name", ["x" * 256, "ä" * 128])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="255 bytes"):
        refuse_existing(tmp_path / name, overwrite=False)


def test_a_place_that_takes_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        refuse_existing(tmp_path / "file" / "out", overwrite=False)
