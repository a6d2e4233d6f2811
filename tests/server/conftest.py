"""A live server on a real port with real worker processes; model and patient are those of the pipeline tests."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text
from tests.pipeline import conftest as patients
from tests.pipeline.conftest import (
    PATIENT,
    draw_patient,
    drawn_images,
    drop_mask,
    picture_folder,
    tiny_weights,
    write_pictures,
    write_volumes,
)

from gliomark.server.app import create_app
from gliomark.server.connections import ConnectionLimits, HttpServer
from gliomark.server.run import ServerConfig, create_server
from gliomark.server.uploads import RequestLimits

__all__ = ["drawn_images", "picture_folder", "tiny_weights"]
TIMEOUT_S = 120.0
SMALL_LIMITS = RequestLimits(
    max_upload_bytes=20 << 20,
    max_upload_files=200,
    max_uploads=3,
    silence_timeout_s=1.0,
    max_mask_bytes=1 << 20,
)


class LiveClient(httpx.Client):
    """A client of the running server, with access to the server's own parts."""

    def __init__(self, url: str, server: Any) -> None:
        super().__init__(base_url=url, timeout=TIMEOUT_S)
        self.server = server
        self.web: HttpServer

    def upload(self, folder: Path, **fields: str) -> httpx.Response:
        """Upload a patient's folder; its name is the first part of every path."""
        files = [
            ("files", (f"{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes()))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        return self.post("/api/studies", files=files, data=fields)

    def upload_and_prepare(self, folder: Path) -> dict[str, Any]:
        """Upload a study and return it once it is ready."""
        sent = self.upload(folder)
        assert sent.status_code == 201, sent.text
        return self.wait_for_state(f"/api/studies/{sent.json()['id']}", ("ready", "failed"))

    def predict_and_wait(self, study: str, **options: Any) -> dict[str, Any]:
        """Request a prediction and return it once it has ended."""
        job = self.post(f"/api/studies/{study}/predictions", json={"age": 50, "sex": 0} | options)
        assert job.status_code == 202, job.text
        return self.wait_for_state(f"/api/predictions/{job.json()['id']}", ("done", "failed", "cancelled"))

    def wait_for_state(self, path: str, end_states: tuple[str, ...]) -> dict[str, Any]:
        """Return the document once its state is one of these."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            document: dict[str, Any] = self.get(path).raise_for_status().json()
            if document["state"] in end_states:
                return document
            time.sleep(0.05)
        raise AssertionError(f"{path} is still {document['state']}")


def create_test_database(options: str = "") -> str:
    """Return the URL of a new database in PostgreSQL, or an empty text for SQLite.

    PostgreSQL is used if GLIOMARK_TEST_DATABASE=postgresql+psycopg://... is set; options: of its CREATE DATABASE.
    """
    url = os.environ.get("GLIOMARK_TEST_DATABASE", "")
    if not url:
        return ""
    name = f"gliomark_{uuid.uuid4().hex}"
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def run_server(settings: ServerConfig) -> Iterator[LiveClient]:
    """Run a server in its own thread, with its worker processes."""
    server = create_server(settings)
    web = HttpServer(create_app(server), socket.create_server(("127.0.0.1", 0)), settings.connection_limits)
    thread = threading.Thread(target=web.run_until_stopped, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.02)
    with LiveClient(f"http://127.0.0.1:{web.port}", server) as client:
        client.web = web
        yield client
    web.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[LiveClient]:
    """One server for all tests of a module, with small limits."""
    data = tmp_path_factory.mktemp("数据 夹")
    with run_server(
        ServerConfig(
            data,
            database_url=create_test_database(),
            model_files={"tiny": str(tiny_weights)},
            request_limits=SMALL_LIMITS,
            connection_limits=ConnectionLimits(600, 600),
        )
    ) as client:
        yield client


@pytest.fixture(scope="module")
def prepared_study(live_server: LiveClient, picture_folder: Path) -> dict[str, Any]:
    """The patient of the pipeline tests, prepared."""
    return live_server.upload_and_prepare(picture_folder)


@pytest.fixture(scope="session")
def make_patient_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Patient ``P<n>``: the same head with different noise and lesion brightness."""
    folder = tmp_path_factory.mktemp("many")

    def write_patient(number: int) -> Path:
        images = drop_mask(draw_patient(number))
        images["FLAIR"] = np.clip(images["FLAIR"].astype(int) * (100 - number) // 100, 0, 255).astype(
            np.uint8
        )
        return write_pictures(folder / f"P{number:02d}", images)

    return write_patient


__all__ += ["PATIENT"]


@pytest.fixture(scope="session")
def fine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patient as NIfTI with pixels of 1 mm, the grid of prepared images; tests must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patients, "SIZE", 240)
        patch.setattr(patients, "SPACING_MM", (1.0, 1.0, 6.0))
        patch.setattr(patients, "SLICES", 12)  # fewer, so that preparing it is quick
        return write_volumes(tmp_path_factory.mktemp("fine") / PATIENT, drop_mask(draw_patient()))


@pytest.fixture(scope="module")
def fine_study(live_server: LiveClient, fine_folder: Path) -> dict[str, Any]:
    """This patient, prepared."""
    return live_server.upload_and_prepare(fine_folder)
