"""One study from files to files: what is written, and what is refused with nothing left behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

import mmif
from mmif.cli import main
from mmif.errors import ConfigError, InputError, MmifError, OutputError
from mmif.report import document
from mmif.result import FusionResult
from mmif.study import fuse
from mmif.transforms.save import SaveFusedd

AFFINE = np.array([[-4.0, 0, 0, 94], [0, 4.0, 0, -94], [0, 0, 6.0, -33], [0, 0, 0, 1]])
SHAPE = (48, 48, 12)
Array = npt.NDArray[np.float64]


def head() -> tuple[Array, Array]:
    """A CT in HU and an MRI of one ball of brain in a shell of bone."""
    points = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) @ AFFINE[:3, :3].T
    radius = np.linalg.norm((points + AFFINE[:3, 3]) / [70, 85, 60], axis=-1)
    ripple = np.sin(points[..., 0] / 9) * np.cos(points[..., 1] / 7)
    inside, bone = radius < 1, (radius > 0.85) & (radius < 1)
    ct = np.where(bone, 900, np.where(inside, 35 + 5 * ripple, -1000))
    mri = np.where(inside & ~bone, 400 + 150 * ripple, 0)
    return ct.astype(float), mri.astype(float)


def write(path: Path, voxels: Array, affine: Array = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), affine), path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    ct, mri = head()
    return {
        "ct": write(tmp_path / "ct.nii.gz", ct),
        "mri": write(tmp_path / "mri.nii.gz", mri),
    }


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(result: Result, out: Path, *words: str) -> None:
    """One line on stderr that says ``words``, exit code 1, nothing at ``out`` or beside it."""
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert not result.stdout
    for word in words:
        assert word in line
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}.*"))


def test_fuse_writes_what_the_contract_names(pair: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run(
        "fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", out, "--no-register",
        "--save-registered", "--preview", tmp_path / "sheet.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = {path.name for path in out.iterdir()}
    assert found == {
        "fused.nii.gz", "registered.nii.gz", "registration.tfm", "summary.json", "report.html",
    }  # fmt: skip
    assert (tmp_path / "sheet.png").stat().st_size > 0
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) >= {
        "mmif_version", "task", "inputs", "reference", "grid", "registration", "fusion",
        "metrics", "outputs", "warnings", "seconds",
    }  # fmt: skip
    keys = {
        "inputs": {"role", "path", "format", "modality", "shape", "spacing_mm", "series_uid"},
        "grid": {"shape", "spacing_mm", "affine_ras"},
        "registration": {"verdict", "fixed_to_moving_lps", "checks"},
        "fusion": {"device", "precision", "weights", "slices", "seconds"},
        "seconds": {"read", "register", "resample", "fuse", "metrics", "write", "report", "total"},
    }
    for name, expected in keys.items():
        whole = summary[name] if isinstance(summary[name], list) else [summary[name]]
        assert all(set(one) >= expected for one in whole)
    assert all(
        set(check) >= {"value", "limit"} for check in summary["registration"]["checks"].values()
    )
    assert set(summary["fusion"]["weights"]) == {"name", "sha256"}
    assert set(summary["outputs"]) == found
    assert set(summary["metrics"]) >= set(mmif.METRICS)
    assert summary["registration"]["verdict"] == "skipped"
    assert np.allclose(summary["registration"]["fixed_to_moving_lps"], np.eye(4))
    assert {item["role"] for item in summary["inputs"]} == {"ct", "mri"}


def test_the_volumes_are_written_while_the_report_is_drawn(
    pair: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = threading.Event()
    draw, write_volumes = document.draw_report, SaveFusedd.write

    def draw_and_say(result: FusionResult) -> document.DrawnReport:
        drawing.set()
        return draw(result)

    def write_then(step: SaveFusedd, data: Any, out: Path) -> tuple[str, ...]:
        assert drawing.wait(60)
        return (*write_volumes(step, data, out), "said late")

    monkeypatch.setattr(document, "draw_report", draw_and_say)
    monkeypatch.setattr(SaveFusedd, "write", write_then)
    out = tmp_path / "out"
    result = run("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", out, "--no-register")
    assert result.exit_code == 0, result.output
    assert "said late" in (out / "report.html").read_text()
    assert "said late" in json.loads((out / "summary.json").read_text())["warnings"]


def test_the_fused_volume_lies_where_the_reference_lies(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fused.nii.gz"
    fuse(ct=pair["ct"], mri=pair["mri"], output=out, register=False)
    image = nibabel.load(out)
    assert image.shape == (256, 256, SHAPE[2])
    assert np.allclose(np.abs(np.diag(image.affine)[:3]), [192 / 256, 192 / 256, 6.0])
    reference = nibabel.load(pair["mri"])
    for volume in (image, reference):
        middle = (np.array(volume.shape) - 1) / 2
        assert np.allclose(
            nibabel.affines.apply_affine(volume.affine, middle), [0, 0, 0], atol=0.01
        )
    assert json.loads((tmp_path / "fused.json").read_text())["outputs"] == [
        "fused.nii.gz",
        "fused.json",
    ]


def test_the_fov_of_the_head_gives_finer_pixels_over_the_same_places(
    pair: dict[str, Path],
) -> None:
    whole, head_only = (
        fuse(ct=pair["ct"], mri=pair["mri"], register=False, fov=fov)
        for fov in ("reference", "head")
    )
    assert head_only.grid.shape[:2] == whole.grid.shape[:2] == (256, 256)
    assert max(head_only.grid.spacing_mm[:2]) < 0.98 * min(whole.grid.spacing_mm[:2])
    assert bool(head_only.fused[..., 0, :, :].max() < 0.05)  # a margin of air all the same
    volume = [float(r.fused.sum() * np.prod(r.grid.spacing_mm)) for r in (whole, head_only)]
    assert volume[1] == pytest.approx(volume[0], rel=0.05)


def test_fusing_in_memory_equals_fusing_files(pair: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "fused.nii.gz"
    fuse(ct=pair["ct"], mri=pair["mri"], output=out, register=False)
    result = fuse(ct=mmif.load(pair["ct"]), mri=mmif.load(pair["mri"]), register=False)
    stored = np.asarray(nibabel.load(out).dataobj)
    assert np.allclose(result.fused[0].numpy(), stored, atol=1e-6)


def test_a_second_run_gives_the_same_bytes(pair: dict[str, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    for out in (first, second):
        fuse(ct=pair["ct"], mri=pair["mri"], output=out, register=False)
    assert first.read_bytes() == second.read_bytes()


def test_air_in_both_sources_is_black(pair: dict[str, Path]) -> None:
    result = fuse(ct=pair["ct"], mri=pair["mri"], register=False)
    empty = (result.sources["mri"].unit[...] == 0) & (result.moving[0].unit[...] == 0)
    assert empty.float().mean() > 0.2
    assert result.fused[empty].mean() * 255 < 2


def test_half_a_ct_leaves_no_edge_where_its_coverage_ends(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    """In slices that the CT leaves half way, no step stands that is in neither source."""
    ct, _ = head()
    half = write(tmp_path / "half.nii.gz", ct[:, : SHAPE[1] // 2])
    result = fuse(ct=half, mri=pair["mri"], register=False)
    border = np.abs(np.diff(result.fused[0].numpy(), axis=1))
    sources = np.maximum(
        *(
            np.abs(np.diff(v[0].numpy(), axis=1))
            for v in (result.sources["mri"].unit[...], result.moving[0].unit[...])
        )
    )
    weight = result.moving[0].coverage[0].numpy()
    ending = (weight[:, 1:] < 1) & (weight[:, 1:] > 0)
    assert ending.any()
    assert np.percentile(border[ending], 99) <= np.percentile(sources[ending], 99) + 0.02
    outside = result.moving[0].coverage[...] == 0
    assert np.allclose(result.fused[outside], result.sources["mri"].unit[outside])
    assert result.moving[0].covered_fraction.mean() < 0.7
    assert any("does not cover" in warning for warning in result.warnings)


def _nan(voxels: Array) -> Array:
    return np.where(voxels == voxels.max(), np.nan, voxels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: np.full_like(v, 7), "every voxel is 7"),
        (_nan, "NaN"),
        (lambda v: v[..., :2], "slice"),
        (lambda v: np.stack([v, v], -1), "4-D"),
    ],
)
def test_a_bad_volume_is_refused(
    change: Callable[[Array], Array], words: str, pair: dict[str, Path], tmp_path: Path
) -> None:
    bad = write(tmp_path / "bad.nii.gz", change(head()[0]))
    out = tmp_path / "out"
    refused(run("fuse", "--ct", bad, "--mri", pair["mri"], "-o", out), out, "bad.nii.gz", words)


def test_one_frame_of_a_4d_volume_can_be_chosen(pair: dict[str, Path], tmp_path: Path) -> None:
    ct, _ = head()
    both = write(tmp_path / "4d.nii.gz", np.stack([ct * 0, ct], -1))
    out = tmp_path / "out.nii.gz"
    words = ("fuse", "--ct", both, "--mri", pair["mri"], "-o", out, "--no-register")
    assert run(*words, "--frame", "ct=1").exit_code == 0


def test_missing_empty_and_truncated_inputs_are_refused(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    empty, cut = tmp_path / "empty", tmp_path / "cut.nii.gz"
    empty.mkdir()
    cut.write_bytes(pair["ct"].read_bytes()[:3000])
    for bad in (tmp_path / "missing.nii", empty, cut):
        refused(run("fuse", "--ct", bad, "--mri", pair["mri"], "-o", out), out, bad.name)


def test_volumes_far_apart_are_refused(pair: dict[str, Path], tmp_path: Path) -> None:
    away = AFFINE.copy()
    away[:3, 3] += 5000
    far = write(tmp_path / "far.nii.gz", head()[0], away)
    out = tmp_path / "out"
    words = ("fuse", "--ct", far, "--mri", pair["mri"], "-o", out, "--no-register")
    refused(run(*words), out, "far.nii.gz", "mri.nii.gz", "overlap")


def test_an_output_that_exists_is_refused_and_replaced_only_by_option(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", out, "--no-register")
    assert run(*words, "--no-report").exit_code == 0
    (out / "note.txt").write_text("old")
    result = run(*words, "--no-report")
    assert (result.exit_code, "exists" in result.stderr) == (1, True)
    assert (out / "note.txt").exists()
    result = run(*words, "--no-report", "--overwrite")
    assert (result.exit_code, "note.txt" in result.stderr) == (1, True)
    (out / "note.txt").unlink()
    assert run(*words, "--no-report", "--overwrite").exit_code == 0
    assert (out / "summary.json").exists()


def test_of_two_runs_at_once_the_first_to_end_is_kept(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.nii.gz"

    def another_ends(step: str, share: float) -> None:
        if (step, share) == ("write", 0.0):
            out.write_text("another's")

    with pytest.raises(OutputError, match=r"out\.nii\.gz exists"):
        fuse(**pair, output=out, register=False, progress=another_ends)
    assert out.read_text() == "another's"
    assert {path.name for path in tmp_path.iterdir()} == {"ct.nii.gz", "mri.nii.gz", out.name}


def test_overwrite_never_replaces_inputs_or_folders_of_others(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    words = ("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "--no-register", "--overwrite")
    for out in (tmp_path, pair["mri"], tmp_path / "mine"):
        result = run(*words, "-o", out)
        assert result.exit_code == 1
        assert result.stderr.count("Error: ") == 1
    assert pair["mri"].exists()
    assert (tmp_path / "mine" / "mine.txt").read_text() == "mine"
    for overwrite in ([], ["--overwrite"]):  # nothing stands above it
        result = run("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", "/", *overwrite)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_verbose_and_quiet_before_the_command_or_behind_it(
    pair: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ct = write(tmp_path / "odd.nii.gz", np.maximum(head()[0], 0))  # air is 0: a warning

    def said(before: str, behind: str) -> tuple[str, str, list[str]]:
        caplog.clear()
        fuse = ("fuse", "--ct", ct, "--mri", pair["mri"], "--no-register", "--no-report")
        words = [*before.split(), *fuse, *behind.split(), "--overwrite"]
        result = run(*words, "-o", tmp_path / "out")
        assert result.exit_code == 0, result.output
        steps = [r.message.split(":")[0] for r in caplog.records if r.message[0] != " "]
        return result.stdout[:12], result.stderr[:7], steps

    steps = ["read", "register", "resample", "fuse", "metrics", "write"]
    assert said("", "") == ("mri: the onl", "Warning", [])
    assert said("-v", "") == said("", "-v") == ("mri: the onl", "Warning", steps)
    assert "Qabf" in caplog.text  # and their figures
    assert said("-q", "") == said("", "--quiet") == ("", "", [])


@pytest.mark.parametrize(("option", "drawn"), [("", True), ("-q", False)])
def test_each_step_is_drawn_on_a_terminal(
    pair: dict[str, Path], tmp_path: Path, option: str, drawn: bool
) -> None:
    """`python -m mmif` on a pseudo-terminal: a bar a step; with -q nothing at all."""
    ours, theirs = os.openpty()
    words = ["--ct", pair["ct"], "--mri", pair["mri"], "--no-register", "-o", tmp_path / "out"]
    command = [sys.executable, "-m", "mmif", "fuse", *map(str, words), *option.split()]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # Linux: the end of a terminal is an error
            while some := os.read(ours, 65536):
                said += some
    os.close(ours)
    assert process.returncode == 0, said
    for step in (b"read", b"register", b"resample", b"fuse", b"metrics", b"write", b"report"):
        assert (step in said) is drawn
    assert bool(said) is drawn


def test_options_that_would_be_ignored_are_refused(pair: dict[str, Path], tmp_path: Path) -> None:
    out, volume = tmp_path / "out", tmp_path / "out.nii.gz"
    both = ("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o")
    refused(run(*both, volume, "--save-registered"), volume, volume.name, "--save-registered")
    refused(run(*both, volume, "--format", "dicom"), volume, volume.name, "format dicom")
    refused(run(*both, out, "--preview", tmp_path / "sheet.jpg"), out, "sheet.jpg", ".png")
    words = (*both, out)
    assert run(*words, "--frame", "pet=1").exit_code == 2
    assert run(*words, "--series-uid", "pet=1.2.3").exit_code == 2
    picture = tmp_path / "a.png"
    picture.touch()
    images = ("fuse", "--ir", picture, "--visible", picture)
    assert run(*images, "--deidentify").exit_code == 2


@pytest.mark.parametrize(
    "writes", ["mmif.transforms.save.write_itk_transform", "mmif.study.shutil.copyfile"]
)
def test_a_full_disk_leaves_nothing(
    pair: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: str
) -> None:
    """The disk of the output, or that of the preview."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writes, full)
    out, preview = tmp_path / "new" / "out", tmp_path / "sheet.png"
    with pytest.raises(OutputError, match="No space left"):
        fuse(ct=pair["ct"], mri=pair["mri"], output=out, register=False, preview=preview)
    assert not out.parent.exists()
    assert not preview.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_by_a_signal_leaves_nothing(
    pair: dict[str, Path], tmp_path: Path, number: signal.Signals
) -> None:
    """The signal comes while the outputs are being written, which goes on once it has come."""
    out, come = tmp_path / "new" / "out", tmp_path / "come"
    words = ["--ct", pair["ct"], "--mri", pair["mri"], "--no-register", "-o", out]
    code = (
        "import pathlib, sys, time, mmif.transforms.save as save\n"
        "write, come = save.write_itk_transform, pathlib.Path(sys.argv.pop(1))\n"
        "def wait(*words):\n"
        "    while not come.exists(): time.sleep(0.002)\n"
        "    write(*words)\n"
        "save.write_itk_transform = wait\n"
        "from mmif.cli import run; run()"
    )
    command = [sys.executable, "-c", code, str(come), "fuse", *map(str, words)]
    default = partial(signal.signal, number, signal.SIG_DFL)  # nohup and `&` ignore some
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=default) as process:
        while process.poll() is None and not list(out.parent.glob(".out.*")):
            time.sleep(0.002)
        process.send_signal(number)
        come.touch()
        said = process.communicate()[1]
    assert process.returncode == 128 + number
    assert b"Traceback" not in said
    assert not out.parent.exists()


