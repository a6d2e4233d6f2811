"""Views and refusals are recorded in the audit log promptly, once, and without a patient's name."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy.exc import OperationalError
from tests.pipeline.conftest import PATIENT
from tests.server.conftest import LiveClient, create_test_database, run_server

from gliomark.server import audit_writer
from gliomark.server.access_audit import AUDITED_ROUTES
from gliomark.server.audit_writer import AuditWriter, Refusal
from gliomark.server.database import AuditFilter
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.run import ServerConfig, create_server, open_database


def read_audit_lines(client: Any, action: str, subject: str | None = None) -> list[dict[str, Any]]:
    """Return the audit log's lines of this action once all views are written."""
    deadline = time.monotonic() + 10
    while client.server.audit_writer._queue.qsize() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    rows = client.server.database.list_audit_lines(AuditFilter(action=action, subject=subject))
    return [{"who": row.who, "subject": row.subject, "detail": row.detail} for row in rows]


@pytest.fixture(scope="module")
def viewed_prediction(live_server: LiveClient, prepared_study: dict[str, Any]) -> dict[str, Any]:
    """A prediction of which every document was fetched twice."""
    job = live_server.predict_and_wait(prepared_study["id"])
    marker, sequence = job["result"]["markers"][0]["marker"], prepared_study["sequences"][0]
    filled = {"sequence": sequence, "index": "0", "marker": marker}
    for path in AUDITED_ROUTES:
        one = job["id"] if path.startswith("/api/predictions") else prepared_study["id"]
        url = path.format(id=one, **filled)
        for _ in range(2):
            live_server.get(url, params={"limit": 5} if path == "/api/audit" else None)
    for index in range(3):
        live_server.get(
            f"/api/studies/{prepared_study['id']}/slices/{sequence}/{index}.png"
        ).raise_for_status()
    return job


def test_every_call_that_shows_a_patient_is_recorded(live_server) -> None:
    document = live_server.get("/api/openapi.json").json()
    shows = {path for path, verbs in document["paths"].items() if "get" in verbs}
    without_patients = {"/api/health", "/api/models", "/info/", "/auth/", "/auth/token/valid"}
    assert shows - set(AUDITED_ROUTES) == without_patients
    assert set(AUDITED_ROUTES) <= shows


@pytest.mark.parametrize(
    ("action", "count"),
    [
        ("study viewed", 1),
        ("pictures viewed", 1),
        ("prediction viewed", 1),
        ("outline viewed", 1),
        ("map viewed", 1),
        ("report viewed", 1),
        ("report exported", 2),
        ("prediction exported", 2),
    ],
)
def test_views_are_recorded_once_an_hour_and_exports_each_time(
    live_server, prepared_study, viewed_prediction, action, count
) -> None:
    subject = (
        prepared_study["id"] if action in ("study viewed", "pictures viewed") else viewed_prediction["id"]
    )
    found = read_audit_lines(live_server, action, subject)
    hours = 2 if time.gmtime().tm_min < 2 else 1  # the test may run across a full hour
    assert count <= len(found) <= count * hours and {line["who"] for line in found} == {"this machine"}


def test_what_monai_labels_clients_see_is_recorded_with_its_study(live_server, prepared_study) -> None:
    study_id = prepared_study["id"]
    answered = live_server.post(f"/infer/tiny?image={study_id}&output=json").raise_for_status().json()
    live_server.get(f"/datastore/label?label={study_id}&tag=original").raise_for_status()
    exported = [answered["prediction"], study_id]
    for subject in exported:
        assert len(read_audit_lines(live_server, "segmentation exported", subject)) == 1, subject
    live_server.get(f"/datastore/image?image={study_id}").raise_for_status()
    assert read_audit_lines(live_server, "pictures viewed", study_id)
    before = len(live_server.server.database.list_audit_lines())
    assert live_server.get(f"/datastore/label?label={study_id}").status_code == 404
    assert live_server.head(f"/datastore/image?image={study_id}").status_code == 200
    time.sleep(0.2)
    assert len(live_server.server.database.list_audit_lines()) == before


def test_a_missing_mask_is_not_recorded_as_viewed(live_server, prepared_study) -> None:
    """Refused and missing masks are not recorded as viewed."""
    assert live_server.get(f"/api/studies/{prepared_study['id']}/mask.png").status_code == 404
    assert not read_audit_lines(live_server, "outline viewed", prepared_study["id"])


