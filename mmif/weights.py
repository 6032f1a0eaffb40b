"""Trained weights and their cards: found, verified, loaded, saved.

A set of weights is a folder with ``model.safetensors`` and ``card.json``; the card says what the
network was trained on and how, what it reached, its limits and licences, and the sha256 of the
file. Weights whose sha256 differs from the card are refused.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mmif.config import NetworkConfig, Pipeline, build, shipped_path
from mmif.errors import ConfigError, WeightsError
from mmif.io.atomic import commit_together, staging_folder
from mmif.io.seals import content_sha256, file_sha256
from mmif.roles import TASKS

if TYPE_CHECKING:
    from mmif.networks.s3imfusion import S3IMFusion

MODEL = "model.safetensors"
CARD = "card.json"
SEAL = "card_sha256"
MAX_CARD_BYTES = 16 << 20
"""Of a card: the shipped ones have 6 to 9 KB, and one of 100,000 cases would have 3 MB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Weights:
    """A loaded network and where it comes from.

    Attributes:
        name: the task's name for shipped weights, else the folder's or file's.
        path: the safetensors file.
        sha256: of that file, equal to the card's.
        task: one of ``mmif.roles.TASKS``.
        card: the card, as it stands in ``card.json``.
        network: in evaluation mode, on the CPU, float32.
    """

    name: str
    path: Path
    sha256: str
    task: str
    card: Mapping[str, Any]
    network: "S3IMFusion"


@dataclass(frozen=True)
class WeightsStatus:
    """One set of weights, and whether its file is what its card says.

    Attributes:
        reason: why it is not usable; empty where it is.
    """

    name: str
    task: str
    path: Path
    sha256: str
    size_bytes: int
    intact: bool
    reason: str = ""


def load_weights(name_or_file: str | Path, task: str | Collection[str] | None = None) -> Weights:
    """The verified network of a shipped name (``ct-mri``), a folder, or a safetensors file.

    Args:
        name_or_file: a file needs its ``card.json`` beside it.
        task: the task, or tasks, the weights are wanted for.

    Raises:
        WeightsError: missing, altered, or of another network or task.
    """
    from safetensors.torch import load_file

    from mmif.networks.s3imfusion import S3IMFusion

    path = find_weights(name_or_file)
    card = read_card(path)
    wanted = {task} if isinstance(task, str) else set(task or ())
    if card["task"] not in TASKS:
        raise WeightsError(f"{path}: weights of task {card['task']!r:.40}, which is none")
    if wanted and card["task"] not in wanted:
        expected = " or ".join(sorted(wanted))
        raise WeightsError(f"{path}: weights of task {card['task']}, expected {expected}")
    sha256 = verify_sha256(path, card)
    network = S3IMFusion(_network_config(path, card))
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: its tensors do not fit the network of {CARD} ({str(error).splitlines()[0]})"
        ) from error
    return Weights(_name(path), path, sha256, card["task"], card, network.eval())


def load_passes(pipeline: Pipeline) -> tuple[Weights, ...]:
    """The verified weights of each pass of ``pipeline``, in the order of `Pipeline.passes`.

    Raises:
        WeightsError: missing, altered, or trained for other sources than the pass has.
    """
    tasks = TASKS[pipeline.task].passes
    return tuple(load_weights(*one) for one in zip(pipeline.passes, tasks, strict=True))


def find_weights(name_or_file: str | Path) -> Path:
    """The safetensors file of a shipped name, a folder or a file.

    Raises:
        WeightsError: there is none.
    """
    given = Path(name_or_file)
    for path in (given, given / MODEL, shipped_path("weights") / given / MODEL):
        if path.is_file():
            return path.resolve()
    names = ", ".join(path.parent.name for path in _shipped_files()) or "none"
    raise WeightsError(
        f"no weights {name_or_file}; expected a folder or file of weights, or one of: {names}"
    )


