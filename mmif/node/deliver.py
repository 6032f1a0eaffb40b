"""Results on their way to the archives, with a record of what has arrived."""

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mmif.batch.ledger import Ledger
from mmif.batch.locks import Claims
from mmif.batch.run_job import error_line
from mmif.errors import InputError
from mmif.node.commitment import Commitments
from mmif.node.config import DeliverConfig
from mmif.node.peers import Peer
from mmif.node.send import Instance, dicom_instances, store

log = logging.getLogger(__name__)

# Seconds of a day
DAY_S = 86400.0
# How soon a pause that is over is seen, against idle turns; chosen, not measured
POLL_S = 1.0


@dataclass
class Delivery:
    """One result on its way to one archive.

    Attributes:
        job_id: whose result it is, ``STUDY/TASK``.
        output: its folder.
        made: when it was made, in seconds of the epoch; a result made anew is another one.
        tries: how often it was tried.
        due: when it is tried next, by the clock of `Deliveries`.
        taken: SOPInstanceUIDs that were taken in this process.
    """

    job_id: str
    output: Path
    made: float
    tries: int = 0
    due: float = 0.0
    taken: set[str] = field(default_factory=set)


class Deliveries:
    """A thread for each archive, while inside a ``with`` block, and their common record.

    The record says what has arrived, after the archive has said so. A node that is killed between
    the two sends again; UIDs follow from the pixels, so that they are the same instances.
    """

    def __init__(
        self,
        folder: Path,
        peers: tuple[Peer, ...],
        calling: str,
        config: DeliverConfig,
        commitments: Commitments,
    ) -> None:
        """Open the record in ``folder``, which is made if missing.

        Raises:
            MmifError: the record cannot be read or begun.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._claims = Claims(folder)
        self._record = Ledger(folder, self._claims)
        self._record.begin({"what": "results that archives have taken"})
        self._calling = calling
        self._config = config
        self._commitments = commitments
        self._condition = threading.Condition()
        self._stopped = threading.Event()
        self._waiting: dict[Peer, list[Delivery]] = {peer: [] for peer in peers}
        self._threads = [
            threading.Thread(target=self._serve, args=(peer,), daemon=True) for peer in peers
        ]

    def __enter__(self) -> "Deliveries":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._condition:
            self._stopped.set()
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(self._config.commitment_s)  # an association may be open
        self._claims.close()

    def add(self, job_id: str, output: Path, made: float) -> None:
        """Have the result at ``output`` sent to every archive that has not had it."""
        with self._condition:
            for peer, waiting in self._waiting.items():
                known = any((one.job_id, one.made) == (job_id, made) for one in waiting)
                if not known and not self._is_over(job_id, peer, made):
                    waiting.append(Delivery(job_id, output, made))
            self._condition.notify_all()

    def is_over(self, job_id: str, made: float) -> bool:
        """Whether every archive has had the result, or was given up."""
        with self._condition:
            return all(self._is_over(job_id, peer, made) for peer in self._waiting)

    def _is_over(self, job_id: str, peer: Peer, made: float) -> bool:
        entry = self._record.entries.get(_name(job_id, peer))
        return entry is not None and entry.line.get("made") == made

    def _serve(self, peer: Peer) -> None:
        """One thread: its archive gets one result after the other."""
        while (delivery := self._next(peer)) is not None:
            try:
                lack = self._try(delivery, peer)
            except Exception as error:  # whatever it is, the others are waiting
                lack = error_line(error)[1]
            self._end_try(delivery, peer, lack)

    def _next(self, peer: Peer) -> Delivery | None:
        """The delivery that is due; None in the end."""
        with self._condition:
            while not self._stopped.is_set():
                due = [one for one in self._waiting[peer] if one.due <= time.monotonic()]
                if due:
                    return min(due, key=lambda one: one.due)
                self._condition.wait(POLL_S)
        return None

    def _try(self, delivery: Delivery, peer: Peer) -> str:
        """Send what was not taken yet, and have it committed; what is lacking, "" if nothing."""
        try:
            instances = dicom_instances(delivery.output)
        except InputError as error:  # removed, or just replaced
            return str(error)
        left = [one for one in instances if one.sop_instance_uid not in delivery.taken]
        replies = store(left, peer, calling=self._calling, retries=0) if left else []
        delivery.taken |= {r.instance.sop_instance_uid for r in replies if r.taken}
        refused = [reply for reply in replies if not reply.taken]
        taken = [one for one in instances if one.sop_instance_uid in delivery.taken]
        # an archive that knows no presentation states, say, still has the images
        if not taken or any(reply.known for reply in refused):
            return f"took {len(taken)} of {len(instances)} ({refused[0].words})"
        for reply in refused:
            log.warning("%s: %s; the rest of %s is there", peer, reply.words, delivery.job_id)
        log.info("%s: took %s, %d instances", peer, delivery.job_id, len(taken))
        return self._commit(delivery, peer, taken) if self._config.commitment else ""

    def _commit(self, delivery: Delivery, peer: Peer, instances: list[Instance]) -> str:
        """Ask for storage commitment; what is lacking, "" if nothing, or if it is not offered."""
        answer = self._commitments.ask(
            instances, peer, self._calling, self._config.commitment_s, self._stopped
        )
        if not answer.offered:
            return ""
        if not answer.came.is_set():
            return f"no report on storage commitment within {self._config.commitment_s:g} s"
        if answer.failed:
            delivery.taken -= set(answer.failed)
            uid, why = next(iter(answer.failed.items()))
            return f"did not commit itself to {len(answer.failed)} ({uid}: {why:04X})"
        log.info("%s: committed itself to %s", peer, delivery.job_id)
        return ""

    def _end_try(self, delivery: Delivery, peer: Peer, lack: str) -> None:
        """One try is over: it has arrived, is given up, or is due again after a pause."""
        delivery.tries += 1
        given_up = bool(lack) and time.time() - delivery.made > self._config.give_up_days * DAY_S
        if not lack or given_up:
            lack = self._record_end(delivery, peer, lack) or lack
        if given_up:
            log.error("%s: %s: given up; %s", peer, delivery.job_id, lack)
        elif lack and not self._stopped.is_set():
            log.warning("%s: %s: %s; tried again later", peer, delivery.job_id, lack)
        pause = self._config.first_pause_s * 2 ** min(delivery.tries - 1, 30)
        delivery.due = time.monotonic() + min(pause, self._config.longest_pause_s)

    def _record_end(self, delivery: Delivery, peer: Peer, lack: str) -> str:
        """Record that a delivery has come to its end; what keeps it from that, "" if nothing."""
        fields = {"made": delivery.made, **({"reason": lack} if lack else {})}
        with self._condition:
            try:
                name = _name(delivery.job_id, peer)
                self._record.append(name, "failed" if lack else "done", **fields)
            except OSError as error:
                return f"the record cannot be written ({error.strerror})"
            self._record.refresh()
            self._waiting[peer].remove(delivery)
        return ""


def _name(job_id: str, peer: Peer) -> str:
    return f"{job_id}/{peer}"
