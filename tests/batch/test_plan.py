"""Lists, and what becomes of the studies found."""

import json
import os
from pathlib import Path

import pytest

from mmif.batch.fuse_job import FuseWork, parameters
from mmif.batch.plan import Plan, make_plan, plan_of
from mmif.batch.pseudonyms import WITHHELD, pseudonymise, write_key
from mmif.config import load_pipeline
from mmif.errors import InputError, OutputError, on_one_line
from mmif.options import FuseOptions
from mmif.roles import VOLUME_TASKS
from mmif.studies.lists import read_list, write_list
from mmif.studies.study import (
    Input,
    Rejected,
    Study,
    input_of,
    safe_id,
    unique_names,
)

ROOT = Path(__file__).parents[2]
ALL = ("ct-mri", "spect-mri", "pet-mri")


def source(name: str) -> Input:
    return Input(Path(name), Path(), (name,))


def ids(plan: Plan) -> list[str]:
    return [job.id for job in plan.jobs]


def write_csv(folder: Path, text: str) -> Path:
    for name in ("a.nii", "b.nii", "c.nii"):
        (folder / name).touch()
    path = folder / "list.csv"
    path.write_text(text)
    return path


def test_a_patient_with_ct_mri_and_spect_gives_both_fusions() -> None:
    study = Study("p1", {role: source(role) for role in ("ct", "mri", "spect")}, {})
    plan = plan_of([study], [], ALL)
    assert ids(plan) == ["p1/ct-mri", "p1/spect-mri"]
    assert set(plan.jobs[1].inputs) == {"spect", "mri"}
    assert not plan.rejected


def test_only_the_wanted_tasks_become_jobs() -> None:
    study = Study("p1", {role: source(role) for role in ("ct", "mri", "spect")}, {})
    assert ids(plan_of([study], [], ("spect-mri",))) == ["p1/spect-mri"]


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        (("ct",), "no pair: found CT, no MRI"),
        (("mri",), "no pair: found MRI, no CT or SPECT or PET"),
        (("ct", "pet"), "no pair: found CT and PET, no MRI"),
    ],
)
def test_a_study_without_a_pair_says_what_it_lacks(roles: tuple[str, ...], reason: str) -> None:
    plan = plan_of([Study("p1", {role: source(role) for role in roles}, {})], [], ALL)
    assert [(one.id, one.reason) for one in plan.rejected] == [("p1", reason)]


def test_one_bad_source_does_not_keep_the_other_pair_from_being_done() -> None:
    study = Study("p1", {r: source(r) for r in ("ct", "mri")}, {"spect": "several SPECT: a, b"})
    plan = plan_of([study], [], ALL)
    assert ids(plan) == ["p1/ct-mri"]
    assert [(one.id, one.reason) for one in plan.rejected] == [
        ("p1/spect-mri", "several SPECT: a, b")
    ]


def test_studies_of_one_name_are_told_apart_by_their_files() -> None:
    pair = [Study("x y", {"ct": source(name)}, {}) for name in ("one", "two")]
    first, second = (study.name for study in unique_names([*pair, Study("z", {}, {})])[:2])
    assert first != second
    assert first.startswith("x_y-")
    assert [s.name for s in unique_names(reversed(pair))] == [second, first]


def test_patients_of_one_folder_without_any_source_are_told_apart() -> None:
    lame = [Study("dicom", {}, {"mri": "1 slice"}, uid) for uid in ("1.2.3", "1.2.4")]
    plan = plan_of(lame, [], ALL)
    assert len({one.id for one in plan.rejected}) == 2


def test_a_folder_with_several_reasons_is_one_row_with_all_of_them() -> None:
    why = [Rejected("p1", text) for text in ("not to be read", "3 volumes", "3 volumes")]
    plan = plan_of([], why, ALL)
    assert plan.rejected == (Rejected("p1", "not to be read; 3 volumes"),)


def test_a_csv_list_names_the_studies_with_paths_relative_to_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "study,ct,mri,spect\nP 1,a.nii,b.nii,c.nii\nP2,a.nii,b.nii,\n")
    plan = make_plan(path)
    assert ids(plan) == ["P2/ct-mri", "P_1/ct-mri", "P_1/spect-mri"]
    assert plan.jobs[0].inputs["ct"].path == tmp_path / "a.nii"


def test_a_json_list_says_the_same(tmp_path: Path) -> None:
    write_csv(tmp_path, "")
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"study": "P1", "ct": "a.nii", "mri": "b.nii", "pet": None}]))
    assert ids(make_plan(path)) == ["P1/ct-mri"]


