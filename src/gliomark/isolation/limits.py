"""What a reading process may take: of memory, time, open files and disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.messages import message
from gliomark.study import GliomarkError

MEMORY, SECONDS, STALLED = "GLIOMARK_READING_GB", "GLIOMARK_READING_SECONDS", "GLIOMARK_READING_STALLED"


@dataclass(frozen=True)
class Limits:
    """For one patient. memory_bytes: address space of the process, libraries included; seconds: from question to
    answer, and of processor time; stalled_s: without a further file being opened; answer_bytes: all it hands back.

    calls: after so many, and after one that took ``swollen_bytes`` of memory, the process is replaced.
    On Windows the times alone are kept.
    """

    memory_bytes: int = 8 << 30
    seconds: float = 300.0
    stalled_s: float = 45.0
    open_files: int = 256
    answer_bytes: int = 4 << 30
    calls: int = 200
    swollen_bytes: int = 2 << 30

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Limits:
        """As the environment sets them. Raises GliomarkError for a value that is no positive number."""
        usual = Limits()
        gigabytes = _number(environment, MEMORY, usual.memory_bytes / (1 << 30))
        seconds = _number(environment, SECONDS, usual.seconds)
        stalled = _number(environment, STALLED, usual.stalled_s)
        return Limits(memory_bytes=int(gigabytes * (1 << 30)), seconds=seconds, stalled_s=stalled)

    def impose(self) -> None:
        """Bind this process to them, for good; processor time is bound call by call (``allow_time``)."""
        if sys.platform == "win32":
            return
        import resource

        for what, most in (
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_NOFILE, self.open_files),
            (resource.RLIMIT_FSIZE, self.answer_bytes),
            (resource.RLIMIT_CORE, 0),
        ):
            _, hard = resource.getrlimit(what)
            allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(what, (allowed, allowed))

    def allow_time(self) -> None:
        """So much processor time more for this process, after which the system ends it."""
        if sys.platform == "win32":
            return
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(used.ru_utime + used.ru_stime + self.seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def most_memory_bytes() -> int:
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


def _number(environment: Mapping[str, str], name: str, usual: float) -> float:
    given = environment.get(name, "").strip()
    try:
        value = float(given) if given else usual
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise GliomarkError(message("reading-limit-unfit", name=name, given=given))
    return value
