"""Paths of the shipped weights files by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

SHIPPED_MODELS = {"demo": "demonstration.safetensors"}


@contextmanager
def resolve_weights_file(name_or_file: str | Path) -> Iterator[Path]:
    """Yield the path of a shipped model's weights file, or the given path if it is not the name of one."""
    if str(name_or_file) not in SHIPPED_MODELS:
        yield Path(name_or_file)
        return
    shipped = resources.files("gliomark") / "models" / "shipped" / SHIPPED_MODELS[str(name_or_file)]
    with resources.as_file(shipped) as path:
        yield path
