"""Paths of the shipped weights files by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from gliomark.errors import WeightsError
from gliomark.messages import message

SHIPPED_MODELS = {"demo": "demonstration.safetensors", "synthetic": "synthetic.safetensors"}


@contextmanager
def resolve_weights_file(name_or_file: str | Path) -> Iterator[Path]:
    """Yield the path of a shipped model's weights file, or the given path if it is not the name of one.

    Raises
    ------
    WeightsError
        If there is no such file and the name resembles that of a shipped model.
    """
    if str(name_or_file) not in SHIPPED_MODELS:
        path = Path(name_or_file)
        closest = get_close_matches(str(name_or_file).lower(), SHIPPED_MODELS, n=1)
        if closest and not path.exists():
            raise WeightsError(message("model-mistyped", name=str(name_or_file), closest=closest[0]))
        yield path
        return
    shipped = resources.files("gliomark") / "models" / "shipped" / SHIPPED_MODELS[str(name_or_file)]
    with resources.as_file(shipped) as path:
        yield path
