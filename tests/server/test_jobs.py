"""No job is lost or mixed up with another, whatever happens to its worker."""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fastapi import HTTPException
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from tests.pipeline.conftest import drop_mask, write_dicom
from tests.server.conftest import create_test_database, run_server

from gliomark.errors import GliomarkError
from gliomark.messages import message, render_message
from gliomark.server import dependencies, worker_pool
from gliomark.server.database import DeliveryRow, JobRow, append_audit_line
from gliomark.server.dependencies import FollowUp
from gliomark.server.run import ServerConfig, create_server, open_database
from gliomark.server.study_import import create_prediction_request


def kill_worker(client, path: str) -> None:
    """Kill the worker (SIGKILL) as soon as the job runs."""
    while client.get(path).json()["state"] == "queued":
        time.sleep(0.005)
    kill_all_workers(client)


def kill_all_workers(client) -> None:
    for pid in client.server.worker_pool.pids.values():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def one_worker_server(tmp_path_factory, tiny_weights):
    """A server with one worker."""
    data = tmp_path_factory.mktemp("lonely")
    with run_server(
        ServerConfig(
            data, database_url=create_test_database(), worker_count=1, model_files={"tiny": str(tiny_weights)}
        )
    ) as client:
        yield client


def test_a_killed_worker_loses_no_job(one_worker_server, picture_folder) -> None:
    study = one_worker_server.upload_and_prepare(picture_folder)
    expected = one_worker_server.predict_and_wait(study["id"])["result"]["markers"]
    job = one_worker_server.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    path = f"/api/predictions/{job['id']}"
    kill_worker(one_worker_server, path)
    done = one_worker_server.wait_for_state(path, ("done", "failed"))
    assert done["state"] == "done" and done["result"]["markers"] == expected
    assert one_worker_server.server.database.find_job(job["id"]).attempts in (1, 2)


@pytest.mark.slow
def test_a_job_that_kills_its_workers_fails_with_a_message(
    one_worker_server, picture_folder, monkeypatch
) -> None:
    study = one_worker_server.upload_and_prepare(picture_folder)
    records, requeue_job = one_worker_server.server.database, one_worker_server.server.database.requeue_job
    seen: list[str] = []
    monkeypatch.setattr(records, "requeue_job", lambda id: (seen.append(id), requeue_job(id)))
    monkeypatch.setattr(
        records,
        "update_progress",
        lambda *_: [os.kill(p, signal.SIGKILL) for p in one_worker_server.server.worker_pool.pids.values()],
    )
    job = one_worker_server.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    ended = one_worker_server.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))
    assert ended["state"] == "failed" and "unexpectedly 2 times" in ended["error"] and seen == [job["id"]] * 2
    monkeypatch.undo()
    assert one_worker_server.predict_and_wait(study["id"])["state"] == "done", "the next job is done"


@pytest.mark.slow
def test_a_hanging_worker_is_ended_and_counted_as_an_attempt(
    one_worker_server, picture_folder, monkeypatch
) -> None:
    study = one_worker_server.upload_and_prepare(picture_folder)
    before = set(one_worker_server.server.worker_pool.pids.values())
    monkeypatch.setattr(
        one_worker_server.server.worker_pool, "job_stall_timeout_s", 1e-6
    )  # a worker may not be silent at all
    monkeypatch.setattr(worker_pool, "REPLY_POLL_INTERVAL_S", 0.001)  # the tiny networks need less than 0.2 s
    monkeypatch.setattr(one_worker_server.server.database, "update_progress", lambda *_: None)
    job = one_worker_server.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    ended = one_worker_server.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))
    assert ended["state"] == "failed" and "no progress" in ended["error"] and "2 times" in ended["error"]
    monkeypatch.undo()
    assert one_worker_server.predict_and_wait(study["id"])["state"] == "done", "the next job is done"
    assert before.isdisjoint(one_worker_server.server.worker_pool.pids.values()), "by another process"


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_a_power_cut_is_not_counted_as_an_attempt(tmp_path, cuts: int) -> None:
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


