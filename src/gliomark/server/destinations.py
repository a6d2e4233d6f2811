"""Send results to a DICOM archive by C-STORE or to a DICOMweb service by STOW-RS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE
from pynetdicom.association import Association
from requests import HTTPError

from gliomark.pacs import DimseAddress, parse_address
from gliomark.reporting import convert_to_comprehensive_sr

HTTP_CONFLICT = 409  # STOW-RS: the service stored none of the objects
STATUS_SUCCESS = 0x0000
STATUS_SOP_CLASS_NOT_SUPPORTED = 0x0122
UNCOMPRESSED_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
)  # explicit and implicit VR little endian


@dataclass(frozen=True)
class SendOutcome:
    """Outcome of sending results.

    Attributes
    ----------
    reason
        Why it failed; empty if all were stored.
    stored
        What was sent by C-STORE and stored: the results, the structured report in the class that was accepted.
    """

    reason: str = ""
    stored: tuple[Dataset, ...] = ()


def get_destination_name(destination_text: str) -> str:
    """Return a destination's name for the audit log: its AE title or web address."""
    destination = parse_address(destination_text)
    return destination if isinstance(destination, str) else destination.ae_title


def send_results(
    results: Sequence[Dataset],
    destination: DimseAddress | str,
    calling_ae_title: str,
    *,
    sends_comprehensive_sr: bool = False,
) -> SendOutcome:
    """Send all results.

    A structured report that the destination refuses as Comprehensive 3D SR is sent as Comprehensive SR.

    Parameters
    ----------
    results
        DICOM objects of one prediction.
    destination
        An archive, or the address of a DICOMweb service.
    calling_ae_title
        Our AE title.
    sends_comprehensive_sr
        Send the structured report as Comprehensive SR at once.

    Returns
    -------
    SendOutcome
        With the reason of a failure.
    """
    if sends_comprehensive_sr:
        results = [_convert_report(one) for one in results]
    if isinstance(destination, str):
        return SendOutcome(_send_by_stow_rs(results, destination))
    return _send_by_c_store(results, destination, calling_ae_title)


def _is_3d_report(result: Dataset) -> bool:
    return bool(result.SOPClassUID == Comprehensive3DSRStorage)


def _convert_report(result: Dataset) -> Dataset:
    """Return a structured report as Comprehensive SR, and any other object as it is."""
    return convert_to_comprehensive_sr(result) if _is_3d_report(result) else result


def _send_by_stow_rs(results: Sequence[Dataset], address: str) -> str:
    try:
        refused = _store_by_stow_rs(results, address)
        if refused and any(map(_is_3d_report, refused)):
            refused = _store_by_stow_rs([_convert_report(one) for one in refused], address)
    except (OSError, ValueError) as error:  # the errors of requests are OSErrors
        return type(error).__name__
    return "some results were refused" if refused else ""


def _store_by_stow_rs(results: Sequence[Dataset], address: str) -> list[Dataset]:
    """Store objects and return those that the service refused."""
    try:
        response = DICOMwebClient(address).store_instances(list(results))
    except HTTPError as error:
        if error.response is None or error.response.status_code != HTTP_CONFLICT:
            raise
        return list(results)
    stored_uids = {str(one.ReferencedSOPInstanceUID) for one in response.get("ReferencedSOPSequence") or ()}
    return [one for one in results if str(one.SOPInstanceUID) not in stored_uids]


def _send_by_c_store(results: Sequence[Dataset], address: DimseAddress, calling_ae_title: str) -> SendOutcome:
    entity = AE(calling_ae_title)
    entity.connection_timeout = 10
    sop_classes = dict.fromkeys(
        one.SOPClassUID for result in results for one in (result, _convert_report(result))
    )
    for sop_class in sop_classes:
        entity.add_requested_context(sop_class, list(UNCOMPRESSED_TRANSFER_SYNTAXES))
    association = entity.associate(address.host, address.port, ae_title=address.ae_title)
    if not association.is_established:
        return SendOutcome("no association")
    try:
        answers = [_store_by_c_store(result, association) for result in results]
    except (RuntimeError, ValueError) as error:
        return SendOutcome(type(error).__name__)
    finally:
        association.release()
    # 0xBxxx is a warning: the object was stored
    refused = [
        status
        for status, _ in answers
        if status is None or (status != STATUS_SUCCESS and status >> 12 != 0xB)
    ]
    if refused:
        return SendOutcome(f"status {refused[0]}")
    return SendOutcome(stored=tuple(sent for _, sent in answers))


def _store_by_c_store(result: Dataset, association: Association) -> tuple[int | None, Dataset]:
    """Store an object; return the status, None if the archive did not answer, and the object as it was sent."""
    is_accepted = any(one.abstract_syntax == result.SOPClassUID for one in association.accepted_contexts)
    status = STATUS_SOP_CLASS_NOT_SUPPORTED
    if is_accepted or not _is_3d_report(result):
        status = association.send_c_store(result).get("Status")
    if status == STATUS_SOP_CLASS_NOT_SUPPORTED and _is_3d_report(result):
        converted = _convert_report(result)
        return association.send_c_store(converted).get("Status"), converted
    return status, result
