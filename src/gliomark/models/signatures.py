"""Detached signatures of weights files in minisign's format (Ed25519 over BLAKE2b), stored beside the file.

A signature can also be checked with minisign itself: ``minisign -Vm model.safetensors -p group.pub``.
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

from gliomark.errors import WeightsError
from gliomark.files import atomic_write, convert_write_errors
from gliomark.messages import message
from gliomark.models.file_reading import read_small_file, read_weights_bytes

UNSIGNED, UNCHECKED = "unsigned", "not checked"
SIGNATURE_SUFFIX = ".minisig"
KEY_ID_BYTES = slice(2, 10)  # bytes of a decoded key or signature; the first two bytes name the algorithm


@dataclass(frozen=True)
class TrustPolicy:
    """Which signatures a weights file must carry to be loaded.

    public_keys: trusted keys in base64, by key id; is_signature_required: whether an unsigned file is refused;
    pinned_hashes: the SHA-256 that a file must still have, by its path.
    """

    public_keys: Mapping[str, str] = field(default_factory=dict)
    is_signature_required: bool = False
    pinned_hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsContent:
    """Bytes of a weights file, their SHA-256 and the signing key's id (or ``UNSIGNED`` or ``UNCHECKED``)."""

    data: bytes
    sha256: str
    signature: str


@dataclass(frozen=True)
class VerifiedSignature:
    """A valid signature: the key's id and the trusted comment, which the signature also covers."""

    key_id: str
    comment: str


def read_trust_policy(key_files: Iterable[Path], is_signature_required: bool = False) -> TrustPolicy:
    """Read public keys from files into a trust policy.

    Raises
    ------
    WeightsError
        If a file is not a minisign public key, or a signature is required and no key is given.
    """
    keys = dict(_read_public_key(file) for file in key_files)
    if is_signature_required and not keys:
        raise WeightsError(message("signature-no-key"))
    return TrustPolicy({name: key.to_base64().decode() for name, key in keys.items()}, is_signature_required)


def read_verified_content(path: Path, trust: TrustPolicy) -> WeightsContent:
    """Read a weights file once and verify it, so that the bytes that were verified are the bytes returned.

    Raises
    ------
    WeightsError
        If the file cannot be read, has changed since it was pinned, or lacks a required signature.
    """
    content = read_weights_bytes(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if trust.pinned_hashes.get(str(path), sha256) != sha256:
        raise WeightsError(message("weights-changed", path=path))
    if os.path.lexists(build_signature_path(path)):
        return WeightsContent(
            content, sha256, verify_signature(path, content, trust).key_id if trust.public_keys else UNCHECKED
        )
    if trust.is_signature_required:
        raise WeightsError(message("signature-missing", path=path, signature=build_signature_path(path).name))
    return WeightsContent(content, sha256, UNSIGNED)


def verify_signature(path: Path, content: bytes, trust: TrustPolicy) -> VerifiedSignature:
    """Verify the signature beside the file against its bytes and the trusted keys.

    Raises
    ------
    WeightsError
        If the signature is missing or damaged, belongs to another file, or was made with an unknown key.
    """
    signature_path = build_signature_path(path)
    try:
        signature = minisign.Signature.from_bytes(read_small_file(signature_path))
    except FileNotFoundError:
        raise WeightsError(message("signature-missing", path=path, signature=signature_path.name)) from None
    except (OSError, minisign.Error) as error:
        raise WeightsError(
            message("signature-unreadable", path=signature_path, reason=_format_reason(error))
        ) from None
    key_id = _decode_key_id(bytes(signature).splitlines()[1])
    if key_id not in trust.public_keys:
        raise WeightsError(message("signature-unknown-key", path=path, key=key_id))
    try:
        minisign.PublicKey.from_base64(trust.public_keys[key_id]).verify(content, signature)
    except ValueError:
        raise WeightsError(message("signature-wrong", path=path, key=key_id)) from None
    return VerifiedSignature(key_id, signature.trusted_comment)


def sign_weights(
    path: Path, content: WeightsContent, key_path: Path, ask_password: Callable[[], str]
) -> Path:
    """Sign the bytes of a weights file and write the signature beside it, replacing an older one.

    Parameters
    ----------
    path
        The weights file.
    content
        Its bytes and their SHA-256, which the trusted comment contains.
    key_path
        The secret key.
    ask_password
        Called for the password if the key is encrypted.

    Returns
    -------
    Path
        The signature file.

    Raises
    ------
    WeightsError
        If the key cannot be read or decrypted.
    """
    try:
        secret = minisign.SecretKey.from_bytes(read_small_file(key_path))
        if secret.is_encrypted():
            secret.decrypt(ask_password())
    except (OSError, ValueError) as error:
        raise WeightsError(message("key-unreadable", path=key_path, reason=_format_reason(error))) from None
    file_comment = f"file:{path.name}\t" if path.name.isascii() and path.name.isprintable() else ""
    with secret:
        signature = secret.sign(
            content.data,
            trusted_comment=f"timestamp:{int(time.time())}\t{file_comment}sha256:{content.sha256}",
        )
    signature_path = build_signature_path(path)
    return atomic_write(signature_path, bytes(signature) + b"\n", mode=0o644)


def create_key_pair(key_path: Path, password: str) -> tuple[Path, Path, str]:
    """Create a key pair: ``NAME.key``, readable by its owner only, and ``NAME.pub``.

    Parameters
    ----------
    key_path
        Path of both files without the extension.
    password
        Encrypts the secret key; empty: the key is not encrypted.

    Returns
    -------
    Path
        The secret key file.
    Path
        The public key file.
    str
        The key's id.

    Raises
    ------
    WeightsError
        If either file already exists.
    """
    secret_file, public_file = (key_path.with_name(key_path.name + suffix) for suffix in (".key", ".pub"))
    for file in (secret_file, public_file):
        if os.path.lexists(file):
            raise WeightsError(message("key-exists", path=file))
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
    """Return the path of a file's signature: the file's name followed by ``.minisig``."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def _read_public_key(file: Path) -> tuple[str, minisign.PublicKey]:
    try:
        key = minisign.PublicKey.from_bytes(read_small_file(file))
    except (OSError, ValueError) as error:
        raise WeightsError(message("key-unreadable", path=file, reason=_format_reason(error))) from None
    return _decode_key_id(key.to_base64()), key


def _decode_key_id(line: bytes) -> str:
    """Return the key id as minisign prints it: 16 hexadecimal digits; it is stored in little-endian order."""
    return base64.b64decode(line)[KEY_ID_BYTES][::-1].hex().upper()


def _write_new_file(path: Path, content: bytes, mode: int) -> None:
    with (
        convert_write_errors(path),
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file,
    ):
        file.write(content + b"\n")


def _format_reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
