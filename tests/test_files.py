"""Atomic files and folders, leftovers of killed processes, and the message for each write error."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gliomark import files
from gliomark.files import (
    FileWriteError,
    atomic_folder,
    atomic_write,
    check_writable,
    describe_os_error,
    is_disk_full_error,
    is_leftover,
    make_temporary_name,
    remove_leftovers,
    scratch_folder,
)
from gliomark.io import list_patient_files
from gliomark.io.dicom import find_dicom_files
from gliomark.io.folder_listing import list_special_files
from gliomark.messages import render_message

NAME = "result.bin"


@pytest.fixture(params=[True, False], ids=["exchange", "rename"])
def replacement_method(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of replacing a folder: swapping two names, and renaming if the system cannot swap."""
    if not request.param:
        monkeypatch.setattr(files, "_swap_names", lambda one, other: False)


@cache
def create_dead_process_name() -> str:
    """Return a temporary name of a killed process."""
    code = "from gliomark.files import make_temporary_name; print(make_temporary_name(), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return name


def read_contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        (b"\x00\xff", "utf-8", b"\x00\xff"),
        ("胶质瘤\n", "utf-8", "胶质瘤\n".encode()),
        ("a,b\r\n", "utf-8-sig", b"\xef\xbb\xbfa,b\r\n"),
    ],
)
def test_content_is_written_in_the_given_encoding(
    tmp_path: Path, content, encoding: str, expected: bytes
) -> None:
    path = atomic_write(tmp_path / "new" / NAME, content, encoding=encoding)
    assert path.read_bytes() == expected
    assert os.listdir(path.parent) == [NAME]


def test_a_private_file_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert atomic_write(tmp_path / "key", b"", mode=0o600).stat().st_mode & 0o777 == 0o600
        assert atomic_write(tmp_path / "open", b"").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_a_folder_replaces_the_older_one(tmp_path: Path, replacement_method) -> None:
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "patient") as part:
            (part / "a").mkdir()
            (part / "a" / text).write_text(text)
    assert read_contents(tmp_path) == {"patient/a/second": b"second"}
    assert os.listdir(tmp_path) == ["patient"]


def test_a_failed_folder_leaves_the_older_one_unchanged(tmp_path: Path, replacement_method) -> None:
    with atomic_folder(tmp_path / "patient") as part:
        (part / "a").write_text("first")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "patient") as part:
        (part / "a").write_text("second")
        raise RuntimeError
    assert read_contents(tmp_path) == {"patient/a": b"first"}
    assert os.listdir(tmp_path) == ["patient"]


def test_leftovers_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path: Path) -> None:
    dead, living = create_dead_process_name(), make_temporary_name()
    for name in (dead, living, "patient"):
        (tmp_path / name).mkdir()
        (tmp_path / name / dead).write_text("half")
    assert is_leftover(tmp_path / dead) and not is_leftover(tmp_path / living)
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([living, "patient"])
    assert os.listdir(tmp_path / "patient") == [dead], "subfolders only if requested"
    remove_leftovers(tmp_path, recursive=True)
    assert os.listdir(tmp_path / "patient") == []