@pytest.mark.slow
def test_a_cancelled_job_stays_cancelled(one_worker_server, picture_folder) -> None:
    study = one_worker_server.upload_and_prepare(picture_folder)
    jobs = [
        one_worker_server.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
        for _ in range(2)
    ]
    for job in jobs:
        assert one_worker_server.delete(f"/api/predictions/{job['id']}").json()["state"] == "cancelled"
    assert one_worker_server.predict_and_wait(study["id"])["state"] == "done"
    for job in jobs:
        assert one_worker_server.get(f"/api/predictions/{job['id']}").json()["state"] == "cancelled"
        assert one_worker_server.get(f"/api/predictions/{job['id']}/mask.png").status_code == 409


@pytest.mark.slow
def test_queued_jobs_are_done_after_a_restart(tmp_path, tiny_weights, picture_folder) -> None:
    settings = ServerConfig(
        tmp_path / "data", database_url=create_test_database(), model_files={"tiny": str(tiny_weights)}
    )
    with run_server(settings) as first:
        study = first.upload(picture_folder).json()
        job = first.post(f"/api/studies/{study['id']}/predictions", json={"age": 50, "sex": 0}).json()
    with run_server(settings) as second:
        assert second.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))["state"] == "done"


@pytest.mark.slow
def test_results_of_twenty_concurrent_clients_are_not_mixed_up(live_server, make_patient_folder) -> None:
    folders = [make_patient_folder(number) for number in range(2, 8)]
    with ThreadPoolExecutor(3) as pool:
        studies = list(pool.map(live_server.upload_and_prepare, folders))
    assert [study["patient_id"] for study in studies] == [folder.name for folder in folders]
    alone = {study["id"]: live_server.predict_and_wait(study["id"])["result"] for study in studies}
    assert len({result["lesion"]["volume_ml"] for result in alone.values()}) > 1
    study_ids = [study["id"] for study in studies] * 5
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(live_server.predict_and_wait, study_ids))
    for study, answer in zip(study_ids, answers, strict=True):
        assert answer["state"] == "done"
        for part in ("patient_id", "markers", "lesion"):
            assert answer["result"][part] == alone[study][part]


def test_a_study_removed_while_it_is_prepared_leaves_no_image(one_worker_server, picture_folder) -> None:
    study = one_worker_server.upload(picture_folder).json()
    (job,) = [j for j in list_unfinished_jobs(one_worker_server) if j.study_id == study["id"]]
    while one_worker_server.server.database.find_job(job.id).state == "queued":
        time.sleep(0.005)
    assert one_worker_server.delete(f"/api/studies/{study['id']}").status_code == 204
    other = one_worker_server.upload_and_prepare(picture_folder)  # by the next worker
    assert (
        other["state"] == "ready"
        and not one_worker_server.server.store.get_study_folder(study["id"]).exists()
    )


def list_unfinished_jobs(client) -> list[JobRow]:
    with client.server.database.write_transaction() as session:
        return list(session.scalars(select(JobRow).where(JobRow.state.in_(("queued", "running")))))


@pytest.mark.parametrize(
    "error",
    [
        message("brain-not-found", reason="nothing above air"),
        message("step-marker", title=message("title-idh")),
        "A message of an older version.",
        '{"an": "older text that looks like data"}',
        '["and", "another"]',
        "",
    ],
)
def test_an_error_keeps_its_code_and_parameters_in_the_database(tmp_path, error: str) -> None:
    records = open_database(tmp_path, create_test_database())
    records.add_study("s", "P", "tiny", "0", "me")
    found = records.claim_next_job()
    assert found is not None
    records.fail_job(found[0].id, error)
    for kept in (records.find_job(found[0].id).error, records.find_study("s").error):
        assert kept == error and type(kept) is type(error)
        assert render_message(kept, "zh") == render_message(error, "zh")


def test_a_job_for_a_failed_study_fails(tmp_path) -> None:
    records = open_database(tmp_path, create_test_database())
    study = records.add_study("s", "P", "tiny", "0", "me")
    assert (found := records.claim_next_job()) is not None and found[0].kind == "prepare"
    records.fail_job(found[0].id, "FLAIR is missing.")
    late = records.add_job(
        "predict", study, {}, "me"
    )  # requested by a client that has not seen the failure yet
    assert (late.state, late.error) == ("failed", "FLAIR is missing.")


