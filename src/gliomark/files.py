"""Write files and folders atomically, and remove what a killed process left behind.

Content is written under a temporary name next to its target, synchronised to disk (fsync) and renamed. The temporary
name identifies the writing process::

    .gliomark-<process id>-<its start>-<machine>-<random>

so that ``remove_leftovers`` removes only what belongs to no running process.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import lzma
import os
import platform
import re
import secrets
import shutil
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from gliomark.errors import GliomarkError
from gliomark.messages import Message, message

TEMPORARY_PREFIX = ".gliomark-"
TEMPORARY_NAME_PATTERN = re.compile(
    r"\.gliomark-(?P<process>\d+)-(?P<start>[0-9a-f]{8})-(?P<machine>[0-9a-f]{8})-[0-9a-f]{8}"
)
REPLACED_SUFFIX = ".replaced"  # suffix of a folder that contains what is being replaced, under its own name
UNKNOWN_PROCESS_START = "00000000"
# files of another machine in a shared folder, and files of an unknown process, are leftovers at this age
FOREIGN_TEMPORARY_LIFETIME_S = 24 * 3600.0

# errors of the system that have a message of their own
MESSAGE_CODE_BY_ERRNO = {
    errno.ENOSPC: "file-disk-full",
    errno.EDQUOT: "file-disk-full",
    errno.EFBIG: "file-too-large",
    errno.EROFS: "file-system-read-only",
    errno.EACCES: "file-not-permitted",
    errno.EPERM: "file-not-permitted",
    errno.ENAMETOOLONG: "file-name-too-long",
    errno.EIO: "file-disk-fault",
}

# all errors that zipfile raises for a damaged or malicious archive
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    RuntimeError,
    NotImplementedError,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


class FileWriteError(GliomarkError):
    """A file or folder could not be written; the message states the reason and a remedy."""


def is_disk_full_error(error: BaseException) -> bool:
    """Whether an error means that the disk is full, so that all further writing would fail."""
    if isinstance(error, GliomarkError):
        return getattr(error.message, "code", "") == "file-disk-full"
    if isinstance(error, OSError):
        return MESSAGE_CODE_BY_ERRNO.get(error.errno or 0) == "file-disk-full"
    # SQLite's message; it is not raised as an OSError
    return "database or disk is full" in str(error)


def describe_os_error(error: OSError, path: Path | str | None = None) -> Message:
    """Describe an OSError in one sentence; path: used instead of the error's own file name."""
    named = str(path or error.filename or "")
    reason = error.strerror or str(error)
    code = MESSAGE_CODE_BY_ERRNO.get(error.errno or 0, "not-written")
    return message(code, path=named or "?", reason=reason)


@contextmanager
def convert_write_errors(path: Path | str) -> Iterator[None]:
    """Convert every OSError in the context to a FileWriteError.

    Raises
    ------
    FileWriteError
        If an OSError occurs; the message names ``path``.
    """
    try:
        yield
    except OSError as error:
        raise FileWriteError(describe_os_error(error, path)) from error


# ---- atomic writing ---------------------------------------------------------------------------------


def atomic_write(
    path: Path,
    content: bytes | memoryview | str,
    *,
    mode: int = 0o666,
    encoding: str = "utf-8",
    is_durable: bool = True,
) -> Path:
    """Write a file atomically, create its folder if necessary, and return the path.

    Parameters
    ----------
    path
        The file to write or replace.
    content
        Bytes, or text whose line endings are kept.
    mode
        Permissions, reduced by the umask.
    encoding
        Of text.
    is_durable
        Whether the file survives a power failure once this returns; otherwise only the end of the process.

    Raises
    ------
    FileWriteError
        If it cannot be written; an existing file is then unchanged.
    """
    data = content.encode(encoding) if isinstance(content, str) else content
    temporary_path = path.with_name(make_temporary_name())
    with convert_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            os.replace(temporary_path, path)
        except BaseException:
            remove_path(temporary_path)
            raise
        if is_durable:
            _sync_to_disk(path.parent)
    return path


@contextmanager
def atomic_folder(path: Path, *, is_durable: bool = True) -> Iterator[Path]:
    """Provide a temporary folder to fill, which then atomically replaces ``path``, whether this exists or not.

    is_durable: whether the folder survives a power failure.

    Raises
    ------
    FileWriteError
        If it cannot be written; after any failure, an existing folder is unchanged.
    """
    temporary_folder = path.with_name(make_temporary_name())
    try:
        with convert_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary_folder.mkdir()
            yield temporary_folder
            if is_durable:
                _sync_folder_tree(temporary_folder)
            _replace_folder(temporary_folder, path)
            if is_durable:
                _sync_to_disk(path.parent)
    finally:
        remove_path(temporary_folder)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename to ``path``; an existing folder is swapped in one step if the system can, else moved away first."""
    if not path.exists():
        new.rename(path)
    elif not _swap_names(new, path):
        backup_folder = path.with_name(make_temporary_name(REPLACED_SUFFIX))
        backup_folder.mkdir()
        try:
            path.rename(backup_folder / path.name)
            new.rename(path)
        finally:
            _restore_replaced_folder(backup_folder)
            remove_path(backup_folder)


def _swap_names(one: Path, other: Path) -> bool:
    """Swap two names on Linux; return False if that is not supported."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    at_current_folder, exchange_flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return (
        renameat2 is not None
        and renameat2(
            at_current_folder, os.fsencode(one), at_current_folder, os.fsencode(other), exchange_flag
        )
        == 0
    )


