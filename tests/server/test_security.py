"""Authentication: tokens, roles, host names and origins; and an append-only audit log without patient names."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from starlette.routing import Mount
from tests.pipeline.conftest import PATIENT
from tests.server.conftest import create_test_database, run_server

from gliomark.errors import GliomarkError
from gliomark.server import app, browser_page, monai_label, predictions, studies
from gliomark.server.app import create_app
from gliomark.server.database import AuditRow, TokenRow, hash_token
from gliomark.server.run import ServerConfig, create_server, open_database
from gliomark.server.security import ServerAddress

OTHER_SITE = {"Origin": "https://elsewhere.example"}
OPEN_PATHS = ("/api/health", "/auth/", "/auth/token")  # the last takes the token as a password


@pytest.fixture(scope="module")
def client_with_tokens(tmp_path_factory, tiny_weights):
    """A server with a reader's and an admin's token."""
    data = tmp_path_factory.mktemp("guarded")
    database = create_test_database()
    records = open_database(data, database)
    tokens = {role: records.add_token(f"{role} 王", role) for role in ("reader", "admin")}
    with run_server(
        ServerConfig(data, database_url=database, model_files={"tiny": str(tiny_weights)})
    ) as client:
        client.tokens = tokens
        yield client


def create_bearer_header(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_every_call_but_health_requires_a_token(client_with_tokens) -> None:
    document = client_with_tokens.get("/api/openapi.json").json()
    calls = [(path, verb) for path, verbs in document["paths"].items() for verb in verbs]
    assert len(calls) > 15
    for path, verb in calls:
        filled = (
            path.replace("{id}", "x")
            .replace("{sequence}", "T1")
            .replace("{index}", "0")
            .replace("{marker}", "m")
        )
        for headers in ({}, create_bearer_header("wrong"), {"Authorization": "Basic x"}):
            answer = client_with_tokens.request(verb, filled, headers=headers)
            assert (answer.status_code == 401) is (path not in OPEN_PATHS), (path, verb, answer.text)


def test_a_reader_has_no_rights_of_an_admin(client_with_tokens) -> None:
    assert (
        client_with_tokens.get(
            "/api/audit", headers=create_bearer_header(client_with_tokens.tokens["reader"])
        ).status_code
        == 403
    )
    assert (
        client_with_tokens.get(
            "/api/audit", headers=create_bearer_header(client_with_tokens.tokens["admin"])
        ).status_code
        == 200
    )
    assert (
        client_with_tokens.get(
            "/api/predictions", headers=create_bearer_header(client_with_tokens.tokens["reader"])
        ).status_code
        == 200
    )


def test_another_readers_study_is_not_removed(client_with_tokens, picture_folder) -> None:
    files = [
        ("files", (f"P/{p.relative_to(picture_folder).as_posix()}", p.read_bytes()))
        for p in picture_folder.rglob("*.png")
    ]
    sent = client_with_tokens.post(
        "/api/studies", files=files, headers=create_bearer_header(client_with_tokens.tokens["admin"])
    ).json()
    url = f"/api/studies/{sent['id']}"
    reader = create_bearer_header(client_with_tokens.tokens["reader"])
    assert client_with_tokens.delete(url, headers=reader).status_code == 403
    client_with_tokens.headers["Authorization"] = create_bearer_header(client_with_tokens.tokens["admin"])[
        "Authorization"
    ]
    client_with_tokens.wait_for_state(url, ("ready",))
    job = client_with_tokens.post(f"{url}/predictions", json={"age": 50, "sex": 0}).json()
    del client_with_tokens.headers["Authorization"]
    for change in (
        ("DELETE", f"/api/predictions/{job['id']}"),
        ("PUT", f"{url}/mask.png"),
        ("DELETE", f"{url}/mask.png"),
        ("PUT", f"/datastore/label?image={sent['id']}"),
        ("DELETE", f"/datastore/label?id={sent['id']}"),
        ("DELETE", f"/datastore/image?id={sent['id']}"),
    ):
        assert client_with_tokens.request(*change, headers=reader).status_code == 403, change
    for strategy in ("first", "random"):  # only studies that the caller may correct
        assert client_with_tokens.post(f"/activelearning/{strategy}", headers=reader).json() == {}
    named = client_with_tokens.get(f"/datastore/image/info?image={sent['patient_id']}", headers=reader)
    assert named.status_code == 404  # a patient's name finds only the caller's own uploads
    assert (
        client_with_tokens.delete(
            url, headers=create_bearer_header(client_with_tokens.tokens["admin"])
        ).status_code
        == 204
    )


def test_tokens_are_stored_as_hashes_and_can_be_revoked(client_with_tokens) -> None:
    records = client_with_tokens.server.database
    token = records.add_token("short", "reader")
    with records.write_transaction() as session:
        kept = " ".join(
            str(vars(row)) for table in (TokenRow, AuditRow) for row in session.scalars(select(table))
        )
    assert token not in kept and client_with_tokens.tokens["admin"] not in kept and hash_token(token) in kept
    assert client_with_tokens.get("/api/predictions", headers=create_bearer_header(token)).status_code == 200
    records.revoke_token("short")
    assert client_with_tokens.get("/api/predictions", headers=create_bearer_header(token)).status_code == 401


def test_the_existence_of_earlier_tokens_is_remembered(tmp_path) -> None:
    database = create_test_database()
    records = open_database(tmp_path, database)
    assert not records.has_had_tokens()
    open_database(tmp_path, database).add_token(
        "one", "reader"
    )  # as another process does; it takes effect in the running server
    assert records.has_had_tokens()
    records.revoke_token("one")
    assert records.has_had_tokens() and open_database(tmp_path, database).has_had_tokens()
    assert not records.list_tokens()


@pytest.fixture
def local_client(tmp_path, tiny_weights, monkeypatch):
    """A local server's application without workers, and its database as the command line opens it."""
    monkeypatch.delenv("GLIOMARK_TOKEN", raising=False)
    database = create_test_database()
    server = create_server(
        ServerConfig(tmp_path, database_url=database, model_files={"tiny": str(tiny_weights)})
    )
    return TestClient(create_app(server), base_url="http://127.0.0.1"), open_database(tmp_path, database)


