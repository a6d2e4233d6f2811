"""An answer as files: JSON for its structure, one npy file for each array, read back by the type that was promised.

Nothing in it is ever run or unpickled; what does not have the promised type is refused.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from gliomark.messages import Message, from_record, to_record

STRUCTURE = "answer.json"
MOST_STRUCTURE_BYTES = 256 << 20
_PLAIN = (bool, int, float, str)


class AnswerError(Exception):
    """An answer that is not of the promised type."""


def write_answer(folder: Path, value: Any) -> None:
    """Write a value made of dataclasses, arrays, mappings, sequences, paths, enumerations, messages and plain data."""
    arrays: list[NDArray[Any]] = []
    structure = json.dumps(_encode(value, arrays))
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array, allow_pickle=False)
    (folder / STRUCTURE).write_text(structure, "utf-8")


def read_answer(folder: Path, kind: Any) -> Any:
    """The value, of type ``kind`` (a class or a type hint). Raises AnswerError for anything else."""
    path = folder / STRUCTURE
    try:
        if path.stat().st_size > MOST_STRUCTURE_BYTES:
            raise AnswerError("too long")
        return _decode(kind, json.loads(path.read_text("utf-8")), folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise AnswerError(f"{type(error).__name__}: {error}") from None


def _encode(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return len(arrays) - 1
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Message):
        return to_record(value)
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, _PLAIN):
        return str(value) if isinstance(value, str) else value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _encode(getattr(value, field.name), arrays) for field in fields(value)}
    if isinstance(value, Mapping):
        return [[_encode(key, arrays), _encode(one, arrays)] for key, one in value.items()]
    if isinstance(value, Sequence | set | frozenset):
        return [_encode(one, arrays) for one in value]
    return str(value)  # a path


def _decode(kind: Any, data: Any, folder: Path) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        return _decode_one_of(arguments, data, folder)
    if origin is Literal:
        return _checked(data, data in arguments)
    if origin is np.ndarray:
        return _array(data, arguments, folder)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return tuple(_decode(one, part, folder) for one, part in zip(arguments, data, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, one = arguments
        return {_decode(key, name, folder): _decode(one, part, folder) for name, part in data}
    if isinstance(origin, type) and issubclass(origin, Sequence | frozenset):
        made = origin if origin in (list, tuple, frozenset) else tuple
        return made(_decode(arguments[0], part, folder) for part in _checked(data, isinstance(data, list)))
    return _decode_class(kind, data, folder)


def _decode_class(kind: Any, data: Any, folder: Path) -> Any:
    if kind is type(None):
        return _checked(data, data is None)
    if is_dataclass(kind):
        hints = _hints(kind)
        _checked(data, isinstance(data, dict) and data.keys() == hints.keys())
        return kind(**{name: _decode(hint, data[name], folder) for name, hint in hints.items()})
    if kind is str and isinstance(data, dict):
        return from_record(data)
    if kind is float:
        return float(_checked(data, isinstance(data, int | float)))
    if kind in _PLAIN:
        return _checked(data, type(data) is kind)
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind(_checked(data, isinstance(data, str | int)))
    if kind is dict or get_origin(kind) is dict:
        return dict(data)
    raise AnswerError(f"no answer has the type {kind}")


def _decode_one_of(kinds: Sequence[Any], data: Any, folder: Path) -> Any:
    for kind in kinds:
        try:
            return _decode(kind, data, folder)
        except (AnswerError, ValueError, TypeError, KeyError, AttributeError):
            continue
    raise AnswerError("none of the promised types")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _array(data: Any, arguments: tuple[Any, ...], folder: Path) -> NDArray[Any]:
    """Of the promised kind of numbers where one is promised; ``NDArray`` names it as its second argument."""
    number = _checked(data, type(data) is int and data >= 0)
    array: NDArray[Any] = np.load(folder / f"{number}.npy", allow_pickle=False)
    promised = get_args(arguments[1])[0]
    return _checked(array, isinstance(promised, type) and issubclass(array.dtype.type, promised))


def _checked(value: Any, is_right: bool) -> Any:
    if not is_right:
        raise AnswerError("another type than promised")
    return value
