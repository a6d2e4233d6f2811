"""No job is lost or mixed up with another, whatever happens to its worker."""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import HTTPException
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from tests.pipeline.conftest import drop_mask, write_dicom
from tests.server.conftest import create_test_database, run_server

from gliomark.errors import GliomarkError
from gliomark.messages import message, render_message
from gliomark.server import dependencies, worker_pool
from gliomark.server.database import DeliveryRow, JobRow, StudyRow, append_audit_line
from gliomark.server.dependencies import FollowUp
from gliomark.server.run import ServerConfig, create_server, open_database
from gliomark.server.study_import import create_prediction_request


def kill_worker_of(live, path: str) -> None:
    """Kill the worker (SIGKILL) as soon as the job runs."""
    while live.get(path).json()["state"] == "queued":
        time.sleep(0.005)
    kill_all(live)


def kill_all(live) -> None:
    for pid in live.server.worker_pool.pids.values():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def lonely(tmp_path_factory, tiny_weights):
    """A server with one worker."""
    data = tmp_path_factory.mktemp("lonely")
    with run_server(
        ServerConfig(
            data, database_url=create_test_database(), worker_count=1, model_files={"tiny": str(tiny_weights)}
        )
    ) as client:
        yield client


def test_a_killed_worker_loses_nothing(lonely, picture_folder) -> None:
    study = lonely.upload_and_prepare(picture_folder)
    expected = lonely.predict_and_wait(study["id"])["result"]["markers"]
    job = lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    path = f"/api/predictions/{job['id']}"
    kill_worker_of(lonely, path)
    done = lonely.wait_for_state(path, ("done", "failed"))
    assert done["state"] == "done" and done["result"]["markers"] == expected
    assert lonely.server.database.find_job(job["id"]).attempts in (1, 2)


def test_a_job_that_kills_its_workers_fails_in_words(lonely, picture_folder, monkeypatch) -> None:
    study = lonely.upload_and_prepare(picture_folder)
    records, give_back = lonely.server.database, lonely.server.database.requeue_job
    seen: list[str] = []
    monkeypatch.setattr(records, "requeue_job", lambda id: (seen.append(id), give_back(id)))
    monkeypatch.setattr(
        records,
        "update_progress",
        lambda *_: [os.kill(p, signal.SIGKILL) for p in lonely.server.worker_pool.pids.values()],
    )
    job = lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    ended = lonely.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))
    assert ended["state"] == "failed" and "unexpectedly 2 times" in ended["error"] and seen == [job["id"]] * 2
    monkeypatch.undo()
    assert lonely.predict_and_wait(study["id"])["state"] == "done", "the next one is answered"


def test_a_worker_that_hangs_is_ended_and_counted(lonely, picture_folder, monkeypatch) -> None:
    study = lonely.upload_and_prepare(picture_folder)
    before = set(lonely.server.worker_pool.pids.values())
    monkeypatch.setattr(
        lonely.server.worker_pool, "job_stall_timeout_s", 1e-6
    )  # a worker may not be silent at all
    monkeypatch.setattr(worker_pool, "REPLY_POLL_INTERVAL_S", 0.001)  # the tiny networks need less than 0.2 s
    monkeypatch.setattr(lonely.server.database, "update_progress", lambda *_: None)
    job = lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    ended = lonely.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))
    assert ended["state"] == "failed" and "no progress" in ended["error"] and "2 times" in ended["error"]
    monkeypatch.undo()
    assert lonely.predict_and_wait(study["id"])["state"] == "done", "the next one is answered"
    assert before.isdisjoint(lonely.server.worker_pool.pids.values()), "by another process"


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_a_power_cut_is_no_fault_of_the_job(tmp_path, cuts: int) -> None:
    records = open_database(tmp_path, create_test_database())
    records.add_study("s", "P", "tiny", "0", "me")
    for _ in range(cuts):
        assert (found := records.claim_next_job()) is not None and found[0].attempts == 1
        records.requeue_interrupted_jobs()  # the server and its workers have ended
    found = records.claim_next_job()
    assert found is not None
    for attempts in (1, 2):
        assert records.find_job(found[0].id).attempts == attempts
        records.requeue_job(found[0].id)  # now the job crashes its worker
        records.claim_next_job()
    assert (
        records.find_job(found[0].id).state == "failed"
        and "unexpectedly 2 times" in records.find_job(found[0].id).error
    )


def test_a_cancelled_job_stays_cancelled(lonely, picture_folder) -> None:
    study = lonely.upload_and_prepare(picture_folder)
    jobs = [
        lonely.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
        for _ in range(2)
    ]
    for job in jobs:
        assert lonely.delete(f"/api/predictions/{job['id']}").json()["state"] == "cancelled"
    assert lonely.predict_and_wait(study["id"])["state"] == "done"
    for job in jobs:
        assert lonely.get(f"/api/predictions/{job['id']}").json()["state"] == "cancelled"
        assert lonely.get(f"/api/predictions/{job['id']}/mask.png").status_code == 409