def test_a_token_is_required_after_all_were_revoked(local_client) -> None:
    client, records = local_client
    assert client.get("/api/predictions").status_code == 200, "users of this machine need no token"
    token = records.add_token("Dr. Wang", "reader")
    for headers, status, code in [({}, 401, "token-wanted"), (create_bearer_header(token), 200, None)]:
        answer = client.get("/api/predictions", headers=headers)
        assert (answer.status_code, answer.json()["code"] if code else None) == (status, code)
    records.revoke_token("Dr. Wang")
    for headers in ({}, create_bearer_header(token), create_bearer_header("")):
        assert client.get("/api/predictions", headers=headers).status_code == 401
    answer = client.get("/api/predictions").json()
    assert answer["code"] == "token-wanted-again" and "gliomark token add" in answer["detail"]
    again = create_bearer_header(records.add_token("Dr. Li", "reader"))
    assert client.get("/api/predictions", headers=again).status_code == 200


def test_the_documentation_needs_no_internet(local_client) -> None:
    client, _ = local_client
    page = client.get("/api/docs")
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert len(links) >= 4 and not [link for link in links if "//" in link], links
    for link in links:
        fetched = client.get(f"/api/{link}")
        assert fetched.status_code == 200 and len(fetched.content) > 500, link
    assert "SwaggerUIBundle" in client.get("/api/docs/files/swagger-ui-bundle.js").text
    styles = client.get("/api/docs/files/swagger-ui.css").text
    assert not re.search(r"""url\((?!["']?data:)|@import""", styles), "styles fetch nothing from elsewhere"
    allowed = page.headers["Content-Security-Policy"]
    assert allowed.startswith("default-src 'self'") and "http" not in allowed, "the browser enforces it"


