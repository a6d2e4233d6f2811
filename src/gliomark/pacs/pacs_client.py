"""A connection to a PACS, whichever protocol it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydicom import Dataset

from gliomark.pacs.address import check_ae_title, parse_address
from gliomark.pacs.dicomweb import Credentials, DicomwebPacs
from gliomark.pacs.dimse import DimsePacs
from gliomark.pacs.received_images import ReceivedImages


class Pacs(Protocol):
    """What ``DimsePacs`` and ``DicomwebPacs`` have in common."""

    @property
    def name(self) -> str:
        """The address, for messages."""
        ...

    def search(self, level: str, attributes: Mapping[str, str]) -> list[Dataset]:
        """Search studies, series or images; blank attributes are to be returned."""
        ...

    def fetch_series(self, study_uid: str, series_uid: str, images: ReceivedImages) -> None:
        """Receive the images of a series."""
        ...


@dataclass(frozen=True)
class DimseOptions:
    """Options of DIMSE.

    Attributes
    ----------
    ae_title
        Our own AE title, which the PACS may have to know.
    receive_port
        Port for C-MOVE; None: C-GET only.
    """

    ae_title: str = "GLIOMARK"
    receive_port: int | None = None


def open_pacs(
    address: str,
    dimse_options: DimseOptions = DimseOptions(),
    credentials: Credentials = Credentials(),
) -> Pacs:
    """Return the PACS at an address; nothing is sent yet.

    address: ``AET@host:port``, or the address of a DICOMweb service.

    Raises
    ------
    ConfigurationError
        If the address, the AE title or the use of credentials is not valid.
    """
    parsed = parse_address(address)
    if isinstance(parsed, str):
        return DicomwebPacs(parsed, credentials)
    check_ae_title(dimse_options.ae_title)
    return DimsePacs(parsed, dimse_options.ae_title, dimse_options.receive_port)
