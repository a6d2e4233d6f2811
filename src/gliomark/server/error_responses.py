"""The body of an error response: what is wrong, in English and as a message code that can be translated."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import JSONResponse

from gliomark.messages import to_message_record


def create_error_response(detail: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a response ``{"detail": text}``, with ``code`` and ``parameters`` if the text is a message."""
    record = to_message_record(detail)
    return JSONResponse({"detail": record.pop("text"), **record}, status, dict(headers or {}))
