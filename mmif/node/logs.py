"""What the libraries of the network may say: nothing, for they quote names and data sets."""

import logging

import pynetdicom


def hide_identity() -> None:
    """Silence pynetdicom and dicomweb-client; mmif says itself what happens, by UIDs and counts."""
    for name in ("pynetdicom", "dicomweb_client", "urllib3"):
        library = logging.getLogger(name)
        library.handlers = [logging.NullHandler()]
        library.propagate = False
        library.setLevel(logging.CRITICAL)
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    pynetdicom._config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom._config.LOG_RESPONSE_IDENTIFIERS = False
