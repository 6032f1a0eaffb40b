"""A process of several that train: what it says when another one stops."""

import pytest
import torch

from mmif.errors import TrainingError
from mmif.training import join_ranks

PAIR = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537]"
BUFFER = "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78]"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the second of two."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda _: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"{PAIR} Connection closed by peer [127.0.0.1]:58551"),
        RuntimeError(f"{PAIR} Read error [127.0.0.1]:58551: Connection reset by peer"),
        RuntimeError(f"{PAIR} writev [127.0.0.1]:58551: Broken pipe"),
        RuntimeError(f"{BUFFER} Timed out waiting 1800000ms for recv operation to complete"),
        torch.distributed.DistNetworkError("the store is gone"),
    ],
    ids=str,
)
def test_a_lost_peer_is_one_line_however_it_was_lost(error: RuntimeError) -> None:
    with pytest.raises(TrainingError, match="another process stopped"), join_ranks("cpu"):
        raise error


@pytest.mark.usefixtures("two")
def test_an_error_of_its_own_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="of its own"), join_ranks("cpu"):
        raise RuntimeError("of its own")
