"""Uploads that must be refused: too large, too many files, too slow, paths outside the folder, not one patient's
images."""

from __future__ import annotations

import gzip
import shutil
import socket
import stat
import threading
import time
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO

import anyio
import nibabel as nib
import numpy as np
import pytest
from tests.server.conftest import SMALL_LIMITS

from gliomark.server.uploads import receive_form


def create_zip(files: dict[str, bytes], compress: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def create_zip_with_link(name: str, target: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, target)
    return buffer.getvalue()


def create_zip_with_declared_size(declared: int) -> bytes:
    """A zip file whose directory declares a smaller size than its file has."""
    content = bytearray(create_zip({"P/T1C/1.png": bytes(SMALL_LIMITS.max_upload_bytes + 1)}))
    offset = content.index(b"PK\x01\x02")
    content[offset + 24 : offset + 28] = declared.to_bytes(4, "little")
    return bytes(content)


def upload_files(client, *files: tuple[str, bytes]):
    return client.post("/api/studies", files=[("files", file) for file in files])


@pytest.fixture
def no_file_left(live_server):
    """Check that a refused upload leaves no file."""
    folder = live_server.server.store.data_folder / "studies"
    before = {path.name for path in folder.iterdir()}
    yield
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "status", "error_text"),
    [
        (
            create_zip({"P/T1C/1.png": bytes(SMALL_LIMITS.max_upload_bytes + 1)}),
            413,
            "unpacked zip file exceeds",
        ),
        (create_zip_with_declared_size(10), 400, "cannot be unpacked"),
        (
            create_zip({f"P/T1C/{n}.png": b"" for n in range(SMALL_LIMITS.max_upload_files + 1)}),
            413,
            "more than 200 files",
        ),
        (create_zip({"../../outside.png": b"x"}), 400, "not a path inside"),
        (create_zip({"/etc/outside.png": b"x"}), 400, "not a path inside"),
        (create_zip({"a\\..\\..\\outside.png": b"x"}), 400, "not a path inside"),
        (create_zip({"C:/outside.png": b"x"}), 400, "not allowed"),
        (create_zip_with_link("P/T1C/1.png", "/etc/passwd"), 400, "contains the link"),
        (create_zip({"P/T1C/1.png": b"x"})[:-30] + b"\0" * 30, 422, "contains no images of a patient"),
        (create_zip({}), 400, "no file"),
        (create_zip({"P/notes.txt": b"x"}), 422, "contains no images of a patient"),
        (create_zip({"NAME": b"x"}).replace(b"NAME", b"\0AME"), 400, "is damaged"),
    ],
    ids=["bomb", "lying", "many", "up", "root", "back", "drive", "link", "cut", "empty", "other", "nameless"],
)
def test_an_invalid_zip_file_is_refused(live_server, no_file_left, content, status, error_text) -> None:
    refused = upload_files(live_server, ("sent.zip", content))
    assert refused.status_code == status and error_text in refused.json()["detail"], refused.text
    assert not list(live_server.server.store.data_folder.parent.glob("**/outside.png"))


def test_a_zip_file_of_a_patient_is_accepted(live_server, picture_folder) -> None:
    content = create_zip(
        {
            f"some/{p.relative_to(picture_folder).as_posix()}": p.read_bytes()
            for p in picture_folder.rglob("*.png")
        }
    )
    sent = upload_files(live_server, ("sent.zip", content))
    assert sent.status_code == 201 and sent.json()["patient_id"] == "some"


@pytest.mark.parametrize(
    ("files", "status", "error_text"),
    [
        ([("../../outside.png", b"x")], 400, "not a path inside"),
        ([("P/T1C/1.png", b"x"), ("P/T1C/1.png", b"y")], 400, "twice"),
        ([("P/T1C/" + "x" * 300, b"x")], 400, "not allowed"),
        ([("P/scan.dcm", b"\x89PNG\r\n\x1a\n" + bytes(200))], 422, "images"),
        ([("P/T1C/1.png", b"x"), ("P/FLAIR/1.png", b"x")], 422, "1.png"),
        ([], 415, "multipart"),
    ],
    ids=["up", "twice", "long", "png called dcm", "no pictures", "none"],
)
def test_invalid_files_are_refused(live_server, no_file_left, files, status, error_text) -> None:
    refused = upload_files(live_server, *files)
    assert refused.status_code == status and error_text in refused.json()["detail"], refused.text
    assert str(live_server.server.store.data_folder) not in refused.text, (
        "paths of the server are not revealed"
    )


def test_two_patients_in_one_upload_are_refused(live_server, no_file_left, picture_folder, tmp_path) -> None:
    for name in ("甲", "乙"):
        shutil.copytree(picture_folder, tmp_path / "both" / name)
    refused = live_server.upload(tmp_path / "both")
    assert refused.status_code == 422 and "2 patients (乙, 甲)" in refused.json()["detail"]


