"""Receiving a study: many files or one zip, within limits, and nowhere but into the study's own folder."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from anyio import to_thread
from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gliomark.files import ZIP_DAMAGE, files_below, has_room
from gliomark.messages import message
from gliomark.server.bodies import Limits

CHUNK = 1 << 20
NOT_IN_A_NAME = re.compile(r'[<>:"|?*\x00-\x1f]')
LONGEST_NAME, DEEPEST = 200, 16
LONGEST_FIELD, MOST_FIELDS = 1000, 8
LONGEST_ENTRY = 500  # bytes of a zip's table that a file may take


def safe_path(name: str) -> PurePosixPath:
    """A relative path inside the study's folder. Raises HTTPException for one that leads elsewhere or is no name."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or len(parts) > DEEPEST:
        raise HTTPException(400, message("name-outside", name=name[:80]))
    for part in parts:
        if NOT_IN_A_NAME.search(part) or len(part.encode()) > LONGEST_NAME:
            raise HTTPException(400, message("name-unfit", name=repr(name[:80])))
    return path


class Inbox:
    """Files arriving in ``folder``, one after the other, counted. Raises HTTPException past a limit, for a name that
    came before and for one that leads out."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.size, self.paths = 0, list[Path]()
        self._file: BinaryIO | None = None
        folder.mkdir(parents=True)

    def begin(self, name: str) -> None:
        path = self.folder / safe_path(name)
        self.paths.append(path)
        if len(self.paths) > self.limits.files:
            raise HTTPException(413, message("too-many-files", count=self.limits.files))
        check_room(self.folder, self.limits)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise HTTPException(400, message("name-twice", name=name[:80])) from None
        except OSError:
            raise _no_room() from None

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self.limits.bytes:
            most = f"{self.limits.bytes / 1e6:.0f}"
            raise HTTPException(413, message("unpacked-too-large", megabytes=most))
        assert self._file is not None
        try:
            self._file.write(piece)
        except OSError:
            raise _no_room() from None

    def end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def check_room(folder: Path, limits: Limits, declared: str = "") -> None:
    """Raises HTTPException 507 where so much more would leave too little of the disk."""
    more = int(declared) if declared.isdigit() else 0
    if not has_room(folder, limits.reserve + min(more, limits.bytes)):
        raise _no_room()


def _no_room() -> HTTPException:
    return HTTPException(507, message("disk-full"))


class Form:
    """A multipart body, taken as it comes: its files go into the inbox, its few fields are kept."""

    def __init__(self, boundary: bytes, inbox: Inbox) -> None:
        self.fields: dict[str, str] = {}
        self.whole = False
        self._inbox = inbox
        self._word, self._value, self._headers = b"", b"", dict[bytes, bytes]()
        self._field: str | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": inbox.end,
                "on_end": self._body_ends,
            },
        )

    def take(self, piece: bytes) -> None:
        """Raises HTTPException for a body that is no form, and whatever the inbox says."""
        try:
            self._parser.write(piece)
        except (FormParserError, UnicodeError) as error:
            raise HTTPException(400, message("no-form", reason=str(error))) from None

    def _part_begins(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._word += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._word.lower()] = self._value
        self._word, self._value = b"", b""

    def _headers_end(self) -> None:
        _, told = parse_options_header(self._headers.get(b"content-disposition"))
        name, file = told.get(b"name", b"").decode(), told.get(b"filename")
        self._field = None if file is not None and name == "files" else name[:LONGEST_FIELD]
        if self._field is None:
            self._inbox.begin((file or b"").decode())
        elif len(self.fields) == MOST_FIELDS:
            raise HTTPException(400, message("form-fields"))
        else:
            self.fields[self._field] = ""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._inbox.write(data[start:end])
        elif len(self.fields[self._field]) + end - start > LONGEST_FIELD:
            raise HTTPException(400, message("form-field-long"))
        else:
            self.fields[self._field] += data[start:end].decode(errors="replace")

    def _body_ends(self) -> None:
        self.whole = True


async def receive_form(
    content_type: str, body: AsyncIterator[bytes], folder: Path, limits: Limits
) -> dict[str, str]:
    """All files into ``folder``, a single zip unpacked; the form's fields. Nothing is left where one is refused."""
    kind, told = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not told.get(b"boundary"):
        raise HTTPException(415, message("form-wanted"))
    inbox = Inbox(folder, limits)
    try:
        form = Form(told[b"boundary"], inbox)
        async for piece in body:
            await to_thread.run_sync(form.take, piece)
        if not form.whole:
            raise HTTPException(400, message("form-cut"))
        if len(inbox.paths) == 1:
            await to_thread.run_sync(_unpack_if_zip, inbox, limits)
        if next(files_below(folder), None) is None:
            raise HTTPException(400, message("upload-empty"))
    except BaseException:
        inbox.end()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return form.fields


def _unpack_if_zip(inbox: Inbox, limits: Limits) -> None:
    """The one file that was sent, replaced by what is packed in it."""
    (sent,) = inbox.paths
    if zipfile.is_zipfile(sent):
        packed = sent.replace(inbox.folder.with_suffix(".zip"))
        try:
            shutil.rmtree(inbox.folder)
            unpack(packed, Inbox(inbox.folder, limits))
        finally:
            packed.unlink()


def unpack(packed: Path, inbox: Inbox) -> None:
    """Every file of a zip. Raises HTTPException for a damaged, locked or overgrown one, and for links."""
    try:
        _check_table(packed, inbox.limits)
        with zipfile.ZipFile(packed) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > inbox.limits.bytes:
                raise HTTPException(413, message("zip-too-large"))
            for entry in entries:
                _unpack_one(archive, entry, inbox)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        EOFError,
        ValueError,
        OSError,
    ) as error:
        raise HTTPException(400, message("zip-unreadable", reason=str(error))) from None
    except ZIP_DAMAGE:
        raise HTTPException(400, message("zip-damaged")) from None


def _check_table(packed: Path, limits: Limits) -> None:
    """The table of contents alone may fill the memory: its size is asked before it is read."""
    with packed.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[zipfile._ECD_SIZE] > limits.files * LONGEST_ENTRY:  # type: ignore[attr-defined]
        raise HTTPException(413, message("zip-too-many", count=limits.files))


def _unpack_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, inbox: Inbox) -> None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise HTTPException(400, message("zip-link", name=entry.filename[:80]))
    if entry.flag_bits & 1:
        raise HTTPException(400, message("zip-locked"))
    inbox.begin(entry.filename)
    try:
        with archive.open(entry) as file:
            while piece := file.read(CHUNK):
                inbox.write(piece)
    finally:
        inbox.end()
