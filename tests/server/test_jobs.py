"""No job is lost, whatever happens to its worker; none is mixed up with another's."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from tests.server.conftest import own_database, running

from gliomark.server.records import AuditRow, JobRow, StudyRow
from gliomark.server.run import Settings, open_records


def kill_worker_of(live, path: str) -> None:
    """kill -9 as soon as the job runs."""
    while live.get(path).json()["state"] == "queued":
        time.sleep(0.005)
    kill_all(live)


def kill_all(live) -> None:
    for pid in live.server.workers.pids.values():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def lonely(tmp_path_factory, tiny_weights):
    """A server with one worker."""
    data = tmp_path_factory.mktemp("lonely")
    with running(
        Settings(data, database=own_database(), workers=1, models={"tiny": str(tiny_weights)})
    ) as client:
        yield client


def test_a_killed_worker_loses_nothing(lonely, pictures) -> None:
    study = lonely.prepared(pictures)
    expected = lonely.asked(study["id"])["result"]["markers"]
    job = lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    path = f"/api/predictions/{job['id']}"
    kill_worker_of(lonely, path)
    done = lonely.until(path, ("done", "failed"))
    assert done["state"] == "done" and done["result"]["markers"] == expected
    assert lonely.server.records.job(job["id"]).attempts in (1, 2)


def test_a_job_that_kills_its_workers_fails_in_words(lonely, pictures, monkeypatch) -> None:
    study = lonely.prepared(pictures)
    records, give_back = lonely.server.records, lonely.server.records.give_back
    seen: list[str] = []
    monkeypatch.setattr(records, "give_back", lambda id: (seen.append(id), give_back(id)))
    monkeypatch.setattr(
        records, "tell", lambda *_: [os.kill(p, signal.SIGKILL) for p in lonely.server.workers.pids.values()]
    )
    job = lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    ended = lonely.until(f"/api/predictions/{job['id']}", ("done", "failed"))
    assert ended["state"] == "failed" and "died 2 times" in ended["error"] and seen == [job["id"]] * 2
    monkeypatch.undo()
    assert lonely.asked(study["id"])["state"] == "done", "the next one is answered"


def test_a_cancelled_job_stays_cancelled(lonely, pictures) -> None:
    study = lonely.prepared(pictures)
    jobs = [
        lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
        for _ in range(2)
    ]
    for job in jobs:
        assert lonely.delete(f"/api/predictions/{job['id']}").json()["state"] == "cancelled"
    assert lonely.asked(study["id"])["state"] == "done"
    for job in jobs:
        assert lonely.get(f"/api/predictions/{job['id']}").json()["state"] == "cancelled"
        assert lonely.get(f"/api/predictions/{job['id']}/mask.png").status_code == 409


def test_what_waited_when_the_server_stopped_is_done_after_the_next_start(
    tmp_path, tiny_weights, pictures
) -> None:
    settings = Settings(tmp_path / "data", database=own_database(), models={"tiny": str(tiny_weights)})
    with running(settings) as first:
        study = first.upload(pictures).json()
        job = first.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    with running(settings) as second:
        assert second.until(f"/api/predictions/{job['id']}", ("done", "failed"))["state"] == "done"


def test_twenty_clients_at_once_are_not_mixed_up(live, patients) -> None:
    folders = [patients(number) for number in range(2, 8)]
    with ThreadPoolExecutor(3) as pool:
        studies = list(pool.map(live.prepared, folders))
    assert [study["patient_id"] for study in studies] == [folder.name for folder in folders]
    alone = {study["id"]: live.asked(study["id"])["result"] for study in studies}
    assert len({result["lesion"]["volume_ml"] for result in alone.values()}) > 1
    asked = [study["id"] for study in studies] * 5
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(live.asked, asked))
    for study, answer in zip(asked, answers, strict=True):
        assert answer["state"] == "done"
        for part in ("patient_id", "markers", "lesion"):
            assert answer["result"][part] == alone[study][part]


def test_a_study_removed_while_it_is_prepared_leaves_no_image(lonely, pictures) -> None:
    study = lonely.upload(pictures).json()
    (job,) = [j for j in waiting(lonely) if j.study_id == study["id"]]
    while lonely.server.records.job(job.id).state == "queued":
        time.sleep(0.005)
    assert lonely.delete(f"/api/studies/{study['id']}").status_code == 204
    other = lonely.prepared(pictures)  # by the next worker
    assert other["state"] == "ready" and not lonely.server.store.study(study["id"]).exists()


def waiting(live) -> list[JobRow]:
    with live.server.records.session() as session:
        return list(session.scalars(select(JobRow).where(JobRow.state.in_(("queued", "running")))))


def test_what_is_asked_of_a_failed_study_fails_too(tmp_path) -> None:
    records = open_records(tmp_path, own_database())
    study = records.add_study("s", "P", "tiny", "0", "me")
    assert (job := records.next_job()) is not None and job.kind == "prepare"
    records.fail(job.id, "FLAIR is missing.")
    late = records.add_job("predict", study, {}, "me")  # asked by who does not know yet
    assert (late.state, late.error) == ("failed", "FLAIR is missing.")


def test_who_reads_does_not_wait_for_who_writes(tmp_path) -> None:
    records = open_records(tmp_path, own_database())
    records.add_study("s", "P", "tiny", "0", "me")
    with records.session() as writing:
        writing.add(AuditRow(who="me", action="in the middle", subject="s"))
        writing.flush()
        started = time.monotonic()
        study = records.study("s")
        assert study is not None and study.state == "preparing" and not records.predictions(None)
        assert "in the middle" not in {line.action for line in records.audit()}
        assert time.monotonic() - started < 5
    assert records.audit()[0].action == "in the middle"


def test_stopping_the_server_is_no_death(tmp_path) -> None:
    records = open_records(tmp_path, own_database())
    records.add_study("s", "P", "tiny", "0", "me")
    for _ in range(5):
        assert (job := records.next_job()) is not None
        records.give_back(job.id, stopped=True)
    for _ in range(2):
        assert (job := records.next_job()) is not None
        records.give_back(job.id)
    assert (
        (ended := records.job(job.id)) is not None
        and ended.state == "failed"
        and "died 2 times" in str(ended.error)
    )


def test_a_database_that_is_away_for_a_while_stops_nobody(lonely, pictures, monkeypatch) -> None:
    study = lonely.prepared(pictures)
    records, real = lonely.server.records, lonely.server.records.next_job
    away = iter([True] * 3)

    def next_job():
        if next(away, False):
            raise OperationalError("SELECT", {}, Exception("gone"))
        return real()

    monkeypatch.setattr(records, "next_job", next_job)
    assert lonely.asked(study["id"])["state"] == "done" and next(away, None) is None


def test_other_weights_do_not_go_on_with_what_was_prepared(lonely, pictures) -> None:
    study = lonely.prepared(pictures)
    with lonely.server.records.session() as session:
        row = session.get_one(StudyRow, study["id"])
        row.about = row.about | {"model_sha256": "of other weights"}
    assert "prepared for other weights; upload it again" in lonely.asked(study["id"])["error"]
