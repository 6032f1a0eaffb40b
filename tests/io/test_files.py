"""Which files a path stands for."""

from pathlib import Path

from mmif.io.files import walk


def test_a_linked_folder_is_followed_once_and_never_upwards(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.dcm").write_bytes(b"a")
    study = tmp_path / "root" / "study"
    study.mkdir(parents=True)
    (study / "link").symlink_to(tmp_path / "store", target_is_directory=True)
    (study / "same").symlink_to(tmp_path / "store", target_is_directory=True)
    (study / "up").symlink_to(tmp_path, target_is_directory=True)
    (study / "self").symlink_to(study, target_is_directory=True)
    (study / "ring").symlink_to("ring")  # leads to itself: told as a dead link
    assert [found.path.name for found in walk(study)] == ["ring", "a.dcm"]
