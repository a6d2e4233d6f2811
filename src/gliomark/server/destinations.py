"""Send results to a DICOM archive by C-STORE or to a DICOMweb service by STOW-RS."""

from __future__ import annotations

from collections.abc import Sequence

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pynetdicom import AE

from gliomark.pacs import DimseAddress, parse_address

STATUS_SUCCESS = 0x0000
UNCOMPRESSED_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
)  # explicit and implicit VR little endian


def get_destination_name(destination_text: str) -> str:
    """Return a destination's name for the audit log: its AE title or web address."""
    destination = parse_address(destination_text)
    return destination if isinstance(destination, str) else destination.ae_title


def send_results(results: Sequence[Dataset], destination: DimseAddress | str, calling_ae_title: str) -> str:
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


def _send_by_c_store(results: Sequence[Dataset], address: DimseAddress, calling_ae_title: str) -> str:
    entity = AE(calling_ae_title)
    entity.connection_timeout = 10
    for result in results:
        entity.add_requested_context(result.SOPClassUID, list(UNCOMPRESSED_TRANSFER_SYNTAXES))
    association = entity.associate(address.host, address.port, ae_title=address.ae_title)
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
