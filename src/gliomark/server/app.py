"""Create the FastAPI application; the routes are in ``studies``, ``predictions`` and ``monai_label``."""

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

from gliomark.errors import GliomarkError
from gliomark.files import FileWriteError, is_disk_full_error
from gliomark.messages import message
from gliomark.server import browser_page, monai_label, predictions, studies
from gliomark.server.access_audit import record_refusal, record_view, set_audit_detail
from gliomark.server.body_limits import BodyLimitMiddleware
from gliomark.server.dependencies import AdminDep, CallerDep, Server, ServerDep
from gliomark.server.error_responses import create_error_response
from gliomark.server.schemas import (
    COMMON_RESPONSES,
    AuditLineResponse,
    AuditQuery,
    HealthResponse,
    HealthStatus,
    ModelResponse,
    describe_errors,
)

LOG = logging.getLogger("gliomark.server")
CONTENT_SECURITY_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
router = APIRouter(prefix="/api", tags=["server"])


def create_app(server: Server) -> FastAPI:
    """Return the HTTP application of a server; its worker processes run as long as the application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.worker_pool.start()
        server.reader_pool.start()
        server.audit_writer.start()
        yield
        await to_thread.run_sync(server.worker_pool.stop)
        server.reader_pool.close()
        await to_thread.run_sync(server.audit_writer.stop)

    app = FastAPI(
        title="gliomark",
        version=version("gliomark"),
        summary="Segment glioma on MRI and predict molecular markers. Research use only, not a medical device.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=COMMON_RESPONSES,
    )
    app.state.server = server
    app.middleware("http")(_log_request)
    app.add_middleware(BodyLimitMiddleware, limits=server.request_limits)
    app.exception_handler(Exception)(_handle_unexpected_error)
    app.exception_handler(RequestValidationError)(_handle_validation_error)
    app.exception_handler(GliomarkError)(_handle_gliomark_error)
    app.exception_handler(HTTPException)(_handle_http_error)
    app.mount("/api/docs/files", StaticFiles(packages=[("fastapi_swagger", "resources")]))
    for part_router in (
        router,
        studies.router,
        predictions.router,
        browser_page.router,
        monai_label.router,
    ):
        app.include_router(part_router)
    app.mount("/page", browser_page.PageFiles(directory=browser_page.PAGE_FOLDER))
    return app


async def _log_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Log one line per request without patient data; who viewed which study is recorded in the audit log."""
    started_at = time.perf_counter()
    response = record_view(request.app.state.server.audit_writer, request, await call_next(request))
    response.headers.setdefault("Cache-Control", "no-store")  # no patient's data in a browser's cache
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    seconds = time.perf_counter() - started_at
    # the route and not the path: the path contains text from the caller
    route = getattr(request.scope.get("route"), "path", "unknown path")
    LOG.info("%s %s %d %.2f s", request.method, route, response.status_code, seconds)
    return response


async def _handle_unexpected_error(_: Request, error: Exception) -> Response:
    """Answer 500 (507 if the disk is full); log only the error's type, since its text may hold patient data."""
    LOG.error("request failed: %s", type(error).__name__)
    if is_disk_full_error(error):
        return create_error_response(message("disk-full"), 507)
    return create_error_response(message("server-unforeseen"), 500)


async def _handle_gliomark_error(_: Request, error: Exception) -> Response:
    """Answer 422 with the message of an error that the caller can correct."""
    assert isinstance(error, GliomarkError)
    if isinstance(error, FileWriteError):  # a fault of the server, and its text names a path on the server
        return create_error_response(message("disk-full"), 507)
    return create_error_response(error.message, 422)


async def _handle_validation_error(_: Request, error: Exception) -> Response:
    """Answer 422 and name the invalid parts of the request."""
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(str(part) for part in e['loc'][1:]) or 'the request'}: {e['msg']}" for e in error.errors()
    ]
    return create_error_response(message("request-unfit", reason="; ".join(faults)[:500]), 422)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    """Record a refused request in the audit log and answer with its message code and parameters."""
    assert isinstance(error, HTTPException)
    await record_refusal(request.app.state.server.audit_writer, request, error)
    return create_error_response(error.detail, error.status_code, error.headers)


@router.get("/docs", include_in_schema=False)
async def get_api_docs() -> Response:
    """Return the interactive documentation of the HTTP interface; the page loads nothing from other hosts."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="gliomark",
        swagger_js_url="docs/files/swagger-ui-bundle.js",
        swagger_css_url="docs/files/swagger-ui.css",
        swagger_favicon_url="docs/files/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return page


@router.get("/health")
async def get_health(server: ServerDep) -> HealthResponse:
    """Return whether the server runs ("ok"), loads its models ("starting") or has lost workers ("failing")."""
    workers = server.worker_pool
    status: HealthStatus = "ok" if workers.model_descriptions else "starting"
    return HealthResponse(status=status if workers.is_watched else "failing", version=version("gliomark"))


@router.get("/models", responses=describe_errors(s503="The models are being loaded."))
def list_models(_: CallerDep, server: ServerDep) -> list[ModelResponse]:
    """List the models that the server offers, with their markers and validated performance.

    \f

    Raises
    ------
    HTTPException
        503 while the models are being loaded.
    """
    if not server.worker_pool.model_descriptions:
        raise HTTPException(503, message("server-starting"))
    return [ModelResponse.model_validate(model) for model in server.worker_pool.model_descriptions]


@router.get("/audit")
def list_audit_lines(
    _: AdminDep,
    server: ServerDep,
    request: Request,
    response: Response,
    query: Annotated[AuditQuery, Query()],
) -> list[AuditLineResponse]:
    """List lines of the audit log, newest first; the header ``Link`` holds the address of the next page."""
    set_audit_detail(request, **query.audit_filter.audit_detail)
    rows = server.database.list_audit_lines(query.audit_filter, query.limit + 1)
    page = rows[: query.limit]
    if len(rows) > len(page):
        next_page = request.url.include_query_params(before=page[-1].number)
        response.headers["Link"] = f'<{next_page.path}?{next_page.query}>; rel="next"'
    return [AuditLineResponse.model_validate(row) for row in page]
