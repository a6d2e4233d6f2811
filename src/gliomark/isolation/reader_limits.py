"""Limits of a reader process: memory, time, open files and disk space."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import ConfigurationError
from gliomark.messages import message

MEMORY_VARIABLE, TIMEOUT_VARIABLE, STALL_TIMEOUT_VARIABLE = (
    "GLIOMARK_READING_GB",
    "GLIOMARK_READING_SECONDS",
    "GLIOMARK_READING_STALLED",
)


@dataclass(frozen=True)
class ReaderLimits:
    """Limits for one call, which usually reads one patient. Windows enforces only the times.

    Attributes
    ----------
    max_memory_bytes
        Address space of the process, including libraries.
    timeout_s
        From request to reply, and of processor time, in seconds.
    stall_timeout_s
        Without another file being opened, in seconds.
    max_open_files
        Open files.
    max_result_bytes
        Size of all files of a result.
    max_calls
        The process is replaced after so many calls.
    restart_above_bytes
        The process is replaced after a call that used more memory.
    """

    max_memory_bytes: int = 8 << 30
    timeout_s: float = 300.0
    stall_timeout_s: float = 45.0
    max_open_files: int = 256
    max_result_bytes: int = 4 << 30
    max_calls: int = 200
    restart_above_bytes: int = 2 << 30

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> ReaderLimits:
        """Read the limits from environment variables.

        Raises
        ------
        ConfigurationError
            If a value is not a positive number.
        """
        defaults = ReaderLimits()
        gigabytes = _parse_positive_number(
            environment, MEMORY_VARIABLE, defaults.max_memory_bytes / (1 << 30)
        )
        timeout_s = _parse_positive_number(environment, TIMEOUT_VARIABLE, defaults.timeout_s)
        stall_timeout_s = _parse_positive_number(
            environment, STALL_TIMEOUT_VARIABLE, defaults.stall_timeout_s
        )
        return ReaderLimits(
            max_memory_bytes=int(gigabytes * (1 << 30)), timeout_s=timeout_s, stall_timeout_s=stall_timeout_s
        )

    def apply_to_process(self) -> None:
        """Apply the limits to this process permanently; ``extend_cpu_time`` sets processor time for each call."""
        if sys.platform == "win32":
            return
        import resource

        for resource_kind, maximum in (
            (resource.RLIMIT_AS, self.max_memory_bytes),
            (resource.RLIMIT_NOFILE, self.max_open_files),
            (resource.RLIMIT_FSIZE, self.max_result_bytes),
            (resource.RLIMIT_CORE, 0),
        ):
            _, hard = resource.getrlimit(resource_kind)
            allowed = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
            resource.setrlimit(resource_kind, (allowed, allowed))

    def extend_cpu_time(self) -> None:
        """Allow this process ``timeout_s`` more seconds of processor time."""
        if sys.platform == "win32":
            return
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(used.ru_utime + used.ru_stime + self.timeout_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def read_peak_memory_bytes() -> int:
    """Read the peak memory of this process in bytes; 0 if the system does not report it."""
    if sys.platform == "win32":
        return 0
    if sys.platform == "linux":
        # getrusage would include the parent's memory at the time of the fork
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _parse_positive_number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(message("reading-limit-unfit", name=name, given=text))
    return value
