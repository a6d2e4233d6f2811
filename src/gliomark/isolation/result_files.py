"""A result as files: a JSON record of the expected type, with its arrays; it is never executed or unpickled."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from gliomark.record_files import read_record, write_record

RESULT_NAME = "answer"
T = TypeVar("T")


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


def read_result(folder: Path, result_type: type[T]) -> T:
    """Read the value.

    Raises
    ------
    InputError
        If it is missing, damaged or of another type.
    """
    record_type = _create_record_type(cast("Hashable", result_type))
    value: T = read_record(folder, RESULT_NAME, record_type).value
    return value


@cache
def _create_record_type(result_type: Any) -> Any:
    # a function without a result still writes a record
    value_type = str | None if result_type is type(None) else result_type
    return make_dataclass("Answer", [("value", value_type)], frozen=True, eq=False)
