"""Data and database of the previous version open unchanged; ``older_version/make_archive.py`` created them."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import create_engine, inspect, text
from tests.server.conftest import LiveClient, create_test_database, run_server

from gliomark.model_loading import load_weights_by_name
from gliomark.models.weights import save_weights
from gliomark.server.legacy_data import convert_legacy_data
from gliomark.server.run import ServerConfig

ARCHIVE = Path(__file__).with_name("before") / "before.tar.xz"


def compute_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def compute_array_sha256(array: Any) -> str:
    return compute_sha256(np.ascontiguousarray(array).tobytes())


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("从前 before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(unpacked: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((unpacked / "expected" / "expected.json").read_text("utf-8"))
    return content


def copy_to_database(data: Path, url: str) -> str:
    """Copy the SQLite database to ``url`` as the previous version would have written it, and return ``url``."""
    if not url:
        return ""
    source, target = create_engine(f"sqlite:///{data / 'gliomark.db'}"), create_engine(url)
    types = {"DATETIME": "TIMESTAMP WITH TIME ZONE", "DOUBLE": "DOUBLE PRECISION"}
    with source.connect() as reading, target.begin() as writing:
        inspector = inspect(reading)
        writing.execute(text("SET LOCAL TIME ZONE 'UTC'"))
        for table in ("studies", "jobs", "truths", "tokens", "audit", "deliveries"):
            statement = reading.execute(
                text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table}
            ).scalar_one()
            for sqlite_type, postgresql_type in types.items():
                statement = re.sub(rf"\b{sqlite_type}\b", postgresql_type, statement)
            writing.execute(text(statement.replace("number INTEGER NOT NULL", "number SERIAL NOT NULL")))
            names = [column["name"] for column in inspector.get_columns(table)]
            placeholders = [
                f"CAST(CAST(:{name} AS INTEGER) AS BOOLEAN)" if name == "deleted" else f":{name}"
                for name in names
            ]
            for row in reading.execute(text(f"SELECT * FROM {table}")).mappings():
                writing.execute(
                    text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(placeholders)})"),
                    dict(row),
                )
        for table, column in (("jobs", "state"), ("jobs", "created"), ("deliveries", "state")):
            writing.execute(text(f"CREATE INDEX ix_{table}_{column} ON {table} ({column})"))
        writing.execute(text("SELECT setval('audit_number_seq', (SELECT max(number) FROM audit))"))
        writing.execute(
            text(
                "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$"
            )
        )
        writing.execute(
            text(
                "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
                "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()"
            )
        )
    return url


@pytest.fixture(scope="module")
def upgraded_client(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveClient]:
    """This version on the moved data folder of the previous version, called with a token from then.

    The networks are those of then; the model did not check yet whether a patient is like its training patients, and the
    drawn patient is not.
    """
    data = unpacked / "gliomark-data"
    weights = load_weights_by_name("demo")
    tensors = {name: one for name, one in weights.tensors.items() if not name.startswith("known_range/")}
    file = tmp_path_factory.mktemp("weights") / "demo.safetensors"
    save_weights(file, weights.card, tensors)
    database_url = copy_to_database(data, create_test_database())
    with run_server(ServerConfig(data, database_url=database_url, model_files={"demo": str(file)})) as client:
        convert_legacy_data(client.server.store, client.server.database)
        client.headers["Authorization"] = f"Bearer {(unpacked / 'expected' / 'token').read_text()}"
        yield client


def test_the_archive_contains_no_paths_of_a_machine(unpacked: Path) -> None:
    for path in unpacked.rglob("*"):
        assert not path.is_symlink()
        content = path.read_bytes() if path.is_file() else b""
        assert not re.search(rb"/(work|root|home|tmp|usr|Users)/", content), path


def test_no_pickle_is_left(upgraded_client: LiveClient) -> None:
    kept = {path.name for path in upgraded_client.server.store.data_folder.rglob("*") if path.is_file()}
    assert not [name for name in kept if name.endswith(".pickle")]
    assert {"study.json", "prepared.json", "prediction.json"} <= kept


def test_studies_are_shown_as_before(upgraded_client: LiveClient, expected: dict[str, Any]) -> None:
    states = []
    for id, study in expected["studies"].items():
        arrays = study.pop("arrays", None)
        answer = upgraded_client.get(f"/api/studies/{id}").raise_for_status().json()
        assert study.items() <= answer.items()
        states.append(answer["state"])
        if arrays:
            stack = upgraded_client.server.store.load_prepared(id).stack
            own = dict(stack.images) | {"brain": stack.brain, "affine": stack.affine}
            assert {str(name): compute_array_sha256(array) for name, array in own.items()} == arrays
    assert sorted(states) == ["failed", "ready", "ready", "ready"]
    assert {"FLAIR": "T2"} in [study["stand_ins"] for study in expected["studies"].values()]


def test_predictions_and_their_documents_are_the_same(
    upgraded_client: LiveClient, expected: dict[str, Any]
) -> None:
    before = {job["id"]: job for job in expected["predictions"]}
    now = {job["id"]: job for job in upgraded_client.get("/api/predictions").json()}
    assert len(before) == 4 and before.keys() <= now.keys()
    for id, job in before.items():
        own = {name: part for name, part in job.items() if name not in ("dicom", "probability_sha256")}
        assert own.items() <= now[id].items()
        assert upgraded_client.get(f"/api/predictions/{id}/prediction.json").json() == job["result"]
        kept = upgraded_client.server.store.load_prediction(job["study_id"], id)
        assert compute_array_sha256(kept.segmentation.probability) == job["probability_sha256"]


def test_outlines_and_maps_are_the_same_pictures(
    upgraded_client: LiveClient, expected: dict[str, Any]
) -> None:
    names = {path.rpartition("/")[2] for path in expected["outlines"]}
    assert names == {"mask.png", "found.png", "idh.png"} and len(expected["outlines"]) == 7
    for path, hash in expected["outlines"].items():
        assert compute_sha256(upgraded_client.get(f"/api/{path}").raise_for_status().content) == hash, path


@pytest.mark.parametrize("language", ["en", "zh"])
def test_report_pages_contain_the_same_numbers(
    language: str, upgraded_client: LiveClient, expected: dict[str, Any], unpacked: Path
) -> None:
    """Patient, results and numbers are the same; layout and wording may change."""
    for job in expected["predictions"]:
        page = upgraded_client.get(f"/api/predictions/{job['id']}/report.html", params={"language": language})
        before = (unpacked / "expected" / f"{job['id']}.{language}.html").read_text("utf-8")
        numbers = find_numbers(before)
        assert len(numbers) > 20
        assert not numbers - find_numbers(page.raise_for_status().text)


def find_numbers(page: str) -> set[str]:
    """Find every word with a digit that a reader sees on a page: numbers, ids, versions, hashes."""
    visible = re.findall(r">([^<>]*)<", re.sub(r"(?s)<(style|script|svg).*?</\1>", "", page))
    return {word.strip(".") for text in visible for word in re.findall(r"[\w.-]*\d[\w.-]*", text, re.ASCII)}


def test_reports_as_pdf_and_dicom_are_the_same(upgraded_client: LiveClient, expected: dict[str, Any]) -> None:
    kinds = []
    for job in expected["predictions"]:
        own = f"/api/predictions/{job['id']}"
        assert upgraded_client.get(f"{own}/report.pdf").raise_for_status().content.startswith(b"%PDF")
        answer = upgraded_client.get(f"{own}/dicom.zip")
        if job["dicom"] == 409:
            assert answer.status_code == 409
        else:
            with ZipFile(BytesIO(answer.raise_for_status().content)) as archive:
                segmentation = dcmread(BytesIO(archive.read("segmentation.dcm")))
            assert compute_sha256(segmentation.PixelData) == job["dicom"]
        kinds.append(answer.status_code)
    assert sorted(kinds) == [200, 409, 409, 409]


def test_the_audit_log_is_continued(upgraded_client: LiveClient, expected: dict[str, Any]) -> None:
    before = expected["audit"]
    now = {line.number: line for line in upgraded_client.server.database.list_audit_lines()}
    assert len(before) > 12 and len(now) > len(before)
    for line in before:
        kept = now[line["number"]]
        assert (kept.who, kept.action, kept.subject, kept.detail) == tuple(
            line[name] for name in ("who", "action", "subject", "detail")
        )
        assert kept.at.isoformat() == line["at"].replace("Z", "+00:00")
    assert "older data taken over" in {line.action for line in now.values()}


def test_recorded_truths_are_kept(upgraded_client: LiveClient) -> None:
    with upgraded_client.server.database.read_transaction() as session:
        truth = session.execute(text("SELECT marker, value, note, owner FROM truths")).one()
    assert tuple(truth) == ("idh", "mutant", "病理号 1", "Dr. Wang")


def test_everything_can_be_predicted_again(upgraded_client: LiveClient, expected: dict[str, Any]) -> None:
    """The same results, also with the reader's mask.

    The model is calibrated since: its probability before calibration is the one from then. T2, then a substitute for
    FLAIR, has a network of its own since.
    """
    notes = []
    for job in expected["predictions"]:
        again = upgraded_client.predict_and_wait(job["study_id"], **job["request"])
        assert again["state"] == "done", again["error"]
        for one, other in zip(job["result"]["markers"], again["result"]["markers"], strict=True):
            assert one["probability"] == pytest.approx(other["raw_probability"], abs=1e-4)
            assert other["level"] in (one["level"], "cannot tell")
        assert again["outline_sha256"] == job["outline_sha256"]
        if job["result"]["sequences"]["stand_ins"]:
            assert again["result"]["sequences"]["stand_ins"] == {}
            assert not any("T2 was used" in warning for warning in again["result"]["warnings"])
            notes += [
                note for note in again["result"]["notes"] if "outlined on T1C + T2, by the model's" in note
            ]
            continue
        volumes = [document["lesion"]["volume_ml"] for document in (job["result"], again["result"])]
        assert volumes[0] == pytest.approx(volumes[1], rel=1e-3)
    assert len(notes) == 1


def test_a_failed_study_says_why(upgraded_client: LiveClient, expected: dict[str, Any]) -> None:
    (failed,) = (study for study in expected["studies"].values() if study["state"] == "failed")
    job = upgraded_client.post(f"/api/studies/{failed['id']}/predictions", json={"age": 50, "sex": 0})
    assert job.status_code == 409 and job.json()["detail"] == failed["error"]
