"""A result as files: a JSON record of the expected type, with its arrays; it is never executed or unpickled."""

from __future__ import annotations

from dataclasses import make_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gliomark.record_files import read_record, write_record

RESULT_NAME = "answer"


def write_result(folder: Path, value: Any, result_type: Any) -> None:
    """Write a value of the type ``result_type``, a class or a type hint.

    Raises
    ------
    TypeError
        If the value is of another type.
    FileWriteError
        If it cannot be written.
    """
    write_record(folder, RESULT_NAME, _create_record_type(result_type)(value), is_durable=False)


def read_result(folder: Path, result_type: Any) -> Any:
    """Read the value.

    Raises
    ------
    InputError
        If it is missing, damaged or of another type.
    """
    return read_record(folder, RESULT_NAME, _create_record_type(result_type)).value


@cache
def _create_record_type(result_type: Any) -> Any:
    value_type = (
        str | None if result_type is type(None) else result_type
    )  # a function without a result still writes a record
    return make_dataclass("Answer", [("value", value_type)], frozen=True, eq=False)
