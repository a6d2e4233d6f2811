"""Storage commitment: what archives that commit, refuse, fail or stay silent lead to, and a real Orthanc."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
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

from gliomark.pacs import DimseAddress
from gliomark.server.associations import MAX_REPORT_BYTES
from gliomark.server.dependencies import Server
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
    with run_node(create_node_server(tmp_path_factory.mktemp("node"), tiny_weights)) as one:
        yield one


def create_node_server(folder: Path, weights: Path) -> Server:
    database = create_test_database()
    return create_server(ServerConfig(folder, database_url=database, model_files={"tiny": str(weights)}))


@contextmanager
def run_node(server: Server, port: int = 0, **options: Any) -> Iterator[DicomNode]:
    node = DicomNode(server, DicomNodeConfig(port, commitment_wait_s=20.0, **options))
    node.start()
    try:
        yield node
    finally:
        node.stop()


class CommittingArchive:
    """An archive that answers the request for storage commitment as it is configured.

    way: "same" or "new" association, "early", before the answer to the action, "never", or "abort": it ends the
    association instead of an answer, and reports later. failed, unmentioned: indices of objects. status: of the action.
    change: applied to the report. count: how often it is sent.
    """

    def __init__(
        self,
        node_port: int,
        way: str = "same",
        failed: tuple[int, ...] = (),
        unmentioned: tuple[int, ...] = (),
        status: int = 0,
        change: Callable[[Dataset], object] = lambda report: None,
        count: int = 1,
    ) -> None:
        self._node_port, self._way, self._status = node_port, way, status
        self._failed, self._unmentioned = failed, unmentioned
        self._change, self._count = change, count
        self.requests: list[Dataset] = []
        self.report_statuses: list[int | None] = []

    def handle_action(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self._status == 0 and self._way != "never":
            report = self.create_report(event.action_information)
            thread = threading.Thread(target=self._send, args=(event.assoc, report))
            thread.start()
            if self._way == "early":
                thread.join()
            if self._way == "abort":
                event.assoc.abort()
        return self._status, None

    def create_report(self, request: Dataset) -> Dataset:
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        objects = list(enumerate(request.ReferencedSOPSequence))
        lost = {*self._failed, *self._unmentioned}
        report.ReferencedSOPSequence = [one for at, one in objects if at not in lost]
        report.FailedSOPSequence = [one for at, one in objects if at in self._failed]
        for one in report.FailedSOPSequence:
            one.FailureReason = NO_SUCH_OBJECT
        self._change(report)
        return report

    def _send(self, association, report: Dataset) -> None:
        if self._way != "early":
            time.sleep(0.2)  # after the answer to the action
        event_type = 2 if report.get("FailedSOPSequence") else 1
        if self._way != "same":
            association = open_reporting_association(self._node_port)
        for _ in range(self._count):
            self.report_statuses.append(send_report(association, report, event_type))
        if self._way != "same":
            association.release()


def open_reporting_association(node_port: int, ae_title: str = "ARCHIVE"):
    entity = AE(ae_title)
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


def ask(node: DicomNode, results: list[Dataset], address: DimseAddress, wait_s: float = 20.0) -> str:
    """Ask an archive, and return the sentence in the audit log."""
    prediction_id = start(node, results, address, wait_s)
    return wait_for_sentence(node, prediction_id)


def start(node: DicomNode, results: list[Dataset], address: DimseAddress, wait_s: float) -> str:
    """Ask an archive for a new prediction and return the prediction's id."""
    study_id, database = uuid.uuid4().hex, node.server.database
    database.add_study(study_id, "P", "tiny", "0", "me", prediction_request={})
    job = next(one for one in database.list_predictions("P") if one.study_id == study_id)
    node.commitments.start(job.id, results, address, wait_s)
    return job.id