def read_card(path: Path) -> dict[str, Any]:
    """The card beside the safetensors file ``path``.

    Raises:
        WeightsError: no card, not JSON, or without what every card must have.
    """
    card_path = path.parent / CARD
    if not card_path.is_file():
        raise WeightsError(f"{path}: no {CARD} beside it, expected one with its sha256")
    try:
        if card_path.stat().st_size > MAX_CARD_BYTES:
            raise WeightsError(
                f"{card_path}: more than {MAX_CARD_BYTES >> 20} MiB; expected a card"
            )
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{card_path}: not readable as JSON ({error})") from error
    if not isinstance(card, dict):
        raise WeightsError(f"{card_path}: found a {type(card).__name__}, expected keys and values")
    missing = [key for key in ("task", "sha256", "network") if key not in card]
    if missing:
        raise WeightsError(f"{card_path}: {', '.join(missing)} missing from the card")
    kinds = {"task": str, "sha256": str, "network": dict}
    for key, kind in kinds.items():
        if not isinstance(card[key], kind):
            found = type(card[key]).__name__
            raise WeightsError(f"{card_path}: {key} is a {found}, expected a {kind.__name__}")
    if SEAL not in card:
        log.warning("%s: no %s; a card of mmif 0.1, whose text is not verified", card_path, SEAL)
    elif card[SEAL] != card_seal(card):
        raise WeightsError(
            f"{card_path}: its contents differ from its {SEAL}; expected the card as it was written"
        )
    return card


def card_seal(card: Mapping[str, Any]) -> str:
    """The sha256 of all of a card but the seal itself, the sha256 of its weights among it."""
    return content_sha256(card, SEAL)


def verify_sha256(path: Path, card: Mapping[str, Any]) -> str:
    """The sha256 of ``path``, where it equals the card's.

    Raises:
        WeightsError: it differs.
    """
    found = file_sha256(path)
    if found != card["sha256"]:
        raise WeightsError(
            f"{path}: sha256 {found[:16]}... differs from its card ({str(card['sha256'])[:16]}...);"
            " expected the file that the card describes"
        )
    return found


def list_weights() -> list[WeightsStatus]:
    """The shipped weights, each held against the sha256 of its card; no network is built."""
    return [
        _status(path, lambda path: verify_sha256(path, read_card(path)))
        for path in _shipped_files()
    ]


def verify_weights(name_or_file: str | Path) -> WeightsStatus:
    """Whether weights are what their card says; what is wrong stands in ``reason``.

    Raises:
        WeightsError: there are no such weights.
    """
    return _status(find_weights(name_or_file), load_weights)


def _status(path: Path, check: Callable[[Path], object]) -> WeightsStatus:
    """Whether ``check`` finds nothing wrong with the weights at ``path``."""
    sha256, size = file_sha256(path), path.stat().st_size
    try:
        card = read_card(path)
    except WeightsError as error:
        return WeightsStatus(_name(path), "unknown", path, sha256, size, False, str(error))
    try:
        check(path)
    except WeightsError as error:
        return WeightsStatus(_name(path), card["task"], path, sha256, size, False, str(error))
    return WeightsStatus(_name(path), card["task"], path, sha256, size, True)


def save_weights(network: "S3IMFusion", folder: Path, card: Mapping[str, Any]) -> Path:
    """Write ``network`` and its card into ``folder``; the path of the safetensors file.

    The network's configuration, its size and the sha256 are added to the card.

    Args:
        card: at least ``task``.
    """
    from safetensors.torch import save

    path = folder / MODEL
    tensors = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
    packed = save(tensors)
    whole = {
        "task": card["task"],
        "sha256": hashlib.sha256(packed).hexdigest(),
        "network": asdict(network.config),
        "parameters": sum(p.numel() for p in network.parameters()),
        **{key: value for key, value in card.items() if key != "task"},
    }
    whole = json.loads(json.dumps(whole))  # as it is read: tuples are lists then
    whole[SEAL] = card_seal(whole)
    with staging_folder(path) as new:
        folder.mkdir(exist_ok=True)
        (new / MODEL).write_bytes(packed)
        (new / CARD).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        commit_together([(new / MODEL, path), (new / CARD, folder / CARD)])
    return path


def _network_config(path: Path, card: Mapping[str, Any]) -> NetworkConfig:
    try:
        return build(NetworkConfig, card["network"], f"{path.parent / CARD}: network")
    except ConfigError as error:
        raise WeightsError(str(error)) from error


def _name(path: Path) -> str:
    return path.parent.name if path.name == MODEL else path.stem


def _shipped_files() -> list[Path]:
    return sorted(shipped_path("weights").glob(f"*/{MODEL}"))