def test_listing_by_patient_records_studies_and_not_the_patient(
    live_server, prepared_study, viewed_prediction
) -> None:
    live_server.get("/api/predictions", params={"patient_id": PATIENT}).raise_for_status()
    live_server.get("/api/predictions", params={"patient_id": "nobody"}).raise_for_status()
    found = [line["detail"] for line in read_audit_lines(live_server, "predictions listed")]
    assert {"studies": [prepared_study["id"]]} in found and {"studies": []} in found and {} in found
    everything = json.dumps(
        [row.detail | {"s": row.subject} for row in live_server.server.database.list_audit_lines()]
    )
    assert PATIENT not in everything and "nobody" not in everything


def test_reading_the_log_is_recorded_with_its_filter(live_server) -> None:
    live_server.get("/api/audit", params={"action": "study viewed", "since": "2026-01-01"}).raise_for_status()
    expected = {"action": "study viewed", "since": "2026-01-01T00:00:00.000000Z"}
    assert expected in [line["detail"] for line in read_audit_lines(live_server, "audit read")]


def test_the_log_is_paged_to_its_end(live_server) -> None:
    for number in range(25):
        live_server.server.database.add_audit_entry("me", "for the pages", f"s{number}")
    url: str | None = "/api/audit?action=for+the+pages&limit=10"
    found: list[str] = []
    pages = 0
    while url:
        answer = live_server.get(url).raise_for_status()
        found += [line["subject"] for line in answer.json()]
        url, pages = answer.links.get("next", {}).get("url"), pages + 1
    assert found == [f"s{number}" for number in reversed(range(25))] and pages == 3


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": 1001}, {"before": 0}, {"since": "never"}, {"who": "\0"}, {"page": 1}]
)
def test_invalid_page_parameters_are_refused(live_server, wrong) -> None:
    assert live_server.get("/api/audit", params=wrong).status_code == 422


@pytest.fixture(scope="module")
def client_with_token(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[LiveClient]:
    """A server with a reader's token."""
    data, database = tmp_path_factory.mktemp("refusing"), create_test_database()
    token = open_database(data, database).add_token("reader", "reader")
    with run_server(
        ServerConfig(data, database_url=database, model_files={"tiny": str(tiny_weights)})
    ) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({"Authorization": ""}, "token-wanted"), ({"Authorization": "Bearer wrong"}, "token-unknown")],
)
def test_failed_log_ins_are_recorded_and_counted(client_with_token, headers, reason) -> None:
    before = len(read_audit_lines(client_with_token, "log-in failed"))
    for _ in range(12):
        assert client_with_token.get("/api/predictions", headers=headers).status_code == 401
    with client_with_token.server.audit_writer._lock:
        client_with_token.server.audit_writer._record_repeated_refusals(is_forced=True)
    found = [
        line
        for line in read_audit_lines(client_with_token, "log-in failed")
        if line["detail"]["reason"] == reason
    ]
    assert sum(line["detail"]["count"] for line in found) == 12
    assert (
        len(read_audit_lines(client_with_token, "log-in failed")) - before <= 4
    )  # two lines a minute, in at most two minutes
    assert {(line["who"], line["detail"]["address"]) for line in found} == {("unknown", "127.0.0.1")}
    assert "wrong" not in json.dumps(found)


def test_a_wrong_token_is_answered_slowly(client_with_token) -> None:
    started = time.monotonic()
    client_with_token.get("/api/predictions", headers={"Authorization": "Bearer wrong"})
    assert time.monotonic() - started >= 0.2


def test_refused_calls_are_recorded_with_their_caller(client_with_token) -> None:
    assert client_with_token.get("/api/audit").status_code == 403
    assert (
        client_with_token.get("/api/predictions", headers={"Origin": "https://evil.example"}).status_code
        == 403
    )
    found = read_audit_lines(client_with_token, "call refused")
    reasons = {(line["who"], line["detail"]["reason"]) for line in found}
    assert reasons == {("reader", "admins-only"), ("unknown", "other-site")}


def test_a_refused_association_is_recorded(tmp_path, tiny_weights) -> None:
    server = create_server(
        ServerConfig(tmp_path, database_url=create_test_database(), model_files={"tiny": str(tiny_weights)})
    )
    node = DicomNode(server, DicomNodeConfig(0, allowed_ae_titles=("SCANNER",)))
    node.start()
    for title in ("STRANGER", "=cmd|calc", "SCANNER"):
        entity = AE(title)
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", node.port)
        assert association.is_established is (title == "SCANNER")
        association.release()
    node.stop()
    rows = server.database.list_audit_lines(AuditFilter(action="DICOM association refused"))
    assert {row.subject for row in rows} == {"STRANGER", "=cmd|calc"}
    assert rows[0].detail["address"] == "127.0.0.1"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[AuditWriter]:
    writer = AuditWriter(open_database(tmp_path, create_test_database()))
    writer.start()
    yield writer
    writer.stop()


