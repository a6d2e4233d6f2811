"""Who may ask: bearer tokens, and what an open port demands before the server starts at all."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from gliomark.messages import message
from gliomark.server.records import Caller, Database, hash_token
from gliomark.study import GliomarkError


@dataclass(frozen=True)
class ServerAddress:
    """Where the server listens. certificate, key: PEM files for TLS, both or neither."""

    host: str = "127.0.0.1"
    port: int = 8765
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether this address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: ServerAddress, database: Database, startup_token: str | None) -> None:
    """Refuse to open a port of this machine to others without tokens and TLS. Raises GliomarkError."""
    if (address.certificate is None) != (address.key is None):
        raise GliomarkError(message("tls-half"))
    for file in (address.certificate, address.key):
        if file is not None and not file.is_file():
            raise GliomarkError(message("tls-file-missing", file=file))
    if address.is_loopback:
        return
    if address.certificate is None:
        raise GliomarkError(message("tls-wanted", host=address.host))
    if not database.list_tokens() and not startup_token:
        raise GliomarkError(message("tokens-wanted", host=address.host))


@dataclass(frozen=True)
class Authenticator:
    """Tells callers apart. Whoever uses this machine may ask without a token until the first one is made, and not
    after that, also where all were revoked. secret: a token given by who started the server, admin for its lifetime."""

    database: Database
    is_loopback: bool
    startup_token: str | None = None

    def authenticate_caller(self, request: Request) -> Caller:
        """Who asks. Raises HTTPException 401 without a valid token, 403 for a page of another site."""
        self._check_origin(request)
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            if self.startup_token and hmac.compare_digest(hash_token(token), hash_token(self.startup_token)):
                return Caller("this machine", "admin")
            if caller := self.database.find_caller(token):
                return caller
            raise _create_unauthorized_error(message("token-unknown"))
        if self.startup_token or self.database.list_tokens():
            raise _create_unauthorized_error(message("token-wanted"))
        if not self.is_loopback or self.database.has_had_tokens():
            raise _create_unauthorized_error(message("token-wanted-again"))
        return Caller("this machine", "admin")

    def _check_origin(self, request: Request) -> None:
        """A web page the user happens to look at may not ask this machine's server, by whatever name."""
        host_header, origin = request.headers.get("host", ""), request.headers.get("origin", "")
        try:
            host, site = urlsplit(f"//{host_header}").hostname or "", urlsplit(origin).netloc
        except ValueError:
            raise HTTPException(403, message("host-unfit")) from None
        if self.is_loopback and not is_loopback(host):
            raise HTTPException(403, message("this-machine-only"))
        if origin and site != host_header:
            raise HTTPException(403, message("other-site"))


def check_admin(caller: Caller) -> None:
    """Raises HTTPException 403 for a reader."""
    if caller.role != "admin":
        raise HTTPException(403, message("admins-only"))


def _create_unauthorized_error(error_message: str) -> HTTPException:
    return HTTPException(401, error_message, headers={"WWW-Authenticate": "Bearer"})
