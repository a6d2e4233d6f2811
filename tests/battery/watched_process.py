"""Run a command in a child process and record its status, signal, duration, memory and output.

The child is forked from a process that has already imported all packages, which saves the time of the imports; being a
separate process, it can be observed however it ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.battery.cases_and_results import ProcessResult

POLL_INTERVAL_S = 0.01
TIMEOUT_S = 60.0


def run_in_fork(
    run: Callable[[], object], folder: Path, output_file: Path, limit_s: float = TIMEOUT_S
) -> ProcessResult:
    """Run a function in a forked process in ``folder``, its output in a file; it is killed after ``limit_s``."""
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        _run_child(run, folder, output_file)
    peak_mb, status, timed_out = 0.0, None, False
    while status is None:
        peak_mb = max(peak_mb, read_peak_memory_mb(process))
        ended, code = os.waitpid(process, os.WNOHANG)
        if ended:
            status = code
        elif time.monotonic() - started > limit_s:
            timed_out = True
            os.killpg(process, signal.SIGKILL)
        else:
            time.sleep(POLL_INTERVAL_S)
    kill_process_group(process)  # reader processes may be left over
    text = output_file.read_bytes().decode("utf-8", "replace")
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
    return ProcessResult(
        code, 0 if timed_out else ended_by, time.monotonic() - started, peak_mb, text, timed_out
    )


def _run_child(run: Callable[[], object], folder: Path, output_file: Path) -> None:
    """Run the function and exit the process as after a command. Never returns."""
    os.setsid()
    os.chdir(folder)
    out = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code: object = 0
    try:
        run()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 70
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def read_peak_memory_mb(process_id: int) -> float:
    """Read the peak resident memory of a process in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1000 if lines else 0.0


def reset_peak_memory(process_id: int) -> None:
    """Reset the peak memory of a process."""
    try:
        Path(f"/proc/{process_id}/clear_refs").write_text("5")
    except OSError:  # not supported by this system: the peak since the start is used
        return


def kill_process_group(process_id: int) -> None:
    try:
        os.killpg(process_id, signal.SIGKILL)
    except ProcessLookupError:
        return
