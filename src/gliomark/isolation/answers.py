"""An answer as files: a record (``stored``) of the type that was promised; nothing in it is run or unpickled."""

from __future__ import annotations

from dataclasses import make_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gliomark.stored import read_record, write_record

NAME = "answer"


def write_answer(folder: Path, value: Any, kind: Any) -> None:
    """Write a value of type ``kind``, a class or a type hint. Raises TypeError where it is of another."""
    write_record(folder, NAME, _record(kind)(value), durable=False)


def read_answer(folder: Path, kind: Any) -> Any:
    """The value. Raises GliomarkError where it is damaged or not of that type."""
    return read_record(folder, NAME, _record(kind)).value


@cache
def _record(kind: Any) -> Any:
    value = str | None if kind is type(None) else kind  # what answers nothing still says that it ended well
    return make_dataclass("Answer", [("value", value)], frozen=True, eq=False)
