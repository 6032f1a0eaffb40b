"""DICOM files to an archive, by C-STORE or STOW-RS, with retries."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from mmif.errors import InputError, OutputError
from mmif.io.files import require_path
from mmif.node.peers import Peer

log = logging.getLogger(__name__)

PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
# pynetdicom's own for ACSE and DIMSE; here for the network (60) and the connection (none) too, so
# that a silent archive holds nothing up for long
TIMEOUT_S = 30.0
# After pauses of 1, 2, 4 and 8 s: an archive's restart is for the node's pauses (config.py); chosen
RETRIES = 4
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Instance:
    """One DICOM file that can be sent."""

    path: Path
    sop_class_uid: UID
    sop_instance_uid: UID
    transfer_syntax: UID


@dataclass(frozen=True)
class Reply:
    """What became of one instance.

    Attributes:
        instance: it.
        taken: whether the other side has it.
        words: its answer.
        known: whether it takes objects of that class at all.
    """

    instance: Instance
    taken: bool
    words: str
    known: bool = True


def silent(step: str, share: float) -> None:
    """Show nothing."""


def dicom_instances(path: Path) -> list[Instance]:
    """The DICOM files at or below ``path``, sorted; anything else that lies there is no matter.

    Raises:
        InputError: nothing there, or no DICOM file.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected DICOM files")
    files = [require_path(path)] if not path.is_dir() else sorted(_files_below(path))
    found = [one for file in files if (one := _instance(file)) is not None]
    if not found:
        raise InputError(f"{path}: no DICOM files; expected a folder that mmif fuse wrote")
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for top, _, names in os.walk(folder):
        for name in names:
            if (path := Path(top, name)).is_file():  # a pipe would be waited for without end
                yield path


