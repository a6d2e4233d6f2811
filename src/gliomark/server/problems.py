"""The body of a refused call: what is wrong in English, and as data where it can be said in Chinese too."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import JSONResponse

from gliomark.messages import to_message_record


def create_error_response(detail: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """``{"detail": text}``, with ``code`` and ``parameters`` of a message."""
    record = to_message_record(detail)
    return JSONResponse({"detail": record.pop("text"), **record}, status, dict(headers or {}))
