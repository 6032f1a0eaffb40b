"""Who may send what to the node, and how much."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from network import free_port
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    CTImageStorage,
    SpatialRegistrationStorage,
    Verification,
)

from mmif.node.commitment import Commitments
from mmif.node.config import NodeConfig, ReceiveConfig
from mmif.node.logs import hide_identity
from mmif.node.receive import IMAGES, Receiver
from mmif.node.spool import Spool

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig(
        output=str(tmp_path),
        accept=("SCANNER",),
        send_to=("PACS@127.0.0.1:1",),
        host="127.0.0.1",
        port=free_port(),
        receive=ReceiveConfig(associations=2, pdu_bytes=32768, free_gib=0),
    )


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def node(config: NodeConfig, spool: Spool) -> Iterator[NodeConfig]:
    hide_identity()
    with Receiver(config, spool, Commitments()):
        yield config


def associate(config: NodeConfig, title: str = "SCANNER", called: str = "MMIF") -> Association:
    entity = AE(ae_title=title)
    entity.add_requested_context(Verification)
    for sop_class in (*IMAGES, SpatialRegistrationStorage):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    entity.add_requested_context(CTImageStorage, JPEG2000Lossless)
    return entity.associate("127.0.0.1", config.port, ae_title=called)


def kept(spool: Spool) -> list[Path]:
    return list(spool.root.rglob("*.dcm"))


def send(config: NodeConfig, path: Path, title: str = "SCANNER", **changed: Any) -> int:
    """The status of one C-STORE."""
    ds = dcmread(path)
    for keyword, value in changed.items():
        if keyword.endswith("UID"):  # past pydicom, which refuses it
            ds[keyword]._value = value
        else:
            setattr(ds, keyword, value)
    association = associate(config, title)
    assert association.is_established
    status = association.send_c_store(ds)
    association.release()
    return int(status.Status)


def test_images_in_every_syntax_that_is_read_are_taken(node: NodeConfig) -> None:
    association = associate(node)
    accepted = {(c.abstract_syntax, c.transfer_syntax[0]) for c in association.accepted_contexts}
    assert association.send_c_echo().Status == 0
    assert association.acceptor.maximum_length == 32768
    association.release()
    assert {uid for uid, _ in accepted} == {*IMAGES, Verification}
    assert (CTImageStorage, JPEG2000Lossless) in accepted


def test_an_image_is_on_the_disk_when_its_sender_is_told_so(
    node: NodeConfig, spool: Spool, sample_data: Path
) -> None:
    assert send(node, sample_data / "spect.dcm") == 0
    (path,) = kept(spool)
    sent, found = dcmread(sample_data / "spect.dcm"), dcmread(path)
    assert found == sent
    assert found.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert list(spool.receiving.iterdir()) == []


@pytest.mark.parametrize(("title", "called"), [("STRANGER", "MMIF"), ("SCANNER", "ANOTHER")])
def test_strangers_and_wrong_numbers_are_refused(
    title: str, called: str, node: NodeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mmif.node"):
        association = associate(node, title, called)
    assert association.is_rejected
    assert "association refused" in caplog.text


def test_an_archive_may_report_but_not_send(
    node: NodeConfig, spool: Spool, sample_data: Path
) -> None:
    assert send(node, sample_data / "spect.dcm", "PACS") == 0x0124
    assert kept(spool) == []


def test_more_associations_than_the_limit_are_refused(node: NodeConfig) -> None:
    open_now = [associate(node) for _ in range(3)]
    assert [one.is_established for one in open_now] == [True, True, False]
    for one in open_now[:2]:
        one.release()


def test_a_full_disk_is_said_to_the_sender(
    config: NodeConfig, spool: Spool, sample_data: Path
) -> None:
    full = replace(config, receive=ReceiveConfig(free_gib=1e9))
    with Receiver(full, spool, Commitments()):
        assert send(full, sample_data / "spect.dcm") == 0xA700
    assert kept(spool) == []


def test_an_image_that_belongs_nowhere_is_refused_without_a_name_in_the_log(
    node: NodeConfig, spool: Spool, sample_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        path = sample_data / "spect.dcm"
        secret = {"PatientName": "Secret^Name", "PatientID": "SECRET"}
        assert send(node, path, StudyInstanceUID="../..", **secret) == 0xC000
    assert kept(spool) == []
    assert "StudyInstanceUID" in caplog.text
    assert "secret" not in caplog.text.casefold()


def test_a_parser_that_fails_is_a_refusal_of_one_image(
    node: NodeConfig, spool: Spool, sample_data: Path, monkeypatch, caplog
) -> None:
    def fail(path: Path) -> None:
        raise LookupError("Secret^Name")

    monkeypatch.setattr("mmif.node.receive.read_identifiers", fail)
    assert send(node, sample_data / "spect.dcm") == 0xC000
    assert "LookupError" in caplog.text
    assert "Secret" not in caplog.text
    monkeypatch.undo()
    assert send(node, sample_data / "spect.dcm") == 0
    assert len(kept(spool)) == 1


def test_results_of_mmif_that_come_back_are_not_kept(
    node: NodeConfig, spool: Spool, sample_data: Path
) -> None:
    assert send(node, sample_data / "spect.dcm", ManufacturerModelName="mmif") == 0
    assert kept(spool) == []
