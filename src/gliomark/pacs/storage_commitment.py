"""Storage commitment (push model, PS3.4 J.3): an archive is asked to keep objects that were sent to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from gliomark.messages import Message, message
from gliomark.pacs.address import DimseAddress
from gliomark.pacs.studies import to_printable_text

REQUEST_COMMITMENT = 1  # the action's type
STATUS_SUCCESS, STATUS_INVALID_ARGUMENT = 0x0000, 0x0115
CONNECTION_TIMEOUT_S, RESPONSE_TIMEOUT_S = 10.0, 60.0
# so long the report may come over the association of the request; later it comes over one that the archive opens
SAME_ASSOCIATION_S = 5.0
POLL_INTERVAL_S = 0.1
DECODING_ERRORS = (AttributeError, ValueError, TypeError, LookupError, EOFError, NotImplementedError)
ReportHandler = Callable[[evt.Event], tuple[int, None]]


@dataclass(frozen=True)
class CommitmentReport:
    """The report (N-EVENT-REPORT) of an archive.

    Attributes
    ----------
    transaction_uid
        UID of the request.
    committed
        SOP instance UIDs of the objects that the archive committed to keep.
    failures
        Why it did not, a status of PS3.3 C.14, by SOP instance UID.
    """

    transaction_uid: str
    committed: frozenset[str]
    failures: Mapping[str, str]

    def describe(self, objects: Mapping[str, str], name: str) -> Message:
        """Describe the report in one sentence; an object that it does not mention was not committed.

        objects: modality by SOP instance UID. name: of the archive.
        """
        kept = ", ".join(modality for uid, modality in objects.items() if uid in self.committed)
        missing = ", ".join(
            f"{modality} ({self.failures.get(uid, '-')})"
            for uid, modality in objects.items()
            if uid not in self.committed
        )
        if not missing:
            return message("commitment-all", pacs=name, kept=kept)
        if not kept:
            return message("commitment-none", pacs=name, missing=missing)
        return message("commitment-some", pacs=name, kept=kept, missing=missing)


def parse_report(event: evt.Event) -> CommitmentReport | None:
    """Parse a report; None if it names no transaction. What cannot be decoded counts as not mentioned."""
    try:
        report = event.event_information
        transaction_uid = str(report.TransactionUID)
    except DECODING_ERRORS:
        return None
    failures = {
        str(one.get("ReferencedSOPInstanceUID")): _format_reason(one.get("FailureReason"))
        for one in _iterate_items(report, "FailedSOPSequence")
    }
    stated = {
        str(one.get("ReferencedSOPInstanceUID")) for one in _iterate_items(report, "ReferencedSOPSequence")
    }
    return CommitmentReport(transaction_uid, frozenset(stated - set(failures)), failures)


def _iterate_items(report: Dataset, keyword: str) -> Iterator[Dataset]:
    try:
        yield from report.get(keyword) or ()
    except DECODING_ERRORS:
        return


def _format_reason(reason: object) -> str:
    return f"{reason:04X}" if isinstance(reason, int) else to_printable_text(str(reason or "-"))


def request_commitment(
    objects: Iterable[Dataset],
    transaction_uid: str,
    address: DimseAddress,
    own_ae_title: str,
    handle_report: ReportHandler,
) -> Message | None:
    """Ask an archive to commit to keep objects.

    Its report comes over the same association, for some seconds, or later over one that the archive opens.

    Parameters
    ----------
    objects
        What the archive has stored.
    transaction_uid
        UID of this request.
    address
        The archive.
    own_ae_title
        Our AE title, whose network address the archive has to know for an association of its own.
    handle_report
        Handler of a report over the same association.

    Returns
    -------
    Message | None
        Why there will be no report; None if one may come.
    """
    has_report = threading.Event()

    def handle(event: evt.Event) -> tuple[int, None]:
        answer = handle_report(event)
        has_report.set()
        return answer

    entity = AE(own_ae_title)
    entity.connection_timeout = CONNECTION_TIMEOUT_S
    entity.acse_timeout = entity.dimse_timeout = RESPONSE_TIMEOUT_S
    association = entity.associate(
        address.host,
        address.port,
        # verification, so that an archive without storage commitment accepts the association too
        [build_context(StorageCommitmentPushModel), build_context(Verification)],
        address.ae_title,
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, handle)],
    )
    if not association.is_established:
        # it accepted the association, but no service
        is_known = bool(association.rejected_contexts)
        code = "commitment-not-offered" if is_known else "commitment-no-association"
        return message(code, pacs=address.ae_title)
    try:
        refusal = _send_request(association, objects, transaction_uid, address.ae_title)
        deadline = time.monotonic() + SAME_ASSOCIATION_S
        while refusal is None and association.is_established and time.monotonic() < deadline:
            if has_report.wait(POLL_INTERVAL_S):
                time.sleep(POLL_INTERVAL_S)  # until the answer to the report has been sent
                break
        return refusal
    finally:
        association.release() if association.is_established else association.abort()


def _send_request(
    association: Association, objects: Iterable[Dataset], transaction_uid: str, name: str
) -> Message | None:
    """Send the request; return why it was refused. Without an answer it may have arrived, so that a report may come."""
    if StorageCommitmentPushModel not in {one.abstract_syntax for one in association.accepted_contexts}:
        return message("commitment-not-offered", pacs=name)
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_create_reference(one) for one in objects]
    try:
        answer, _ = association.send_n_action(
            request, REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except RuntimeError:  # the archive has ended the association meanwhile
        return message("commitment-no-association", pacs=name)
    status = answer.get("Status")
    if status in (None, STATUS_SUCCESS):
        return None
    return message("commitment-refused", pacs=name, status=f"{status:04X}")


def _create_reference(one: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    return reference
