"""Random requests from the OpenAPI schema: no response is 500, and all responses are documented."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


CONFIG = """
[[operations]]
include-name = "DELETE /api/studies/{{id}}"
enabled = false
[[operations]]
include-path-regex = "^/api/studies/.*"
parameters = {{ "path.id" = "{study}", "path.sequence" = "FLAIR" }}
[[operations]]
include-path-regex = "^/api/predictions/.*"
parameters = {{ "path.id" = "{job}", "path.marker" = "idh" }}
"""


@pytest.mark.slow
def test_random_requests_do_not_break_the_server(live_server, prepared_study, tmp_path) -> None:
    job = live_server.predict_and_wait(prepared_study["id"])
    (tmp_path / "fuzz.toml").write_text(CONFIG.format(study=prepared_study["id"], job=job["id"]), "utf-8")
    arguments = [
        "--config-file",
        str(tmp_path / "fuzz.toml"),
        "run",
        f"{live_server.base_url}/api/openapi.json",
    ]
    arguments += [
        "--checks",
        CHECKS,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "8",
        "--seed",
        "1",
    ]
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "schemathesis.cli", *arguments, "--request-timeout", "20", "--no-color"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert live_server.predict_and_wait(prepared_study["id"])["result"]["markers"] == job["result"]["markers"]
