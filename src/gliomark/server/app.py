"""The HTTP interface put together: what each call does is in ``studies`` and ``predictions``."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

from gliomark.files import NotWrittenError, is_disk_full
from gliomark.messages import message
from gliomark.server import predictions, studies
from gliomark.server.bodies import SmallBodies
from gliomark.server.context import Admin, Asking, Here, Server
from gliomark.server.documents import ALWAYS, AuditOut, AuditWanted, Health, HealthStatus, ModelOut, refusals
from gliomark.server.problems import answer_problem
from gliomark.server.views import note_detail, record_refusal, record_view
from gliomark.study import GliomarkError

LOG = logging.getLogger("gliomark.server")
OWN_ONLY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
router = APIRouter(prefix="/api", tags=["server"])


def create_app(server: Server) -> FastAPI:
    """The interface over a server's parts; its workers live as long as the application."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        server.workers.start()
        server.reading.start()
        server.audit.start()
        yield
        await to_thread.run_sync(server.workers.stop)
        server.reading.close()
        await to_thread.run_sync(server.audit.stop)

    app = FastAPI(
        title="gliomark",
        version=version("gliomark"),
        summary="Glioma markers before surgery. For research only, not a medical device.",
        lifespan=living,
        docs_url=None,  # that of FastAPI fetches its scripts from another host
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=ALWAYS,
    )
    app.state.server = server
    app.middleware("http")(_log)
    app.add_middleware(SmallBodies, limits=server.limits)
    app.exception_handler(Exception)(_unforeseen)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(GliomarkError)(_wrong)
    app.exception_handler(HTTPException)(_refused)
    app.mount("/api/docs/files", StaticFiles(packages=[("fastapi_swagger", "resources")]))
    for part in (router, studies.router, predictions.router):
        app.include_router(part)
    return app


async def _log(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """One line per call: no query, no name, nothing of a patient. Who saw what stands in the audit log."""
    started = time.perf_counter()
    response = record_view(request.app.state.server.audit, request, await go_on(request))
    seconds = time.perf_counter() - started
    # the route, not the path: that holds what the caller has typed
    route = getattr(request.scope.get("route"), "path", "no such path")
    LOG.info("%s %s %d %.2f s", request.method, route, response.status_code, seconds)
    return response


async def _unforeseen(_: Request, error: Exception) -> Response:
    """What went wrong stays in the log, and there without what was asked."""
    LOG.error("a call failed: %s", type(error).__name__)
    if is_disk_full(error):
        return answer_problem(message("disk-full"), 507)
    return answer_problem(message("server-unforeseen"), 500)


async def _wrong(_: Request, error: Exception) -> Response:
    """Something the caller can mend, in a sentence."""
    assert isinstance(error, GliomarkError)
    if isinstance(error, NotWrittenError):  # not the caller's doing, nor is the place theirs to know
        return answer_problem(message("disk-full"), 507)
    return answer_problem(error.message, 422)


async def _invalid(_: Request, error: Exception) -> Response:
    """What does not fit, in a sentence."""
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in e['loc'][1:]) or 'the request'}: {e['msg']}" for e in error.errors()
    ]
    return answer_problem(message("request-unfit", reason="; ".join(found)[:500]), 422)


async def _refused(request: Request, error: Exception) -> Response:
    """A refusal of one of the calls, with its message's code and parameters."""
    assert isinstance(error, HTTPException)
    await record_refusal(request.app.state.server.audit, request, error)
    return answer_problem(error.detail, error.status_code, error.headers)


@router.get("/docs", include_in_schema=False)
async def documentation() -> Response:
    """The interface to look at and to try; nothing on the page comes from elsewhere."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="gliomark",
        swagger_js_url="docs/files/swagger-ui-bundle.js",
        swagger_css_url="docs/files/swagger-ui.css",
        swagger_favicon_url="docs/files/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = OWN_ONLY
    return page


@router.get("/health")
async def health(server: Here) -> Health:
    """Whether the server is there, and its workers have their models and somebody who feeds them."""
    workers = server.workers
    status: HealthStatus = "ok" if workers.models_known else "starting"
    return Health(status=status if workers.watched else "failing", version=version("gliomark"))


@router.get("/models", responses=refusals(s503="The models are still being loaded."))
def models(_: Asking, server: Here) -> list[ModelOut]:
    """What the server can predict, and how well that is known."""
    if not server.workers.models_known:
        raise HTTPException(503, message("server-starting"))
    return [ModelOut.model_validate(model) for model in server.workers.models_known]


@router.get("/audit")
def audit(
    _: Admin, server: Here, request: Request, response: Response, wanted: Annotated[AuditWanted, Query()]
) -> list[AuditOut]:
    """Who did what, newest first; the header ``Link`` names the next page while there is one."""
    note_detail(request, **wanted.filter.named)
    rows = server.records.audit(wanted.filter, wanted.limit + 1)
    page = rows[: wanted.limit]
    if len(rows) > len(page):
        following = request.url.include_query_params(before=page[-1].number)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return [AuditOut.model_validate(row) for row in page]