def test_an_unknown_model_is_refused(live_server, no_file_left, picture_folder) -> None:
    assert (
        "no model 'other'; choose tiny" in live_server.upload(picture_folder, model="other").json()["detail"]
    )


def test_a_long_name_of_multibyte_characters_is_shortened(live_server, picture_folder) -> None:
    files = [
        ("files", (p.relative_to(picture_folder).as_posix(), p.read_bytes()))
        for p in sorted(picture_folder.rglob("*.png"))
    ]
    uploaded = live_server.post("/api/studies", files=files, data={"patient_id": "\U00020000" * 80})
    assert uploaded.status_code == 201 and uploaded.json()["patient_id"] == "\U00020000" * 20


def test_too_many_fields_and_impossible_ids_are_refused(live_server, no_file_left) -> None:
    refused = live_server.post(
        "/api/studies", files=[("files", ("a/1.png", b"x"))], data={f"f{n}": "" for n in range(20)}
    )
    assert refused.status_code == 400 and "too many fields" in refused.json()["detail"]
    assert (
        live_server.get("/api/studies/%00").status_code
        == live_server.get("/api/predictions/%00").status_code
        == 404
    )


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(live_server, no_file_left, tmp_path) -> None:
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).header
    header.set_data_shape((2000, 2000, 2000))
    bomb = gzip.compress(header.binaryblock + bytes(4) + bytes(1 << 20))
    started = time.monotonic()
    refused = upload_files(live_server, ("P/T1C.nii.gz", bomb), ("P/FLAIR.nii.gz", bomb))
    assert refused.status_code == 422 and "8000 million voxels" in refused.json()["detail"], refused.text
    assert time.monotonic() - started < 10


def test_sequence_folders_without_a_patient_folder_are_accepted(live_server, picture_folder) -> None:
    files = [
        ("files", (p.relative_to(picture_folder).as_posix(), p.read_bytes()))
        for p in sorted(picture_folder.rglob("*.png"))
    ]
    uploaded = live_server.post("/api/studies", files=files, data={"patient_id": "王 1"})
    assert uploaded.status_code == 201 and uploaded.json()["patient_id"] == "王 1"


def test_a_large_upload_is_stored_on_disk_not_in_memory(tmp_path) -> None:
    content, count = b"x" * 300_000, 60

    async def generate_body() -> AsyncIterator[bytes]:
        for number in range(count):
            yield f'--b\r\nContent-Disposition: form-data; name="files"; filename="P/{number}.dcm"\r\n\r\n'.encode()
            yield content
            yield b"\r\n"
        yield b"--b--\r\n"

    tracemalloc.start()
    anyio.run(receive_form, "multipart/form-data; boundary=b", generate_body(), tmp_path / "in", SMALL_LIMITS)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3e6, f"{peak_bytes / 1e6:.1f} MB of {len(content) * count / 1e6:.0f} MB"
    assert {path.stat().st_size for path in (tmp_path / "in" / "P").iterdir()} == {len(content)}


# ---- invalid bodies, over a plain socket --------------------------------------------------------------------


def open_upload(client, *headers: str) -> socket.socket:
    """Return a connection that has sent these header lines and nothing else."""
    port = client.base_url.port
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    header_lines = [
        "POST /api/studies HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: multipart/form-data; boundary=x",
        *headers,
    ]
    connection.sendall(("\r\n".join(header_lines) + "\r\n\r\n").encode())
    return connection


def read_status(connection: socket.socket) -> int:
    return int(connection.recv(4096).split()[1])


def test_an_upload_of_ten_gigabytes_is_refused_by_its_header(live_server) -> None:
    started = time.monotonic()
    with open_upload(live_server, "Content-Length: 10000000000") as connection:
        assert read_status(connection) == 413
    assert time.monotonic() - started < 5


def test_a_body_without_a_size_is_measured(live_server) -> None:
    with open_upload(live_server, "Transfer-Encoding: chunked") as connection:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a/b.png"\r\n\r\n'
        connection.sendall(f"{len(head):x}\r\n".encode() + head + b"\r\n")
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        statuses: list[int] = []
        reader = threading.Thread(target=lambda: statuses.append(read_status(connection)))
        reader.start()
        for _ in range((SMALL_LIMITS.max_upload_bytes >> 20) + 4):
            try:
                connection.sendall(chunk)
            except OSError:
                break
        reader.join(timeout=20)
        assert statuses == [413]


def test_slow_uploads_hold_no_more_than_their_slots(live_server, picture_folder) -> None:
    """Five hundred connections that send a header and then nothing."""
    connections = [open_upload(live_server, "Content-Length: 1000") for _ in range(500)]
    try:
        found = [read_status(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert sorted(set(found)) == [408, 503] and found.count(408) >= SMALL_LIMITS.max_uploads
    assert live_server.get("/api/health").status_code == 200
    assert live_server.upload(picture_folder).status_code == 201, "the slots are free again"
