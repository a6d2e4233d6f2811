"""What ``integrations/ohif/serve.py`` answers, without npm and a browser."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from starlette.testclient import TestClient

SCRIPT = Path(__file__).parents[2] / "integrations" / "ohif" / "serve.py"


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    specification = importlib.util.spec_from_file_location("ohif_serve", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("outside")
    folder = tmp_path / "pages"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("the page")
    (folder / "assets" / "logo.svg").write_text("<svg/>")
    return folder


class Archive(BaseHTTPRequestHandler):
    """Answers with what was asked."""

    def do_GET(self) -> None:
        asked = {
            "path": self.path,
            "forwarded": self.headers["Forwarded"],
            "authorization": self.headers["Authorization"],
        }
        self.send_response(206)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(json.dumps(asked).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def archive() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    server.shutdown()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "the page"),
        ("/viewer?StudyInstanceUIDs=1.2", "the page"),
        ("/assets/logo.svg", "<svg/>"),
        ("/assets", "the page"),
        ("/../secret.txt", "the page"),
        ("/..%2fsecret.txt", "the page"),
        ("/assets/..%2f..%2fsecret.txt", "the page"),
        ("//etc/hostname", "the page"),
        ("/%2fetc%2fhostname", "the page"),
    ],
)
def test_only_files_of_the_viewer_are_served(
    serve: ModuleType, pages: Path, path: str, expected: str
) -> None:
    with TestClient(serve.create_app(pages, "http://127.0.0.1:1")) as client:
        assert client.get(f"http://viewer.example{path}").text == expected


def test_the_configuration_replaces_that_of_the_package(serve: ModuleType, pages: Path) -> None:
    (pages / "app-config.js").write_text("of the package")
    with TestClient(serve.create_app(pages, "http://127.0.0.1:1")) as client:
        assert client.get("/app-config.js").text == SCRIPT.with_name("app-config.js").read_text("utf-8")


def test_calls_are_passed_to_the_archive(serve: ModuleType, pages: Path, archive: str) -> None:
    app = serve.create_app(pages, archive, ("reader", "secret"))
    with TestClient(app, base_url="http://viewer.example:3000") as client:
        answer = client.get("/dicom-web/studies/1.2?00080060=MR&limit=3")
    assert answer.status_code == 206 and answer.headers["content-type"] == "application/dicom+json"
    assert answer.json() == {
        "path": "/dicom-web/studies/1.2?00080060=MR&limit=3",
        "forwarded": "host=viewer.example:3000;proto=http",
        "authorization": "Basic cmVhZGVyOnNlY3JldA==",
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("studies/1/series/2/instances/3/frames/1,2", "/dicom-web/studies/1/series/2/instances/3/frames/1,2"),
        ("studies/a%3Fb%23c", "/dicom-web/studies/a%3Fb%23c"),
        ("studies/%E7%8E%8B", "/dicom-web/studies/%E7%8E%8B"),
        ("..%2finstances", None),
        ("..%2f..%2fsystem", None),
        ("studies/..%2f..%2finstances", None),
        ("%2e%2e%2finstances", None),
        ("studies/%2e%2finstances", None),
    ],
)
def test_only_dicomweb_of_the_archive_is_reached(
    serve: ModuleType, pages: Path, archive: str, path: str, expected: str | None
) -> None:
    with TestClient(serve.create_app(pages, archive)) as client:
        answer = client.get(f"/dicom-web/{path}")
    if expected is None:
        assert answer.status_code == 404 and answer.text == "This is no address of DICOMweb."
    else:
        assert answer.json()["path"] == expected


@pytest.mark.parametrize(
    "address", ["localhost:8042/dicom-web", "ftp://a/b", "http://", "", "http://[::1", "/dicom-web"]
)
def test_an_address_that_is_none_is_refused(serve: ModuleType, address: str) -> None:
    with pytest.raises(SystemExit, match="is no address of an archive: give one such as"):
        serve.check_address(address)


def test_addresses_of_archives(serve: ModuleType) -> None:
    for address in ("http://localhost:8042/dicom-web", "https://archive.example/dicom-web"):
        assert serve.check_address(address) == address


def test_an_incomplete_viewer_is_named(serve: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / serve.PACKAGE.rpartition("@")[2]
    folder.mkdir()
    with pytest.raises(SystemExit, match="not a complete viewer: delete this folder"):
        serve.install_viewer(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(serve: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="cannot be stored in .*: give --viewer"):
        serve.install_viewer(tmp_path / "file" / "viewer")


def test_an_archive_that_does_not_answer_is_named(serve: ModuleType, pages: Path) -> None:
    with TestClient(serve.create_app(pages, "http://127.0.0.1:1/dicom-web")) as client:
        answer = client.get("/dicom-web/studies")
    assert answer.status_code == 502
    assert answer.text.startswith("The archive at http://127.0.0.1:1/dicom-web does not answer")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_archive_cannot_be_changed_through_the_viewer(
    serve: ModuleType, pages: Path, archive: str, method: str
) -> None:
    with TestClient(serve.create_app(pages, archive)) as client:
        assert client.request(method, "/dicom-web/studies/1.2").status_code == 405
