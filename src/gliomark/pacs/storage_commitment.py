"""Storage commitment (push model, PS3.4 J.3): an archive is asked to keep objects that were sent to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
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
# so long the answer may come over the association of the request; later it comes over one that the archive opens
SAME_ASSOCIATION_S = 5.0
POLL_INTERVAL_S = 0.1


class CommitmentReports:
    """The reports (N-EVENT-REPORT) that archives send, handed to those who wait for them by transaction UID."""

    def __init__(self) -> None:
        self._expected: dict[str, SimpleQueue[Dataset]] = {}
        self._lock = threading.Lock()

    def handle_report(self, event: evt.Event) -> tuple[int, None]:
        """Handle a report; one of an unknown transaction is refused."""
        try:
            report = event.event_information
            uid = str(report.TransactionUID)
        except (AttributeError, ValueError, TypeError, LookupError, EOFError):  # it cannot be decoded
            return STATUS_INVALID_ARGUMENT, None
        with self._lock:
            expected = self._expected.get(uid)
        if expected is None:
            return STATUS_INVALID_ARGUMENT, None
        expected.put(report)
        return STATUS_SUCCESS, None

    def expect(self, transaction_uid: str) -> SimpleQueue[Dataset]:
        """Expect the report of a transaction; return the queue into which it is put."""
        with self._lock:
            return self._expected.setdefault(transaction_uid, SimpleQueue())

    def forget(self, transaction_uid: str) -> None:
        """Refuse reports of a transaction from now on."""
        with self._lock:
            self._expected.pop(transaction_uid, None)


@dataclass(frozen=True)
class CommitmentOutcome:
    """What an archive answered.

    Attributes
    ----------
    sentence
        The answer for a person.
    committed
        SOP instance UIDs of the objects that it committed to keep.
    """

    sentence: Message
    committed: frozenset[str] = frozenset()


def request_commitment(
    objects: Sequence[Dataset],
    address: DimseAddress,
    own_ae_title: str,
    reports: CommitmentReports,
    wait_s: float,
) -> CommitmentOutcome:
    """Ask an archive to commit to keep objects, and wait for its report.

    The report comes over the same association, or over one that the archive opens to the listener of ``reports``.

    Parameters
    ----------
    objects
        What the archive has stored.
    address
        The archive.
    own_ae_title
        Our AE title, whose network address the archive has to know for an association of its own.
    reports
        Bound to ``evt.EVT_N_EVENT_REPORT`` of our listener.
    wait_s
        Time limit for the report in seconds.
    """
    transaction_uid = str(generate_uid())
    expected = reports.expect(transaction_uid)
    try:
        refusal = _send_request(
            _create_request(objects, transaction_uid), address, own_ae_title, reports, expected, wait_s
        )
        if isinstance(refusal, Message):
            return CommitmentOutcome(refusal)
        try:
            report = expected.get(timeout=max(refusal, 0.001))
        except Empty:
            name, seconds = address.ae_title, round(wait_s)
            return CommitmentOutcome(message("commitment-no-answer", pacs=name, seconds=seconds))
        return _read_report(report, objects, address.ae_title)
    finally:
        reports.forget(transaction_uid)


def _create_request(objects: Sequence[Dataset], transaction_uid: str) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_create_reference(one) for one in objects]
    return request


def _create_reference(one: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    return reference


def _send_request(
    request: Dataset,
    address: DimseAddress,
    own_ae_title: str,
    reports: CommitmentReports,
    expected: SimpleQueue[Dataset],
    wait_s: float,
) -> Message | float:
    """Send the request; return why that failed, or the seconds that remain for the report."""
    entity = AE(own_ae_title)
    entity.connection_timeout = CONNECTION_TIMEOUT_S
    entity.acse_timeout = entity.dimse_timeout = RESPONSE_TIMEOUT_S
    association = entity.associate(
        address.host,
        address.port,
        # verification, so that an archive without storage commitment accepts the association too
        [build_context(StorageCommitmentPushModel), build_context(Verification)],
        address.ae_title,
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.handle_report)],
    )
    name = address.ae_title
    if not association.is_established:
        # it accepted the association, but no service
        is_known = bool(association.rejected_contexts)
        return message("commitment-not-offered" if is_known else "commitment-no-association", pacs=name)
    try:
        if StorageCommitmentPushModel not in {one.abstract_syntax for one in association.accepted_contexts}:
            return message("commitment-not-offered", pacs=name)
        answer, _ = association.send_n_action(
            request, REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        status = answer.get("Status")
        if status != STATUS_SUCCESS:
            text = "-" if status is None else f"{status:04X}"
            return message("commitment-refused", pacs=name, status=text)
        start = time.monotonic()
        while association.is_established and expected.empty():
            if time.monotonic() - start >= min(SAME_ASSOCIATION_S, wait_s):
                break
            time.sleep(POLL_INTERVAL_S)
        return wait_s - (time.monotonic() - start)
    finally:
        association.release() if association.is_established else association.abort()


def _read_report(report: Dataset, objects: Sequence[Dataset], name: str) -> CommitmentOutcome:
    """Read which objects were committed; one that the report does not mention was not."""
    stated = {str(one.get("ReferencedSOPInstanceUID")) for one in report.get("ReferencedSOPSequence") or ()}
    reasons = {
        str(one.get("ReferencedSOPInstanceUID")): one.get("FailureReason")
        for one in report.get("FailedSOPSequence") or ()
    }
    committed = [one for one in objects if str(one.SOPInstanceUID) in stated - set(reasons)]
    failed = [one for one in objects if one not in committed]
    uids = frozenset(str(one.SOPInstanceUID) for one in committed)
    if not failed:
        kept = ", ".join(str(one.Modality) for one in committed)
        return CommitmentOutcome(message("commitment-all", pacs=name, kept=kept), uids)
    missing = ", ".join(_describe_failure(one, reasons) for one in failed)
    if not committed:
        return CommitmentOutcome(message("commitment-none", pacs=name, missing=missing))
    kept = ", ".join(str(one.Modality) for one in committed)
    return CommitmentOutcome(message("commitment-some", pacs=name, kept=kept, missing=missing), uids)


def _describe_failure(one: Dataset, reasons: Mapping[str, object]) -> str:
    """Return the modality with the reason that the archive states, a status of PS3.3 C.14."""
    reason = reasons.get(str(one.SOPInstanceUID))
    text = f"{reason:04X}" if isinstance(reason, int) else to_printable_text(str(reason or "-"))
    return f"{one.Modality} ({text})"
