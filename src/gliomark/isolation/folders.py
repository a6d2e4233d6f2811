"""Where answers go: folders for this user alone, gone once they are read, and with the next run after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

if os.name == "posix":
    import fcntl

PREFIX, LOCK = "gliomark-reading-", "lock"


class AnswerFolders:
    """One folder of the system's for temporary files, made when it is first needed, and in it one for each answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        _remove_left()

    @contextlib.contextmanager
    def one(self) -> Iterator[Path]:
        """A folder for one answer, gone afterwards."""
        with self._lock:
            if self._folder is None:
                self._folder, held = _make()
                self._removing = weakref.finalize(self, _remove, self._folder, held)
            folder = self._folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            if self._folder is not None:
                self._removing()
                self._folder = None


def _remove_left() -> None:
    """Folders that nobody holds: a program that was killed left them, and this one may never need its own."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not _is_held(left):
            shutil.rmtree(left, ignore_errors=True)


def _make() -> tuple[Path, int]:
    """A new folder and its lock, which is held as long as this process lives."""
    place = Path(tempfile.gettempdir())
    _remove_left()
    # named so that it is known as one of ours only once it is locked
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    held = _take_lock(made)
    return made.rename(place / made.name.removeprefix(".")), held


def _remove(folder: Path, held: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if held >= 0:
        os.close(held)


def _take_lock(folder: Path) -> int:
    """The open lock file; -1 where the system has no such locks."""
    if os.name != "posix":
        return -1
    held = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def _is_held(folder: Path) -> bool:
    """Whether a living process, or another user, holds a folder."""
    try:
        os.close(_take_lock(folder))
    except OSError:
        return True
    return os.name != "posix"
