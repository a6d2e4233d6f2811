"""Bytes that somebody sent are read in a process of their own, which may crash, hang or swell without harm.

``ReadingProcesses`` runs a function of a fixed list there. A process that did its work is used again; one that
broke a limit or died is ended with all it started, and replaced. What comes back is data of the type that the function
promises, never code (``answers``).
"""

from gliomark.isolation.limits import Limits
from gliomark.isolation.pool import ReadingProcesses
from gliomark.isolation.reads import ReadingEndedError, Reads, read_each, read_file, read_here, reading_by

__all__ = [
    "Limits", "ReadingEndedError", "ReadingProcesses", "Reads", "read_each", "read_file", "read_here", "reading_by",
]  # fmt: skip