def test_the_page_needs_no_token_and_runs_only_its_own_scripts(client_with_tokens) -> None:
    page = client_with_tokens.get("/")
    assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"<script(?![^>]* src=)|<style|\s(?:style|on\w+)=", page.text), "nothing is inline"
    links = re.findall(r"""(?:src|href)="([^"]+)\"""", page.text)
    modules = re.findall(r'from "\./([^"]+)"', client_with_tokens.get("/page/main.js").text)
    assert len(links) == 4 and len(modules) > 4
    for link in [*links, *(f"page/{module}" for module in modules), "page/texts.json"]:
        fetched = client_with_tokens.get(f"/{link}")
        assert fetched.status_code == 200 and fetched.headers["X-Content-Type-Options"] == "nosniff", link
        policy = fetched.headers["Content-Security-Policy"]
        assert (
            policy.startswith("default-src 'none'; script-src 'self';") and "frame-ancestors 'none'" in policy
        )
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        if link.endswith(".js"):
            assert fetched.headers["Content-Type"].startswith("text/javascript"), link
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/", "/page/niivue"):
        assert client_with_tokens.get(path).status_code == 404, path


def test_only_the_page_and_the_documentation_are_outside_the_schema(local_client) -> None:
    client, _ = local_client
    mounted = [route.path for route in client.app.routes if isinstance(route, Mount)]
    assert mounted == ["/api/docs/files", "/page"]
    routers = (app.router, studies.router, predictions.router, browser_page.router)
    hidden = {route.path for router in routers for route in router.routes if not route.include_in_schema}
    assert hidden == {"/", "/page/texts.json", "/api/docs"}


def test_calls_of_monai_label_that_are_not_offered_need_a_token_too(client_with_tokens) -> None:
    hidden = [one for one in monai_label.router.routes if not getattr(one, "include_in_schema", True)]
    assert len(hidden) > 10
    for route in hidden:
        path = route.path.replace("{rest:path}", "x")
        for method in route.methods:
            assert client_with_tokens.request(method, path).status_code == 401, (method, path)


def test_a_token_serves_as_the_password_of_monai_labels_clients(client_with_tokens) -> None:
    client, token = client_with_tokens, client_with_tokens.tokens["reader"]
    assert client.get("/auth/").json() == {"enabled": True}
    form = {"username": "user", "password": token, "grant_type": "password"}
    answered = client.post("/auth/token", data=form)
    assert answered.json() == {"access_token": token, "token_type": "bearer"}
    bearer = {"Authorization": f"bearer {token}"}  # the type is written as the server answered it
    assert client.get("/auth/token/valid", headers=bearer).json() == {
        "username": "reader 王",
        "roles": ["reader"],
    }
    assert client.get("/info/", headers=bearer).status_code == 200
    for password, status in (("wrong", 401), ("", 422), ("x" * 2000, 422)):
        refused = client.post("/auth/token", data=form | {"password": password})
        assert refused.status_code == status, refused.text
        assert not password or password not in refused.text
    for path in ("/auth/", "/auth/token"):
        sent = client.request(
            "POST" if path.endswith("token") else "GET", path, data=form, headers=OTHER_SITE
        )
        assert sent.status_code == 403, path


def test_a_local_server_without_tokens_needs_no_password(local_client) -> None:
    client, _ = local_client
    assert client.get("/auth/").json() == {"enabled": False}
    form = {"username": "user", "password": "any"}
    assert client.post("/auth/token", data=form).json() == {"access_token": None, "token_type": None}


def test_browsers_keep_no_response_with_a_patients_data(live_server, prepared_study) -> None:
    url = f"/api/studies/{prepared_study['id']}"
    for path in (url, f"{url}/volumes/FLAIR.nii.gz", f"{url}/slices/FLAIR/0.png", "/api/studies/none"):
        assert live_server.get(path).headers["Cache-Control"] == "no-store", path
    with live_server.stream("GET", f"{url}/events") as events:
        assert events.headers["Cache-Control"] == "no-store"


def test_other_host_names_and_origins_are_refused(live_server) -> None:
    assert live_server.get("/api/predictions", headers={"Host": "evil.example"}).status_code == 403
    assert live_server.get("/api/predictions", headers={"Origin": "https://evil.example"}).status_code == 403
    own = f"127.0.0.1:{live_server.base_url.port}"
    assert live_server.get("/api/predictions", headers={"Origin": f"http://{own}"}).status_code == 200


