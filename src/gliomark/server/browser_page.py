"""The page at ``/``: static files, and the texts of the desktop client and of all messages as one document.

The page itself contains no data and needs no token; every call that it makes does. Its files are in ``page/``: HTML,
style sheet and ES modules as they are written, without a build step, and NiiVue in ``page/niivue/``.
"""

from __future__ import annotations

import mimetypes
from functools import cache
from importlib.resources import files
from os import PathLike, stat_result
from pathlib import Path
from xml.etree import ElementTree

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from gliomark.messages import MESSAGES, to_message_record
from gliomark.reader_finding_accuracy import READER_FINDING_ACCURACY

PAGE_FOLDER = Path(__file__).with_name("page")
PAGE_HEADERS = {
    # NiiVue reads the font of its labels from a data URL; it needs no eval, WebAssembly or worker here
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # asked again at every visit, so that an updated server has no outdated page
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
mimetypes.add_type("text/javascript", ".js")  # the registry of Windows may say otherwise
router = APIRouter(include_in_schema=False)


class PageFiles(StaticFiles):
    """Static files with the headers of the page."""

    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, or 304 if the browser has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(PAGE_HEADERS)
        return response


@router.get("/")
def get_page() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE_FOLDER / "index.html", headers=PAGE_HEADERS)


@router.get("/page/texts.json")
def get_texts() -> JSONResponse:
    """Return all messages by code, in English and Chinese, and the Chinese of the client's English texts."""
    texts = {
        "messages": MESSAGES,
        "interface": read_interface_texts(),
        "finding_accuracy": to_message_record(READER_FINDING_ACCURACY.summarise()),
    }
    return JSONResponse(texts, headers=PAGE_HEADERS)


@cache
def read_interface_texts() -> dict[str, str]:
    """Return the Chinese text of every English text of the desktop client, from its translation file."""
    content = files("gliomark").joinpath("client/translations/gliomark_zh.ts").read_text("utf-8")
    return {
        entry.findtext("source", ""): entry.findtext("translation", "")
        for entry in ElementTree.fromstring(content).iter("message")
    }