def test_what_waited_when_the_server_stopped_is_done_after_the_next_start(
    tmp_path, tiny_weights, picture_folder
) -> None:
    settings = ServerConfig(
        tmp_path / "data", database_url=create_test_database(), model_files={"tiny": str(tiny_weights)}
    )
    with run_server(settings) as first:
        study = first.upload(picture_folder).json()
        job = first.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    with run_server(settings) as second:
        assert second.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))["state"] == "done"


def test_twenty_clients_at_once_are_not_mixed_up(live_server, make_patient_folder) -> None:
    folders = [make_patient_folder(number) for number in range(2, 8)]
    with ThreadPoolExecutor(3) as pool:
        studies = list(pool.map(live_server.upload_and_prepare, folders))
    assert [study["patient_id"] for study in studies] == [folder.name for folder in folders]
    alone = {study["id"]: live_server.predict_and_wait(study["id"])["result"] for study in studies}
    assert len({result["lesion"]["volume_ml"] for result in alone.values()}) > 1
    asked = [study["id"] for study in studies] * 5
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(live_server.predict_and_wait, asked))
    for study, answer in zip(asked, answers, strict=True):
        assert answer["state"] == "done"
        for part in ("patient_id", "markers", "lesion"):
            assert answer["result"][part] == alone[study][part]


def test_a_study_removed_while_it_is_prepared_leaves_no_image(lonely, picture_folder) -> None:
    study = lonely.upload(picture_folder).json()
    (job,) = [j for j in waiting(lonely) if j.study_id == study["id"]]
    while lonely.server.database.find_job(job.id).state == "queued":
        time.sleep(0.005)
    assert lonely.delete(f"/api/studies/{study['id']}").status_code == 204
    other = lonely.upload_and_prepare(picture_folder)  # by the next worker
    assert other["state"] == "ready" and not lonely.server.store.get_study_folder(study["id"]).exists()


def waiting(live) -> list[JobRow]:
    with live.server.database.write_transaction() as session:
        return list(session.scalars(select(JobRow).where(JobRow.state.in_(("queued", "running")))))


@pytest.mark.parametrize(
    "error",
    [
        message("brain-not-found", reason="nothing above air"),
        message("step-marker", title=message("title-idh")),
        "Told by an older version.",
        '{"an": "older text that looks like data"}',
        '["and", "another"]',
        "",
    ],
)
def test_an_error_outlasts_the_database_as_data(tmp_path, error: str) -> None:
    records = open_database(tmp_path, create_test_database())
    records.add_study("s", "P", "tiny", "0", "me")
    found = records.claim_next_job()
    assert found is not None
    records.fail_job(found[0].id, error)
    for kept in (records.find_job(found[0].id).error, records.find_study("s").error):
        assert kept == error and type(kept) is type(error)
        assert render_message(kept, "zh") == render_message(error, "zh")


def test_what_is_asked_of_a_failed_study_fails_too(tmp_path) -> None:
    records = open_database(tmp_path, create_test_database())
    study = records.add_study("s", "P", "tiny", "0", "me")
    assert (found := records.claim_next_job()) is not None and found[0].kind == "prepare"
    records.fail_job(found[0].id, "FLAIR is missing.")
    late = records.add_job(
        "predict", study, {}, "me"
    )  # requested by a client that has not seen the failure yet
    assert (late.state, late.error) == ("failed", "FLAIR is missing.")


def test_a_database_of_another_version_is_refused_in_words(tmp_path) -> None:
    url = create_test_database()
    engine = open_database(tmp_path, url).engine
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE studies DROP COLUMN progress"))
    engine.dispose()
    with pytest.raises(GliomarkError, match="another version of gliomark"):
        open_database(tmp_path, url)


def test_what_was_being_taken_in_when_the_server_died_is_there_again(lonely, picture_folder) -> None:
    server = lonely.server
    received = server.store.data_folder / "taken" / "pushed-0"
    shutil.copytree(picture_folder, received)
    sent = {path.relative_to(received) for path in received.rglob("*")}
    server.store.adopt_upload("half", received, "P")
    assert not received.exists()
    server.recover_interrupted_studies()
    assert {path.relative_to(received) for path in received.rglob("*")} == sent
    assert not server.store.get_study_folder("half").exists() and not server.store.list_unrecorded()


