"""Files and folders that appear whole or not at all, and the removal of what a killed process left behind.

Content is written under a temporary name beside its target, brought to the disk (fsync) and renamed. The temporary name
carries the process that writes it::

    .gliomark-<process id>-<its start>-<machine>-<random>

so that ``remove_leftovers`` takes away what belongs to no living process, and nothing else.
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

from gliomark.messages import Message, message
from gliomark.study import GliomarkError

TEMPORARY_PREFIX = ".gliomark-"
TEMPORARY_NAME_PATTERN = re.compile(
    r"\.gliomark-(?P<process>\d+)-(?P<start>[0-9a-f]{8})-(?P<machine>[0-9a-f]{8})-[0-9a-f]{8}"
)
REPLACED_SUFFIX = ".replaced"  # a folder that holds, under its own name, what is being replaced
UNKNOWN_PROCESS_START = "00000000"
# what another machine wrote into a shared folder, or nobody can be asked about, is left over once it is so old
FOREIGN_TEMPORARY_LIFETIME_S = 24 * 3600.0

# the system's reasons for not writing that deserve words of their own
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

# whatever zipfile raises for a damaged or hostile archive
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
    """Something could not be written; its message says why and what to do."""


def is_disk_full_error(error: BaseException) -> bool:
    """Whether whatever is written next would fail too."""
    if isinstance(error, GliomarkError):
        return getattr(error.message, "code", "") == "file-disk-full"
    if isinstance(error, OSError):
        return MESSAGE_CODE_BY_ERRNO.get(error.errno or 0) == "file-disk-full"
    # SQLite's words for it, which no library hands on as an error of the system
    return "database or disk is full" in str(error)


def describe_os_error(error: OSError, path: Path | str | None = None) -> Message:
    """The one sentence for what the system refused. path: where, if the error itself does not say it."""
    named = str(path or error.filename or "")
    reason = error.strerror or str(error)
    code = MESSAGE_CODE_BY_ERRNO.get(error.errno or 0, "not-written")
    return message(code, path=named or "?", reason=reason)


@contextmanager
def convert_write_errors(path: Path | str) -> Iterator[None]:
    """Raises NotWrittenError, naming ``path``, for every OSError within."""
    try:
        yield
    except OSError as error:
        raise FileWriteError(describe_os_error(error, path)) from error


# ---- whole or not at all ----------------------------------------------------------------------------


def atomic_write(
    path: Path,
    content: bytes | memoryview | str,
    *,
    mode: int = 0o666,
    encoding: str = "utf-8",
    is_durable: bool = True,
) -> Path:
    """Write a file whole or not at all, its folder too; returns the path.

    mode: its permissions, less the umask. durable: it outlives a power cut once this returns; without, only the end of
    the process. Lines end as they do in ``content``. Raises NotWrittenError; an older file stays as it was then.
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
    """A folder to fill, which then takes the place of ``path`` at once, be there an older one or not.

    Raises NotWrittenError where it cannot be written; whatever fails, an older folder stays as it was.
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
    """Rename; an older folder is exchanged for it in one step where the system can, else moved away first."""
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
    """Swap two names on Linux; False where that is not to be had."""
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
    """Bring a file or a folder's names to the disk, where the file system has a call for that."""
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
    """A grey array ``(row, column)`` or a PIL image as a PNG file's content, to be written whole.

    compress_level: 0 to 9, or -1 for zlib's usual.
    """
    from PIL import Image  # not everybody who writes files draws pictures

    content = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        content, "PNG", compress_level=compress_level
    )
    return content.getvalue()


def has_free_space(folder: Path, required_bytes: int) -> bool:
    """Whether so many bytes of the disk that holds ``folder`` are free."""
    return shutil.disk_usage(folder).free >= required_bytes


def check_writable(folder: Path) -> None:
    """Make the folder and write into it, before hours of work. Raises NotWrittenError where that fails."""
    probe = folder / make_temporary_name()
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0")
        finally:
            remove_path(probe)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the system's temporary one, for this user alone, gone at the end; those of dead processes go first.

    Raises NotWrittenError where it cannot be made.
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


# ---- what a killed process left ---------------------------------------------------------------------


def make_temporary_name(suffix: str = "") -> str:
    """A hidden name that says which process it belongs to."""
    return f"{TEMPORARY_PREFIX}{_format_owner(os.getpid())}-{secrets.token_hex(4)}{suffix}"


def remove_leftovers(folder: Path, *, recursive: bool = False) -> None:
    """Remove the temporary files and folders of processes that have ended; below: in every folder below too.

    A folder that was being replaced and has no successor returns to its place. What cannot be removed stays, silently:
    whoever writes next says what is wrong.
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
    """Whether a temporary file or folder belongs to no living process."""
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
    """Everything below a folder that is no folder, in order of name; a folder that may not be listed is passed over."""
    return (path for path, _ in walk_folder(folder, _list_readable_entries))


def walk_folder(
    folder: Path, list_folder: Callable[[Path], Iterable[os.DirEntry[str]]]
) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Everything below a folder that is no folder, in the order in which ``list_folder`` lists each.

    Links are not followed. However deep: ``os.walk`` and ``Path.rglob`` of Python 3.11 end at a thousand levels.
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
    """A file or a folder with all that is in it; tidying after a failure must not hide what failed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _restore_replaced_folder(backup_folder: Path) -> None:
    """What was being replaced goes back where nothing took its place."""
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
    """When a living process of this machine was started, as a word; blank for a dead one, or where nobody tells."""
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
