"""Requests for storage commitment: each ends with one line in the audit log, also after a restart of the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt

from gliomark.messages import Message, message
from gliomark.pacs import CommitmentReport, DimseAddress, parse_report, request_commitment
from gliomark.pacs.storage_commitment import STATUS_INVALID_ARGUMENT, STATUS_SUCCESS
from gliomark.server.database import CommitmentRow, Database

LOG = logging.getLogger("gliomark.server.dicom")


class CommitmentRequests:
    """Asks archives, and takes their reports.

    The open requests are in the database, so that a report is understood whichever process receives it.
    """

    def __init__(self, database: Database, own_ae_title: str) -> None:
        self._database, self._own_ae_title = database, own_ae_title

    def start(
        self, prediction_id: str, stored: Sequence[Dataset], address: DimseAddress, wait_s: float
    ) -> threading.Thread:
        """Ask an archive to keep what it has stored, in the background, and give it ``wait_s`` seconds to report."""
        transaction_uid = str(generate_uid())
        modalities = {str(one.SOPInstanceUID): str(one.Modality) for one in stored}
        self._database.add_commitment(transaction_uid, prediction_id, address.ae_title, modalities, wait_s)

        def ask() -> None:
            try:
                refusal = request_commitment(
                    stored, transaction_uid, address, self._own_ae_title, self.handle_report
                )
                if refusal is not None:
                    self._database.end_commitment(transaction_uid, lambda _: refusal)
            except Exception as error:  # it is recorded when the time for the report is over
                LOG.error("storage commitment not requested: %s", type(error).__name__)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def handle_report(self, event: evt.Event) -> tuple[int, None]:
        """Handle a report (N-EVENT-REPORT); one of an unknown or ended transaction is refused."""
        report = parse_report(event)
        if report is None:
            return STATUS_INVALID_ARGUMENT, None
        describe = partial(_describe_report, report)
        is_known = self._database.end_commitment(report.transaction_uid, describe)
        return STATUS_SUCCESS if is_known else STATUS_INVALID_ARGUMENT, None

    def end_overdue(self) -> None:
        """End the requests for which no report has come in time."""
        for transaction_uid in self._database.list_overdue_commitments():
            self._database.end_commitment(transaction_uid, _describe_silence)


def _describe_report(report: CommitmentReport, row: CommitmentRow) -> Message:
    return report.describe(row.objects, row.archive)


def _describe_silence(row: CommitmentRow) -> Message:
    return message("commitment-no-answer", pacs=row.archive, seconds=round(row.wait_s))
