"""Signatures of weights files: trusted keys, refusals, and compatibility with minisign."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.models.broken_weights import write_tiny

from gliomark.errors import GliomarkError
from gliomark.messages import Message, render_message
from gliomark.model_loading import load_model
from gliomark.models.signatures import (
    TrustPolicy,
    create_key_pair,
    read_trust_policy,
    read_verified_content,
    sign_weights,
)

PASSWORD = "长密码 1"  # noqa: S105
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GLIOMARK_")}


def sign_with(path: Path, key: Path, password: str = "") -> Path:
    return sign_weights(path, read_verified_content(path, TrustPolicy()), key, lambda: password)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Key pair of a group: path of both files without their extension."""
    create_key_pair(tmp_path / "group", "")
    return tmp_path / "group"


@pytest.fixture
def signed(tmp_path: Path, pair: Path) -> Path:
    path = write_tiny(tmp_path / "模型 a.safetensors")
    sign_with(path, pair.with_suffix(".key"))
    return path


@pytest.fixture
def trust(pair: Path) -> TrustPolicy:
    return read_trust_policy([pair.with_suffix(".pub")], is_signature_required=True)


def run_gliomark(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gliomark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | environment, input="")


def test_a_signed_file_is_loaded_with_the_id_of_its_key(signed: Path, trust: TrustPolicy) -> None:
    (key,) = trust.public_keys
    assert load_model(signed, trust).identity.signature == key
    assert load_model(signed).identity.signature == "not checked"
    assert load_model(write_tiny(signed.with_name("b"))).identity.signature == "unsigned"


def sign_with_other_key(path: Path, signature: Path) -> None:
    create_key_pair(path.with_name("other"), "")
    sign_with(path, path.with_name("other.key"))


def sign_other_file(path: Path, signature: Path) -> None:
    other = write_tiny(path.with_name("b.safetensors"))
    other.write_bytes(other.read_bytes() + b" ")
    shutil.copy(sign_with(other, path.with_name("group.key")), signature)


def flip_byte(path: Path, signature: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def replace_line(number: int, text: str) -> Callable[[Path, Path], None]:
    def change(path: Path, signature: Path) -> None:
        lines = signature.read_text().splitlines()
        lines[number] = text or lines[number].replace("timestamp", "Timestamp")
        signature.write_text("\n".join(lines) + "\n")

    return change


REFUSED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "unsigned": (lambda path, signature: signature.unlink(), "signature-missing"),
    "file-altered": (flip_byte, "signature-wrong"),
    "file-longer": (lambda path, s: path.write_bytes(path.read_bytes() + b" "), "signature-wrong"),
    "other-file": (sign_other_file, "signature-wrong"),
    "unknown-key": (sign_with_other_key, "signature-unknown-key"),
    "comment-altered": (replace_line(2, ""), "signature-wrong"),
    "signature-empty": (lambda path, signature: signature.write_bytes(b""), "signature-unreadable"),
    "signature-noise": (lambda path, signature: signature.write_bytes(bytes(300)), "signature-unreadable"),
    "signature-cut": (lambda path, s: s.write_bytes(s.read_bytes()[:90]), "signature-unreadable"),
    "signature-no-base64": (replace_line(1, "不是"), "signature-unreadable"),
    "signature-large": (lambda path, s: s.write_bytes(b"x" * 10**6), "signature-unreadable"),
    "signature-folder": (lambda path, s: (s.unlink(), s.mkdir()), "signature-unreadable"),
    "signature-pipe": (lambda path, s: (s.unlink(), os.mkfifo(s)), "signature-unreadable"),
    "signature-link-to-nothing": (lambda path, s: (s.unlink(), s.symlink_to("x")), "signature-missing"),
}


