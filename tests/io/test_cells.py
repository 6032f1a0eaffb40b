"""A table hands no formula to a spreadsheet, and its texts come back as they were."""

import csv
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmif.io.cells import cell_text, plain_cell
from mmif.studies.discover import find_studies
from mmif.studies.lists import read_list, write_list


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", " =1", "\t=1", "'=1", "＝1"])
def test_a_cell_hands_no_formula_to_a_spreadsheet(text: str) -> None:
    assert plain_cell(text) == f"'{text}"


def test_nor_does_a_part_that_another_country_takes_for_a_cell() -> None:
    assert plain_cell("a;=1; +2;b") == "a;'=1;' +2;b"


@given(st.text(st.sampled_from("=+-@';, \tab＝")))
def test_every_text_comes_back(text: str) -> None:
    assert cell_text(plain_cell(text)) == text
    for cell in plain_cell(text).split(";"):
        assert cell.lstrip()[:1] not in {*"=+-@＝"}


def test_a_saved_list_holds_no_formula_and_is_read_back(tmp_path: Path) -> None:
    names = ["=HYPERLINK(1)", "a;=1", "'-1", "plain"]
    for name in names:
        (tmp_path / "studies" / name).mkdir(parents=True)
        for role in ("ct", "mri"):
            (tmp_path / "studies" / name / f"{role}.nii.gz").touch()
    studies, _ = find_studies(tmp_path / "studies")
    assert sorted(study.name for study in studies) == sorted(names)
    saved = tmp_path / "list.csv"
    write_list(studies, saved)
    rows = list(csv.reader(StringIO(saved.read_text())))
    parts = [part for row in rows for cell in row for part in cell.split(";")]
    assert not [part for part in parts if part[:1] in {*"=+-@"}]
    assert read_list(saved) == studies