def test_a_large_body_is_refused_before_it_is_read(client_with_tokens) -> None:
    for path in ("/api/predictions/x/truth", "/api/studies/x/predictions"):
        refused = client_with_tokens.post(
            path, content=bytes(1 << 20), headers={"Content-Type": "application/json"}
        )
        assert refused.status_code == 413, refused.text


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Origin": "http://["}])
def test_an_invalid_host_or_origin_is_refused(live_server, headers) -> None:
    assert live_server.get("/api/predictions", headers=headers).status_code == 403


def test_a_token_in_the_environment_is_required(tmp_path, tiny_weights, monkeypatch) -> None:
    monkeypatch.setenv("GLIOMARK_TOKEN", "only this client knows")
    authenticator = create_server(
        ServerConfig(tmp_path, model_files={"tiny": str(tiny_weights)})
    ).authenticator
    assert authenticator.startup_token == "only this client knows" and authenticator.is_loopback


@pytest.mark.parametrize(
    ("address", "error_text"),
    [
        (ServerAddress("0.0.0.0"), "unencrypted"),  # noqa: S104
        (ServerAddress("::"), "unencrypted"),
        (ServerAddress("hospital.example"), "unencrypted"),
        (ServerAddress("0.0.0.0", certificate=Path(__file__), key=Path(__file__)), "first add a token"),  # noqa: S104
        (ServerAddress(certificate=Path(__file__)), "needs two files"),
        (ServerAddress(certificate=Path("nowhere"), key=Path(__file__)), "nowhere does not exist"),
    ],
)
def test_a_port_open_to_the_network_requires_tokens_and_tls(
    tmp_path, tiny_weights, monkeypatch, address, error_text
) -> None:
    monkeypatch.delenv("GLIOMARK_TOKEN", raising=False)
    with pytest.raises(GliomarkError, match=error_text):
        create_server(ServerConfig(tmp_path, address, model_files={"tiny": str(tiny_weights)}))


def test_the_audit_log_is_append_only(live_server, prepared_study) -> None:
    engine = live_server.server.database.engine
    for line in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="only grows"), engine.begin() as connection:
            connection.execute(text(line))
    if engine.dialect.name == "sqlite":
        replace = (
            "INSERT OR REPLACE INTO audit (number, at, who, action, subject, detail) SELECT number, at, 'x', "
        )
        with pytest.raises(DBAPIError, match="only grows"), engine.begin() as connection:
            connection.execute(text(replace + "action, subject, detail FROM audit"))
    assert "x" not in {line["who"] for line in live_server.get("/api/audit").json()}


def test_logs_contain_no_patient_names(live_server, prepared_study, caplog) -> None:
    caplog.set_level(logging.INFO)
    live_server.get("/api/predictions", params={"patient_id": PATIENT})
    live_server.predict_and_wait(prepared_study["id"])
    assert "GET /api/predictions 200" in caplog.text and PATIENT not in caplog.text
    lines = httpx.Response(200, json=live_server.get("/api/audit").json()).text
    assert PATIENT not in lines and '"age"' not in lines


def test_names_and_roles_are_checked(tmp_path) -> None:
    records = open_database(tmp_path, create_test_database())
    records.add_token("one", "reader")
    for call in (lambda: records.add_token("one", "admin"), lambda: records.add_token("two", "king"),
                lambda: records.revoke_token("three")):  # fmt: skip
        with pytest.raises(GliomarkError):
            call()
    with pytest.raises(GliomarkError, match="database cannot be opened"):
        open_database(tmp_path, "postgresql+nothing://x")


def test_a_database_without_an_encoding_keeps_non_ascii_names(tmp_path: Path) -> None:
    """PostgreSQL creates such a cluster if no locale is set; names must not be returned as bytes."""
    records = open_database(
        tmp_path, create_test_database("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    )
    records.add_token("神经外科", "reader")
    assert [row.name for row in records.list_tokens()] == ["神经外科"]
    assert records.verify_audit_chain().line_count == 1
