"""Read untrusted files in a separate process, so that a crash, a hang or excessive memory use cannot harm the caller.

``ReaderPool`` runs a function of a fixed list in a reader process. The process is reused after a successful call; after
a crash or an exceeded limit it is killed with all processes that it started, and replaced. The result is data of the
function's return type, never code (``result_files``).
"""

from gliomark.isolation.executor import (
    ReaderProcessError,
    ReadExecutor,
    read_items_skipping_crashes,
    run_file_reader,
    run_in_this_process,
    use_reader_pool,
)
from gliomark.isolation.reader_limits import ReaderLimits
from gliomark.isolation.reader_pool import ReaderPool

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
