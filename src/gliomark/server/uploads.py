"""Receiving a study: many files or one zip, within limits, and nowhere but into the study's own folder."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import stat
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from anyio import fail_after
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gliomark.io import find_patients, read_study
from gliomark.study import UNFORESEEN, GliomarkError, Study

CHUNK = 1 << 20
NOT_IN_A_NAME = re.compile(r'[<>:"|?*\x00-\x1f]')
LONGEST_NAME, DEEPEST = 200, 16
LARGE = re.compile(r"POST /api/studies|PUT /api/studies/[^/]+/mask\.png")


@dataclass(frozen=True)
class Limits:
    """bytes: of an upload, packed and unpacked; files: in it; at_once: uploads being received; silence_s: between two
    pieces of a body; slowest: bytes per second after the first minute."""

    bytes: int = 2 << 30
    files: int = 20_000
    at_once: int = 4
    silence_s: float = 30.0
    slowest: float = 20_000.0
    mask_bytes: int = 64 << 20
    other_bytes: int = 64 << 10


class Inlet:
    """So many uploads at once and no more; entering raises HTTPException 503 where all places are taken."""

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise HTTPException(
                503, "Too many uploads at once; try again in a minute.", headers={"Retry-After": "60"}
            )

    def __exit__(self, *_: object) -> None:
        self._places.release()


def refused(status: int, sentence: str) -> HTTPException:
    """What the client is told."""
    return HTTPException(status, sentence)


def guarded(receive: Receive, declared: str | None, most: int, limits: Limits) -> Receive:
    """The same body, refused as soon as it is too large, silent or too slow."""
    too_large = refused(
        413, f"The body is larger than the {most / 1e6:.3g} MB taken here; send the series needed alone."
    )
    if declared is not None and (not declared.isdigit() or int(declared) > most):
        raise too_large if declared.isdigit() else refused(400, "Content-Length must be a number.")
    started, got, over = time.monotonic(), 0, False

    async def receive_guarded() -> Message:
        nonlocal got, over
        if over:
            return await receive()  # the line's end, which may be long in coming
        try:
            with fail_after(limits.silence_s):
                message = await receive()
        except TimeoutError:
            raise refused(408, "The upload stopped in the middle; send it again.") from None
        over = not message.get("more_body", False)
        got += len(message.get("body", b""))
        if got > most:
            raise too_large
        if time.monotonic() - started > 60 + got / limits.slowest:
            raise refused(408, "The upload is too slow; send it again over a better line.")
        return message

    return receive_guarded


class SmallBodies:
    """ASGI: every body is small but an upload's and an outline's, which have limits of their own. It stands before
    the application, which reads bodies before it asks who sends them."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not LARGE.fullmatch(f"{scope['method']} {scope['path']}"):
            declared = Headers(scope=scope).get("content-length")
            try:
                receive = guarded(receive, declared, self.limits.other_bytes, self.limits)
            except HTTPException as error:
                await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def safe_path(name: str) -> PurePosixPath:
    """A relative path inside the study's folder. Raises HTTPException for one that leads elsewhere or is no name."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or len(parts) > DEEPEST:
        raise refused(
            400, f"The file name '{name[:80]}' is no path inside a patient's folder; send relative paths."
        )
    for part in parts:
        if NOT_IN_A_NAME.search(part) or len(part.encode()) > LONGEST_NAME:
            raise refused(
                400, f"The file name '{name[:80]!r}' holds a sign that no file may have; rename it."
            )
    return path


@dataclass
class Inbox:
    """Files arriving in ``folder``, counted."""

    folder: Path
    limits: Limits
    size: int = 0
    files: int = 0

    def take(self, name: str, source: IO[bytes]) -> None:
        """Write one file. Raises HTTPException past a limit or where the name came before."""
        target = self.folder / safe_path(name)
        self.files += 1
        if self.files > self.limits.files:
            raise refused(
                413, f"The upload has more than {self.limits.files} files; send the series needed alone."
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for piece in _pieces(source):
                    self.size += len(piece)
                    if self.size > self.limits.bytes:
                        most = f"{self.limits.bytes / 1e6:.0f} MB"
                        raise refused(413, f"Unpacked, the upload is larger than {most}; send less.")
                    file.write(piece)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise refused(
                400, f"The file name '{name[:80]}' stands in the upload twice; send each once."
            ) from None

    def unpack(self, source: BinaryIO) -> None:
        """Every file of a zip. Raises HTTPException for a damaged, locked or overgrown one, and for links."""
        try:
            with zipfile.ZipFile(source) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                if sum(entry.file_size for entry in entries) > self.limits.bytes:
                    raise refused(
                        413, "The zip unpacks to more than this server takes; send the series needed alone."
                    )
                for entry in entries:
                    if stat.S_ISLNK(entry.external_attr >> 16):
                        raise refused(
                            400, f"The zip holds the link '{entry.filename[:80]}'; pack the files themselves."
                        )
                    if entry.flag_bits & 1:
                        raise refused(400, "The zip is locked by a password; send it without.")
                    with archive.open(entry) as file:
                        self.take(entry.filename, file)
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            NotImplementedError,
            EOFError,
            ValueError,
            OSError,
        ) as error:
            raise refused(400, f"The zip cannot be unpacked ({error}); pack it again.") from None
        except (RuntimeError, zlib.error, lzma.LZMAError):
            raise refused(400, "The zip is damaged; pack it again.") from None


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(CHUNK):
        yield piece


def receive_files(uploads: Iterable[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> None:
    """All files into ``folder``; a single zip is unpacked. Nothing is left where one is refused."""
    inbox, sent = Inbox(folder, limits), list(uploads)
    try:
        folder.mkdir(parents=True)
        if len(sent) == 1 and zipfile.is_zipfile(sent[0][1]):
            sent[0][1].seek(0)
            inbox.unpack(sent[0][1])
        else:
            for name, source in sent:
                source.seek(0)
                inbox.take(name, source)
        if not inbox.files:
            raise refused(400, "The upload holds no file; send a patient's folder.")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def read_upload(folder: Path) -> Study:
    """The one patient in what was sent. Raises HTTPException 422 with the sentence that says what is wrong."""
    try:
        patients = find_patients(_innermost(folder))
        if len(patients) > 1:
            names = ", ".join(patient.name for patient in patients[:4])
            raise GliomarkError(f"The upload holds {len(patients)} patients ({names}); send one at a time.")
        return read_study(patients[0])
    except GliomarkError as error:
        raise refused(422, _without_path(str(error), folder)) from None
    except UNFORESEEN as error:
        reason = _without_path(" ".join(str(error).split())[-200:], folder)
        raise refused(422, f"The images could not be read ({type(error).__name__}: {reason}).") from None


def _innermost(folder: Path) -> Path:
    """Past the folders that hold nothing but one folder."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return _innermost(entries[0]) if len(entries) == 1 and entries[0].is_dir() else folder


def _without_path(sentence: str, folder: Path) -> str:
    """Where things lie on the server is nobody's business."""
    return sentence.replace(f"{folder}/", "").replace(str(folder), "the upload")


def digest(folder: Path) -> str:
    """SHA-256 over every file's path and content, in order of path."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
