import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mmif.cli.weights import weights as weights_command
from mmif.config import NetworkConfig
from mmif.errors import WeightsError
from mmif.networks.s3imfusion import S3IMFusion
from mmif.roles import TASKS
from mmif.weights import (
    CARD,
    SEAL,
    card_seal,
    list_weights,
    load_weights,
    read_card,
    save_weights,
    verify_weights,
)

SMALL = NetworkConfig(channels=4, coarse_channels=4, width=8, blocks=1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_weights(
        S3IMFusion(SMALL), tmp_path / "mine", {"task": "ct-mri", "limits": ["none"]}
    )


def change_card(path: Path, **values: object) -> None:
    """Other values in the card of ``path``, sealed as if they had been written so."""
    card = {**json.loads((path.parent / CARD).read_text()), **values}
    (path.parent / CARD).write_text(json.dumps({**card, SEAL: card_seal(card)}))


def test_weights_come_back_as_they_were_saved(saved: Path) -> None:
    loaded = load_weights(saved, "ct-mri")
    torch.manual_seed(0)
    original = S3IMFusion(SMALL).eval()
    sources = torch.rand(1, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.network(sources), original(sources))
    assert (loaded.name, loaded.task, loaded.card["limits"]) == ("mine", "ct-mri", ["none"])
    assert not loaded.network.training


def test_a_folder_stands_for_its_file(saved: Path) -> None:
    assert load_weights(saved.parent).sha256 == load_weights(saved).sha256


def test_an_altered_file_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(WeightsError, match="sha256"):
        load_weights(saved)
    status = verify_weights(saved)
    assert not status.intact
    assert "sha256" in status.reason


def test_another_task_is_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match="of task ct-mri, expected ir-vis"):
        load_weights(saved, "ir-vis")


def test_another_network_is_refused(saved: Path) -> None:
    change_card(saved, network={"channels": 8})
    with pytest.raises(WeightsError, match="do not fit the network"):
        load_weights(saved)


def test_an_unknown_network_key_is_refused(saved: Path) -> None:
    change_card(saved, network={"chanels": 8})
    with pytest.raises(WeightsError, match="did you mean channels"):
        load_weights(saved)


def test_a_missing_card_is_refused(saved: Path) -> None:
    (saved.parent / CARD).unlink()
    with pytest.raises(WeightsError, match=f"no {CARD} beside it"):
        load_weights(saved)
    assert verify_weights(saved).task == "unknown"


def test_a_broken_card_is_refused(saved: Path) -> None:
    (saved.parent / CARD).write_text("{")
    with pytest.raises(WeightsError, match="not readable as JSON"):
        load_weights(saved)


def test_a_card_without_sha256_is_refused(saved: Path) -> None:
    (saved.parent / CARD).write_text('{"task": "ct-mri"}')
    with pytest.raises(WeightsError, match="sha256, network missing"):
        load_weights(saved)


def test_missing_weights_name_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected a folder or file of weights, or one of"):
        load_weights(tmp_path / "nothing")


def test_the_shipped_weights_are_intact_and_of_known_tasks() -> None:
    shipped = list_weights()
    assert shipped
    assert all(status.intact for status in shipped), [s.reason for s in shipped]
    assert {status.task for status in shipped} <= set(TASKS)


def test_the_command_lists_and_verifies(saved: Path) -> None:
    runner = CliRunner()
    assert "ct-mri" in runner.invoke(weights_command, ["list"]).output
    assert "intact" in runner.invoke(weights_command, ["verify", str(saved)]).output
    change_card(saved, sha256="0" * 64)
    result = runner.invoke(weights_command, ["verify", str(saved)])
    assert isinstance(result.exception, WeightsError)
    assert "BROKEN" in result.output


def test_a_changed_card_is_refused(saved: Path) -> None:
    card = json.loads((saved.parent / CARD).read_text())
    (saved.parent / CARD).write_text(json.dumps({**card, "limits": ["all"]}))
    with pytest.raises(WeightsError, match="contents differ from its card_sha256"):
        load_weights(saved)


WRONG_KINDS = [
    '{"task": {}, "sha256": "", "network": {}}',
    '{"task": "ct-mri", "sha256": 3, "network": {}}',
    '{"task": "ct-mri", "sha256": "", "network": 3}',
]


@pytest.mark.parametrize("text", ["[]", "3", "null", "[" * 100_000, '{"task": []}', *WRONG_KINDS])
def test_a_card_that_is_none_is_refused(saved: Path, text: str) -> None:
    (saved.parent / CARD).write_text(text)
    with pytest.raises(WeightsError, match=r"card\.json"):
        load_weights(saved)


def test_a_card_of_gigabytes_is_not_read(saved: Path) -> None:
    with (saved.parent / CARD).open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(WeightsError, match="more than 16 MiB"):
        load_weights(saved)


def test_a_card_that_is_a_pipe_is_not_opened(saved: Path) -> None:
    (saved.parent / CARD).unlink()
    os.mkfifo(saved.parent / CARD)
    with pytest.raises(WeightsError, match=r"no card\.json"):
        load_weights(saved)


def test_a_card_of_an_earlier_mmif_is_read_with_a_warning(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = json.loads((saved.parent / CARD).read_text())
    del card[SEAL]
    (saved.parent / CARD).write_text(json.dumps(card))
    load_weights(saved)
    assert "no card_sha256" in caplog.text


@pytest.mark.parametrize("status", list_weights(), ids=lambda status: status.name)
def test_the_shipped_cards_are_sealed(status) -> None:
    """Whoever edits one seals it anew: `mmif.weights.card_seal`."""
    card = read_card(status.path)
    assert card.get(SEAL) == card_seal(card)
