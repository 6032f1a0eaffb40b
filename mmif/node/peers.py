"""Who is talked to: an application entity at a place in the network."""

import re
from dataclasses import dataclass
from typing import Self

from mmif.errors import ConfigError


@dataclass(frozen=True)
class Peer:
    """A DICOM application entity.

    Attributes:
        ae_title: its AE title, at most 16 characters (PS3.5 6.2, AE).
        host: name or address.
        port: 1 to 65535.
    """

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The peer that ``AET@HOST:PORT`` names.

        >>> Peer.parse("PACS@archive.example:104")
        Peer(ae_title='PACS', host='archive.example', port=104)

        Raises:
            ConfigError: something else.
        """
        match = re.fullmatch(r"([^@\\]{1,16})@(\[[0-9a-fA-F:]+\]|[^@:\s]+):(\d{1,5})", text)
        if not match or not match[1].strip() or not 0 < int(match[3]) < 65536:
            raise ConfigError(f"{text}: expected AET@HOST:PORT, as PACS@archive.example:104")
        return cls(match[1].strip(), match[2].strip("[]"), int(match[3]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


def check_ae_title(text: str) -> str:
    """``text`` as an AE title.

    Raises:
        ConfigError: it is empty, longer than 16 characters, or has a backslash or controls.
    """
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", text) or not text.strip():
        raise ConfigError(f"AE title {text!r}: expected 1 to 16 plain characters")
    return text.strip()
