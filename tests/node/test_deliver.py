"""Results on their way: archives that are away, that refuse, that commit themselves."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor
from network import free_port, wait_until
from pydicom import Dataset, dcmread
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    SecondaryCaptureImageStorage,
    SpatialRegistrationStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

import mmif
from mmif.node.commitment import Commitments
from mmif.node.config import DeliverConfig, NodeConfig
from mmif.node.deliver import Deliveries
from mmif.node.peers import Peer
from mmif.node.receive import Receiver
from mmif.node.spool import Spool

# pynetdicom leaves the socket of a refused connection to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

QUICK = DeliverConfig(first_pause_s=0.2, longest_pause_s=0.5, commitment_s=5)


class Archive:
    """An archive that keeps UIDs, refuses the first ``refused`` images, and reports commitment."""

    def __init__(self, port: int, node_port: int = 0, refused: int = 0, forgets: int = 0) -> None:
        self.port, self.node_port = port, node_port
        self.refused, self.forgets = refused, forgets
        self.kept: list[str] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        entity = AE(ae_title="ARCHIVE")
        entity.add_supported_context(SecondaryCaptureImageStorage)
        handlers = [(evt.EVT_C_STORE, self.store), (evt.EVT_N_ACTION, self.commit)]
        if self.node_port:
            entity.add_supported_context(StorageCommitmentPushModel)
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()

    def store(self, event: evt.Event) -> int:
        if self.refused:
            self.refused -= 1
            return 0xA700
        self.kept.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def commit(self, event: evt.Event) -> tuple[int, None]:
        threading.Thread(target=self.report, args=(event.action_information,)).start()
        return 0x0000, None

    def report(self, asked: Dataset) -> None:
        """Over an association of its own, as the SCP (PS3.4 J.3.3)."""
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        items = list(asked.ReferencedSOPSequence)
        failed, kept = items[: self.forgets], items[self.forgets :]
        self.forgets = 0
        for item in failed:
            self.kept.remove(item.ReferencedSOPInstanceUID)
            item.FailureReason = 0x0112
        report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        entity = AE(ae_title="ARCHIVE")
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = entity.associate("127.0.0.1", self.node_port, ae_title="MMIF", ext_neg=[role])
        association.send_n_event_report(
            report,
            2 if failed else 1,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        association.release()


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A result of three instances."""
    values = np.random.default_rng(1).random((1, 40, 40, 3), dtype=np.float32)
    folder = tmp_path / "studies" / "1.2.3" / "spect-ct"
    mmif.save(MetaTensor(values, affine=np.diag([1.0, 1, 3, 1])), folder / "fused")
    return folder


def deliveries(
    tmp_path: Path, port: int, commitments: Commitments, config: DeliverConfig = QUICK
) -> Deliveries:
    peer = Peer("ARCHIVE", "127.0.0.1", port)
    return Deliveries(tmp_path / "sent", (peer,), "MMIF", config, commitments)


def test_an_archive_that_was_away_has_everything_once(result: Path, tmp_path: Path) -> None:
    archive = Archive(free_port(), refused=1)
    made = time.time()
    with deliveries(tmp_path, archive.port, Commitments()) as sent:
        sent.add("1.2.3/spect-ct", result, made)
        sent.add("1.2.3/spect-ct", result, made)  # told twice, sent once
        time.sleep(0.5)
        assert not sent.is_over("1.2.3/spect-ct", made)
        with archive.open():
            wait_until(lambda: sent.is_over("1.2.3/spect-ct", made), "the delivery")
    assert len(archive.kept) == len(set(archive.kept)) == 3
    with deliveries(tmp_path, archive.port, Commitments()) as again, archive.open():
        again.add("1.2.3/spect-ct", result, made)  # as a node that starts anew does
        assert again.is_over("1.2.3/spect-ct", made)
        again.add("1.2.3/spect-ct", result, made + 1)  # a result made anew
        wait_until(lambda: again.is_over("1.2.3/spect-ct", made + 1), "the delivery")
    assert len(archive.kept) == 6


def test_an_archive_that_knows_one_class_less_has_all_the_rest(
    result: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ds = dcmread(next((result / "fused").iterdir()))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SpatialRegistrationStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.save_as(result / "registration.dcm")
    archive, made = Archive(free_port()), time.time()
    with deliveries(tmp_path, archive.port, Commitments()) as sent, archive.open():
        sent.add("1.2.3/spect-ct", result, made)
        wait_until(lambda: sent.is_over("1.2.3/spect-ct", made), "the delivery")
    assert len(archive.kept) == 3
    assert "does not take Spatial Registration Storage" in caplog.text


def test_what_is_never_taken_is_given_up(result: Path, tmp_path: Path) -> None:
    config = DeliverConfig(first_pause_s=0.1, longest_pause_s=0.1, give_up_days=1e-9)
    with deliveries(tmp_path, free_port(), Commitments(), config) as sent:
        sent.add("1.2.3/spect-ct", result, made := time.time())
        wait_until(lambda: sent.is_over("1.2.3/spect-ct", made), "giving up")
    assert '"failed"' in (tmp_path / "sent" / "ledger.jsonl").read_text()


def test_what_the_archive_does_not_commit_itself_to_is_sent_again(
    result: Path, tmp_path: Path
) -> None:
    config = NodeConfig(
        output=str(tmp_path / "node"),
        accept=("SCANNER",),
        host="127.0.0.1",
        port=free_port(),
        send_to=(f"ARCHIVE@127.0.0.1:{free_port()}",),
    )
    archive = Archive(config.peers[0].port, config.port, forgets=1)
    commitments, made = Commitments(), time.time()
    with (
        Receiver(config, Spool(tmp_path / "spool"), commitments),
        archive.open(),
        deliveries(tmp_path, archive.port, commitments) as sent,
    ):
        sent.add("1.2.3/spect-ct", result, made)
        wait_until(lambda: sent.is_over("1.2.3/spect-ct", made), "the commitment")
    assert len(archive.kept) == len(set(archive.kept)) == 3
    assert archive.forgets == 0
