"""The node's YAML file: what it may say, and what is said of the rest."""

from pathlib import Path
from typing import Any

import pytest

from mmif.errors import ConfigError
from mmif.node.config import NodeConfig

SAID = {"output": "out", "accept": ["SCANNER"]}


def test_the_shipped_example_is_read() -> None:
    path = Path(__file__).parents[2] / "deploy" / "node.yaml"
    config = NodeConfig.read(path, {})
    assert config.peers[0].ae_title == "PACS"
    assert config.options.save_registered


def test_options_of_the_command_stand_in_place_of_the_files_keys(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("output: out\naccept: [SCANNER]\nport: 104\nquiet_s: 5\n")
    config = NodeConfig.read(path, {"port": 11112})
    assert (config.port, config.quiet_s, config.accept) == (11112, 5, ("SCANNER",))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"quiet": 5}, "did you mean quiet_s"),
        ({"accept": []}, "accept: found nobody"),
        ({"accept": ["A" * 17]}, "AE title"),
        ({"send_to": ["PACS"]}, "AET@HOST:PORT"),
        ({"send_to": ["A@h:1", "A@h:1"]}, "a peer twice"),
        ({"port": 0}, "expected 1 to 65535"),
        ({"port": "104"}, "expected int"),
        ({"tasks": ["ir-vis"]}, "tasks: found ir-vis"),
        ({"receive": {"associations": 0}}, "at least 1"),
        ({"receive": {"pdu_bytes": 10}}, "pdu_bytes 10"),
        ({"deliver": {"first_pause_s": 0}}, "first_pause_s"),
        ({"options": {"deidentify": True}}, "by which archives match"),
        ({"options": {"format": "nifti"}}, "found format nifti"),
        ({"options": {"size": 300}}, "found size 300"),
        ({"options": {"overwrite": True}}, "overwrite is one study's"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NodeConfig.read(None, {**SAID, **said})


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_a_file_that_says_nothing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"node\.yaml"):
        NodeConfig.read(tmp_path / "node.yaml", {})
