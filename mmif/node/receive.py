"""The node's ear: C-ECHO, C-STORE, and the archive's answers on storage commitment."""

import logging
import shutil
import tempfile

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    StorageCommitmentPushModel,
    Verification,
)

from mmif.batch.run_job import error_line
from mmif.errors import InputError, OutputError
from mmif.io.dicom.read.pixels import SYNTAXES
from mmif.node.commitment import Commitments
from mmif.node.config import NodeConfig
from mmif.node.spool import Spool, read_identifiers

log = logging.getLogger(__name__)

IMAGES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)
"""What is taken: CT, MR, NM and PT, single-frame and enhanced."""

# PS3.4 B.2.3 and PS3.7 C
SUCCESS = 0x0000
NOT_AUTHORIZED = 0x0124  # PS3.7 C: refused
OUT_OF_RESOURCES = 0xA700  # PS3.4 table B.2-1: refused
CANNOT_UNDERSTAND = 0xC000  # PS3.4 table B.2-1: error
# Bytes
GIB = 1 << 30


class Receiver:
    """The DICOM service that fills the spool, while inside a ``with`` block.

    Transfers go to the disk as they come, so memory does not grow with the size of an image.
    """

    def __init__(self, config: NodeConfig, spool: Spool, commitments: Commitments) -> None:
        """Nothing listens before the ``with`` block."""
        self._config = config
        self._spool = spool
        self._commitments = commitments
        self._entity = _entity(config)

    def __enter__(self) -> "Receiver":
        # of pynetdicom, for this process: where transfers go while they come
        self._before = _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir
        _config.STORE_RECV_CHUNKED_DATASET = True
        tempfile.tempdir = str(self._spool.receiving)
        place = self._config.host, self._config.port
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_EVENT_REPORT, self._commitments.take_report),
            (evt.EVT_REJECTED, _say_rejected),
            (evt.EVT_ABORTED, _say_aborted),
        ]
        try:
            self._entity.start_server(place, block=False, evt_handlers=handlers)
        except OSError as error:
            raise OutputError(
                f"{self._config.host or '*'}:{self._config.port}: cannot listen there "
                f"({error.strerror}); expected a free port"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._entity.shutdown()
        _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir = self._before

    def _store(self, event: evt.Event) -> int:
        """One C-STORE; success is told when the image is on the disk."""
        sender = event.assoc.requestor.ae_title
        if sender not in self._config.accept:  # an archive, which may report commitment alone
            log.warning("%s: refused an image; not one of those that may send", sender)
            return NOT_AUTHORIZED
        if shutil.disk_usage(self._spool.root).free < self._config.receive.free_gib * GIB:
            log.error(
                "%s: refused an image; less than %g GiB are free below %s",
                *(sender, self._config.receive.free_gib, self._spool.root),
            )
            return OUT_OF_RESOURCES
        try:
            header = read_identifiers(event.dataset_path)
            if header.get("ManufacturerModelName") == "mmif":  # whole studies are sent on
                log.info("%s: a result of mmif came back; not kept", sender)
            else:
                self._spool.keep(event.dataset_path, header)
        except InputError as error:
            log.warning("%s: refused an image; %s", sender, error)
            return CANNOT_UNDERSTAND
        except OSError as error:
            log.error("%s: refused an image; %s", sender, error.strerror or type(error).__name__)
            return OUT_OF_RESOURCES
        except Exception as error:  # of a parser: its text could quote the image
            log.error("%s: refused an image; %s", sender, error_line(error)[1])
            return CANNOT_UNDERSTAND
        return SUCCESS


def _entity(config: NodeConfig) -> AE:
    """The application entity with its contexts and limits."""
    entity = AE(ae_title=config.ae_title)
    entity.add_supported_context(Verification)
    for sop_class in IMAGES:
        entity.add_supported_context(sop_class, list(SYNTAXES))
    # an archive reports as the SCP over an association of its own (PS3.4 J.3.3)
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    entity.require_called_aet = True
    entity.require_calling_aet = [*config.accept, *(peer.ae_title for peer in config.peers)]
    entity.maximum_associations = config.receive.associations
    entity.maximum_pdu_size = config.receive.pdu_bytes
    entity.network_timeout = entity.dimse_timeout = config.receive.idle_s
    entity.acse_timeout = min(30.0, config.receive.idle_s)
    return entity


def _say_rejected(event: evt.Event) -> None:
    other = event.assoc.requestor
    log.warning(
        "%s at %s: association refused; not one of those that may send, or too many at a time",
        *(other.ae_title, other.address),
    )


def _say_aborted(event: evt.Event) -> None:
    log.info("%s: association aborted", event.assoc.requestor.ae_title)
