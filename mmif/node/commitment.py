"""Storage commitment (PS3.4 J): the archive says that it keeps what it was sent."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from mmif.node.peers import Peer
from mmif.node.send import Instance, associate

log = logging.getLogger(__name__)

REQUEST = 1  # Action Type ID, PS3.4 J.3.2.1
# PS3.7 Annex C
SUCCESS = 0x0000
# How soon a stop is seen while an answer is awaited; chosen, not measured
POLL_S = 0.5
SAME_ASSOCIATION_S = 2.0
"""How long the association of the request stays open: some archives answer over it."""


@dataclass
class Answer:
    """What an archive said of one transaction.

    Attributes:
        offered: whether it offers storage commitment at all.
        came: set when its report has come.
        failed: SOPInstanceUIDs that it does not keep, and why (Failure Reason, 0008,1197).
    """

    offered: bool = True
    came: threading.Event = field(default_factory=threading.Event)
    failed: dict[str, int] = field(default_factory=dict)


class Commitments:
    """The transactions that are open; reports come over any association."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._open: dict[str, Answer] = {}

    def ask(
        self,
        instances: Sequence[Instance],
        peer: Peer,
        calling: str,
        timeout_s: float,
        stopped: threading.Event,
    ) -> Answer:
        """Ask ``peer`` to commit itself to ``instances``; its answer, after ``timeout_s`` at most.

        An answer that did not come in time, or before ``stopped``, has ``came`` not set.
        """
        transaction = str(generate_uid())
        answer = self._open[transaction] = Answer()
        contexts = [(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
        handlers = [(evt.EVT_N_EVENT_REPORT, self.take_report)]
        try:
            with associate(peer, calling, contexts, handlers) as association:
                answer.offered = not association.rejected_contexts
                if not association.is_established:
                    return answer
                status, _ = association.send_n_action(
                    _request(transaction, instances),
                    REQUEST,
                    StorageCommitmentPushModel,
                    StorageCommitmentPushModelInstance,
                )
                if status.get("Status") != SUCCESS:
                    return answer
                # it may come over this association (PS3.4 J.3.3), which must not close before
                answer.came.wait(min(SAME_ASSOCIATION_S, timeout_s))
            end = time.monotonic() + timeout_s
            while not (stopped.is_set() or answer.came.wait(POLL_S) or time.monotonic() > end):
                pass
        finally:
            del self._open[transaction]
        return answer

    def take_report(self, event: evt.Event) -> tuple[int, None]:
        """The handler of an archive's N-EVENT-REPORT; one that nobody waits for is acknowledged."""
        report = event.event_information
        answer = self._open.get(str(report.get("TransactionUID", "")))
        if answer is None:
            log.info("%s: a report on storage commitment came late", event.assoc.remote["ae_title"])
            return SUCCESS, None
        for item in report.get("FailedSOPSequence") or []:
            uid = str(item.get("ReferencedSOPInstanceUID", ""))
            answer.failed[uid] = int(item.get("FailureReason", 0))
        answer.came.set()
        return SUCCESS, None


def _request(transaction: str, instances: Sequence[Instance]) -> Dataset:
    """The Action Information of PS3.4 table J.3-1."""
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.sop_class_uid
        item.ReferencedSOPInstanceUID = instance.sop_instance_uid
        request.ReferencedSOPSequence.append(item)
    return request
