"""Pipelines: every shipped one loads, and what is unknown or wrong is refused by name."""

from pathlib import Path

import pytest

from mmif.config import Pipeline, build, load_pipeline, shipped_path
from mmif.errors import ConfigError
from mmif.roles import TASKS, task_of

MINIMAL = {"task": "ct-mri", "roles": ["mri", "ct"], "reference": "mri", "weights": "ct-mri"}


@pytest.mark.parametrize(
    "path", sorted(shipped_path("pipelines").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_shipped_pipeline_loads_and_names_a_task(path: Path) -> None:
    pipeline = load_pipeline(path)
    assert pipeline.task in TASKS
    assert task_of(pipeline.roles) == pipeline.task
    assert pipeline.reference in pipeline.roles


def test_the_four_tasks_have_a_pipeline_of_their_name() -> None:
    assert [load_pipeline(task).task for task in TASKS] == list(TASKS)


def test_an_unknown_key_is_refused_with_the_known_ones_and_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: unknown key 'referense' .*reference.*task"):
        build(Pipeline, {**MINIMAL, "referense": "ct"}, "x.yaml")


def test_an_unknown_key_deep_inside_names_its_place() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: grid: unknown key 'sise'"):
        build(Pipeline, {**MINIMAL, "grid": {"sise": 128}}, "x.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reference", 3),
        ("reference", "pet"),
        ("task", "mri-ct"),
        ("task", "spect-mri"),
        ("roles", ["mri"]),
        ("roles", ["ct", "mri"]),
        ("roles", ["mri", "spect"]),
        ("intensity", {"spect": {}}),
        ("grid", {"fov": "foot"}),
        ("grid", {"size": "large"}),
        ("grid", {"size": True}),
        ("training", {"seed": False}),
        ("grid", [1]),
        ("intensity", {"ct": {"kind": "window", "low": "dark"}}),
        ("intensity", {"ct": {"kind": "window", "low": 100, "high": -20}}),
        ("intensity", {"mri": {"kind": "percentile", "low": 0, "high": 101}}),
        ("intensity", {"mri": {"kind": "brain", "low": 0.1, "high": 1.5}}),
        ("intensity", {"mri": {"kind": "brain", "low": 0.1, "high": 0.7, "bone": 9}}),
        ("intensity", {"ct": {"kind": "window", "low": 0, "high": 100, "bone": 50}}),
        ("grid", {"size": 0}),
        ("intensity", {"ct": {"kind": "window", "low": 0, "high": float("inf")}}),
        ("fusion", {"slice_batch": 0}),
        ("fusion", {"transition_mm": -1}),
        ("fusion", {"transition_mm": float("nan")}),
        ("training", {"batch": 0}),
        ("training", {"seed": -1}),
        ("training", {"crop": -1}),
        ("training", {"augmentation": 1.5}),
        ("training", {"learning_rate": 0}),
    ],
)
def test_a_value_of_a_wrong_type_or_range_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        build(Pipeline, {**MINIMAL, key: value}, "x.yaml")


def test_a_missing_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="key 'weights' is missing"):
        build(Pipeline, {k: v for k, v in MINIMAL.items() if k != "weights"}, "x.yaml")


def test_whole_numbers_serve_where_decimals_are_expected() -> None:
    built = build(Pipeline, {**MINIMAL, "fusion": {"transition_mm": 4}}, "x.yaml")
    assert built.fusion.transition_mm == 4.0


def test_broken_yaml_and_missing_files_are_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("task: [ct-mri\n")
    for bad in (broken, tmp_path / "none.yaml", "no-such-task"):
        with pytest.raises(ConfigError) as caught:
            load_pipeline(bad)
        assert "\n" not in str(caught.value)


def test_roles_that_are_no_pair_are_refused() -> None:
    with pytest.raises(ConfigError, match="found pet and spect"):
        task_of(["pet", "spect"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "an alias in line 2"),
        ("task: !!python/object/apply:os.system [true]\n", "not readable as YAML"),
        ("[" * 5_000, "nested too deeply|not readable as YAML"),
        ("# " + "x" * (1 << 18), "more than 256 KiB"),
        ("a: \x00", "not readable as YAML"),
    ],
)
def test_yaml_that_unfolds_or_runs_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=named) as refusal:
        load_pipeline(tmp_path / "p.yaml")
    assert "\n" not in str(refusal.value)
