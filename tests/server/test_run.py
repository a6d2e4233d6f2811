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

from gliomark.cli import server as cli
from gliomark.server.associations import AssociationLimits
from gliomark.server.body_limits import RequestLimits
from gliomark.server.connections import ConnectionLimits
from gliomark.server.run import ServerConfig


def serve(data: Path, weights: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gliomark", "serve", "--data", str(data), "--port", "0", "--model"]
    return subprocess.Popen(
        [*command, f"tiny={weights}", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "GLIOMARK_TOKEN"},
    )


def test_it_listens_and_ends_with_its_input(tmp_path, tiny_weights) -> None:
    with serve(tmp_path / "data", tiny_weights, "--with-input") as process:
        assert process.stdin is not None and process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert json.loads(process.stdout.readline()) == {"address": address}, "for whoever started it"
        assert httpx.get(f"{address}/api/health", timeout=60).status_code == 200
        process.stdin.close()  # as if the program that started it had ended
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0, "nobody else may look into it"


def test_one_server_at_a_time_works_in_a_data_folder(tmp_path, tiny_weights) -> None:
    on_its_way = tmp_path / "data" / "uploads" / "cut off" / "1.png"
    on_its_way.parent.mkdir(parents=True)
    on_its_way.write_bytes(b"half")
    with serve(tmp_path / "data", tiny_weights, "--with-input") as first:
        assert first.stdin is not None and first.stdout is not None and first.stdout.readline()
        assert not on_its_way.exists(), "what was on its way when a server died is removed"
        with serve(tmp_path / "data", tiny_weights) as second:
            _, told = second.communicate(timeout=60)
        assert second.returncode == 1 and "Another server is using the data folder" in told
        assert told.count("\n") == 1
        first.stdin.close()
        assert first.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), "unencrypted"),  # noqa: S104
        (("--database", "nothing://x"), "database cannot be opened"),
        (("--dicom-port", "0", "--send-to", "nowhere"), "not a valid destination"),
        (("--model", "other="), "demo or NAME=FILE"),
        (("--model", f"notes={__file__}"), "weights"),
        (("--dicom-port", "0", "--dicom-title", "A VERY LONG TITLE INDEED"), "not a valid AE title"),
        (("--dicom-port", "0", "--dicom-peer", "核磁"), "not a valid AE title"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, tiny_weights, words, said) -> None:
    with serve(tmp_path / "data", tiny_weights, *words) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and said in told and "Traceback" not in told
    assert told.startswith("gliomark: ") and told.count("\n") == 1


def test_its_limits_are_the_library_s_unless_told() -> None:
    """The command line and a server created in Python have the same default limits."""
    usual = {name: one.default for name, one in inspect.signature(cli.serve).parameters.items()}
    bodies, pushed, lines = RequestLimits(), AssociationLimits(), ConnectionLimits()
    assert (usual["connections"], usual["connections_each"]) == (
        lines.max_connections,
        lines.max_connections_per_address,
    )
    assert (usual["uploads"], usual["uploads_each"]) == (bodies.max_uploads, bodies.max_uploads_per_caller)
    assert (usual["associations"], usual["associations_each"]) == (
        pushed.max_associations,
        pushed.max_associations_per_address,
    )
    assert (usual["upload_gb"] * cli.BYTES_PER_GIB, usual["object_gb"] * cli.BYTES_PER_GIB) == (
        bodies.max_upload_bytes,
        pushed.max_object_bytes,
    )
    assert usual["reserve_gb"] * cli.BYTES_PER_GIB == bodies.min_free_disk_bytes == pushed.min_free_disk_bytes
    assert usual["job_minutes"] * 60 == ServerConfig(Path()).job_stall_timeout_s
