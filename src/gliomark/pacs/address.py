"""Addresses in a DICOM network."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from gliomark.errors import ConfigurationError
from gliomark.messages import message


@dataclass(frozen=True)
class DimseAddress:
    """A PACS or another application that speaks DIMSE."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


def parse_address(text: str) -> DimseAddress | str:
    """Parse ``AET@host:port`` or the address of a DICOMweb service.

    Raises
    ------
    ConfigurationError
        If the text is neither.
    """
    if re.fullmatch(r"https?://\S+", text):
        return text.rstrip("/")
    match = re.fullmatch(r"([!-?A-\[\]-~]{1,16})@(\[[^\]]+\]|[^:\s]+):(\d{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise ConfigurationError(message("destination-unfit", text=text[:200]))
    return DimseAddress(match[1], match[2].strip("[]"), int(match[3]))


def check_ae_title(ae_title: str) -> None:
    """Check an AE title.

    Raises
    ------
    ConfigurationError
        If it is empty, too long or contains invalid characters.
    """
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", ae_title) or not ae_title.strip():
        raise ConfigurationError(message("title-unfit", title=ae_title[:80]))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is reachable only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
