"""Authentication: bearer tokens, and the requirements for a server that other machines can reach."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from gliomark.errors import ConfigurationError
from gliomark.messages import message
from gliomark.pacs import is_loopback
from gliomark.server.database import Caller, Database, hash_token


@dataclass(frozen=True)
class ServerAddress:
    """Where the server listens.

    Attributes
    ----------
    certificate, key
        PEM files for TLS, both or neither.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def check_address(address: ServerAddress, database: Database, startup_token: str | None) -> None:
    """Check that a server that other machines can reach uses TLS and tokens.

    Raises
    ------
    ConfigurationError
        If TLS or a token is missing, or only one of certificate and key is given.
    """
    if (address.certificate is None) != (address.key is None):
        raise ConfigurationError(message("tls-half"))
    for file in (address.certificate, address.key):
        if file is not None and not file.is_file():
            raise ConfigurationError(message("tls-file-missing", file=file))
    if address.is_loopback:
        return
    if address.certificate is None:
        raise ConfigurationError(message("tls-wanted", host=address.host))
    if not database.list_tokens() and not startup_token:
        raise ConfigurationError(message("tokens-wanted", host=address.host))


@dataclass(frozen=True)
class Authenticator:
    """Authenticates callers.

    A local user needs no token until the first one is created; from then on a token is always required, even if all
    were revoked.

    Attributes
    ----------
    database
        Database of the tokens.
    is_loopback
        Whether only this machine can reach the server.
    startup_token
        Token set by the program that started the server; it has the role admin while the server runs.
    """

    database: Database
    is_loopback: bool
    startup_token: str | None = None

    def authenticate_caller(self, request: Request) -> Caller:
        """Return the caller of a request.

        Raises
        ------
        HTTPException
            401 without a valid token, 403 for a web page of another site.
        """
        self.check_origin(request)
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            return self.authenticate_token(token)
        if self.startup_token or self.database.list_tokens():
            raise _create_unauthorized_error(message("token-wanted"))
        if not self.is_loopback or self.database.has_had_tokens():
            raise _create_unauthorized_error(message("token-wanted-again"))
        return Caller("this machine", "admin")

    @property
    def requires_token(self) -> bool:
        """Whether every caller needs a token."""
        return bool(self.startup_token) or not self.is_loopback or self.database.has_had_tokens()

    def authenticate_token(self, token: str) -> Caller:
        """Return the owner of a token.

        Raises
        ------
        HTTPException
            401 if it is unknown.
        """
        if self.startup_token and hmac.compare_digest(hash_token(token), hash_token(self.startup_token)):
            return Caller("this machine", "admin")
        if caller := self.database.find_caller(token):
            return caller
        raise _create_unauthorized_error(message("token-unknown"))

    def check_origin(self, request: Request) -> None:
        """Refuse requests from web pages of other sites in the user's browser, including DNS rebinding.

        Raises
        ------
        HTTPException
            403 for such a request.
        """
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
    """Check that the caller is an administrator.

    Raises
    ------
    HTTPException
        403 for other roles.
    """
    if caller.role != "admin":
        raise HTTPException(403, message("admins-only"))


def _create_unauthorized_error(error_message: str) -> HTTPException:
    return HTTPException(401, error_message, headers={"WWW-Authenticate": "Bearer"})
