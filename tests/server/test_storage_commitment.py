"""Storage commitment: what archives that commit, refuse, fail or stay silent lead to, and a real Orthanc."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (
    MRImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from tests.orthanc import find_free_port, run_orthanc
from tests.reporting.conftest import make_prediction  # noqa: F401 - a fixture
from tests.reporting.test_dicom import create_prediction, create_results, save_and_read, write_classic
from tests.server.conftest import create_test_database

from gliomark.pacs import CommitmentOutcome, DimseAddress, request_commitment
from gliomark.server.associations import MAX_REPORT_BYTES
from gliomark.server.destinations import send_results
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.run import ServerConfig, create_server

NO_SUCH_OBJECT = 0x0112


@pytest.fixture(scope="module")
def results(make_prediction: Callable, tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:  # noqa: F811
    folder: Path = tmp_path_factory.mktemp("in") / "in"
    prediction = create_prediction(make_prediction, write_classic(folder))
    return [save_and_read(one) for one in create_results(prediction).values()]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[DicomNode]:
    """A node that takes reports and predicts nothing."""
    server = create_server(
        ServerConfig(
            tmp_path_factory.mktemp("node"),
            database_url=create_test_database(),
            model_files={"tiny": str(tiny_weights)},
        )
    )
    one = DicomNode(server, DicomNodeConfig(0, commitment_wait_s=20.0))
    one.start()
    yield one
    one.stop()


class CommittingArchive:
    """An archive that answers the request for storage commitment as it is configured.

    way: "same" or "new" association, or "never". failed, unmentioned: indices of objects. status: of the action.
    """

    def __init__(
        self,
        node_port: int,
        way: str = "same",
        failed: tuple[int, ...] = (),
        unmentioned: tuple[int, ...] = (),
        status: int = 0,
    ) -> None:
        self._node_port, self._way, self._status = node_port, way, status
        self._failed, self._unmentioned = failed, unmentioned
        self.report_statuses: list[int | None] = []

    def handle_action(self, event: evt.Event) -> tuple[int, None]:
        if self._status == 0 and self._way != "never":
            report = self._create_report(event.action_information)
            threading.Thread(target=self._send, args=(event.assoc, report)).start()
        return self._status, None

    def _create_report(self, request: Dataset) -> Dataset:
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        objects = list(enumerate(request.ReferencedSOPSequence))
        lost = {*self._failed, *self._unmentioned}
        report.ReferencedSOPSequence = [one for at, one in objects if at not in lost]
        report.FailedSOPSequence = [one for at, one in objects if at in self._failed]
        for one in report.FailedSOPSequence:
            one.FailureReason = NO_SUCH_OBJECT
        return report

    def _send(self, association, report: Dataset) -> None:
        time.sleep(0.2)  # after the answer to the action
        event_type = 2 if report.FailedSOPSequence else 1
        if self._way == "same":
            self.report_statuses.append(send_report(association, report, event_type))
        else:
            association = open_reporting_association(self._node_port)
            self.report_statuses.append(send_report(association, report, event_type))
            association.release()


def open_reporting_association(node_port: int):
    entity = AE("ARCHIVE")
    entity.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    return entity.associate("127.0.0.1", node_port, ae_title="GLIOMARK", ext_neg=[role])


def send_report(association, report: Dataset, event_type: int = 1) -> int | None:
    status, _ = association.send_n_event_report(
        report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return status.get("Status")


@contextmanager
def run_archive(archive: CommittingArchive | None, has_verification: bool = True) -> Iterator[DimseAddress]:
    """Run an archive; None: one without storage commitment."""
    entity = AE("ARCHIVE")
    entity.add_supported_context(Verification if has_verification else MRImageStorage)
    handlers = []
    if archive is not None:
        entity.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_ACTION, archive.handle_action)]
    listener = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield DimseAddress("ARCHIVE", "127.0.0.1", listener.server_address[1])
    listener.shutdown()


def ask(
    node: DicomNode, results: list[Dataset], address: DimseAddress, wait_s: float = 20.0
) -> CommitmentOutcome:
    return request_commitment(results, address, "GLIOMARK", node.commitment_reports, wait_s)


CASES = {
    "all, same association": ({"way": "same"}, (0, 1, 2), "committed to keep all objects: SEG, SR, DOC."),
    "all, new association": ({"way": "new"}, (0, 1, 2), "committed to keep all objects: SEG, SR, DOC."),
    "one failed": (
        {"way": "new", "failed": (1,)},
        (0, 2),
        "committed to keep SEG, DOC, but not SR (0112); look for these objects",
    ),
    "one not mentioned": (
        {"way": "same", "unmentioned": (0,)},
        (1, 2),
        "committed to keep SR, DOC, but not SEG (-);",
    ),
    "all failed": (
        {"way": "same", "failed": (0, 1, 2)},
        (),
        "none of the objects: SEG (0112), SR (0112), DOC (0112);",
    ),
    "request refused": ({"status": 0x0213}, (), "refused the request for storage commitment (status 0213)."),
}


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_stated_in_one_sentence(node: DicomNode, results: list[Dataset], case: str) -> None:
    settings, committed, sentence = CASES[case]
    archive = CommittingArchive(node.port, **settings)  # type: ignore[arg-type]
    with run_archive(archive) as address:
        outcome = ask(node, results, address)
    assert outcome.committed == {str(results[at].SOPInstanceUID) for at in committed}
    assert sentence in outcome.sentence and outcome.sentence.startswith("ARCHIVE ")
    assert archive.report_statuses in ([0], []) and bool(archive.report_statuses) == (
        "status" not in settings
    )


def test_an_archive_that_never_reports_is_waited_for_within_the_limit(
    node: DicomNode, results: list[Dataset]
) -> None:
    start = time.monotonic()
    with run_archive(CommittingArchive(node.port, "never")) as address:
        outcome = ask(node, results, address, wait_s=1.0)
    assert "did not report within 1 s" in outcome.sentence and not outcome.committed
    assert 1.0 <= time.monotonic() - start < 10.0


def test_an_archive_without_storage_commitment_is_reported_to_lack_it(
    node: DicomNode, results: list[Dataset]
) -> None:
    for has_verification in (True, False):
        with run_archive(None, has_verification) as address:
            assert ask(node, results, address).sentence == "ARCHIVE does not offer storage commitment."
    nowhere = DimseAddress("ARCHIVE", "127.0.0.1", find_free_port())
    assert "accepted no association" in ask(node, results, nowhere).sentence


def test_reports_that_were_not_asked_for_are_refused(node: DicomNode) -> None:
    report = Dataset()
    report.ReferencedSOPSequence = []
    for uid in (generate_uid(), None):
        if uid:
            report.TransactionUID = uid
        else:
            del report.TransactionUID
        association = open_reporting_association(node.port)
        assert association.is_established
        assert send_report(association, report) == 0x0115
        association.release()


def test_a_report_too_large_ends_the_association(node: DicomNode) -> None:
    report = Dataset()
    report.TransactionUID = generate_uid()
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = generate_uid()
    report.ReferencedSOPSequence = [reference] * (MAX_REPORT_BYTES // 60)
    association = open_reporting_association(node.port)
    assert send_report(association, report) is None  # the node has closed the connection


def test_a_node_that_asks_nobody_takes_no_reports(node: DicomNode) -> None:
    one = DicomNode(node.server, DicomNodeConfig(0))
    one.start()
    assert not open_reporting_association(one.port).is_established
    one.stop()


def test_orthanc_commits_to_what_it_has_stored(
    node: DicomNode, results: list[Dataset], tmp_path: Path
) -> None:
    """Orthanc reports over an association of its own; it has one object less than it is asked for."""
    known = {"gliomark": ["GLIOMARK", "127.0.0.1", node.port]}
    with run_orthanc(tmp_path, DicomModalities=known) as orthanc:
        address = DimseAddress("ARCHIVE", "127.0.0.1", orthanc.dicom_port)
        outcome = send_results(results, address, "GLIOMARK")
        assert outcome.reason == "" and len(outcome.stored) == 3
        answer = ask(node, list(outcome.stored), address)
        assert answer.sentence == "ARCHIVE committed to keep all objects: SEG, SR, DOC."
        assert len(answer.committed) == 3
        missing = save_and_read(results[0])
        missing.SOPInstanceUID = generate_uid()
        answer = ask(node, [*outcome.stored, missing], address)
        assert "committed to keep SEG, SR, DOC, but not SEG (0112);" in answer.sentence
        assert len(answer.committed) == 3


def test_the_outcome_is_recorded_in_the_audit_log(node: DicomNode, results: list[Dataset]) -> None:
    with run_archive(CommittingArchive(node.port, "new", failed=(2,))) as address:
        node._start_commitment("job-7", tuple(results), address)
        deadline = time.monotonic() + 20
        while not (lines := find_audit_lines(node, "job-7")) and time.monotonic() < deadline:
            time.sleep(0.05)
    (line,) = lines
    assert line.action == "storage commitment" and line.detail["to"] == "ARCHIVE"
    assert "committed to keep SEG, SR, but not DOC (0112)" in line.detail["reason"]


def find_audit_lines(node: DicomNode, subject: str) -> list:
    return [line for line in node.server.database.list_audit_lines() if line.subject == subject]