@pytest.mark.parametrize(("change_files", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_not_signed_by_a_trusted_key_is_refused(
    signed: Path, trust: TrustPolicy, change_files: Callable[[Path, Path], object], code: str
) -> None:
    change_files(signed, signed.with_name(signed.name + ".minisig"))
    for policy in (trust, replace(trust, is_signature_required=False)):
        if code == "signature-missing" and not policy.is_signature_required:
            continue
        with pytest.raises(GliomarkError) as caught:
            load_model(signed, policy)
        error_text = caught.value.message
        assert isinstance(error_text, Message) and error_text.code == code and signed.name in error_text
        assert "签名" in render_message(error_text, "zh")


def test_a_file_changed_after_the_check_is_refused(signed: Path, trust: TrustPolicy) -> None:
    """Workers receive the hash from the start of the server, so that even another validly signed file is refused."""
    pinned = replace(trust, pinned_hashes={str(signed): read_verified_content(signed, trust).sha256})
    assert load_model(signed, pinned).sha256
    card = signed.read_bytes()
    signed.write_bytes(card[:-1] + bytes([card[-1] ^ 1]))
    sign_with(signed, signed.with_name("group.key"))
    with pytest.raises(GliomarkError, match="has changed since the server checked it"):
        load_model(signed, pinned)


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    secret, public, key = create_key_pair(tmp_path / "a", PASSWORD)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert key in public.read_text() and len(key) == 16
    before = secret.read_bytes()
    with pytest.raises(GliomarkError, match="never overwritten"):
        create_key_pair(tmp_path / "a", "")
    secret.unlink()
    with pytest.raises(GliomarkError, match="never overwritten"):
        create_key_pair(tmp_path / "a", "")
    assert not secret.exists() and before


@pytest.mark.parametrize("entered_password", ["", "wrong", "长密码 2"])
def test_a_key_with_a_password_signs_only_with_that_password(tmp_path: Path, entered_password: str) -> None:
    secret, public, key = create_key_pair(tmp_path / "a", PASSWORD)
    path = write_tiny(tmp_path / "a.safetensors")
    with pytest.raises(GliomarkError, match="password"):
        sign_with(path, secret, entered_password)
    assert not path.with_name(path.name + ".minisig").exists()
    sign_with(path, secret, PASSWORD)
    assert load_model(path, read_trust_policy([public], True)).signature == key


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 99, b"untrusted comment: x\nAAAA\n", "密钥\n密钥\n".encode()]
)
def test_an_invalid_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pub"
    path.write_bytes(content)
    for use in (lambda: read_trust_policy([path]), lambda: sign_with(write_tiny(tmp_path / "w"), path)):
        with pytest.raises(GliomarkError, match="cannot be used as a key"):
            use()


def test_a_required_signature_without_a_key_is_refused() -> None:
    with pytest.raises(GliomarkError, match="--trusted-key"):
        read_trust_policy([], is_signature_required=True)


@pytest.mark.slow
def test_the_commands_create_sign_verify_and_show(tmp_path: Path) -> None:
    """Run keygen, sign, verify and show; a failure is one sentence and exit status 1."""
    path, name = write_tiny(tmp_path / "模型.safetensors"), tmp_path / "group"
    assert run_gliomark("models", "keygen", name, GLIOMARK_KEY_PASSWORD=PASSWORD).returncode == 0
    unsigned = run_gliomark("models", "verify", path, "--key", f"{name}.pub")
    assert unsigned.returncode == 1 and unsigned.stderr.count("\n") == 1 and "not signed" in unsigned.stderr
    signed = run_gliomark("models", "sign", path, "--key", f"{name}.key", GLIOMARK_KEY_PASSWORD=PASSWORD)
    assert signed.returncode == 0 and signed.stdout.strip() == f"{path}.minisig", signed.stderr
    (key,) = read_trust_policy([Path(f"{name}.pub")]).public_keys
    assert key in run_gliomark("models", "verify", path, "--key", f"{name}.pub").stdout
    record = json.loads(run_gliomark("models", "show", path, "--json", "--trusted-key", f"{name}.pub").stdout)
    assert record["signature"] == key and record["card"]["markers"]["idh"]["threshold"] == 0.5
    assert record["file_sha256"] == read_verified_content(path, TrustPolicy()).sha256
    assert record["sha256"] == load_model(path).sha256 != record["file_sha256"]


def test_a_broken_file_is_not_signed(tmp_path: Path, pair: Path) -> None:
    path = write_tiny(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    completed = run_gliomark("models", "sign", path, "--key", pair.with_suffix(".key"))
    assert completed.returncode == 1 and "damaged or truncated" in completed.stderr
    assert not Path(f"{path}.minisig").exists()


@pytest.mark.skipif(shutil.which("minisign") is None, reason="the tool minisign is not installed")
def test_minisign_verifies_and_creates_the_same_signatures(
    signed: Path, pair: Path, trust: TrustPolicy, tmp_path: Path
) -> None:
    public, secret = pair.with_suffix(".pub"), pair.with_suffix(".key")
    completed = subprocess.run(["minisign", "-Vm", signed, "-p", public], capture_output=True, text=True)
    assert completed.returncode == 0 and "verified" in completed.stdout
    assert next(iter(trust.public_keys)) in public.read_text()
    # and the reverse: signed by minisign with the same key
    other = write_tiny(tmp_path / "b.safetensors")
    subprocess.run(
        ["minisign", "-S", "-s", secret, "-m", other], check=True, capture_output=True, input=b"\n"
    )
    assert load_model(other, trust).signature in trust.public_keys
