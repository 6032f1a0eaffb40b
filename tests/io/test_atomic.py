"""Outputs appear together or not at all, and only what mmif wrote is replaced."""

import json
from pathlib import Path

import pytest

from mmif.errors import OutputError
from mmif.io.atomic import commit_together, foreign_files, refuse_existing, staging_folder


def earlier_output(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    (out / "fused").mkdir(parents=True)
    (out / "fused" / "1.dcm").touch()
    (out / "summary.json").write_text(json.dumps({"outputs": ["fused/*.dcm", "summary.json"]}))
    return out


def test_a_file_that_the_summary_does_not_list_keeps_the_folder(tmp_path: Path) -> None:
    out = earlier_output(tmp_path)
    marks = ["summary.json"]
    refuse_existing(out, overwrite=True, made_by_mmif=marks)
    (out / "fused" / "notes").mkdir()
    (out / "fused" / "notes" / "mine.dcm").touch()
    assert foreign_files(out) == ["fused/notes/mine.dcm"]
    with pytest.raises(OutputError, match=r"mine\.dcm"):
        refuse_existing(out, overwrite=True, made_by_mmif=marks)


@pytest.mark.parametrize("text", ["", "[]", '{"outputs": 3}', '{"outputs": [[1]]}', "[" * 100_000])
def test_a_tampered_summary_lists_nothing(tmp_path: Path, text: str) -> None:
    out = earlier_output(tmp_path)
    (out / "summary.json").write_text(text)
    assert foreign_files(out) == ["fused/1.dcm"]


def test_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(OutputError, match="is a link"):
        refuse_existing(tmp_path / "out", overwrite=True)


def test_if_the_last_rename_fails_all_the_old_results_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, record = tmp_path / "f.nii.gz", tmp_path / "f.json"
    volume.write_text("old volume")
    record.write_text("old record")
    rename = Path.replace

    def refuse_the_record(self: Path, target: Path) -> Path:
        if self.name == "new.json":
            raise OSError(5, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse_the_record)
    with pytest.raises(OutputError), staging_folder(volume) as folder:  # noqa: PT012
        (folder / "new.gz").write_text("new volume")
        (folder / "new.json").write_text("new record")
        commit_together([(folder / "new.gz", volume), (folder / "new.json", record)])
    assert (volume.read_text(), record.read_text()) == ("old volume", "old record")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.json", "f.nii.gz"]
