"""Bytes that somebody sent are read in a process of their own, which may crash, hang or swell without harm.

``ReadingProcesses`` runs a function of a fixed list there. A process that did its work is used again; one that
broke a limit or died is ended with all it started, and replaced. What comes back is data of the type that the function
promises, never code (``answers``).
"""

from gliomark.isolation.limits import ReaderLimits
from gliomark.isolation.pool import ReaderPool
from gliomark.isolation.reads import (
    ReaderProcessError,
    ReadExecutor,
    read_items_skipping_crashes,
    run_file_reader,
    run_in_this_process,
    use_reader_pool,
)

__all__ = [
    "ReaderLimits",
    "ReaderProcessError",
    "ReaderPool",
    "ReadExecutor",
    "read_items_skipping_crashes",
    "run_file_reader",
    "run_in_this_process",
    "use_reader_pool",
]
