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

PREFIX = ".gliomark-"
OWNED = re.compile(r"\.gliomark-(?P<process>\d+)-(?P<start>[0-9a-f]{8})-(?P<machine>[0-9a-f]{8})-[0-9a-f]{8}")
REPLACED = ".replaced"  # a folder that holds, under its own name, what is being replaced
START_UNKNOWN = "00000000"
# what another machine wrote into a shared folder, or nobody can be asked about, is left over once it is so old
FOREIGN_LIFETIME_S = 24 * 3600.0

# the system's reasons for not writing that deserve words of their own
REASONS = {
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
ZIP_DAMAGE = (
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


class NotWrittenError(GliomarkError):
    """Something could not be written; its message says why and what to do."""


def is_disk_full(error: BaseException) -> bool:
    """Whether whatever is written next would fail too."""
    if isinstance(error, GliomarkError):
        return getattr(error.message, "code", "") == "file-disk-full"
    if isinstance(error, OSError):
        return REASONS.get(error.errno or 0) == "file-disk-full"
    # SQLite's words for it, which no library hands on as an error of the system
    return "database or disk is full" in str(error)


def explain_os_error(error: OSError, path: Path | str | None = None) -> Message:
    """The one sentence for what the system refused. path: where, if the error itself does not say it."""
    named = str(path or error.filename or "")
    reason = error.strerror or str(error)
    code = REASONS.get(error.errno or 0, "not-written")
    return message(code, path=named or "?", reason=reason)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Raises NotWrittenError, naming ``path``, for every OSError within."""
    try:
        yield
    except OSError as error:
        raise NotWrittenError(explain_os_error(error, path)) from error


# ---- whole or not at all ----------------------------------------------------------------------------


def atomic_write(
    path: Path,
    content: bytes | memoryview | str,
    *,
    mode: int = 0o666,
    encoding: str = "utf-8",
    durable: bool = True,
) -> Path:
    """Write a file whole or not at all, its folder too; returns the path.

    mode: its permissions, less the umask. durable: it outlives a power cut once this returns; without, only the end of
    the process. Lines end as they do in ``content``. Raises NotWrittenError; an older file stays as it was then.
    """
    data = content.encode(encoding) if isinstance(content, str) else content
    part = path.with_name(temporary_name())
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            remove(part)
            raise
        if durable:
            _sync(path.parent)
    return path


@contextmanager
def atomic_folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A folder to fill, which then takes the place of ``path`` at once, be there an older one or not.

    Raises NotWrittenError where it cannot be written; whatever fails, an older folder stays as it was.
    """
    part = path.with_name(temporary_name())
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
            yield part
            if durable:
                _sync_below(part)
            _put_in_place(part, path)
            if durable:
                _sync(path.parent)
    finally:
        remove(part)


def _put_in_place(new: Path, path: Path) -> None:
    """Rename; an older folder is exchanged for it in one step where the system can, else moved away first."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        kept = path.with_name(temporary_name(REPLACED))
        kept.mkdir()
        try:
            path.rename(kept / path.name)
            new.rename(path)
        finally:
            _return_replaced(kept)
            remove(kept)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names on Linux; False where that is not to be had."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


def _sync_below(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root) / name)
        _sync(Path(root))


def _sync(path: Path) -> None:
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


def png_bytes(picture: Any, compress_level: int = -1) -> bytes:
    """A grey array ``(row, column)`` or a PIL image as a PNG file's content, to be written whole.

    compress_level: 0 to 9, or -1 for zlib's usual.
    """
    from PIL import Image  # not everybody who writes files draws pictures

    content = BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(
        content, "PNG", compress_level=compress_level
    )
    return content.getvalue()


def has_room(folder: Path, reserve: int) -> bool:
    """Whether so many bytes of the disk that holds ``folder`` are free."""
    return shutil.disk_usage(folder).free >= reserve


def check_writable(folder: Path) -> None:
    """Make the folder and write into it, before hours of work. Raises NotWrittenError where that fails."""
    probe = folder / temporary_name()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0")
        finally:
            remove(probe)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the system's temporary one, for this user alone, gone at the end; those of dead processes go first.

    Raises NotWrittenError where it cannot be made.
    """
    place = Path(tempfile.gettempdir())
    remove_leftovers(place)
    folder = place / temporary_name()
    with writing(folder):
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove(folder)


# ---- what a killed process left ---------------------------------------------------------------------


def temporary_name(suffix: str = "") -> str:
    """A hidden name that says which process it belongs to."""
    return f"{PREFIX}{_owner(os.getpid())}-{secrets.token_hex(4)}{suffix}"


def remove_leftovers(folder: Path, *, below: bool = False) -> None:
    """Remove the temporary files and folders of processes that have ended; below: in every folder below too.

    A folder that was being replaced and has no successor returns to its place. What cannot be removed stays, silently:
    whoever writes next says what is wrong.
    """
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if is_leftover(entry):
                if entry.name.endswith(REPLACED):
                    _return_replaced(entry)
                remove(entry)
            elif below and entry.is_dir() and not entry.is_symlink():
                remove_leftovers(entry, below=True)


def is_leftover(path: Path) -> bool:
    """Whether a temporary file or folder belongs to no living process."""
    if not path.name.startswith(PREFIX):
        return False
    owner = OWNED.match(path.name)
    if owner is not None and owner["machine"] == _machine() and owner["start"] != START_UNKNOWN:
        return _start(int(owner["process"])) != owner["start"]
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > FOREIGN_LIFETIME_S
    return False


def files_below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, in order of name; a folder that may not be listed is passed over."""
    return (path for path, _ in walk(folder, _list_permitted))


def walk(
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


def _list_permitted(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(PermissionError, FileNotFoundError), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
    return []


def remove(path: Path) -> None:
    """A file or a folder with all that is in it; tidying after a failure must not hide what failed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _return_replaced(kept: Path) -> None:
    """What was being replaced goes back where nothing took its place."""
    with suppress(OSError):
        for older in list(kept.iterdir()):
            if not (target := kept.with_name(older.name)).exists():
                older.rename(target)


@cache
def _owner(process: int) -> str:
    return f"{process}-{_start(process) or START_UNKNOWN}-{_machine()}"


@cache
def _machine() -> str:
    return _short_hash(platform.node())


def _start(process: int) -> str:
    """When a living process of this machine was started, as a word; blank for a dead one, or where nobody tells."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except (OSError, ValueError):
        return ""
    state, start = facts[0], facts[19]  # fields 3 and 22 of proc(5)
    return "" if state in "ZX" else _short_hash(f"{boot} {start}")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
