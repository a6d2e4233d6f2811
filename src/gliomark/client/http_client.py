"""HTTP client of the server: asynchronous requests, uploads and server-sent events, with readable error messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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

from gliomark.client import errors
from gliomark.client.errors import ErrorMessage
from gliomark.messages import from_message_record

Json = Mapping[str, Any]
ErrorCallback = Callable[[ErrorMessage], None]
NetworkError = QNetworkReply.NetworkError
TIMEOUT_MS = 30_000
LONG_TIMEOUT_MS = 180_000
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
CERTIFICATE_ERRORS = (NetworkError.SslHandshakeFailedError,)


class HttpClient(QObject):
    """HTTP client of one server.

    ``on_success`` and ``on_error`` are called from the event loop, and not after ``abort_reply``.
    """

    def __init__(self, address: str, token: str = "", parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.address = address.rstrip("/")
        self._token = token
        self._manager = QNetworkAccessManager(self)
        if QUrl(self.address).host() in LOOPBACK_HOSTS:
            self._manager.setProxy(QNetworkProxy(QNetworkProxy.ProxyType.NoProxy))

    def get_bytes(
        self, path: str, on_success: Callable[[bytes], None], on_error: ErrorCallback
    ) -> QNetworkReply:
        """Send a GET request; ``on_success`` receives the body."""
        return self._connect_finished(self._manager.get(self._create_request(path)), on_success, on_error)

    def get_bytes_with_long_timeout(
        self, path: str, on_success: Callable[[bytes], None], on_error: ErrorCallback
    ) -> QNetworkReply:
        """Send a GET request for something that the server first has to create, such as a PDF."""
        request = self._create_request(path, timeout_ms=LONG_TIMEOUT_MS)
        return self._connect_finished(self._manager.get(request), on_success, on_error)

    def get_json(
        self, path: str, on_success: Callable[[Any], None], on_error: ErrorCallback
    ) -> QNetworkReply:
        """Send a GET request; ``on_success`` receives the parsed JSON body."""
        return self.get_bytes(path, self._create_json_handler(on_success, on_error), on_error)

    def send_request(
        self,
        method: str,
        path: str,
        body: Json | bytes | None,
        on_success: Callable[[bytes], None],
        on_error: ErrorCallback,
    ) -> QNetworkReply:
        """Send a POST, PUT or DELETE request with JSON or a PNG; ``on_success`` receives the response body."""
        request = self._create_request(path)
        is_png = isinstance(body, bytes)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.setHeader(
            QNetworkRequest.KnownHeaders.ContentTypeHeader, "image/png" if is_png else "application/json"
        )
        content = b"" if body is None else data
        return self._connect_finished(
            self._manager.sendCustomRequest(request, method.encode(), content), on_success, on_error
        )

    def post_json(
        self, path: str, body: Json, on_success: Callable[[Any], None], on_error: ErrorCallback
    ) -> QNetworkReply:
        """Send a POST request with JSON; ``on_success`` receives the parsed response."""
        return self.send_request(
            "POST", path, body, self._create_json_handler(on_success, on_error), on_error
        )

    def upload_archive(
        self,
        archive: Path,
        fields: Mapping[str, str],
        on_success: Callable[[Any], None],
        on_error: ErrorCallback,
    ) -> QNetworkReply:
        """Upload a zip file of a patient's folder as a new study; the reply's uploadProgress reports progress."""
        form = QHttpMultiPart(QHttpMultiPart.ContentType.FormDataType)
        for name, value in fields.items():
            form.append(_create_form_part(f'form-data; name="{name}"', value.encode()))
        part = _create_file_part(archive, form)
        part.setHeader(QNetworkRequest.KnownHeaders.ContentTypeHeader, "application/zip")
        form.append(part)
        # no timeout: uploading a large folder over a slow connection takes long
        reply = self._manager.post(self._create_request("/api/studies", timeout_ms=0), form)
        form.setParent(reply)
        return self._connect_finished(reply, self._create_json_handler(on_success, on_error), on_error)

    def upload_files(
        self, path: str, files: Sequence[Path], on_success: Callable[[bytes], None], on_error: ErrorCallback
    ) -> QNetworkReply:
        """Send a PUT request with files as a multipart form; ``on_success`` receives the response body."""
        form = QHttpMultiPart(QHttpMultiPart.ContentType.FormDataType)
        for file in files:
            form.append(_create_file_part(file, form))
        reply = self._manager.sendCustomRequest(self._create_request(path, timeout_ms=0), b"PUT", form)
        form.setParent(reply)
        return self._connect_finished(reply, on_success, on_error)

    def follow_events(
        self,
        path: str,
        on_event: Callable[[Any], None],
        on_closed: Callable[[], None],
        on_error: ErrorCallback,
    ) -> QNetworkReply:
        """Receive server-sent events.

        ``on_event`` receives each parsed event; ``on_closed`` is called when the server closes the connection.
        """
        request = self._create_request(path, timeout_ms=0)
        request.setRawHeader(b"Accept", b"text/event-stream")
        reply = self._manager.get(request)
        buffer = bytearray()

        def read_events() -> None:
            # an error response is one JSON document, which _handle_finished reads
            if reply.error() != NetworkError.NoError or not _is_event_stream(reply):
                return
            buffer.extend(reply.readAll().data())
            for event in _take_events(buffer):
                on_event(event)

        reply.readyRead.connect(read_events)
        return self._connect_finished(reply, lambda _: on_closed(), on_error)

    def _create_request(self, path: str, timeout_ms: int = TIMEOUT_MS) -> QNetworkRequest:
        request = QNetworkRequest(QUrl(self.address + path))
        request.setTransferTimeout(timeout_ms)
        if self._token:
            request.setRawHeader(b"Authorization", b"Bearer " + self._token.encode())
        return request

    def _connect_finished(
        self, reply: QNetworkReply, on_success: Callable[[bytes], None], on_error: ErrorCallback
    ) -> QNetworkReply:
        reply.finished.connect(lambda: self._handle_finished(reply, on_success, on_error))
        return reply

    def _handle_finished(
        self, reply: QNetworkReply, on_success: Callable[[bytes], None], on_error: ErrorCallback
    ) -> None:
        reply.deleteLater()
        if reply.property("dropped"):
            return
        if reply.error() == NetworkError.NoError:
            on_success(bytes(reply.readAll().data()))
        else:
            on_error(self._create_error_message(reply))

    def _create_json_handler(
        self, on_success: Callable[[Any], None], on_error: ErrorCallback
    ) -> Callable[[bytes], None]:
        def parse(body: bytes) -> None:
            try:
                response = json.loads(body)
            except ValueError:
                on_error(ErrorMessage(errors.NOT_A_GLIOMARK_SERVER, (self.address,), "settings"))
                return
            on_success(response)

        return parse

    def _create_error_message(self, reply: QNetworkReply) -> ErrorMessage:
        status = reply.attribute(QNetworkRequest.Attribute.HttpStatusCodeAttribute)
        detail = _parse_error_detail(bytes(reply.readAll().data()))
        if status == 401:
            return ErrorMessage(errors.TOKEN_REFUSED, (), "settings", 401)
        if status == 403:
            return ErrorMessage(errors.ACTION_FORBIDDEN, (detail or "403",), "settings", 403)
        if status is not None and status >= 400:
            return _create_status_error(status, detail)
        if reply.error() in CERTIFICATE_ERRORS:
            return ErrorMessage(errors.CERTIFICATE_UNTRUSTED, (self.address,), "settings")
        is_connection_lost = status is not None or reply.error() == NetworkError.RemoteHostClosedError
        return ErrorMessage(
            errors.CONNECTION_LOST if is_connection_lost else errors.SERVER_UNREACHABLE, (self.address,)
        )


def abort_reply(reply: QNetworkReply) -> None:
    """Abort a call; neither ``on_success`` nor ``on_error`` is called afterwards."""
    reply.setProperty("dropped", True)
    reply.abort()


def _create_status_error(status: int, detail: str) -> ErrorMessage:
    if not detail:
        return ErrorMessage(errors.SERVER_FAILED, (str(status),), "again", status)
    return ErrorMessage(errors.PLAIN_TEXT, (detail,), "again" if status >= 500 else None, status)


def _create_form_part(disposition: str, body: bytes = b"") -> QHttpPart:
    part = QHttpPart()
    # raw, because Qt would encode a Chinese folder name as Latin-1
    part.setRawHeader(b"Content-Disposition", disposition.encode())
    part.setBody(body)
    return part


def _create_file_part(path: Path, form: QHttpMultiPart) -> QHttpPart:
    """Create the part of a file, which stays open as long as the form exists."""
    file = QFile(str(path), form)
    file.open(QIODevice.OpenModeFlag.ReadOnly)
    name = path.name.replace('"', "%22")
    part = _create_form_part(f'form-data; name="files"; filename="{name}"')
    part.setBodyDevice(file)
    return part


def _is_event_stream(reply: QNetworkReply) -> bool:
    content_type = reply.header(QNetworkRequest.KnownHeaders.ContentTypeHeader)
    return str(content_type or "").startswith("text/event-stream")


def _take_events(buffer: bytearray) -> list[Any]:
    """Remove and parse the complete events in the buffer; comments, sent to keep the connection open, are skipped."""
    *complete_blocks, incomplete_block = bytes(buffer).replace(b"\r\n", b"\n").split(b"\n\n")
    buffer[:] = incomplete_block
    data = [
        b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
        for block in complete_blocks
    ]
    return [json.loads(text) for text in data if text]


def _parse_error_detail(body: bytes) -> str:
    """Return the message of an error response, translatable if its code is known; empty without one."""
    try:
        response = json.loads(body)
        detail = response["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return from_message_record({"text": detail, **response}) if isinstance(detail, str) else ""
