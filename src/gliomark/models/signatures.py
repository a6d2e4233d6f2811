"""Detached signatures of weights files, in minisign's format (Ed25519 over BLAKE2b), beside the file as ``.minisig``.

A hospital checks one with the common tool as well: ``minisign -Vm model.safetensors -p group.pub``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import minisign

from gliomark.files import atomic_write, convert_write_errors
from gliomark.messages import message
from gliomark.models.file_bytes import read_small_file, read_weights_bytes
from gliomark.study import GliomarkError

UNSIGNED, UNCHECKED = "unsigned", "not checked"
SIGNATURE_SUFFIX = ".minisig"
KEY_ID_BYTES = slice(2, 10)  # of a decoded key or signature, after two bytes that name the algorithm


@dataclass(frozen=True)
class TrustPolicy:
    """Whose weights are loaded.

    keys: public keys by their id, in base64; required: whether an unsigned file is refused; pinned: the SHA-256 that a
    file must still have, by its path.
    """

    public_keys: Mapping[str, str] = field(default_factory=dict)
    is_signature_required: bool = False
    pinned_hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsContent:
    """A file's bytes, their SHA-256, and the id of the trusted key that signed them, ``UNSIGNED`` or ``UNCHECKED``."""

    data: bytes
    sha256: str
    signature: str


@dataclass(frozen=True)
class VerifiedSignature:
    """A signature that was found right: the key's id and the comment that it also covers."""

    key_id: str
    comment: str


def read_trust_policy(key_files: Iterable[Path], is_signature_required: bool = False) -> TrustPolicy:
    """The public keys in these files. Raises GliomarkError for what is none, and where one is demanded and missing."""
    keys = dict(_read_public_key(file) for file in key_files)
    if is_signature_required and not keys:
        raise GliomarkError(message("signature-no-key"))
    return TrustPolicy({name: key.to_base64().decode() for name, key in keys.items()}, is_signature_required)


def read_verified_content(path: Path, trust: TrustPolicy) -> WeightsContent:
    """A weights file's bytes and who signed them: what is checked is what is returned.

    Raises GliomarkError where it is no such file or ``trust`` does not allow it.
    """
    content = read_weights_bytes(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if trust.pinned_hashes.get(str(path), sha256) != sha256:
        raise GliomarkError(message("weights-changed", path=path))
    if os.path.lexists(build_signature_path(path)):
        return WeightsContent(
            content, sha256, verify_signature(path, content, trust).key_id if trust.public_keys else UNCHECKED
        )
    if trust.is_signature_required:
        raise GliomarkError(message("signature-missing", path=path, place=build_signature_path(path).name))
    return WeightsContent(content, sha256, UNSIGNED)


def verify_signature(path: Path, content: bytes, trust: TrustPolicy) -> VerifiedSignature:
    """The signature beside the file, found right over ``content`` by one of the trusted keys.

    Raises GliomarkError where it is missing, damaged, another file's or by another key.
    """
    signature_path = build_signature_path(path)
    try:
        signature = minisign.Signature.from_bytes(read_small_file(signature_path))
    except FileNotFoundError:
        raise GliomarkError(message("signature-missing", path=path, place=signature_path.name)) from None
    except (OSError, minisign.Error) as error:
        raise GliomarkError(
            message("signature-unreadable", path=signature_path, reason=_format_reason(error))
        ) from None
    key_id = _decode_key_id(bytes(signature).splitlines()[1])
    if key_id not in trust.public_keys:
        raise GliomarkError(message("signature-unknown-key", path=path, key=key_id))
    try:
        minisign.PublicKey.from_base64(trust.public_keys[key_id]).verify(content, signature)
    except ValueError:
        raise GliomarkError(message("signature-wrong", path=path, key=key_id)) from None
    return VerifiedSignature(key_id, signature.trusted_comment)


def sign_weights(
    path: Path, content: WeightsContent, key_path: Path, ask_password: Callable[[], str]
) -> Path:
    """Sign a file's bytes, beside it; an older signature is replaced. ask: for the key's password, where it has one.

    Raises GliomarkError where the key cannot be read or opened.
    """
    try:
        secret = minisign.SecretKey.from_bytes(read_small_file(key_path))
        if secret.is_encrypted():
            secret.decrypt(ask_password())
    except (OSError, ValueError) as error:
        raise GliomarkError(message("key-unreadable", path=key_path, reason=_format_reason(error))) from None
    file_comment = f"file:{path.name}\t" if path.name.isascii() and path.name.isprintable() else ""
    with secret:
        signature = secret.sign(
            content.data,
            trusted_comment=f"timestamp:{int(time.time())}\t{file_comment}sha256:{content.sha256}",
        )
    signature_path = build_signature_path(path)
    return atomic_write(signature_path, bytes(signature) + b"\n", mode=0o644)


def create_key_pair(key_path: Path, password: str) -> tuple[Path, Path, str]:
    """A new pair as ``name.key``, for its owner alone, and ``name.pub``; with the key's id.

    password: of the secret key; none where it is empty. Raises GliomarkError where either file is there already.
    """
    secret_file, public_file = (key_path.with_name(key_path.name + suffix) for suffix in (".key", ".pub"))
    for file in (secret_file, public_file):
        if os.path.lexists(file):
            raise GliomarkError(message("key-exists", path=file))
    pair = minisign.KeyPair.generate()
    key_id = _decode_key_id(pair.public_key.to_base64())
    pair.public_key.untrusted_comment = f"minisign public key {key_id}"
    with pair.secret_key as secret:
        if password:
            secret.encrypt(password)
        _write_new_file(secret_file, bytes(secret), 0o600)
    _write_new_file(public_file, bytes(pair.public_key), 0o644)
    return secret_file, public_file, key_id


def build_signature_path(path: Path) -> Path:
    """Where a file's signature lies: beside it, ``.minisig`` added to its name."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def _read_public_key(file: Path) -> tuple[str, minisign.PublicKey]:
    try:
        key = minisign.PublicKey.from_bytes(read_small_file(file))
    except (OSError, ValueError) as error:
        raise GliomarkError(message("key-unreadable", path=file, reason=_format_reason(error))) from None
    return _decode_key_id(key.to_base64()), key


def _decode_key_id(line: bytes) -> str:
    """As the tool shows it, 16 hexadecimal digits: the number is stored with its lowest byte first."""
    return base64.b64decode(line)[KEY_ID_BYTES][::-1].hex().upper()


def _write_new_file(path: Path, content: bytes, mode: int) -> None:
    with (
        convert_write_errors(path),
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file,
    ):
        file.write(content + b"\n")


def _format_reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
