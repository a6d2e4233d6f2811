"""Receive a study as many files or one zip file, within limits and only into the study's own folder."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from anyio import to_thread
from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gliomark.files import ZIP_ERRORS, has_free_space, iterate_files
from gliomark.messages import message
from gliomark.server.body_limits import RequestLimits

CHUNK_BYTES = 1 << 20
FORBIDDEN_NAME_CHARACTERS = re.compile(r'[<>:"|?*\x00-\x1f]')
MAX_NAME_BYTES, MAX_PATH_DEPTH = 200, 16
MAX_FIELDS = 8
MAX_DIRECTORY_BYTES_PER_FILE = 500  # bytes of a zip file's directory allowed per file


@dataclass(frozen=True)
class FormLayout:
    """What a multipart form contains.

    Attributes
    ----------
    file_field
        Name of the parts that are files.
    max_field_length
        Bytes of any other field, and of its name.
    choose_file_name
        Returns the name under which a file is stored, from the one that was sent; None keeps it.
    """

    file_field: str = "files"
    max_field_length: int = 1000
    choose_file_name: Callable[[str], str] | None = None


def parse_safe_path(name: str) -> PurePosixPath:
    """Return a file name as a relative path inside the study's folder.

    Raises
    ------
    HTTPException
        400 if it leads outside or is not a valid name.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or len(parts) > MAX_PATH_DEPTH:
        raise HTTPException(400, message("name-outside", name=name[:80]))
    for part in parts:
        if FORBIDDEN_NAME_CHARACTERS.search(part) or len(part.encode()) > MAX_NAME_BYTES:
            raise HTTPException(400, message("name-unfit", name=repr(name[:80])))
    return path


class UploadWriter:
    """Writes uploaded files into ``folder``, one after the other, within the limits."""

    def __init__(self, folder: Path, limits: RequestLimits) -> None:
        self.folder, self.limits = folder, limits
        self.total_bytes, self.paths = 0, list[Path]()
        self._file: BinaryIO | None = None
        folder.mkdir(parents=True)

    def begin_file(self, name: str) -> None:
        """Open a new file.

        Raises
        ------
        HTTPException
            400 for an invalid or repeated name, 413 for too many files, 507 if the disk is full.
        """
        path = self.folder / parse_safe_path(name)
        self.paths.append(path)
        if len(self.paths) > self.limits.max_upload_files:
            raise HTTPException(413, message("too-many-files", count=self.limits.max_upload_files))
        check_free_disk(self.folder, self.limits)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise HTTPException(400, message("name-twice", name=name[:80])) from None
        except OSError:
            raise _create_disk_full_error() from None

    def write_chunk(self, chunk: bytes) -> None:
        """Append bytes to the open file.

        Raises
        ------
        HTTPException
            413 if the upload is too large, 507 if the disk is full.
        """
        self.total_bytes += len(chunk)
        if self.total_bytes > self.limits.max_upload_bytes:
            max_megabytes = f"{self.limits.max_upload_bytes / 1e6:.0f}"
            raise HTTPException(413, message("unpacked-too-large", megabytes=max_megabytes))
        assert self._file is not None
        try:
            self._file.write(chunk)
        except OSError:
            raise _create_disk_full_error() from None

    def end_file(self) -> None:
        """Close the open file, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None


def check_free_disk(folder: Path, limits: RequestLimits, declared_length: str = "") -> None:
    """Check that the disk keeps its reserve after receiving a body of the declared length.

    Raises
    ------
    HTTPException
        507 if it does not.
    """
    declared_bytes = int(declared_length) if declared_length.isdigit() else 0
    if not has_free_space(folder, limits.min_free_disk_bytes + min(declared_bytes, limits.max_upload_bytes)):
        raise _create_disk_full_error()


def _create_disk_full_error() -> HTTPException:
    return HTTPException(507, message("disk-full"))


class MultipartForm:
    """A multipart body, parsed as it arrives: files are written to disk, the few fields are kept in memory."""

    def __init__(self, boundary: bytes, upload_writer: UploadWriter, layout: FormLayout) -> None:
        self.fields: dict[str, str] = {}
        self.is_complete = False
        self._layout = layout
        self._upload_writer = upload_writer
        self._current_header_name, self._current_header_value, self._headers = b"", b"", dict[bytes, bytes]()
        self._current_field: str | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": upload_writer.end_file,
                "on_end": self._on_end,
            },
        )

    def parse_chunk(self, chunk: bytes) -> None:
        """Parse a chunk of the body.

        Raises
        ------
        HTTPException
            400 for an invalid form, and all errors of ``UploadWriter``.
        """
        try:
            self._parser.write(chunk)
        except (FormParserError, UnicodeError) as error:
            raise HTTPException(400, message("no-form", reason=str(error))) from None

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._current_header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._current_header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._current_header_name.lower()] = self._current_header_value
        self._current_header_name, self._current_header_value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name, file = options.get(b"name", b"").decode(), options.get(b"filename")
        layout = self._layout
        is_file = file is not None and name == layout.file_field
        self._current_field = None if is_file else name[: layout.max_field_length]
        if self._current_field is None:
            file_name = (file or b"").decode()
            choose_file_name = layout.choose_file_name or str
            self._upload_writer.begin_file(choose_file_name(file_name))
        elif len(self.fields) == MAX_FIELDS:
            raise HTTPException(400, message("form-fields"))
        else:
            self.fields[self._current_field] = ""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_field is None:
            self._upload_writer.write_chunk(data[start:end])
        elif len(self.fields[self._current_field]) + end - start > self._layout.max_field_length:
            raise HTTPException(400, message("form-field-long"))
        else:
            self.fields[self._current_field] += data[start:end].decode(errors="replace")

    def _on_end(self) -> None:
        self.is_complete = True


async def receive_form(
    content_type: str,
    body: AsyncIterator[bytes],
    folder: Path,
    limits: RequestLimits,
    layout: FormLayout = FormLayout(),
) -> dict[str, str]:
    """Write all files of a form into ``folder``, extracting a single zip file; nothing is left after an error.

    Returns
    -------
    dict[str, str]
        The other fields of the form.

    Raises
    ------
    HTTPException
        415 if the body is no multipart form, 400 for an invalid one; others as in ``UploadWriter``.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(415, message("form-wanted"))
    upload_writer = UploadWriter(folder, limits)
    try:
        form = MultipartForm(options[b"boundary"], upload_writer, layout)
        async for chunk in body:
            await to_thread.run_sync(form.parse_chunk, chunk)
        if not form.is_complete:
            raise HTTPException(400, message("form-cut"))
        if not upload_writer.paths:
            raise HTTPException(400, message("form-without-file", field=layout.file_field))
        if len(upload_writer.paths) == 1:
            await to_thread.run_sync(_unpack_if_zip, upload_writer, limits)
        if next(iterate_files(folder), None) is None:
            raise HTTPException(400, message("upload-empty"))
    except BaseException:
        upload_writer.end_file()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return form.fields