def test_a_written_list_gives_the_same_jobs(tmp_path: Path) -> None:
    plan = make_plan(write_csv(tmp_path, "study,mri,pet,ct\nP1,a.nii,b.nii,c.nii\nP2,a.nii,b.nii,"))
    write_list(plan.studies, tmp_path / "again.csv")
    again = make_plan(tmp_path / "again.csv")
    assert ids(again) == ids(plan)
    assert [job.stamp() for job in again.jobs] == [job.stamp() for job in plan.jobs]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "study,ct,mri\nP1,a.nii,x.nii\nP2,y.nii,b.nii",
            r"missing file P1 mri .*nii and 1 more",
        ),
        ("study,ct,mri\nP1,a.nii,b.nii\np1,a.nii,b.nii", "study p1 stands twice"),
        ("study,ct,mri\n,a.nii,b.nii", "row 1 has no study"),
        ("study,ct,mr\nP1,a.nii,b.nii", "found columns study, ct, mr; expected study, ct, mri"),
        ("", "found columns nothing"),
        ("study,ct,mri\n", "no studies found"),
        ("study,ct,mri\nP1,\xff,b.nii", "not a list in UTF-8"),
        ('study,ct,mri\nP1,"a.nii,b.nii', "not a CSV list"),
        ("study,ct,mri\nP1,a.nii,b.nii,c.nii", "row 1 has more cells than there are columns"),
        (f"study,ct,mri\nP1,{'a' * 300},b.nii", "missing file P1 ct"),
        ("study,ct,mri\nP1,\0,b.nii", "missing file P1 ct"),
    ],
)
def test_a_list_that_is_not_right_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write_csv(tmp_path, "")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as refusal:
        make_plan(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"study": 1}', "[1]", '[{"study": "a", "xray": "b"}]']
)
def test_a_json_list_that_is_not_right_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"list\.json: "):
        read_list(path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        make_plan(tmp_path / "nowhere")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(InputError, match="neither a folder nor an ordinary file"):
        make_plan(tmp_path / "list.csv")


def test_a_list_says_which_series_of_a_path(tmp_path: Path) -> None:
    text = "study,ct,mri,ct_series_uid\nP1,a.nii,b.nii,1.2.3\n"
    plan = make_plan(write_csv(tmp_path, text))
    assert [plan.jobs[0].inputs[role].series_uid for role in ("ct", "mri")] == ["1.2.3", None]
    write_list(plan.studies, tmp_path / "again.csv")
    again = make_plan(tmp_path / "again.csv")
    assert [job.stamp() for job in again.jobs] == [job.stamp() for job in plan.jobs]


def test_names_become_safe() -> None:
    assert safe_id("../../etc/passwd") == "etc-passwd"
    assert safe_id("Ärzte & Co") == "Ärzte_Co"
    assert safe_id("A\u0308rzte") == "Ärzte"
    assert safe_id("患者甲") != safe_id("患者乙")
    assert safe_id("///") == "study"
    assert len(safe_id("患" * 200).encode()) <= 120


def test_what_is_said_of_a_study_stays_on_its_line() -> None:
    assert on_one_line("two\nlines \x1b[31m \udcff") == "two lines \ufffd[31m \ufffd"


def test_names_that_collide_once_safe_are_told_apart_however_the_tree_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a b", "a_b", "A_B", "患者甲", "患者乙"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for role in ("ct", "mri"):
            (tmp_path / "in" / name / f"{role}.nii").touch()
    plan = make_plan(tmp_path / "in")
    names = [job.id.partition("/")[0] for job in plan.jobs]
    assert len({name.lower() for name in names}) == 5
    assert {"患者甲", "患者乙"} < set(names)
    monkeypatch.chdir(tmp_path)
    assert ids(make_plan(Path("in"))) == ids(plan)


def test_ids_of_a_list_that_collide_once_safe_are_told_apart(tmp_path: Path) -> None:
    plan = make_plan(write_csv(tmp_path, "study,ct,mri\na b,a.nii,b.nii\na_b,a.nii,b.nii\n"))
    assert len(set(ids(plan))) == 2


def test_a_file_whose_name_is_no_text_is_reported_and_the_rest_is_done(tmp_path: Path) -> None:
    for name in (b"good", b"bad\xff\n"):
        folder = tmp_path / "in" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for role in ("ct", "mri"):
            (folder / f"{role}.nii").touch()
    plan = make_plan(tmp_path / "in")
    assert ids(plan) == ["good/ct-mri"]
    assert [one.id for one in plan.rejected] == ["bad"]
    assert "not a name in UTF-8; expected it renamed" in plan.rejected[0].reason
    assert plan.rejected[0].reason.isprintable()


def test_the_stamp_follows_size_and_time_and_the_content_only_bytes(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "study,ct,mri\nP1,a.nii,b.nii")
    job = make_plan(path).jobs[0]
    stamp, content = job.stamp(), job.content()
    os.utime(tmp_path / "a.nii", (1, 1))
    assert job.stamp() != stamp
    assert job.content() == content
    (tmp_path / "a.nii").write_text("new")
    assert job.content() != content


def test_the_content_is_that_of_a_copy_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
        (tmp_path / name / "y").write_text("y")
    assert input_of(tmp_path / "one").files == ("x", "y")
    jobs = [
        Study(n, {"ct": input_of(tmp_path / n), "mri": input_of(tmp_path / n)}, {})
        for n in ("one", "two")
    ]
    first, second = plan_of(jobs, [], ALL).jobs
    assert first.content() == second.content()
    assert first.stamp() != second.stamp()


@pytest.mark.parametrize(
    ("roles", "wanted", "made"),
    [
        ("ct mri", (), ["ct-mri"]),
        ("ct mri spect", (), ["ct-mri", "spect-mri"]),
        ("ct spect", (), ["spect-ct"]),
        ("ct pet", (), ["pet-ct"]),
        ("ct mri spect", ("ct-mri-spect", "spect-ct"), ["ct-mri-spect", "spect-ct"]),
        ("ct mri", ("ct-mri-pet",), []),
    ],
)
def test_what_a_study_makes_is_a_choice(
    roles: str, wanted: tuple[str, ...], made: list[str]
) -> None:
    study = Study("s", {role: source(role) for role in roles.split()}, {})
    plan = plan_of([study], [], wanted)
    assert [job.task for job in plan.jobs] == made
    assert bool(plan.rejected) != bool(made)


def test_a_worker_can_start_for_every_task_and_has_the_weights_of_each_pass() -> None:
    pipelines = {task: load_pipeline(task) for task in VOLUME_TASKS}
    work = FuseWork(pipelines)
    work.prepare()
    for task, pipeline in pipelines.items():
        assert tuple(weights.name for weights in work._weights[task]) == pipeline.passes
    said = parameters(pipelines, FuseOptions())
    assert len(said["weights ct-mri-spect"].split()) == 2


def jane(folder: Path) -> Plan:
    """Two studies named after a patient, one of which became no job."""
    files = []
    for name in ("ct.nii", "mri.nii"):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"voxels")
        files.append(Input(folder / name, folder, (name,)))
    study = Study("DOE_JANE", {"ct": files[0], "mri": files[1]}, {})
    return plan_of([study], [Rejected("ROE_RICHARD", "/scans/ROE_RICHARD: no pair")], ())


