"""Folders for results, accessible to this user only; removed after reading, or by the next run after a kill."""

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
    """A scratch folder, created on first use, with one subfolder per result."""

    def __init__(self) -> None:
        self._lock, self._exit_stack = threading.Lock(), contextlib.ExitStack()
        self._scratch_folder: Path | None = None
        weakref.finalize(self, self._exit_stack.close)
        # remove the folder of a killed program now, because this one may never create its own
        remove_leftovers(Path(tempfile.gettempdir()))

    @contextlib.contextmanager
    def create_folder(self) -> Iterator[Path]:
        """Create a folder for one result, removed at exit of the context."""
        with self._lock:
            if self._scratch_folder is None:
                self._scratch_folder = self._exit_stack.enter_context(scratch_folder())
            folder = self._scratch_folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700, parents=True)  # the system may have cleaned up the temporary folder
        try:
            yield folder
        finally:
            remove_path(folder)

    def close(self) -> None:
        """Remove the scratch folder."""
        with self._lock:
            self._exit_stack.close()
            self._scratch_folder = None