def _instance(path: Path) -> Instance | None:
    """What a DICOM file says of itself; None where it is none.

    Raises:
        InputError: it may not be read.
    """
    try:
        meta = read_file_meta_info(path)
        return Instance(
            path,
            UID(meta.MediaStorageSOPClassUID),
            UID(meta.MediaStorageSOPInstanceUID),
            UID(meta.TransferSyntaxUID),
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (InvalidDicomError, AttributeError, EOFError, ValueError):
        return None


def store(
    instances: Sequence[Instance],
    peer: Peer,
    *,
    calling: str = "MMIF",
    retries: int = RETRIES,
    pause_s: float = 1.0,
    progress: Progress = silent,
) -> list[Reply]:
    """Send ``instances`` to ``peer`` by C-STORE; what became of each, in their order.

    What was not taken is tried again, over a new association, after 1, 2, 4 and 8 times
    ``pause_s``. A reply is as the last try had it.
    """
    replies: dict[UID, Reply] = {}
    for attempt in range(retries + 1):
        left = [one for one in instances if not _is_taken(replies, one)]
        if not left:
            break
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        for reply in _one_association(left, peer, calling):
            replies[reply.instance.sop_instance_uid] = reply
            taken = sum(one.taken for one in replies.values())
            progress("send", taken / len(instances))
    return [replies[one.sop_instance_uid] for one in instances]


def _is_taken(replies: dict[UID, Reply], instance: Instance) -> bool:
    reply = replies.get(instance.sop_instance_uid)
    return reply is not None and reply.taken


def _one_association(left: Sequence[Instance], peer: Peer, calling: str) -> Iterator[Reply]:
    """The replies of one association; each instance has exactly one."""
    with associate(peer, calling, _contexts(left)) as association:
        for instance in left:
            yield _send(association, instance, peer)


def _contexts(instances: Sequence[Instance]) -> list[tuple[UID, list[UID]]]:
    """Presentation contexts: each class as it is stored, and uncompressed (at most 128)."""
    contexts: dict[tuple[UID, tuple[UID, ...]], None] = {}
    for one in instances:
        if one.transfer_syntax not in PLAIN:
            contexts[one.sop_class_uid, (one.transfer_syntax,)] = None
        contexts[one.sop_class_uid, tuple(PLAIN)] = None
    return [(sop_class, list(syntaxes)) for sop_class, syntaxes in contexts][:128]


@contextmanager
def associate(
    peer: Peer,
    calling: str,
    contexts: Sequence[tuple[UID, list[UID]]],
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Iterator[Association]:
    """An association with ``peer``, established or not, released in the end.

    Args:
        peer: with whom.
        calling: our AE title.
        contexts: the SOP classes, each with the transfer syntaxes that are offered for it.
        handlers: pynetdicom's events, each with what is called for it.
    """
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = TIMEOUT_S
    entity.connection_timeout = TIMEOUT_S
    entity.requested_contexts = [build_context(*context) for context in contexts]
    association = entity.associate(
        peer.host, peer.port, ae_title=peer.ae_title, evt_handlers=list(handlers)
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _send(association: Association, instance: Instance, peer: Peer) -> Reply:
    """One C-STORE; compressed pixels go as they are, or decompressed where nobody takes them."""
    if not association.is_established:
        rejected = " (rejected)" if association.is_rejected else ""
        return Reply(instance, False, f"no association with {peer}{rejected}")
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == instance.sop_class_uid
    }
    if not accepted:
        words = f"{peer} does not take {instance.sop_class_uid.name}"
        return Reply(instance, False, words, known=False)
    try:
        ds = dcmread(instance.path)
        if instance.transfer_syntax not in accepted and instance.transfer_syntax.is_compressed:
            ds.decompress(generate_instance_uid=False)
        status = association.send_c_store(ds)
    except (ValueError, RuntimeError, OSError) as error:
        return Reply(instance, False, f"not sent ({type(error).__name__})")
    return _reply(instance, status)


def _reply(instance: Instance, status: Dataset) -> Reply:
    """What a status says; warnings (Bxxx) mean that the instance was kept (PS3.4 B.2.3)."""
    if "Status" not in status:
        return Reply(instance, False, "no answer")
    code = int(status.Status)
    return Reply(instance, code == 0 or code >> 12 == 0xB, f"status {code:04X}")


def stow(
    instances: Sequence[Instance],
    url: str,
    *,
    retries: int = RETRIES,
    pause_s: float = 1.0,
    progress: Progress = silent,
) -> list[Reply]:
    """Send ``instances`` to the DICOMweb service at ``url`` by STOW-RS; as `store`.

    Raises:
        OutputError: not a URL.
    """
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise OutputError(f"{shown_url(url)}: expected http:// or https://, to a DICOMweb service")
    client = DICOMwebClient(url=url, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # ours, that are said
    replies: list[Reply] = []
    for number, instance in enumerate(instances, 1):
        for attempt in range(retries + 1):
            if attempt:
                time.sleep(pause_s * 2 ** (attempt - 1))
            reply = _post(client, instance)
            if reply.taken:
                break
        replies.append(reply)
        progress("send", number / len(instances))
    return replies


def shown_url(url: str) -> str:
    """``url`` without the name and password that may stand before its host.

    >>> shown_url("https://me:secret@archive.example/dicom-web")
    'https://archive.example/dicom-web'
    """
    return re.sub(r"//[^/?#]*@", "//", url)


def _post(client: DICOMwebClient, instance: Instance) -> Reply:
    try:
        answer = client.store_instances([dcmread(instance.path)])
    except (requests.RequestException, OSError, ValueError) as error:
        response = getattr(error, "response", None)
        code = f" {response.status_code}" if response is not None else ""
        return Reply(instance, False, f"{type(error).__name__}{code}")
    stored = {str(one.ReferencedSOPInstanceUID) for one in answer.get("ReferencedSOPSequence", [])}
    failed = [
        f"failure {one.get('FailureReason', 0):04X}" for one in answer.get("FailedSOPSequence", [])
    ]
    taken = instance.sop_instance_uid in stored and not failed
    return Reply(instance, taken, "stored" if taken else "; ".join(failed) or "not stored")