def wait_for_sentence(node: DicomNode, prediction_id: str) -> str:
    deadline = time.monotonic() + 30
    while not (lines := find_outcomes(node, prediction_id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = lines
    assert line.detail["to"] == "ARCHIVE"
    return str(line.detail["reason"])


def find_outcomes(node: DicomNode, prediction_id: str) -> list:
    lines = node.server.database.list_audit_lines()
    return [one for one in lines if (one.action, one.subject) == ("storage commitment", prediction_id)]


def delete_sequences(report: Dataset) -> None:
    del report.ReferencedSOPSequence, report.FailedSOPSequence


def make_undecodable(report: Dataset) -> None:
    """Replace the content of the sequence by text."""
    tag = Tag("ReferencedSOPSequence")
    report._dict[tag] = RawDataElement(tag, None, 12, b"no sequence!", 0, True, True)


def list_as_failed_too(report: Dataset) -> None:
    report.FailedSOPSequence = report.ReferencedSOPSequence[:1]


def add_strangers(report: Dataset) -> None:
    stranger = Dataset()
    stranger.ReferencedSOPClassUID, stranger.ReferencedSOPInstanceUID = MRImageStorage, generate_uid()
    report.ReferencedSOPSequence.append(stranger)


ALL = "committed to keep all objects: SEG, SR, DOC."
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "all, same association": ({"way": "same"}, ALL),
    "all, new association": ({"way": "new"}, ALL),
    "all, before the answer to the request": ({"way": "early"}, ALL),
    "all, after the request's association was lost": ({"way": "abort"}, ALL),
    "also an object that was not asked for": ({"change": add_strangers}, ALL),
    "one failed": (
        {"way": "new", "failed": (1,)},
        "committed to keep SEG, DOC, but not SR (0112); look for these objects",
    ),
    "one not mentioned": (
        {"way": "same", "unmentioned": (0,)},
        "committed to keep SR, DOC, but not SEG (-);",
    ),
    "one both kept and failed": (
        {"change": list_as_failed_too},
        "committed to keep SR, DOC, but not SEG (-);",
    ),
    "all failed": (
        {"way": "same", "failed": (0, 1, 2)},
        "none of the objects: SEG (0112), SR (0112), DOC (0112);",
    ),
    "no object mentioned": ({"change": delete_sequences}, "none of the objects: SEG (-), SR (-), DOC (-);"),
    "undecodable": ({"change": make_undecodable}, "none of the objects: SEG (-), SR (-), DOC (-);"),
    "request refused": ({"status": 0x0213}, "refused the request for storage commitment (status 0213)."),
}


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_stated_in_one_sentence(node: DicomNode, results: list[Dataset], case: str) -> None:
    settings, expected = CASES[case]
    archive = CommittingArchive(node.port, **settings)
    with run_archive(archive) as address:
        sentence = ask(node, results, address)
    assert expected in sentence and sentence.startswith("ARCHIVE ")
    assert archive.report_statuses == ([] if "status" in settings else [0])


def test_a_second_report_of_a_transaction_is_refused(node: DicomNode, results: list[Dataset]) -> None:
    """The outcome is recorded once."""
    archive = CommittingArchive(node.port, "new", count=2)
    with run_archive(archive) as address:
        prediction_id = start(node, results, address, 20.0)
        wait_for_sentence(node, prediction_id)
        while len(archive.report_statuses) < 2:
            time.sleep(0.05)
    assert archive.report_statuses == [0, 0x0115] and len(find_outcomes(node, prediction_id)) == 1


@pytest.mark.parametrize("reports_in_time", [True, False])
def test_a_request_outlasts_a_restart_of_the_server(
    results: list[Dataset], tmp_path: Path, tiny_weights: Path, reports_in_time: bool
) -> None:
    """The report comes while the server is restarted, or not at all."""
    server = create_node_server(tmp_path, tiny_weights)
    archive = CommittingArchive(0, "never")
    with run_node(server) as node, run_archive(archive) as address:
        prediction_id = start(node, results, address, 20.0 if reports_in_time else 2.0)
        while not archive.requests:
            time.sleep(0.05)
        port = node.port
    with run_node(server, port) as node:
        if reports_in_time:
            association = open_reporting_association(port)
            assert send_report(association, archive.create_report(archive.requests[0])) == 0
            association.release()
        sentence = wait_for_sentence(node, prediction_id)
    assert (ALL if reports_in_time else "did not report within 2 s") in sentence


def test_a_peer_that_is_not_named_cannot_report(
    results: list[Dataset], tmp_path: Path, tiny_weights: Path
) -> None:
    with run_node(create_node_server(tmp_path, tiny_weights), allowed_ae_titles=("ARCHIVE",)) as node:
        association = open_reporting_association(node.port, "STRANGER")
        assert association.is_rejected
        assert open_reporting_association(node.port).is_established


def test_an_archive_that_never_reports_is_waited_for_within_the_limit(
    node: DicomNode, results: list[Dataset]
) -> None:
    start = time.monotonic()
    with run_archive(CommittingArchive(node.port, "never")) as address:
        sentence = ask(node, results, address, wait_s=1.0)
    assert "did not report within 1 s" in sentence
    assert 1.0 <= time.monotonic() - start < 10.0


def test_an_archive_without_storage_commitment_is_reported_to_lack_it(
    node: DicomNode, results: list[Dataset]
) -> None:
    for has_verification in (True, False):
        with run_archive(None, has_verification) as address:
            assert ask(node, results, address) == "ARCHIVE does not offer storage commitment."
    nowhere = DimseAddress("ARCHIVE", "127.0.0.1", find_free_port())
    assert "accepted no association" in ask(node, results, nowhere)


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
        assert ask(node, list(outcome.stored), address) == f"ARCHIVE {ALL}"
        missing = save_and_read(results[0])
        missing.SOPInstanceUID = generate_uid()
        answer = ask(node, [*outcome.stored, missing], address)
        assert "committed to keep SEG, SR, DOC, but not SEG (0112);" in answer
