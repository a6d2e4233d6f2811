"""The interface of MONAI Label, with which its plug-ins for 3D Slicer and OHIF use this server.

This module describes the server, logs users in and chooses the next study; ``monai_label_images`` is the data store,
``monai_label_inference`` the inference. Training, sessions and the other calls are refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from pydantic import BaseModel

from gliomark.messages import message
from gliomark.server import monai_label_images, monai_label_inference
from gliomark.server.access_audit import AUDITED_ROUTES, set_audit_view
from gliomark.server.dependencies import CallerDep, Server, ServerDep
from gliomark.server.monai_label_images import LABEL_NAMES, describe_datastore, describe_image
from gliomark.server.monai_label_inference import INFERENCE_OPTIONS
from gliomark.server.schemas import describe_errors

BACKGROUND = "background"  # OHIF takes the first label of the server for it
STRATEGIES: Mapping[str, str] = {
    "first": "The study that was uploaded first among those without a corrected outline",
    "random": "Any study without a corrected outline",
}
REFUSED_CALLS = (
    "train",
    "session",
    "batch",
    "scoring",
    "model",
    "logs",
    "ohif",
    "proxy",
    "infer/wsi",
    "infer/wsi_v2",
)
router = APIRouter(tags=["MONAI Label"])


class TokenResponse(BaseModel):
    """A token for the header ``Authorization``; null if the server requires none."""

    access_token: str | None
    token_type: str | None


@router.get("/info/")
def get_info(_: CallerDep, server: ServerDep) -> dict[str, Any]:
    """Describe the server as MONAI Label does: its models, labels, strategies and the state of the data store."""
    return {
        "name": "gliomark",
        "description": message("monai-description"),
        "version": version("gliomark"),
        "labels": [BACKGROUND, *LABEL_NAMES],
        "models": {name: _describe_model(server, name) for name in server.model_files},
        "trainers": {},
        "strategies": {name: {"description": text, "config": {}} for name, text in STRATEGIES.items()},
        "scoring": {},
        "train_stats": {},
        "datastore": describe_datastore(server),
    }


def _describe_model(server: Server, name: str) -> dict[str, Any]:
    described = [one for one in server.worker_pool.model_descriptions if one["name"] == name]
    return {
        "type": "segmentation",
        "labels": dict(LABEL_NAMES),
        "dimension": 3,
        "description": described[0]["title"] if described else name,
        "config": dict(INFERENCE_OPTIONS),
    }


@router.get("/auth/")
def get_authentication(request: Request, server: ServerDep) -> dict[str, Any]:
    """Return whether the server requires a token; 3D Slicer then asks for a name and a password."""
    server.authenticator.check_origin(request)
    return {"enabled": server.authenticator.requires_token}


@router.post("/auth/token")
def check_password(
    request: Request,
    server: ServerDep,
    username: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
) -> TokenResponse:
    """Return the token that was given as password, if it is valid; the name may be any.

    \f

    Raises
    ------
    HTTPException
        401 if it is not.
    """
    server.authenticator.check_origin(request)
    if not server.authenticator.requires_token:
        return TokenResponse(access_token=None, token_type=None)
    server.authenticator.authenticate_token(password)
    return TokenResponse(access_token=password, token_type="bearer")  # noqa: S106 - a kind of token


@router.get("/auth/token/valid")
def check_token(caller: CallerDep) -> dict[str, Any]:
    """Return the owner of the token of this request."""
    return {"username": caller.name, "roles": [caller.role]}


@router.post("/activelearning/{strategy}", responses=describe_errors(s404="There is no such strategy."))
def choose_sample(
    strategy: str,
    request: Request,
    caller: CallerDep,
    server: ServerDep,
    params: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a study that the caller may correct and that is not corrected yet; empty if there is none.

    \f

    Raises
    ------
    HTTPException
        404 for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise HTTPException(
            404, message("monai-strategy", strategy=strategy[:40], known=" or ".join(STRATEGIES))
        )
    rows = [
        row
        for row in server.database.list_ready_studies()
        if not row.correction and (row.owner == caller.name or caller.role == "admin")
    ]
    if not rows:
        return {}
    row = secrets.choice(rows) if strategy == "random" else rows[0]
    set_audit_view(request, row.id, AUDITED_ROUTES["/datastore/image/info"])
    return {"id": row.id} | describe_image(row)


def refuse_call(request: Request, _: CallerDep) -> None:
    """Refuse what gliomark does not offer.

    Raises
    ------
    HTTPException
        501.
    """
    raise HTTPException(501, message("monai-not-offered", call=request.url.path.strip("/")[:80]))


for _call in REFUSED_CALLS:
    router.add_api_route(
        f"/{_call}/{{rest:path}}",
        refuse_call,
        methods=["GET", "POST", "PUT", "DELETE"],
        include_in_schema=False,
    )
for _call in ("datastore/image/info", "datastore/label/info", "datastore/updatelabelinfo"):
    router.add_api_route(f"/{_call}", refuse_call, methods=["PUT"], include_in_schema=False)
router.add_api_route("/datastore/dataset", refuse_call, methods=["GET"], include_in_schema=False)
router.include_router(monai_label_images.router)
router.include_router(monai_label_inference.router)
