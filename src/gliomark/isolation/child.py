"""The reader process: ``python -P -m gliomark.isolation.child LIMITS``, started only by ``reader_process``.

It receives requests on standard input (pickled, because the parent process is trusted) and reports the outcome of each
on standard output; results are files. It exits with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

from gliomark.errors import DATA_ERRORS, ERROR_KINDS, GliomarkError
from gliomark.isolation.reader_limits import ReaderLimits, read_peak_memory_bytes
from gliomark.isolation.result_files import write_result
from gliomark.messages import to_message_record

# The only functions that a reader process runs.
ALLOWED_FUNCTIONS = frozenset({
    "gliomark.cohort.anonymise:clean_files",
    "gliomark.cohort.anonymise:read_file_headers",
    "gliomark.io.study_reader:read_study",
    "gliomark.io.study_reader:find_patients",
    "gliomark.io.masks.supplied_masks:read_supplied_masks",
    "gliomark.io.dicom.reader:read_headers",
    "gliomark.io.dicom.pixel_hashes:hash_image_or_file",
    "gliomark.io.dicom.pixel_hashes:hash_pixel_data",
    "gliomark.io.dicom.volume:read_series",
    "gliomark.io.masks.patient_masks:read_masks_on_grids",
    "gliomark.io.masks.reader_mask:read_mask_files",
    "gliomark.io.masks.reader_mask:read_reader_mask",
    "gliomark.io.masks.reader_mask:read_single_label",
    "gliomark.reporting.dicom.results:write_dicom_results",
    "gliomark.reporting.dicom.results:write_structure_set",
    "gliomark.reporting.dicom.source_headers:check_dicom_source",
    "gliomark.server.study_import:create_prediction_request",
    "gliomark.server.study_import:import_study",
})  # fmt: skip
PRELOADED_MODULES = (
    "gliomark.io.masks.supplied_masks",
    "gliomark.server.study_import",
)  # imported before the first request
READY_REPLY = "ready"  # the reply after these imports
PROGRESS_FILE = "at"  # in a result's folder: the path of the file being read
PROGRESS_BYTES = 4096
MAX_REASON_LENGTH = 400  # characters of a library's error text


@dataclass(frozen=True)
class ReadRequest:
    """A call to run in a reader process.

    Attributes
    ----------
    function_name
        ``module:name``, one of ``ALLOWED_FUNCTIONS``.
    args, kwargs
        Its arguments.
    result_folder
        Where the result is written.
    working_folder
        The base of relative paths.
    """

    function_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result_folder: Path
    working_folder: str


class _FileProgress:
    """Tracks the last file opened outside the program; opening the program's own modules also counts as progress."""

    def __init__(self) -> None:
        self._progress_file, self._opened_count, self._current_path = -1, 0, ""
        self._program_prefixes = tuple(
            {sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "/proc/", "/sys/"}
        )
        sys.addaudithook(self._on_audit_event)

    def start_tracking(self, result_folder: Path) -> None:
        """Start tracking, and create the progress file in the result folder."""
        self._current_path = ""
        self._progress_file = os.open(result_folder / PROGRESS_FILE, os.O_RDWR | os.O_CREAT, 0o600)

    def stop_tracking(self) -> None:
        """Stop tracking."""
        file, self._progress_file = self._progress_file, -1
        os.close(file)

    def _on_audit_event(self, event: str, event_args: tuple[Any, ...]) -> None:
        if event != "open" or self._progress_file < 0 or not isinstance(event_args[0], str | os.PathLike):
            return
        path = os.fspath(event_args[0])
        if isinstance(path, str) and not path.startswith(self._program_prefixes):
            self._current_path = path
        self._opened_count += 1
        line = f"{self._opened_count}\n{self._current_path}".encode(errors="surrogateescape")[:PROGRESS_BYTES]
        os.pwrite(self._progress_file, line.ljust(PROGRESS_BYTES, b"\0"), 0)


def main() -> None:
    """Run requests until standard input ends, or the process has to be replaced."""
    limits = ReaderLimits(**json.loads(sys.argv[1]))
    requests, reply_pipe = _redirect_standard_streams()
    limits.apply_to_process()
    _prefer_for_oom_kill()
    sys.modules["requests"] = None  # type: ignore[assignment] # pydicom would load it to download test data
    for module in PRELOADED_MODULES:
        import_module(module)
    progress = _FileProgress()
    _send_reply(reply_pipe, {"ended": READY_REPLY})
    for count in range(1, limits.max_calls + 1):
        request: ReadRequest = requests.get()
        limits.extend_cpu_time()
        reply = _run_request(request, progress)
        is_reusable = count < limits.max_calls and read_peak_memory_bytes() < limits.restart_above_bytes
        _send_reply(reply_pipe, reply | {"again": is_reusable})
        if not is_reusable:
            return


def _redirect_standard_streams() -> tuple[queue.SimpleQueue[ReadRequest], BinaryIO]:
    """Reserve standard input and output for the parent; what libraries print goes to standard error."""
    request_pipe, reply_pipe = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null_device = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null_device, 0)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[ReadRequest] = queue.SimpleQueue()
    threading.Thread(target=_receive_requests, args=(request_pipe, requests), daemon=True).start()
    if len(sys.argv) > 2:
        _exit_with_parent(int(sys.argv[2]))
    return requests, reply_pipe


def _receive_requests(request_pipe: BinaryIO, requests: queue.SimpleQueue[ReadRequest]) -> None:
    while True:
        try:
            requests.put(pickle.load(request_pipe))  # noqa: S301 - from the program that started this process
        except (EOFError, OSError):
            os._exit(0)


def _exit_with_parent(lifeline: int) -> None:
    """Let Linux kill this process and all that it started when the parent closes its end of the pipe, or dies.

    This works even if a library neither returns nor releases the interpreter lock.
    """
    if sys.platform != "linux":
        return
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _prefer_for_oom_kill() -> None:
    """Let the kernel's out-of-memory killer choose this process first."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _run_request(request: ReadRequest, progress: _FileProgress) -> dict[str, Any]:
    """Run the requested function; return the outcome in the form that ``reader_pool`` expects."""
    try:
        os.chdir(request.working_folder)
        function = _resolve_allowed_function(request.function_name)
        progress.start_tracking(request.result_folder)
        try:
            value = function(*request.args, **request.kwargs)
        finally:
            progress.stop_tracking()
        write_result(request.result_folder, value, get_type_hints(function)["return"])
        return {"ended": "well"}
    except GliomarkError as error:
        kind = next(one.__name__ for one in type(error).mro() if one.__name__ in ERROR_KINDS)
        return {"ended": "refused", "kind": kind, "sentence": to_message_record(error.message)}
    except MemoryError:
        return {"ended": "memory"}
    except Exception as error:
        error_type = next((one for one in DATA_ERRORS if isinstance(error, one)), RuntimeError)
        type_prefix = "" if type(error) is error_type else f"{type(error).__name__}: "
        return {
            "ended": "raised",
            "kind": error_type.__name__,
            "reason": (type_prefix + " ".join(str(error).split()))[:MAX_REASON_LENGTH],
        }


def _resolve_allowed_function(function_name: str) -> Callable[..., Any]:
    if function_name not in ALLOWED_FUNCTIONS:
        raise PermissionError(function_name)
    module, _, function = function_name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def _send_reply(reply_pipe: BinaryIO, reply: dict[str, Any]) -> None:
    reply_pipe.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
