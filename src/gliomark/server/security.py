"""Who may ask: bearer tokens, and what an open port demands before the server starts at all."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from gliomark.messages import message
from gliomark.server.records import Caller, Records, token_sha256
from gliomark.study import GliomarkError


@dataclass(frozen=True)
class Address:
    """Where the server listens. certificate, key: PEM files for TLS, both or neither."""

    host: str = "127.0.0.1"
    port: int = 8765
    certificate: Path | None = None
    key: Path | None = None

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether this address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: Address, records: Records, secret: str | None) -> None:
    """Refuse to open a port of this machine to others without tokens and TLS. Raises GliomarkError."""
    if (address.certificate is None) != (address.key is None):
        raise GliomarkError(message("tls-half"))
    for file in (address.certificate, address.key):
        if file is not None and not file.is_file():
            raise GliomarkError(message("tls-file-missing", file=file))
    if address.loopback:
        return
    if address.certificate is None:
        raise GliomarkError(message("tls-wanted", host=address.host))
    if not records.tokens() and not secret:
        raise GliomarkError(message("tokens-wanted", host=address.host))


@dataclass(frozen=True)
class Gate:
    """Tells callers apart. Whoever uses this machine may ask without a token until the first one is made, and not
    after that, also where all were revoked. secret: a token given by who started the server, admin for its lifetime."""

    records: Records
    loopback: bool
    secret: str | None = None

    def caller(self, request: Request) -> Caller:
        """Who asks. Raises HTTPException 401 without a valid token, 403 for a page of another site."""
        self._refuse_strangers(request)
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            if self.secret and hmac.compare_digest(token_sha256(token), token_sha256(self.secret)):
                return Caller("this machine", "admin")
            if known := self.records.caller(token):
                return known
            raise _unknown(message("token-unknown"))
        if self.secret or self.records.tokens():
            raise _unknown(message("token-wanted"))
        if not self.loopback or self.records.tokens_existed():
            raise _unknown(message("token-wanted-again"))
        return Caller("this machine", "admin")

    def _refuse_strangers(self, request: Request) -> None:
        """A web page the user happens to look at may not ask this machine's server, by whatever name."""
        named, origin = request.headers.get("host", ""), request.headers.get("origin", "")
        try:
            host, site = urlsplit(f"//{named}").hostname or "", urlsplit(origin).netloc
        except ValueError:
            raise HTTPException(403, message("host-unfit")) from None
        if self.loopback and not is_loopback(host):
            raise HTTPException(403, message("this-machine-only"))
        if origin and site != named:
            raise HTTPException(403, message("other-site"))


def check_admin(caller: Caller) -> None:
    """Raises HTTPException 403 for a reader."""
    if caller.role != "admin":
        raise HTTPException(403, message("admins-only"))


def _unknown(sentence: str) -> HTTPException:
    return HTTPException(401, sentence, headers={"WWW-Authenticate": "Bearer"})
