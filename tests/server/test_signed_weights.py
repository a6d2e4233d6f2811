"""A server that loads only signed weights: checked at the start and again by the process that loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.models.broken_weights import write_tiny
from tests.pipeline.conftest import CommandResult, reader_pool, run_command
from tests.server.conftest import create_test_database, run_server

from gliomark.errors import GliomarkError
from gliomark.models.signatures import (
    TrustPolicy,
    create_key_pair,
    read_trust_policy,
    read_verified_content,
    sign_weights,
)
from gliomark.server.run import ServerConfig, create_server
from gliomark.server.worker import Worker

__all__ = ["reader_pool", "run_command"]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_key_pair(tmp_path / "group", "")
    return tmp_path / "group"


@pytest.fixture
def signed(tmp_path: Path, keys: Path) -> Path:
    path = write_tiny(tmp_path / "模型.safetensors")
    sign_weights(path, read_verified_content(path, TrustPolicy()), keys.with_suffix(".key"), str)
    return path


def create_config(data: Path, path: Path, trust: TrustPolicy) -> ServerConfig:
    return ServerConfig(
        data, database_url=create_test_database(), model_files={"tiny": str(path)}, trust=trust
    )


def test_models_are_listed_with_their_signer(tmp_path: Path, signed: Path, keys: Path) -> None:
    trust = read_trust_policy([keys.with_suffix(".pub")], is_signature_required=True)
    with run_server(create_config(tmp_path / "data", signed, trust)) as client:
        client.server.worker_pool.wait_for_models(120)
        (model,) = client.get("/api/models").json()
    assert [model["signature"]] == list(trust.public_keys)


def test_a_worker_loads_only_the_weights_that_were_checked(tmp_path: Path, signed: Path, keys: Path) -> None:
    trust = read_trust_policy([keys.with_suffix(".pub")], is_signature_required=True)
    server = create_server(create_config(tmp_path / "data", signed, trust))
    trust_policy = server.worker_pool.trust
    assert (
        Worker(tmp_path / "data", server.model_files, trust_policy).models["tiny"].signature
        in trust.public_keys
    )
    content = signed.read_bytes()
    signed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    sign_weights(signed, read_verified_content(signed, TrustPolicy()), keys.with_suffix(".key"), str)
    with pytest.raises(GliomarkError, match="has changed since the server checked it"):
        _ = Worker(tmp_path / "data", server.model_files, trust_policy).models


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (("--require-signed",), "no key is trusted"),
        (("--require-signed", "--trusted-key", "group.pub", "--model", "demo"), "not signed"),
        (("--require-signed", "--trusted-key", "other.pub"), "not trusted"),
        (("--trusted-key", "other.pub"), "not trusted"),
        (("--require-signed", "--trusted-key", "group.key"), "cannot be used as a key"),
        (("--require-signed", "--trusted-key", "absent.pub"), "cannot be used as a key"),
    ],
)
def test_the_server_does_not_start_with_untrusted_weights(
    tmp_path: Path,
    signed: Path,
    run_command: Callable[..., CommandResult],
    monkeypatch,
    arguments,
    error_text,
) -> None:
    create_key_pair(tmp_path / "other", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLIOMARK_TOKEN", raising=False)
    result = run_command("serve", "--data", "data", "--port", "0", "--model", f"tiny={signed}", *arguments)
    assert result.status == 1 and error_text in result.stderr, result.stderr
    assert result.stderr.startswith("gliomark: ") and result.stderr.count("\n") == 1
