"""Where the weights of a model lie: a shipped one by its name, any other by its path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

SHIPPED_MODELS = {"demo": "demonstration.safetensors"}


@contextmanager
def resolve_weights_file(name_or_file: str | Path) -> Iterator[Path]:
    """The file of a shipped model, or that file itself."""
    if str(name_or_file) not in SHIPPED_MODELS:
        yield Path(name_or_file)
        return
    shipped = resources.files("gliomark") / "models" / "shipped" / SHIPPED_MODELS[str(name_or_file)]
    with resources.as_file(shipped) as path:
        yield path
