"""Serve the OHIF viewer beside an archive that speaks DICOMweb, such as Orthanc.

    python integrations/ohif/serve.py --dicomweb http://localhost:8042/dicom-web

The viewer is the published package of the OHIF project, of one tested version: it is downloaded once with npm and
compared with its SHA-512. Browsers reach it and the archive at one address, so that the archive needs no CORS. Anyone
who can open that address sees the archive: without a proxy that asks for a password, keep ``--host`` at this computer.

It needs the extra ``server`` of gliomark, and npm for the download.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import platformdirs
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

PACKAGE = "@ohif/app@3.13.2"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
CONFIGURATION = Path(__file__).with_name("app-config.js")
# concern one connection only (RFC 9110, section 7.6.1), or are set anew
_CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}
)


def install_viewer(folder: Path) -> Path:
    """Download the viewer into ``folder`` unless it is there; the folder of its pages.

    Raises
    ------
    SystemExit
        If npm is missing or cannot download the package, the package is not the tested one, or it cannot be stored.
    """
    version_folder = folder / PACKAGE.rpartition("@")[2]
    pages = version_folder / "package" / "dist"
    if (pages / "index.html").is_file():
        return pages
    if version_folder.exists():
        raise SystemExit(f"{version_folder} is not a complete viewer: delete this folder and start again.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(
            f"The viewer cannot be stored in {folder} ({error.strerror}): give --viewer."
        ) from None
    with tempfile.TemporaryDirectory(dir=folder) as part:
        try:
            subprocess.run(
                ["npm", "pack", PACKAGE, "--silent", "--pack-destination", part],
                check=True,
                stdout=sys.stderr,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"{PACKAGE} could not be downloaded with npm ({error}): install npm, or check the network."
            ) from None
        (archive,) = Path(part).glob("*.tgz")
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != SHA512:
            raise SystemExit(
                f"The downloaded {PACKAGE} is not the tested one: its SHA-512 differs. Nothing was installed."
            )
        unpacked = Path(part) / "unpacked"
        with tarfile.open(archive) as files:
            files.extractall(unpacked, filter="data")
        unpacked.rename(version_folder)
    return pages


def create_app(pages: Path, dicomweb: str, authentication: tuple[str, str] | None = None) -> Starlette:
    """Create the application: the viewer's files, its addresses, and the archive at ``/dicom-web``.

    pages: the viewer's folder. dicomweb: address of the archive. authentication: its user and password.
    """
    archive = httpx.AsyncClient(auth=authentication, timeout=httpx.Timeout(60.0, read=300.0))

    @asynccontextmanager
    async def close_at_the_end(_: Starlette) -> AsyncIterator[None]:
        async with archive:
            yield

    async def pass_on(request: Request) -> Response:
        path = request.path_params["path"]
        if {".", ".."} & set(path.split("/")):  # would leave the archive's DICOMweb service
            return PlainTextResponse("This is no address of DICOMweb.", 404)
        address = httpx.URL(
            f"{dicomweb.rstrip('/')}/{quote(path, safe='/,:')}", query=request.url.query.encode() or None
        )
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _CONNECTION_HEADERS]
        # so that the archive names itself by this address in its answers (RFC 7239)
        headers.append(("forwarded", f"host={request.url.netloc};proto={request.url.scheme}"))
        try:
            answer = await archive.send(
                archive.build_request(request.method, address, headers=headers), stream=True
            )
        except httpx.HTTPError as error:
            return PlainTextResponse(f"The archive at {dicomweb} does not answer: {error}", 502)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _CONNECTION_HEADERS}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose)
        )

    async def serve_file(request: Request) -> Response:
        return FileResponse(find_file(pages, request.path_params["path"]))

    return Starlette(
        routes=[
            Route("/dicom-web/{path:path}", pass_on),
            Route("/app-config.js", lambda _: FileResponse(CONFIGURATION)),
            Route("/{path:path}", serve_file),
        ],
        lifespan=close_at_the_end,
    )


def find_file(pages: Path, path: str) -> Path:
    """Find the file of an address; addresses within the viewer, such as ``/viewer``, are answered by its page."""
    file = (pages / path).resolve()
    return file if file.is_file() and file.is_relative_to(pages.resolve()) else pages / "index.html"


def check_address(dicomweb: str) -> str:
    """Return the address of the archive.

    Raises
    ------
    SystemExit
        If it is no http or https address.
    """
    try:
        address = httpx.URL(dicomweb)
        is_web_address = address.scheme in ("http", "https") and bool(address.host)
    except httpx.InvalidURL:
        is_web_address = False
    if not is_web_address:
        raise SystemExit(
            f"'{dicomweb}' is no address of an archive: give one such as http://localhost:8042/dicom-web."
        )
    return dicomweb


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description="Serve the OHIF viewer beside an archive that speaks DICOMweb."
    )
    parser.add_argument(
        "--dicomweb", required=True, help="address of the archive, such as http://localhost:8042/dicom-web"
    )
    parser.add_argument("--user", help="USER:PASSWORD of the archive")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this computer only)"
    )
    parser.add_argument("--port", type=int, default=3000, help="port to listen on (default: 3000)")
    parser.add_argument(
        "--viewer",
        type=Path,
        default=Path(platformdirs.user_cache_dir("gliomark", appauthor=False)) / "ohif",
        help="folder of the downloaded viewer",
    )
    options = parser.parse_args()
    user, _, password = (options.user or "").partition(":")
    dicomweb = check_address(options.dicomweb)
    app = create_app(install_viewer(options.viewer), dicomweb, (user, password) if user else None)
    print(f"OHIF: http://{options.host}:{options.port}/")
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