def test_a_ct_of_stored_values_is_refused(pair: dict[str, Path], tmp_path: Path) -> None:
    """1024 above HU all of the head was white, which was said and still written."""
    out = tmp_path / "out"
    stored = write(tmp_path / "stored.nii.gz", head()[0] + 1024)
    words = ("--ct", stored, "--mri", pair["mri"], "--no-register", "-o", out)
    refused(run("fuse", *words), out, "stored.nii.gz", "expected HU")


def test_one_image_for_two_roles_is_refused(pair: dict[str, Path], tmp_path: Path) -> None:
    """It would be registered and fused with itself, and pass; also as a copy."""
    out, copy = tmp_path / "out", tmp_path / "copy.nii.gz"
    copy.write_bytes(pair["mri"].read_bytes())
    for spect in (pair["mri"], copy):
        words = ("--ct", pair["ct"], "--mri", pair["mri"], "--spect", spect)
        refused(run("fuse", *words, "-o", out), out, "the same image as MRI and as SPECT")


def test_two_volumes_that_show_no_head_are_refused_by_name(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 500, SHAPE).astype(float)
    bad, out = write(tmp_path / "noise.nii.gz", noise), tmp_path / "out"
    refused(run("fuse", "--ct", pair["ct"], "--mri", bad, "-o", out), out, "noise.nii.gz")
    words = ("fuse", "--ct", bad, "--mri", pair["mri"], "-o", out)
    refused(run(*words), out, "noise.nii.gz", "CT: no negative values")


