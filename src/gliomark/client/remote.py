"""The server over HTTP: calls, uploads and server-sent events, all asynchronous, errors as sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QFile, QIODevice, QObject, QUrl
from PySide6.QtNetwork import (
    QHttpMultiPart,
    QHttpPart,
    QNetworkAccessManager,
    QNetworkProxy,
    QNetworkReply,
    QNetworkRequest,
)

from gliomark.client import trouble
from gliomark.client.trouble import Trouble
from gliomark.messages import from_record

Json = Mapping[str, Any]
Failed = Callable[[Trouble], None]
Error = QNetworkReply.NetworkError
PATIENCE_MS = 30_000
LONG_MS = 180_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
UNSAFE = (Error.SslHandshakeFailedError,)


class Remote(QObject):
    """One server. ``done`` and ``failed`` are called later, from the event loop, and never after ``drop``."""

    def __init__(self, address: str, token: str = "", parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.address = address.rstrip("/")
        self._token = token
        self._manager = QNetworkAccessManager(self)
        if QUrl(self.address).host() in LOOPBACK:
            self._manager.setProxy(QNetworkProxy(QNetworkProxy.ProxyType.NoProxy))

    def read(self, path: str, done: Callable[[bytes], None], failed: Failed) -> QNetworkReply:
        """GET; ``done`` gets the body."""
        return self._finishing(self._manager.get(self._request(path)), done, failed)

    def read_slowly(self, path: str, done: Callable[[bytes], None], failed: Failed) -> QNetworkReply:
        """GET of something that the server makes only now, such as a PDF."""
        request = self._request(path, patience_ms=LONG_MS)
        return self._finishing(self._manager.get(request), done, failed)

    def read_json(self, path: str, done: Callable[[Any], None], failed: Failed) -> QNetworkReply:
        """GET; ``done`` gets the parsed body."""
        return self.read(path, self._parsing(done, failed), failed)

    def send(
        self, verb: str, path: str, body: Json | bytes | None, done: Callable[[bytes], None], failed: Failed
    ) -> QNetworkReply:
        """POST, PUT or DELETE, of JSON or of a PNG; ``done`` gets the answer's body."""
        request = self._request(path)
        png = isinstance(body, bytes)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.setHeader(
            QNetworkRequest.KnownHeaders.ContentTypeHeader, "image/png" if png else "application/json"
        )
        content = b"" if body is None else data
        return self._finishing(self._manager.sendCustomRequest(request, verb.encode(), content), done, failed)

    def send_json(self, path: str, body: Json, done: Callable[[Any], None], failed: Failed) -> QNetworkReply:
        """POST of JSON; ``done`` gets the parsed answer."""
        return self.send("POST", path, body, self._parsing(done, failed), failed)

    def upload(
        self, archive: Path, fields: Mapping[str, str], done: Callable[[Any], None], failed: Failed
    ) -> QNetworkReply:
        """POST one zip of a patient's folder as a new study; the reply's uploadProgress tells how far."""
        form = QHttpMultiPart(QHttpMultiPart.ContentType.FormDataType)
        for name, value in fields.items():
            form.append(_part(f'form-data; name="{name}"', value.encode()))
        file = QFile(str(archive), form)
        file.open(QIODevice.OpenModeFlag.ReadOnly)
        part = _part(f'form-data; name="files"; filename="{archive.name}"')
        part.setHeader(QNetworkRequest.KnownHeaders.ContentTypeHeader, "application/zip")
        part.setBodyDevice(file)
        form.append(part)
        # a large folder over a slow line takes what it takes
        reply = self._manager.post(self._request("/api/studies", patience_ms=0), form)
        form.setParent(reply)
        return self._finishing(reply, self._parsing(done, failed), failed)

    def follow(
        self, path: str, each: Callable[[Any], None], ended: Callable[[], None], failed: Failed
    ) -> QNetworkReply:
        """GET server-sent events; ``each`` gets every one parsed, ``ended`` is called when the server closes."""
        request = self._request(path, patience_ms=0)
        request.setRawHeader(b"Accept", b"text/event-stream")
        reply = self._manager.get(request)
        buffer = bytearray()

        def more() -> None:
            # a refusal comes as one JSON document, which _finish reads
            if reply.error() != Error.NoError or not _is_stream(reply):
                return
            buffer.extend(reply.readAll().data())
            for event in _events(buffer):
                each(event)

        reply.readyRead.connect(more)
        return self._finishing(reply, lambda _: ended(), failed)

    def _request(self, path: str, patience_ms: int = PATIENCE_MS) -> QNetworkRequest:
        request = QNetworkRequest(QUrl(self.address + path))
        request.setTransferTimeout(patience_ms)
        if self._token:
            request.setRawHeader(b"Authorization", b"Bearer " + self._token.encode())
        return request

    def _finishing(
        self, reply: QNetworkReply, done: Callable[[bytes], None], failed: Failed
    ) -> QNetworkReply:
        reply.finished.connect(lambda: self._finish(reply, done, failed))
        return reply

    def _finish(self, reply: QNetworkReply, done: Callable[[bytes], None], failed: Failed) -> None:
        reply.deleteLater()
        if reply.property("dropped"):
            return
        if reply.error() == Error.NoError:
            done(bytes(reply.readAll().data()))
        else:
            failed(self._trouble(reply))

    def _parsing(self, done: Callable[[Any], None], failed: Failed) -> Callable[[bytes], None]:
        def parse(body: bytes) -> None:
            try:
                answer = json.loads(body)
            except ValueError:
                failed(Trouble(trouble.NOT_OURS, (self.address,), "settings"))
                return
            done(answer)

        return parse

    def _trouble(self, reply: QNetworkReply) -> Trouble:
        status = reply.attribute(QNetworkRequest.Attribute.HttpStatusCodeAttribute)
        detail = _detail(bytes(reply.readAll().data()))
        if status == 401:
            return Trouble(trouble.REFUSED, (), "settings", 401)
        if status == 403:
            return Trouble(trouble.FORBIDDEN, (detail or "403",), "settings", 403)
        if status is not None and status >= 400:
            return _answered(status, detail)
        if reply.error() in UNSAFE:
            return Trouble(trouble.UNSAFE, (self.address,), "settings")
        broken = status is not None or reply.error() == Error.RemoteHostClosedError
        return Trouble(trouble.SILENT if broken else trouble.UNREACHABLE, (self.address,))