def test_all_accepted_lines_are_written_at_shutdown(tmp_path) -> None:
    records = open_database(tmp_path, create_test_database())
    writer = AuditWriter(records)
    writer.start()
    for number in range(1500):
        assert writer.record_view("me", "study viewed", f"s{number}", {})
    for _ in range(7):
        writer.record_refusal(Refusal("log-in failed", "10.0.0.1", "token-unknown"))
    writer.stop()
    assert records.verify_audit_chain().line_count == 1502
    counts = [row.detail["count"] for row in records.list_audit_lines(AuditFilter(action="log-in failed"))]
    assert sum(counts) == 7
    assert writer.record_view("me", "study viewed", "after the stop", {})
    assert records.read_audit_head().number == 1503


def test_an_unavailable_database_loses_no_line(tmp_path, monkeypatch) -> None:
    records = open_database(tmp_path, create_test_database())
    writer, real, is_available = AuditWriter(records), records.add_audit_entries, threading.Event()

    def add_entries(entries: Any) -> None:
        if not is_available.is_set():
            raise OperationalError("", {}, Exception("away"))
        real(entries)

    monkeypatch.setattr(records, "add_audit_entries", add_entries)
    monkeypatch.setattr(audit_writer, "RETRY_PAUSE_S", 0.05)
    writer.start()
    for number in range(20):
        assert writer.record_view("me", "study viewed", str(number), {})
    time.sleep(0.2)
    assert records.read_audit_head().number == 0
    is_available.set()
    writer.stop()
    assert records.verify_audit_chain().line_count == 20


def test_lines_lost_at_shutdown_are_logged(tmp_path, monkeypatch, caplog) -> None:
    records = open_database(tmp_path, create_test_database())

    def add_entries(_: Any) -> None:
        raise OperationalError("", {}, Exception("away"))

    monkeypatch.setattr(records, "add_audit_entries", add_entries)
    monkeypatch.setattr(audit_writer, "RETRY_PAUSE_S", 0.02)
    monkeypatch.setattr(audit_writer, "STOP_TIMEOUT_S", 0.3)
    writer = AuditWriter(records)
    writer.start()
    for number in range(1200):
        assert writer.record_view("me", "study viewed", str(number), {})
    started = time.monotonic()
    writer.stop()
    assert time.monotonic() - started < 20  # one timeout for all lines, not one per line
    lost = [int(r.getMessage().split()[0]) for r in caplog.records if "are lost" in r.getMessage()]
    assert sum(lost) == 1200
    assert sum("waits for the database" in r.getMessage() for r in caplog.records) <= len(lost)


def test_a_view_that_cannot_be_recorded_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(audit_writer, "MAX_QUEUED_LINES", 2)
    writer = AuditWriter(open_database(tmp_path, create_test_database()))
    writer._thread = threading.Thread()  # a thread that writes nothing, as if the database were unavailable
    assert [writer.record_view("me", "study viewed", str(n), {}) for n in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert writer.record_view("me", "study viewed", "1", {})  # already recorded


def test_unknown_callers_cannot_fill_the_disk(writer) -> None:
    for number in range(3000):
        writer.record_refusal(
            Refusal("log-in failed", f"10.0.{number // 250}.{number % 250}", "token-unknown")
        )
    writer.stop()
    rows = writer._database.list_audit_lines(AuditFilter(action="log-in failed"))
    assert len(rows) <= 2 * (audit_writer.MAX_REFUSAL_KINDS + 2)
    assert sum(row.detail["count"] for row in rows) == 3000
    assert "others" in {row.detail["address"] for row in rows}


@pytest.mark.parametrize("title", ["\0NUL", "王\ud800", "line\nbreak", "x" * 5000])
def test_titles_of_unknown_callers_are_sanitised(writer, title) -> None:
    writer.record_refusal(Refusal("DICOM association refused", "10.0.0.1", "unknown", "DICOM node", title))
    writer.stop()
    (row,) = writer._database.list_audit_lines()
    assert row.subject.isprintable() and 0 < len(row.subject) <= 200
    assert writer._database.verify_audit_chain().line_count == 1
