"""Which calls are recorded because somebody sees a patient's data, and which refusals are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request, Response

from gliomark.messages import Message, message
from gliomark.server.audit_writer import AuditWriter, Refusal
from gliomark.server.problems import create_error_response
from gliomark.server.records import Caller

WRONG_TOKEN_DELAY_S = 0.2  # that the answer to a wrong token takes


@dataclass(frozen=True)
class AuditedRoute:
    """What a call shows. each: it is recorded every time, not once per caller, subject and hour."""

    action: str
    is_recorded_every_time: bool = False


AUDITED_ROUTES: Mapping[str, AuditedRoute] = {
    "/api/studies/{id}": AuditedRoute("study viewed"),
    "/api/studies/{id}/events": AuditedRoute("study viewed"),
    "/api/studies/{id}/slices/{sequence}/{index}.png": AuditedRoute("pictures viewed"),
    "/api/studies/{id}/mask.png": AuditedRoute("outline viewed"),
    "/api/studies/{id}/found.png": AuditedRoute("outline viewed"),
    "/api/predictions": AuditedRoute("predictions listed"),
    "/api/predictions/{id}": AuditedRoute("prediction viewed"),
    "/api/predictions/{id}/events": AuditedRoute("prediction viewed"),
    "/api/predictions/{id}/mask.png": AuditedRoute("outline viewed"),
    "/api/predictions/{id}/heat/{marker}.png": AuditedRoute("map viewed"),
    "/api/predictions/{id}/report.html": AuditedRoute("report viewed"),
    "/api/predictions/{id}/report.pdf": AuditedRoute("report exported", is_recorded_every_time=True),
    "/api/predictions/{id}/prediction.json": AuditedRoute("prediction exported", is_recorded_every_time=True),
    "/api/predictions/{id}/dicom.zip": AuditedRoute("DICOM results exported", is_recorded_every_time=True),
    "/api/audit": AuditedRoute("audit read"),
}


def set_audit_detail(request: Request, **detail: Any) -> None:
    """What the line about this call says besides; never a patient's name, id or age."""
    request.state.detail = detail


def record_view(audit_writer: AuditWriter, request: Request, response: Response) -> Response:
    """The response, once it is sure that it is recorded who sees it; else a refusal in its place."""
    route = getattr(request.scope.get("route"), "path", "")
    caller: Caller | None = getattr(request.state, "caller", None)
    view = AUDITED_ROUTES.get(route) if request.method == "GET" and response.status_code < 300 else None
    if view is None or caller is None:
        return response
    subject, detail = request.path_params.get("id", ""), getattr(request.state, "detail", {})
    if audit_writer.record_view(caller.name, view.action, subject, detail, view.is_recorded_every_time):
        return response
    return create_error_response(message("audit-away"), 503, {"Retry-After": "30"})


async def record_refusal(audit_writer: AuditWriter, request: Request, error: HTTPException) -> None:
    """A missing or wrong token, or a call that this caller may not make. A wrong token is answered slowly."""
    if error.status_code not in (401, 403):
        return
    reason = error.detail.code if isinstance(error.detail, Message) else ""
    address = request.client.host if request.client else ""
    caller: Caller | None = getattr(request.state, "caller", None)
    if error.status_code == 401:
        audit_writer.record_refusal(Refusal("log-in failed", address, reason))
    elif caller is None:
        audit_writer.record_refusal(Refusal("call refused", address, reason))
    else:
        subject = request.path_params.get("id", "")
        audit_writer.record_refusal(Refusal("call refused", address, reason, caller.name, subject))
    if reason == "token-unknown":
        await asyncio.sleep(WRONG_TOKEN_DELAY_S)
