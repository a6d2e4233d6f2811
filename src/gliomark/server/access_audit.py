"""Which requests are recorded in the audit log as views of patient data or as refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request, Response

from gliomark.messages import Message, message
from gliomark.server.audit_writer import AuditWriter, Refusal
from gliomark.server.database import Caller
from gliomark.server.error_responses import create_error_response

WRONG_TOKEN_DELAY_S = 0.2  # delay of the response to an unknown token
MAX_LOGGED_STUDIES = 20  # studies named in the audit log when a patient's studies or predictions are listed


@dataclass(frozen=True)
class AuditedRoute:
    """How a route is recorded.

    Attributes
    ----------
    action
        Name of the action in the audit log.
    is_recorded_every_time
        Otherwise once per caller, subject and hour.
    """

    action: str
    is_recorded_every_time: bool = False


AUDITED_ROUTES: Mapping[str, AuditedRoute] = {
    "/api/studies": AuditedRoute("studies listed"),
    "/api/studies/{id}": AuditedRoute("study viewed"),
    "/api/studies/{id}/events": AuditedRoute("study viewed"),
    "/api/studies/{id}/slices/{sequence}/{index}.png": AuditedRoute("pictures viewed"),
    "/api/studies/{id}/volumes/{sequence}.nii.gz": AuditedRoute("pictures viewed"),
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
    "/api/predictions/{id}/segmentation.nii.gz": AuditedRoute(
        "segmentation exported", is_recorded_every_time=True
    ),
    "/api/predictions/{id}/statistics.json": AuditedRoute(
        "segmentation exported", is_recorded_every_time=True
    ),
    "/api/predictions/{id}/dicom.zip": AuditedRoute("DICOM results exported", is_recorded_every_time=True),
    "/api/predictions/{id}/structure_set.dcm": AuditedRoute(
        "structure set exported", is_recorded_every_time=True
    ),
    "/api/predictions/{id}/truth": AuditedRoute("pathology viewed"),
    "/api/audit": AuditedRoute("audit read"),
    "/datastore/": AuditedRoute("studies listed"),
    "/datastore/image": AuditedRoute("pictures viewed"),
    "/datastore/image/info": AuditedRoute("study viewed"),
    "/datastore/label": AuditedRoute("segmentation exported", is_recorded_every_time=True),
    "/datastore/label/info": AuditedRoute("outline viewed"),
}


def set_audit_detail(request: Request, **detail: Any) -> None:
    """Add detail to this request's line in the audit log; never a patient's name, id or age."""
    request.state.detail = detail


def set_audit_view(request: Request, subject: str, view: AuditedRoute | None = None) -> None:
    """State what this request shows, if its path does not.

    Parameters
    ----------
    subject
        Id of the study or prediction.
    view
        How it is recorded, for a method other than GET.
    """
    request.state.view_subject, request.state.view = subject, view


def record_view(audit_writer: AuditWriter, request: Request, response: Response) -> Response:
    """Return the response after recording the view; 503 instead if it cannot be recorded."""
    route = getattr(request.scope.get("route"), "path", "")
    caller: Caller | None = getattr(request.state, "caller", None)
    view: AuditedRoute | None = getattr(request.state, "view", None)
    if view is None and request.method == "GET":
        view = AUDITED_ROUTES.get(route)
    if view is None or caller is None or response.status_code >= 300:
        return response
    detail = getattr(request.state, "detail", {})
    subject = getattr(request.state, "view_subject", "") or request.path_params.get("id", "")
    if audit_writer.record_view(caller.name, view.action, subject, detail, view.is_recorded_every_time):
        return response
    return create_error_response(message("audit-away"), 503, {"Retry-After": "30"})


async def record_refusal(audit_writer: AuditWriter, request: Request, error: HTTPException) -> None:
    """Record a missing or unknown token (401) or a forbidden request (403).

    The response to an unknown token is delayed.
    """
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
