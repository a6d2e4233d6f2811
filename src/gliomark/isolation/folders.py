"""Where answers go: folders for this user alone, gone once they are read, and with the next run after a kill."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from gliomark.files import remove, remove_leftovers, scratch_folder


class AnswerFolders:
    """One scratch folder, made when it is first needed, and in it one for each answer."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), contextlib.ExitStack()
        self._folder: Path | None = None
        weakref.finalize(self, self._held.close)
        # a program that was killed left its own, and this one may never need one
        remove_leftovers(Path(tempfile.gettempdir()))

    @contextlib.contextmanager
    def one(self) -> Iterator[Path]:
        """A folder for one answer, gone afterwards."""
        with self._lock:
            if self._folder is None:
                self._folder = self._held.enter_context(scratch_folder())
            folder = self._folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700, parents=True)  # also where a tidied temporary folder took ours away
        try:
            yield folder
        finally:
            remove(folder)

    def close(self) -> None:
        with self._lock:
            self._held.close()
            self._folder = None
