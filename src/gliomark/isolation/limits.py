"""What a reading process may take: of memory, time, open files and disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.messages import message
from gliomark.study import GliomarkError

MEMORY_VARIABLE, TIMEOUT_VARIABLE, STALL_TIMEOUT_VARIABLE = (
    "GLIOMARK_READING_GB",
    "GLIOMARK_READING_SECONDS",
    "GLIOMARK_READING_STALLED",
)


@dataclass(frozen=True)
class ReaderLimits:
    """For one patient. memory_bytes: address space of the process, libraries included; seconds: from question to
    answer, and of processor time; stalled_s: without a further file being opened; answer_bytes: all it hands back.

    calls: after so many, and after one that took ``swollen_bytes`` of memory, the process is replaced.
    On Windows the times alone are kept.
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
        """As the environment sets them. Raises GliomarkError for a value that is no positive number."""
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
        """Bind this process to them, for good; processor time is bound call by call (``allow_time``)."""
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
        """So much processor time more for this process, after which the system ends it."""
        if sys.platform == "win32":
            return
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(used.ru_utime + used.ru_stime + self.timeout_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def read_peak_memory_bytes() -> int:
    """The most that this process has taken so far; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    if sys.platform == "linux":
        # getrusage would count what the parent had taken when it started this process
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
        raise GliomarkError(message("reading-limit-unfit", name=name, given=text))
    return value
