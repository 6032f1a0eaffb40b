"""The record of a batch, when the clock or somebody else has touched it."""

from pathlib import Path

import pytest

from mmif.batch.ledger import Ledger
from mmif.batch.locks import Claims
from mmif.batch.results import write_results


def test_a_clock_set_back_does_not_bring_an_old_line_back(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        clock = iter([100.0, 100.0, 50.0, 50.0])
        ledger = Ledger(tmp_path, claims, clock=lambda: next(clock))
        ledger.begin({})
        ledger.append("s/ct-mri", "failed")
        ledger.refresh()
        ledger.append("s/ct-mri", "done")
        again = Ledger(tmp_path, claims)
        again.refresh()
    assert again.entries["s/ct-mri"].state == "done"
    assert again.entries["s/ct-mri"].line["time"] >= 100


@pytest.mark.parametrize(
    "line",
    [
        '{"job": "s/t", "state": "done", "time": "x"}',
        '{"job": "s/t", "state": "done", "time": NaN}',
        '{"job": "s/t", "state": "done", "time": 1, "row": []}',
        '{"job": "../../etc", "state": "done", "time": 1}',
        '{"job": 3, "state": [], "time": 1}',
        '{"ledger": 1, "parameters": 3}',
        "[" * 100_000,
    ],
)
def test_a_tampered_line_counts_as_torn(tmp_path: Path, line: str) -> None:
    (tmp_path / "ledger.jsonl").write_text(line + "\n")
    with Claims(tmp_path) as claims:
        ledger = Ledger(tmp_path, claims)
        ledger.refresh()
    assert (ledger.entries, ledger.headers, ledger.torn) == ({}, {}, 1)


def test_notes_in_the_table_of_a_batch_stay(tmp_path: Path) -> None:
    """A new answer stands in its place; the old one is kept only if somebody has changed it."""
    with Claims(tmp_path) as claims:
        ledger = Ledger(tmp_path, claims)
        ledger.begin({})
        ledger.append("s/ct-mri", "failed", cause="refused", reason="=1")
        write_results(tmp_path)
        ledger.append("t/ct-mri", "failed", cause="refused", reason="x")
        write_results(tmp_path)
        table = tmp_path / "summary.csv"
        assert [path.name for path in tmp_path.glob("*.csv")] == ["summary.csv"]
        mine = table.read_text() + "seen by me\n"
        table.write_text(mine)
        write_results(tmp_path)
    assert (tmp_path / "summary-edited-1.csv").read_text() == mine
    assert "seen by me" not in table.read_text()