def drop(reply: QNetworkReply) -> None:
    """Abort a call; neither its ``done`` nor its ``failed`` is called any more."""
    reply.setProperty("dropped", True)
    reply.abort()


def _answered(status: int, detail: str) -> Trouble:
    if not detail:
        return Trouble(trouble.UNEXPLAINED, (str(status),), "again", status)
    return Trouble(trouble.DETAIL, (detail,), "again" if status >= 500 else None, status)


def _part(disposition: str, body: bytes = b"") -> QHttpPart:
    part = QHttpPart()
    # raw, because a patient's folder may have a Chinese name and Qt would write it in Latin-1
    part.setRawHeader(b"Content-Disposition", disposition.encode())
    part.setBody(body)
    return part


def _is_stream(reply: QNetworkReply) -> bool:
    kind = reply.header(QNetworkRequest.KnownHeaders.ContentTypeHeader)
    return str(kind or "").startswith("text/event-stream")


def _events(buffer: bytearray) -> list[Any]:
    """Take the whole events out of what has come so far; comments, which keep a line alive, are passed over."""
    *whole, rest = bytes(buffer).replace(b"\r\n", b"\n").split(b"\n\n")
    buffer[:] = rest
    data = [
        b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
        for block in whole
    ]
    return [json.loads(text) for text in data if text]


def _detail(body: bytes) -> str:
    """The sentence of an error's answer, a message where its code is known; empty where there is none."""
    try:
        answer = json.loads(body)
        detail = answer["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return from_record({"text": detail, **answer}) if isinstance(detail, str) else ""