def test_a_database_that_is_away_costs_no_study(lonely, drawn_images, monkeypatch) -> None:
    server = lonely.server
    received = server.store.data_folder / "taken" / "pushed-1"
    received.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(received, drop_mask(drawn_images))

    def away(*_, **__):
        raise OperationalError("INSERT", {}, Exception("gone"))

    with monkeypatch.context() as patched, pytest.raises(OperationalError):
        patched.setattr(server.database, "add_study", away)
        server.admit_study(received, "tiny", "me")
    assert received.exists() and not server.store.list_unrecorded()
    row = server.admit_study(
        received, "tiny", "me", follow_up=FollowUp(create_prediction_request, ("A@h:1",))
    )
    with server.database.read_transaction() as session:
        (delivery,) = session.scalars(select(DeliveryRow).join(JobRow).where(JobRow.study_id == row.id))
    assert delivery.destination == "A@h:1" and delivery.state == "owed"


def test_an_upload_waits_until_the_models_are_known(
    tmp_path, tiny_weights, picture_folder, monkeypatch
) -> None:
    server = create_server(
        ServerConfig(tmp_path, database_url=create_test_database(), model_files={"tiny": str(tiny_weights)})
    )
    received = tmp_path / "uploads" / "one"
    shutil.copytree(picture_folder, received)
    monkeypatch.setattr(dependencies, "MODEL_LOADING_TIMEOUT_S", 0.05)
    with pytest.raises(HTTPException) as refused:
        server.admit_study(received, "tiny", "me")
    assert refused.value.status_code == 503 and refused.value.detail.code == "server-starting"
    assert received.exists() and not server.store.list_unrecorded()
    monkeypatch.setattr(dependencies, "MODEL_LOADING_TIMEOUT_S", 60.0)
    server.worker_pool.start()
    assert server.admit_study(received, "tiny", "me").model == "tiny"
    server.worker_pool.stop()


def test_who_reads_does_not_wait_for_who_writes(tmp_path) -> None:
    records = open_database(tmp_path, create_test_database())
    records.add_study("s", "P", "tiny", "0", "me")
    with records.write_transaction() as writing:
        append_audit_line(writing, "me", "in the middle", "s", {})
        started = time.monotonic()
        study = records.find_study("s")
        assert study is not None and study.state == "preparing" and not records.list_predictions(None)
        assert "in the middle" not in {line.action for line in records.list_audit_lines()}
        assert time.monotonic() - started < 5
    assert records.list_audit_lines()[0].action == "in the middle"


def test_stopping_the_server_is_no_death(tmp_path) -> None:
    records = open_database(tmp_path, create_test_database())
    records.add_study("s", "P", "tiny", "0", "me")
    for stopped in (True,) * 5 + (False,) * 2:
        assert (found := records.claim_next_job()) is not None
        records.requeue_job(found[0].id, is_server_stopping=stopped)
    assert (
        (ended := records.find_job(found[0].id)) is not None
        and ended.state == "failed"
        and "unexpectedly 2 times" in str(ended.error)
    )


def test_a_database_that_is_away_for_a_while_stops_nobody(lonely, picture_folder, monkeypatch) -> None:
    study = lonely.upload_and_prepare(picture_folder)
    records, real = lonely.server.database, lonely.server.database.claim_next_job
    away = iter([True] * 3)

    def next_job():
        if next(away, False):
            raise OperationalError("SELECT", {}, Exception("gone"))
        return real()

    monkeypatch.setattr(records, "claim_next_job", next_job)
    assert lonely.predict_and_wait(study["id"])["state"] == "done" and next(away, None) is None


def test_other_weights_do_not_go_on_with_what_was_prepared(lonely, picture_folder) -> None:
    study = lonely.upload_and_prepare(picture_folder)
    with lonely.server.database.write_transaction() as session:
        row = session.get_one(StudyRow, study["id"])
        row.about = row.about | {"model_sha256": "of other weights"}
    assert (
        "prepared for different model weights; upload it again"
        in lonely.predict_and_wait(study["id"])["error"]
    )


def test_removing_and_preparing_a_study_do_not_wait_for_each_other(tmp_path) -> None:
    """Two writers that lock a study and its job in opposite orders cause a deadlock on PostgreSQL."""
    records = open_database(tmp_path, create_test_database())

    def prepare(job: str) -> None:
        for share in range(20):
            records.update_progress(job, "step", share / 20)
        records.finish_job(job, 1.0, {}, "0" * 64)

    with ThreadPoolExecutor(8) as pool:
        for number in range(25):
            study = f"study {number}"
            records.add_study(study, "P", "tiny", "0" * 64, "somebody")
            job, _ = records.claim_next_job()
            doing = [pool.submit(prepare, job.id) for _ in range(3)]
            removing = pool.submit(records.delete_study, study, "somebody")
            for one in (*doing, removing):
                one.result()
            assert records.find_study(study) is None and records.find_job(job.id).state in (
                "cancelled",
                "done",
            )
