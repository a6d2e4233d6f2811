"""The folder that holds converted networks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "GLIOMARK_CACHE"


def get_cache_folder() -> Path:
    """Return the folder for converted networks: ``$GLIOMARK_CACHE``, otherwise the user's cache folder."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder) if folder else platformdirs.user_cache_path("gliomark", appauthor=False)


def compute_graph_key(*parts: str) -> str:
    """Return the hexadecimal SHA-256 of the texts that identify a converted network."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
