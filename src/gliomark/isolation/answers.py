"""An answer as files: a record (``stored``) of the type that was promised; nothing in it is run or unpickled."""

from __future__ import annotations

from dataclasses import make_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gliomark.stored import read_record, write_record

RESULT_NAME = "answer"


def write_result(folder: Path, value: Any, result_type: Any) -> None:
    """Write a value of type ``kind``, a class or a type hint. Raises TypeError where it is of another."""
    write_record(folder, RESULT_NAME, _create_record_type(result_type)(value), is_durable=False)


def read_result(folder: Path, result_type: Any) -> Any:
    """The value. Raises GliomarkError where it is damaged or not of that type."""
    return read_record(folder, RESULT_NAME, _create_record_type(result_type)).value


@cache
def _create_record_type(result_type: Any) -> Any:
    value_type = (
        str | None if result_type is type(None) else result_type
    )  # what answers nothing still says that it ended well
    return make_dataclass("Answer", [("value", value_type)], frozen=True, eq=False)