def test_a_reused_process_id_does_not_protect_a_leftover(tmp_path: Path) -> None:
    owner = f"{os.getpid()}-{'1' * 8}-{files._hash_machine_name()}"
    path = tmp_path / f"{files.TEMPORARY_PREFIX}{owner}-{'0' * 8}"
    path.write_text("half")
    remove_leftovers(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize(
    "name",
    [f"{files.TEMPORARY_PREFIX}1-{'2' * 8}-{'3' * 8}-{'4' * 8}", f"{files.TEMPORARY_PREFIX}0123456789ab"],
)
def test_leftovers_of_other_machines_are_removed_after_a_day(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("half")
    remove_leftovers(tmp_path)
    assert path.exists()
    old = time.time() - files.FOREIGN_TEMPORARY_LIFETIME_S - 60
    os.utime(path, (old, old))
    remove_leftovers(tmp_path)
    assert not path.exists()


def test_a_folder_that_was_being_replaced_is_restored(tmp_path: Path) -> None:
    """The process was killed between the two renames."""
    kept = tmp_path / (create_dead_process_name() + files.REPLACED_SUFFIX)
    (kept / "patient").mkdir(parents=True)
    (kept / "patient" / "a").write_text("first")
    remove_leftovers(tmp_path)
    assert read_contents(tmp_path) == {"patient/a": b"first"}
    assert os.listdir(tmp_path) == ["patient"]


def test_a_scratch_folder_is_removed_with_those_of_dead_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / create_dead_process_name()).mkdir()
    (tmp_path / "another.program").mkdir()
    with scratch_folder() as folder:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
        assert sorted(os.listdir(tmp_path)) == sorted([folder.name, "another.program"])
    assert os.listdir(tmp_path) == ["another.program"]


# ---- write errors -----------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_file_unchanged(full_disk: Path) -> None:
    atomic_write(full_disk / NAME, b"first")
    with pytest.raises(FileWriteError, match="the disk is full") as caught:
        atomic_write(full_disk / NAME, bytes(100_000))
    assert is_disk_full_error(caught.value) and str(full_disk / NAME) in str(caught.value)
    assert read_contents(full_disk) == {NAME: b"first"}


def test_a_full_disk_leaves_the_earlier_folder_unchanged(full_disk: Path, replacement_method) -> None:
    with atomic_folder(full_disk / "patient") as part:
        (part / "a").write_text("first")
    with (
        pytest.raises(FileWriteError, match="the disk is full"),
        atomic_folder(full_disk / "patient") as part,
    ):
        (part / "b").write_bytes(bytes(100_000))
    assert read_contents(full_disk) == {"patient/a": b"first"}
    assert os.listdir(full_disk) == ["patient"]


def test_a_read_only_file_system_is_reported_in_one_sentence(full_disk: Path) -> None:
    atomic_write(full_disk / NAME, b"first")
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    for write in (lambda: atomic_write(full_disk / NAME, b"second"), lambda: check_writable(full_disk)):
        with pytest.raises(FileWriteError, match="read-only"):
            write()
    assert read_contents(full_disk) == {NAME: b"first"}


def test_a_file_above_the_size_limit_of_the_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from gliomark.files import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "atomic_write(Path(sys.argv[1]), b'x' * 5000)"
    )
    path = tmp_path / NAME
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "exceeds the size limit of the file system or the account" in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_long_name_and_a_file_used_as_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match="name is too long"):
        atomic_write(tmp_path / ("x" * 300), b"")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileWriteError, match="file/result.bin"):
        atomic_write(tmp_path / "file" / NAME, b"")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (errno.ENOSPC, "file-disk-full", "磁盘已满"),
        (errno.EDQUOT, "file-disk-full", "配额"),
        (errno.EROFS, "file-system-read-only", "只读"),
        (errno.EACCES, "file-not-permitted", "权限"),
        (errno.ENAMETOOLONG, "file-name-too-long", "名称"),
        (errno.EFBIG, "file-too-large", "大小"),
        (errno.EIO, "file-disk-fault", "错误"),
        (errno.ENOTDIR, "not-written", "可写"),
    ],
)
def test_every_reason_has_its_message(number: int, code: str, word: str) -> None:
    message = describe_os_error(OSError(number, os.strerror(number), "/data/out.csv"))
    assert message.code == code and "/data/out.csv" in message and word in render_message(message, "zh")


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    """In order of name, deeper than Python's recursion limit; links to folders are not followed."""
    deep, levels = tmp_path / "b", 1500
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for name in ["b", *["d"] * levels]:
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("last.txt", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    try:
        found = list(files.iterate_files(tmp_path))
        assert [path.name for path in found] == ["a.txt", "last.txt", "loop"]
        assert len(found[1].relative_to(tmp_path).parts) == levels + 2
        assert list(files.iterate_files(tmp_path / "nowhere")) == []
        assert [path.name for path in list_special_files(tmp_path)] == ["loop"]
        assert list(find_dicom_files(tmp_path)) == []
        assert [path.name for path in list_patient_files(tmp_path)] == ["a.txt", "last.txt"]
    finally:
        subprocess.run(["rm", "-rf", str(deep)], check=True)  # shutil.rmtree fails at 1000 levels
