"""Send results to a DICOM archive by C-STORE or to a DICOMweb service by STOW-RS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pynetdicom import AE

from gliomark.errors import ConfigurationError
from gliomark.messages import message

STATUS_SUCCESS = 0x0000
UNCOMPRESSED_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
)  # explicit and implicit VR little endian


@dataclass(frozen=True)
class StorageServer:
    """A DICOM archive that receives results by C-STORE."""

    ae_title: str
    host: str
    port: int


def parse_destination(text: str) -> StorageServer | str:
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
    return StorageServer(match[1], match[2].strip("[]"), int(match[3]))


def check_ae_title(ae_title: str) -> None:
    """Check an AE title.

    Raises
    ------
    ConfigurationError
        If it is empty, too long or contains invalid characters.
    """
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", ae_title) or not ae_title.strip():
        raise ConfigurationError(message("title-unfit", title=ae_title[:80]))


def get_destination_name(destination_text: str) -> str:
    """Return a destination's name for the audit log: its AE title or web address."""
    destination = parse_destination(destination_text)
    return destination if isinstance(destination, str) else destination.ae_title


def send_results(results: Sequence[Dataset], destination: StorageServer | str, calling_ae_title: str) -> str:
    """Send all results.

    Returns
    -------
    str
        The reason of a failure; empty if all were stored.
    """
    return (
        _send_by_stow_rs(results, destination)
        if isinstance(destination, str)
        else _send_by_c_store(results, destination, calling_ae_title)
    )


def _send_by_stow_rs(results: Sequence[Dataset], address: str) -> str:
    try:
        response = DICOMwebClient(address).store_instances(list(results))
    except (OSError, ValueError) as error:  # the errors of requests are OSErrors
        return type(error).__name__
    stored_uids = {str(one.ReferencedSOPInstanceUID) for one in response.get("ReferencedSOPSequence") or ()}
    return "" if stored_uids >= {str(one.SOPInstanceUID) for one in results} else "some results were refused"


def _send_by_c_store(results: Sequence[Dataset], storage_server: StorageServer, calling_ae_title: str) -> str:
    entity = AE(calling_ae_title)
    entity.connection_timeout = 10
    for result in results:
        entity.add_requested_context(result.SOPClassUID, list(UNCOMPRESSED_TRANSFER_SYNTAXES))
    association = entity.associate(storage_server.host, storage_server.port, ae_title=storage_server.ae_title)
    if not association.is_established:
        return "no association"
    try:
        statuses = [association.send_c_store(result).get("Status") for result in results]
    except (RuntimeError, ValueError) as error:
        return type(error).__name__
    finally:
        association.release()
    # 0xBxxx is a warning: the object was stored
    refused = [
        status for status in statuses if status is None or (status != STATUS_SUCCESS and status >> 12 != 0xB)
    ]
    return f"status {refused[0]}" if refused else ""