def test_altered_weights_are_refused(pair: dict[str, Path], tmp_path: Path) -> None:
    from mmif.weights import find_weights

    shipped = find_weights("ct-mri")
    altered = tmp_path / "altered"
    altered.mkdir()
    (altered / "card.json").write_bytes((shipped.parent / "card.json").read_bytes())
    content = bytearray(shipped.read_bytes())
    content[-1] ^= 1
    (altered / shipped.name).write_bytes(content)
    out = tmp_path / "out"
    words = ("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", out, "--no-register")
    refused(run(*words, "--weights", altered), out, "sha256")


@pytest.mark.parametrize(
    ("line", "said"),
    [("fog: 1\n", ("fog", "mine.yaml")), ("", ("intensity", "mri"))],
    ids=["unknown key", "no window"],
)
def test_a_pipeline_that_does_not_fit_is_refused(
    line: str, said: tuple[str, ...], pair: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = tmp_path / "mine.yaml"
    start = "task: ct-mri\nroles: [mri, ct]\nreference: mri\nweights: ct-mri\n"
    pipeline.write_text(start + line)
    out = tmp_path / "out"
    words = ("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", out)
    refused(run(*words, "--pipeline", pipeline), out, *said)


def test_wrong_usage_is_exit_code_2(pair: dict[str, Path]) -> None:
    assert run("fuse", "--ct", pair["ct"]).exit_code == 2
    assert run("fuse", "--spect", pair["ct"], "--pet", pair["mri"]).exit_code == 2
    assert run("fuse", "--no-such-option").exit_code == 2


def test_a_dry_run_says_the_plan_and_writes_nothing(pair: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("fuse", "--ct", pair["ct"], "--mri", pair["mri"], "-o", out, "--dry-run")
    assert result.exit_code == 0
    assert "256 x 256 x 12" in result.stdout
    assert "would write fused.nii.gz" in result.stdout
    assert not out.exists()


def test_the_python_function_refuses_what_is_no_pair(pair: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="found ct"):
        fuse(ct=pair["ct"])
    with pytest.raises(InputError, match="no such file"):
        fuse(ct=pair["ct"], mri="nowhere.nii", output="out")
    assert issubclass(ConfigError, MmifError)