def _sync_folder_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync_to_disk(Path(root) / name)
        _sync_to_disk(Path(root))


def _sync_to_disk(path: Path) -> None:
    """Synchronise a file, or the entries of a folder, to disk if the file system supports it."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def encode_png(image: Any, compress_level: int = -1) -> bytes:
    """Encode a grey array ``(row, column)`` or a PIL image as PNG.

    compress_level: 0 to 9, or -1 for zlib's default.
    """
    from PIL import Image  # imported only when needed

    content = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        content, "PNG", compress_level=compress_level
    )
    return content.getvalue()


def has_free_space(folder: Path, required_bytes: int) -> bool:
    """Whether the disk of ``folder`` has at least ``required_bytes`` free."""
    return shutil.disk_usage(folder).free >= required_bytes


def check_writable(folder: Path) -> None:
    """Create the folder and write a test file into it, before hours of work.

    Raises
    ------
    FileWriteError
        If that fails.
    """
    probe = folder / make_temporary_name()
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0")
        finally:
            remove_path(probe)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Provide a temporary folder accessible to this user only, and remove it at exit.

    Leftover folders of ended processes are removed first.

    Raises
    ------
    FileWriteError
        If it cannot be created.
    """
    temporary_root = Path(tempfile.gettempdir())
    remove_leftovers(temporary_root)
    folder = temporary_root / make_temporary_name()
    with convert_write_errors(folder):
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove_path(folder)


# ---- leftovers of killed processes ------------------------------------------------------------------


def make_temporary_name(suffix: str = "") -> str:
    """Make a hidden name that identifies this process."""
    return f"{TEMPORARY_PREFIX}{_format_owner(os.getpid())}-{secrets.token_hex(4)}{suffix}"


def remove_leftovers(folder: Path, *, recursive: bool = False) -> None:
    """Remove the temporary files and folders of processes that have ended.

    recursive: also in all subfolders. A folder that was being replaced is restored if its replacement is missing. What
    cannot be removed is ignored here: the next write will report the error.
    """
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if is_leftover(entry):
                if entry.name.endswith(REPLACED_SUFFIX):
                    _restore_replaced_folder(entry)
                remove_path(entry)
            elif recursive and entry.is_dir() and not entry.is_symlink():
                remove_leftovers(entry, recursive=True)


def is_leftover(path: Path) -> bool:
    """Whether a temporary file or folder belongs to no running process."""
    if not path.name.startswith(TEMPORARY_PREFIX):
        return False
    name_match = TEMPORARY_NAME_PATTERN.match(path.name)
    if (
        name_match is not None
        and name_match["machine"] == _hash_machine_name()
        and name_match["start"] != UNKNOWN_PROCESS_START
    ):
        return _hash_process_start(int(name_match["process"])) != name_match["start"]
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > FOREIGN_TEMPORARY_LIFETIME_S
    return False


def iterate_files(folder: Path) -> Iterator[Path]:
    """Iterate over all files in a folder and its subfolders by name; folders without read permission are skipped."""
    return (path for path, _ in walk_folder(folder, _list_readable_entries))


def walk_folder(
    folder: Path, list_folder: Callable[[Path], Iterable[os.DirEntry[str]]]
) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Iterate over everything in a folder and its subfolders except folders, in the order of ``list_folder``.

    Links are not followed. The depth is not limited: ``os.walk`` and ``Path.rglob`` of Python 3.11 fail at about 1000
    levels.
    """
    levels = [(folder, iter(list_folder(folder)))]
    while levels:
        parent, entries = levels[-1]
        if (entry := next(entries, None)) is None:
            levels.pop()
        elif entry.is_dir(follow_symlinks=False):
            levels.append((parent / entry.name, iter(list_folder(parent / entry.name))))
        else:
            yield parent / entry.name, entry


def _list_readable_entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(PermissionError, FileNotFoundError), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
    return []


def remove_path(path: Path) -> None:
    """Remove a file or folder with its contents; errors are ignored, so that they do not hide an earlier error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _restore_replaced_folder(backup_folder: Path) -> None:
    """Move back what was being replaced if the replacement is missing."""
    with suppress(OSError):
        for older in list(backup_folder.iterdir()):
            if not (target := backup_folder.with_name(older.name)).exists():
                older.rename(target)


@cache
def _format_owner(process_id: int) -> str:
    return f"{process_id}-{_hash_process_start(process_id) or UNKNOWN_PROCESS_START}-{_hash_machine_name()}"


@cache
def _hash_machine_name() -> str:
    return _compute_short_hash(platform.node())


def _hash_process_start(process_id: int) -> str:
    """Hash the start time of a running process; empty if it has ended or the system does not report it."""
    try:
        stat_fields = (
            Path(f"/proc/{process_id}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        )
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except (OSError, ValueError):
        return ""
    state, start = stat_fields[0], stat_fields[19]  # fields 3 and 22 of proc(5)
    return "" if state in "ZX" else _compute_short_hash(f"{boot_id} {start}")


def _compute_short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