def test_a_database_of_another_version_is_refused_with_a_message(tmp_path) -> None:
    url = create_test_database()
    engine = open_database(tmp_path, url).engine
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE studies DROP COLUMN progress"))
    engine.dispose()
    with pytest.raises(GliomarkError, match="another version of gliomark"):
        open_database(tmp_path, url)


def test_an_upload_being_admitted_when_the_server_died_is_recovered(
    one_worker_server, picture_folder
) -> None:
    server = one_worker_server.server
    received = server.store.data_folder / "taken" / "pushed-0"
    shutil.copytree(picture_folder, received)
    sent = {path.relative_to(received) for path in received.rglob("*")}
    server.store.adopt_upload("half", received, "P")
    assert not received.exists()
    server.recover_interrupted_studies()
    assert {path.relative_to(received) for path in received.rglob("*")} == sent
    assert not server.store.get_study_folder("half").exists() and not server.store.list_unrecorded()


def test_an_unavailable_database_loses_no_study(one_worker_server, drawn_images, monkeypatch) -> None:
    server = one_worker_server.server
    received = server.store.data_folder / "taken" / "pushed-1"
    received.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(received, drop_mask(drawn_images))

    def raise_unavailable(*_, **__):
        raise OperationalError("INSERT", {}, Exception("gone"))

    with monkeypatch.context() as patched, pytest.raises(OperationalError):
        patched.setattr(server.database, "add_study", raise_unavailable)
        server.admit_study(received, "tiny", "me")
    assert received.exists() and not server.store.list_unrecorded()
    row = server.admit_study(
        received, "tiny", "me", follow_up=FollowUp(create_prediction_request, ("A@h:1",))
    )
    with server.database.read_transaction() as session:
        (delivery,) = session.scalars(select(DeliveryRow).join(JobRow).where(JobRow.study_id == row.id))
    assert delivery.destination == "A@h:1" and delivery.state == "owed"


@pytest.mark.slow
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


def test_reading_does_not_wait_for_writing(tmp_path) -> None:
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


def test_stopping_the_server_is_not_counted_as_an_attempt(tmp_path) -> None:
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


def test_workers_continue_after_the_database_was_unavailable(
    one_worker_server, picture_folder, monkeypatch
) -> None:
    study = one_worker_server.upload_and_prepare(picture_folder)
    records, real = one_worker_server.server.database, one_worker_server.server.database.claim_next_job
    failures = iter([True] * 3)

    def claim_after_failures():
        if next(failures, False):
            raise OperationalError("SELECT", {}, Exception("gone"))
        return real()

    monkeypatch.setattr(records, "claim_next_job", claim_after_failures)
    assert one_worker_server.predict_and_wait(study["id"])["state"] == "done" and next(failures, None) is None


def test_a_study_prepared_with_other_settings_is_refused(one_worker_server, picture_folder) -> None:
    study, store = one_worker_server.upload_and_prepare(picture_folder), one_worker_server.server.store
    prepared = store.load_prepared(study["id"])
    store.save_prepared(study["id"], replace(prepared, config=replace(prepared.config, k=19)))
    refused = one_worker_server.predict_and_wait(study["id"])
    assert (
        refused["state"] == "failed" and "prepared (T1C + FLAIR) for a model with other" in refused["error"]
    )
    store.save_prepared(study["id"], prepared)
    assert one_worker_server.predict_and_wait(study["id"])["state"] == "done"


def test_removing_and_preparing_a_study_do_not_deadlock(tmp_path) -> None:
    """Two writers that lock a study and its job in opposite orders cause a deadlock on PostgreSQL."""
    records = open_database(tmp_path, create_test_database())

    def prepare(job: str) -> None:
        for share in range(20):
            records.update_progress(job, "step", share / 20)
        records.finish_job(job, 1.0, {}, "0" * 64)

    with ThreadPoolExecutor(8) as pool:
        for number in range(25):
            study = f"study {number}"
            records.add_study(study, "P", "tiny", "0" * 64, "me")
            job, _ = records.claim_next_job()
            updates = [pool.submit(prepare, job.id) for _ in range(3)]
            removing = pool.submit(records.delete_study, study, "me")
            for one in (*updates, removing):
                one.result()
            assert records.find_study(study) is None and records.find_job(job.id).state in (
                "cancelled",
                "done",
            )
