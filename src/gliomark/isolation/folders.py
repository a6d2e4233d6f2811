"""Where answers go: folders for this user alone, gone once they are read, and with the next run after a kill."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from gliomark.files import remove_leftovers, remove_path, scratch_folder


class ResultFolders:
    """One scratch folder, made when it is first needed, and in it one for each answer."""

    def __init__(self) -> None:
        self._lock, self._exit_stack = threading.Lock(), contextlib.ExitStack()
        self._scratch_folder: Path | None = None
        weakref.finalize(self, self._exit_stack.close)
        # a program that was killed left its own, and this one may never need one
        remove_leftovers(Path(tempfile.gettempdir()))

    @contextlib.contextmanager
    def create_folder(self) -> Iterator[Path]:
        """A folder for one answer, gone afterwards."""
        with self._lock:
            if self._scratch_folder is None:
                self._scratch_folder = self._exit_stack.enter_context(scratch_folder())
            folder = self._scratch_folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700, parents=True)  # also where a tidied temporary folder took ours away
        try:
            yield folder
        finally:
            remove_path(folder)

    def close(self) -> None:
        with self._lock:
            self._exit_stack.close()
            self._scratch_folder = None
