"""``gliomark serve`` as a program: it prints its address, refuses with a message, and ends when it should."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.pipeline.conftest import reader_pool, run_command
from tests.server.conftest import create_test_database

from gliomark.cli import server as cli
from gliomark.models.shipped_weights import SHIPPED_MODELS
from gliomark.server.associations import AssociationLimits
from gliomark.server.body_limits import RequestLimits
from gliomark.server.connections import ConnectionLimits
from gliomark.server.run import ServerConfig, create_server

__all__ = ["reader_pool", "run_command"]


def start_server(data: Path, weights: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gliomark", "serve", "--data", str(data), "--port", "0", "--model"]
    return subprocess.Popen(
        [*command, f"tiny={weights}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "GLIOMARK_TOKEN"},
    )


def test_the_server_listens_and_ends_with_its_input(tmp_path, tiny_weights) -> None:
    with start_server(tmp_path / "data", tiny_weights, "--with-input") as process:
        assert process.stdin is not None and process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert json.loads(process.stdout.readline()) == {"address": address}, (
            "for the program that started it"
        )
        assert httpx.get(f"{address}/api/health", timeout=60).status_code == 200
        process.stdin.close()  # as if the program that started it had ended
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0, "other users have no access"


@pytest.mark.slow
def test_only_one_server_uses_a_data_folder(tmp_path, tiny_weights) -> None:
    unfinished_upload = tmp_path / "data" / "uploads" / "cut off" / "1.png"
    unfinished_upload.parent.mkdir(parents=True)
    unfinished_upload.write_bytes(b"half")
    with start_server(tmp_path / "data", tiny_weights, "--with-input") as first:
        assert first.stdin is not None and first.stdout is not None and first.stdout.readline()
        assert not unfinished_upload.exists(), "an upload that was interrupted with the server is removed"
        with start_server(tmp_path / "data", tiny_weights) as second:
            _, error_text = second.communicate(timeout=60)
        assert second.returncode == 1 and "Another server is using the data folder" in error_text
        assert error_text.count("\n") == 1
        first.stdin.close()
        assert first.wait(timeout=60) == 0


@pytest.mark.parametrize("name", sorted(SHIPPED_MODELS))
def test_every_shipped_model_can_be_served(tmp_path, name: str) -> None:
    config = ServerConfig(tmp_path, database_url=create_test_database(), model_files={name: name})
    assert create_server(config).worker_pool.model_files == {name: name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "0.0.0.0"), "unencrypted"),  # noqa: S104
        (("--database", "nothing://x"), "database cannot be opened"),
        (("--model", "other="), "demo, synthetic or NAME=FILE"),
        (("--send-to", "ARCHIVE@127.0.0.1:104"), "--send-to is for the DICOM node"),
        (("--dicom-peer", "ARCHIVE"), "--dicom-peer is for the DICOM node"),
        (("--storage-commitment", "60"), "--storage-commitment is for the DICOM node"),
        (("--rtstruct",), "--rtstruct is for the DICOM node"),
        (("--comprehensive-sr",), "--comprehensive-sr is for the DICOM node"),
        (("--dicom-port", "0", "--storage-commitment", "60"), "add --send-to AET@host:port"),
        (
            (
                "--dicom-port",
                "0",
                "--storage-commitment",
                "60",
                "--send-to",
                "https://archive.example/dicom-web",
            ),
            "add --send-to AET@host:port",
        ),
    ],
)
def test_invalid_options_are_refused_in_one_sentence(
    tmp_path, tiny_weights, run_command, monkeypatch, arguments, message
) -> None:
    monkeypatch.delenv("GLIOMARK_TOKEN", raising=False)
    common = ("--data", tmp_path / "data", "--port", "0", "--model", f"tiny={tiny_weights}")
    result = run_command("serve", *common, *arguments)
    assert result.status == 1 and message in result.stderr
    assert result.stderr.startswith("gliomark: ") and result.stderr.count("\n") == 1


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dicom-port", "0", "--send-to", "nowhere"), "not the address of a PACS"),
        pytest.param(("--model", f"notes={__file__}"), "weights", marks=pytest.mark.slow),
        (("--dicom-port", "0", "--dicom-title", "A VERY LONG TITLE INDEED"), "not a valid AE title"),
        (("--dicom-port", "0", "--dicom-peer", "核磁"), "not a valid AE title"),
    ],
)
def test_a_server_with_invalid_options_ends_with_one_sentence(
    tmp_path, tiny_weights, arguments, message
) -> None:
    with start_server(tmp_path / "data", tiny_weights, *arguments) as process:
        _, error_text = process.communicate(timeout=60)
    assert process.returncode == 1 and message in error_text and "Traceback" not in error_text
    assert error_text.startswith("gliomark: ") and error_text.count("\n") == 1


def test_default_limits_are_those_of_the_library() -> None:
    """The command line and a server created in Python have the same default limits."""
    defaults = {name: one.default for name, one in inspect.signature(cli.serve).parameters.items()}
    body_limits, association_limits, connection_limits = (
        RequestLimits(),
        AssociationLimits(),
        ConnectionLimits(),
    )
    assert (defaults["connections"], defaults["connections_each"]) == (
        connection_limits.max_connections,
        connection_limits.max_connections_per_address,
    )
    assert (defaults["uploads"], defaults["uploads_each"]) == (
        body_limits.max_uploads,
        body_limits.max_uploads_per_caller,
    )
    assert (defaults["associations"], defaults["associations_each"]) == (
        association_limits.max_associations,
        association_limits.max_associations_per_address,
    )
    assert (defaults["upload_gb"] * cli.BYTES_PER_GIB, defaults["object_gb"] * cli.BYTES_PER_GIB) == (
        body_limits.max_upload_bytes,
        association_limits.max_object_bytes,
    )
    assert (
        defaults["reserve_gb"] * cli.BYTES_PER_GIB
        == body_limits.min_free_disk_bytes
        == association_limits.min_free_disk_bytes
    )
    assert defaults["job_minutes"] * 60 == ServerConfig(Path()).job_stall_timeout_s
    assert defaults["study_memory"] == ServerConfig(Path()).study_memory_mb