def _unpack_if_zip(upload_writer: UploadWriter, limits: RequestLimits) -> None:
    """Replace a single uploaded zip file by its content."""
    (uploaded_file,) = upload_writer.paths
    if zipfile.is_zipfile(uploaded_file):
        zip_path = uploaded_file.replace(upload_writer.folder.with_suffix(".zip"))
        try:
            shutil.rmtree(upload_writer.folder)
            unpack_zip(zip_path, UploadWriter(upload_writer.folder, limits))
        finally:
            zip_path.unlink()


def unpack_zip(zip_path: Path, upload_writer: UploadWriter) -> None:
    """Extract every file of a zip file.

    Raises
    ------
    HTTPException
        400 if it is damaged, encrypted or contains links, 413 if its content is too large.
    """
    try:
        _check_zip_directory(zip_path, upload_writer.limits)
        with zipfile.ZipFile(zip_path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > upload_writer.limits.max_upload_bytes:
                raise HTTPException(413, message("zip-too-large"))
            for entry in entries:
                _unpack_entry(archive, entry, upload_writer)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        EOFError,
        ValueError,
        OSError,
    ) as error:
        raise HTTPException(400, message("zip-unreadable", reason=str(error))) from None
    except ZIP_ERRORS:
        raise HTTPException(400, message("zip-damaged")) from None


def _check_zip_directory(zip_path: Path, limits: RequestLimits) -> None:
    """Check the size of the zip file's directory before reading it: the directory alone could fill the memory."""
    with zip_path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[zipfile._ECD_SIZE] > limits.max_upload_files * MAX_DIRECTORY_BYTES_PER_FILE:  # type: ignore[attr-defined]
        raise HTTPException(413, message("zip-too-many", count=limits.max_upload_files))


def _unpack_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, upload_writer: UploadWriter) -> None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise HTTPException(400, message("zip-link", name=entry.filename[:80]))
    if entry.flag_bits & 1:
        raise HTTPException(400, message("zip-locked"))
    upload_writer.begin_file(entry.filename)
    try:
        with archive.open(entry) as file:
            while chunk := file.read(CHUNK_BYTES):
                upload_writer.write_chunk(chunk)
    finally:
        upload_writer.end_file()