def test_a_plan_under_pseudonyms_names_nobody_and_is_the_same_again(tmp_path: Path) -> None:
    plan, key = pseudonymise(jane(tmp_path))
    again, _ = pseudonymise(jane(tmp_path))
    assert plan == again
    assert "JANE" not in str([job.id for job in plan.jobs]) + str(plan.rejected)
    assert "ROE" not in str(plan.rejected)
    assert plan.rejected == (Rejected("not-done-0001", WITHHELD),)
    name = plan.jobs[0].id.partition("/")[0]
    assert key == {name: "DOE_JANE", "not-done-0001": "ROE_RICHARD"}
    os.utime(tmp_path / "ct.nii", ns=(1, 1))
    assert pseudonymise(jane(tmp_path))[0].jobs[0].id != plan.jobs[0].id


def test_a_key_keeps_its_earlier_rows_and_replaces_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "key.csv"
    write_key({"study-1": "DOE_JANE"}, path)
    write_key({"study-2": "=ROE, R."}, path)
    assert path.read_text() == 'pseudonym,study\nstudy-1,DOE_JANE\nstudy-2,"\'=ROE, R."\n'
    for text in ("mine\n", "", "pseudonym,study\na,b,c\n"):
        path.write_text(text)
        with pytest.raises(OutputError, match="no key of a batch"):
            write_key({"study-3": "x"}, path)
        assert path.read_text() == text


@pytest.mark.parametrize("named", [True, False])
def test_a_series_that_lacks_a_slice_is_planned_where_gaps_are_filled(
    tmp_path: Path, named: bool
) -> None:
    series = tmp_path / "case" / ("ct" if named else "x1")
    series.mkdir(parents=True)
    slices = sorted((ROOT / "sample_data/ct").glob("*.dcm"))
    for path in [*slices[:19], *slices[20:]]:
        (series / path.name).symlink_to(path)
    (tmp_path / "case/mri.nii.gz").symlink_to(ROOT / "sample_data/mri.nii.gz")
    refused = make_plan(tmp_path)
    assert not refused.jobs
    assert any("slice missing" in one.reason for one in refused.rejected)
    assert ids(make_plan(tmp_path, fill_gaps=True)) == ["case/ct-mri"]
