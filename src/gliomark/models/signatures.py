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

from gliomark.files import atomic_write, writing
from gliomark.messages import message
from gliomark.models.file_bytes import read_small, read_weights_file
from gliomark.study import GliomarkError

UNSIGNED, UNCHECKED = "unsigned", "not checked"
SUFFIX = ".minisig"
ID = slice(2, 10)  # of a decoded key or signature, after two bytes that name the algorithm


@dataclass(frozen=True)
class Trust:
    """Whose weights are loaded.

    keys: public keys by their id, in base64; required: whether an unsigned file is refused; pinned: the SHA-256 that a
    file must still have, by its path.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    required: bool = False
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A file's bytes, their SHA-256, and the id of the trusted key that signed them, ``UNSIGNED`` or ``UNCHECKED``."""

    content: bytes
    sha256: str
    signature: str


@dataclass(frozen=True)
class Signed:
    """A signature that was found right: the key's id and the comment that it also covers."""

    key: str
    comment: str


def read_trust(files: Iterable[Path], required: bool = False) -> Trust:
    """The public keys in these files. Raises GliomarkError for what is none, and where one is demanded and missing."""
    keys = dict(_public(file) for file in files)
    if required and not keys:
        raise GliomarkError(message("signature-no-key"))
    return Trust({name: key.to_base64().decode() for name, key in keys.items()}, required)


def read_checked(path: Path, trust: Trust) -> Content:
    """A weights file's bytes and who signed them: what is checked is what is returned.

    Raises GliomarkError where it is no such file or ``trust`` does not allow it.
    """
    content = read_weights_file(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if trust.pinned.get(str(path), sha256) != sha256:
        raise GliomarkError(message("weights-changed", path=path))
    if os.path.lexists(signature_place(path)):
        return Content(content, sha256, verify(path, content, trust).key if trust.keys else UNCHECKED)
    if trust.required:
        raise GliomarkError(message("signature-missing", path=path, place=signature_place(path).name))
    return Content(content, sha256, UNSIGNED)


def verify(path: Path, content: bytes, trust: Trust) -> Signed:
    """The signature beside the file, found right over ``content`` by one of the trusted keys.

    Raises GliomarkError where it is missing, damaged, another file's or by another key.
    """
    place = signature_place(path)
    try:
        signature = minisign.Signature.from_bytes(read_small(place))
    except FileNotFoundError:
        raise GliomarkError(message("signature-missing", path=path, place=place.name)) from None
    except (OSError, minisign.Error) as error:
        raise GliomarkError(message("signature-unreadable", path=place, reason=_reason(error))) from None
    name = _id(bytes(signature).splitlines()[1])
    if name not in trust.keys:
        raise GliomarkError(message("signature-unknown-key", path=path, key=name))
    try:
        minisign.PublicKey.from_base64(trust.keys[name]).verify(content, signature)
    except ValueError:
        raise GliomarkError(message("signature-wrong", path=path, key=name)) from None
    return Signed(name, signature.trusted_comment)


def sign(path: Path, read: Content, key: Path, ask: Callable[[], str]) -> Path:
    """Sign a file's bytes, beside it; an older signature is replaced. ask: for the key's password, where it has one.

    Raises GliomarkError where the key cannot be read or opened.
    """
    try:
        secret = minisign.SecretKey.from_bytes(read_small(key))
        if secret.is_encrypted():
            secret.decrypt(ask())
    except (OSError, ValueError) as error:
        raise GliomarkError(message("key-unreadable", path=key, reason=_reason(error))) from None
    named = f"file:{path.name}\t" if path.name.isascii() and path.name.isprintable() else ""
    with secret:
        signature = secret.sign(
            read.content, trusted_comment=f"timestamp:{int(time.time())}\t{named}sha256:{read.sha256}"
        )
    place = signature_place(path)
    return atomic_write(place, bytes(signature) + b"\n", mode=0o644)


def make_keys(name: Path, password: str) -> tuple[Path, Path, str]:
    """A new pair as ``name.key``, for its owner alone, and ``name.pub``; with the key's id.

    password: of the secret key; none where it is empty. Raises GliomarkError where either file is there already.
    """
    secret_file, public_file = (name.with_name(name.name + suffix) for suffix in (".key", ".pub"))
    for file in (secret_file, public_file):
        if os.path.lexists(file):
            raise GliomarkError(message("key-exists", path=file))
    pair = minisign.KeyPair.generate()
    key = _id(pair.public_key.to_base64())
    pair.public_key.untrusted_comment = f"minisign public key {key}"
    with pair.secret_key as secret:
        if password:
            secret.encrypt(password)
        _write_new(secret_file, bytes(secret), 0o600)
    _write_new(public_file, bytes(pair.public_key), 0o644)
    return secret_file, public_file, key


def signature_place(path: Path) -> Path:
    """Where a file's signature lies: beside it, ``.minisig`` added to its name."""
    return path.with_name(path.name + SUFFIX)


def _public(file: Path) -> tuple[str, minisign.PublicKey]:
    try:
        key = minisign.PublicKey.from_bytes(read_small(file))
    except (OSError, ValueError) as error:
        raise GliomarkError(message("key-unreadable", path=file, reason=_reason(error))) from None
    return _id(key.to_base64()), key


def _id(line: bytes) -> str:
    """As the tool shows it, 16 hexadecimal digits: the number is stored with its lowest byte first."""
    return base64.b64decode(line)[ID][::-1].hex().upper()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with writing(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content + b"\n")


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
