"""A live server on a real port with real worker processes; the small model and patient are the pipeline's."""

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
from tests.pipeline.conftest import PATIENT, draw, drawn, pictures, tiny_weights, without_mask, write_pictures

from gliomark.server.app import create_app
from gliomark.server.connections import ConnectionLimits, Web
from gliomark.server.run import Settings, make_server
from gliomark.server.uploads import Limits

__all__ = ["drawn", "pictures", "tiny_weights"]
SOON_S = 120.0
SMALL = Limits(bytes=20 << 20, files=200, at_once=3, silence_s=1.0, mask_bytes=1 << 20)


class Live(httpx.Client):
    """A client of the running server, and the server's own parts."""

    def __init__(self, url: str, server: Any) -> None:
        super().__init__(base_url=url, timeout=SOON_S)
        self.server = server
        self.web: Web

    def upload(self, folder: Path, **fields: str) -> httpx.Response:
        """A patient's folder, its own name in front of every path."""
        files = [
            ("files", (f"{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes()))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        return self.post("/api/studies", files=files, data=fields)

    def prepared(self, folder: Path) -> dict[str, Any]:
        """The uploaded study, once it is ready."""
        sent = self.upload(folder)
        assert sent.status_code == 201, sent.text
        return self.until(f"/api/studies/{sent.json()['id']}", ("ready", "failed"))

    def asked(self, study: str, **asked: Any) -> dict[str, Any]:
        """A prediction of it, once it is over."""
        job = self.post(f"/api/studies/{study}/predictions", json={"age": 50, "sex": 0} | asked)
        assert job.status_code == 202, job.text
        return self.until(f"/api/predictions/{job.json()['id']}", ("done", "failed", "cancelled"))

    def until(self, path: str, states: tuple[str, ...]) -> dict[str, Any]:
        """The document, once its state is one of these."""
        ends = time.monotonic() + SOON_S
        while time.monotonic() < ends:
            document: dict[str, Any] = self.get(path).raise_for_status().json()
            if document["state"] in states:
                return document
            time.sleep(0.05)
        raise AssertionError(f"{path} is still {document['state']}")


def own_database(options: str = "") -> str:
    """Where nothing is said, SQLite; with GLIOMARK_TEST_DATABASE=postgresql+psycopg://..., a new database there.

    options: of PostgreSQL's CREATE DATABASE.
    """
    url = os.environ.get("GLIOMARK_TEST_DATABASE", "")
    if not url:
        return ""
    name = f"gliomark_{uuid.uuid4().hex}"
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def running(settings: Settings) -> Iterator[Live]:
    """A server in a thread of its own, its workers in processes of theirs."""
    server = make_server(settings)
    web = Web(create_app(server), socket.create_server(("127.0.0.1", 0)), settings.connections)
    thread = threading.Thread(target=web.listen, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.02)
    with Live(f"http://127.0.0.1:{web.port}", server) as client:
        client.web = web
        yield client
    web.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[Live]:
    """One server for a module's tests, two workers, small limits."""
    data = tmp_path_factory.mktemp("数据 夹")
    with running(
        Settings(
            data,
            database=own_database(),
            workers=2,
            models={"tiny": str(tiny_weights)},
            limits=SMALL,
            connections=ConnectionLimits(600, 600),
        )
    ) as client:
        yield client


@pytest.fixture(scope="module")
def study(live: Live, pictures: Path) -> dict[str, Any]:
    """The pipeline's patient, prepared."""
    return live.prepared(pictures)


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Patient ``P<n>``: the same head, other grains, the lesion's brightness its own."""
    folder = tmp_path_factory.mktemp("many")

    def patient(number: int) -> Path:
        images = without_mask(draw(number))
        images["FLAIR"] = np.clip(images["FLAIR"].astype(int) * (100 - number) // 100, 0, 255).astype(
            np.uint8
        )
        return write_pictures(folder / f"P{number:02d}", images)

    return patient


__all__ += ["PATIENT"]
