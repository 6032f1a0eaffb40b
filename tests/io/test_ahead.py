"""Files are asked for before they are read, and nothing that lies there can stop that."""

import os
from pathlib import Path

import pytest

from mmif.io import ahead


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be asked")
def test_every_file_under_a_path_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ct" / "series").mkdir(parents=True)
    files = [tmp_path / name for name in ("ct/1.dcm", "ct/series/2.dcm", "mri.nii.gz")]
    for file in files:
        file.write_bytes(b"pixels")
    (tmp_path / "ct" / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "ct" / "pipe")  # would block whoever opens it
    asked: list[str] = []

    def ask(descriptor: int, *_: int) -> None:
        asked.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "posix_fadvise", ask)
    thread = ahead.fetch_ahead([tmp_path / "none", tmp_path / "ct", tmp_path / "mri.nii.gz"])
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(asked) == sorted(map(str, files))
    monkeypatch.setattr(ahead, "MOST_FILES", 1)
    ahead.fetch_ahead([tmp_path / "ct"]).join(10)
    assert len(asked) == 4
