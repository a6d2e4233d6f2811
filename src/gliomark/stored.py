"""Records on disk: a dataclass as JSON with its arrays beside it, read back as the type that is expected.

::

    FOLDER/NAME.json               {"schema_version": 1, "arrays": "NAME.<sha256>.npz", "record": {...}}
    FOLDER/NAME.<sha256>.npz       its arrays 0.npy, 1.npy, ... as they are, masks deflated; only where it has any

The type is named by the reader, never by a file, and nothing read here can be executed. A message keeps its code and
parameters, an array its type and every bit. A path inside FOLDER is kept relative to it, so that FOLDER may be moved.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass
from enum import IntEnum, StrEnum
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_args, get_origin

import cattrs
import numpy as np
from cattrs.errors import ForbiddenExtraKeysError
from numpy.typing import NDArray

from gliomark.files import atomic_write, remove_leftovers
from gliomark.messages import Message, from_message_record, message, to_message_record
from gliomark.study import GliomarkError

SCHEMA_VERSION = 1
MAX_DEFLATE_RATIO = 1040  # deflate makes nothing smaller than to a 1032nd
MAX_READ_ATTEMPTS = 5  # a writer may replace a record's arrays between the reading of its two files
RELATIVE_PATH_KEY = "inside"  # marks a path that is kept relative to its record's folder
T = TypeVar("T")


def write_record(folder: Path, name: str, record: Any, *, is_durable: bool = True) -> None:
    """Write a dataclass as ``name`` into ``folder``, whole or not at all, in place of an earlier one; one writer at a
    time. durable: to outlast a power cut, for which the disk is waited for. Raises TypeError for a value that is not of
    its field's type, NotWrittenError where the disk is full."""
    with _use_conversion_context(folder) as context:
        plain_record = _CONVERTER.unstructure(record)
    arrays_file = None
    if context.arrays:
        packed_arrays = _pack_arrays(context.arrays)
        arrays_file = f"{name}.{hashlib.sha256(packed_arrays).hexdigest()[:16]}.npz"
        atomic_write(folder / arrays_file, packed_arrays, is_durable=is_durable)
    content = {"schema_version": SCHEMA_VERSION, "arrays": arrays_file, "record": plain_record}
    atomic_write(folder / f"{name}.json", json.dumps(content, allow_nan=False), is_durable=is_durable)
    _remove_stale_arrays(folder, name, arrays_file)
    remove_leftovers(folder)


def read_record(folder: Path, name: str, record_type: type[T]) -> T:
    """The record of ``write_record``, which must be a ``kind``. Raises GliomarkError where it is missing, damaged, of a
    newer version or something else."""
    missing_file = name
    for _ in range(MAX_READ_ATTEMPTS):
        try:
            return _read_record_files(folder, name, record_type)
        except FileNotFoundError as error:
            missing_file = Path(error.filename or name).name
    raise GliomarkError(message("stored-missing", file=missing_file))


def remove_record(folder: Path, name: str) -> None:
    """Both files, where they are."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    _remove_stale_arrays(folder, name, None)


def has_record(folder: Path, name: str) -> bool:
    """Whether one was written."""
    return (folder / f"{name}.json").is_file()


def is_same_record(one: Any, other: Any) -> bool:
    """Whether two records say the same, arrays to the bit; a message is as good as its text."""
    if is_dataclass(one):
        names = [part.name for part in fields(one)]
        is_same = type(one) is type(other)
        return is_same and all(is_same_record(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        is_same = type(one) is type(other) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return is_same and one.tobytes() == other.tobytes()
    if isinstance(one, Mapping):
        is_same = isinstance(other, Mapping) and list(one) == list(other)
        return is_same and all(is_same_record(part, other[name]) for name, part in one.items())
    if isinstance(one, list | tuple):
        is_same = isinstance(other, list | tuple) and len(one) == len(other)
        return is_same and all(map(is_same_record, one, other))
    return bool(one == other) or (one != one and other != other)


def _read_record_files(folder: Path, name: str, record_type: type[T]) -> T:
    file = f"{name}.json"
    try:
        content = json.loads((folder / file).read_bytes())
        version = content["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise GliomarkError(message("stored-newer", file=file))
        if version != SCHEMA_VERSION or content.keys() != {"schema_version", "arrays", "record"}:
            raise ValueError(f"schema_version {version}")
        arrays = _read_arrays(folder, name, content["arrays"])
        with _use_conversion_context(folder, arrays):
            return _CONVERTER.structure(content["record"], record_type)
    except FileNotFoundError:
        raise
    except cattrs.BaseValidationError as error:
        raise _create_damaged_error(file, "; ".join(cattrs.transform_error(error)[:1])) from None
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        ForbiddenExtraKeysError,
    ) as error:
        raise _create_damaged_error(file, str(error)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise _create_damaged_error(file, str(error)) from None


def _create_damaged_error(file: str, reason: str) -> GliomarkError:
    return GliomarkError(message("stored-damaged", file=file, reason=" ".join(reason.split())[:200]))


# ---- files --------------------------------------------------------------------------------------------


def _remove_stale_arrays(folder: Path, name: str, kept_file: str | None) -> None:
    """Arrays of earlier records of this name."""
    stale = re.compile(re.escape(name) + r"\.[0-9a-f]{16}\.npz")
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != kept_file and stale.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _pack_arrays(arrays: list[NDArray[Any]]) -> memoryview:
    """As npz, the same bytes for the same arrays."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, array in enumerate(arrays):
            entry = zipfile.ZipInfo(f"{number}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED if array.dtype == np.bool_ else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return buffer.getbuffer()


def _read_arrays(folder: Path, name: str, file: Any) -> list[NDArray[Any]]:
    """Raises FileNotFoundError where it is gone, ValueError and the like where it is damaged."""
    if file is None:
        return []
    if not isinstance(file, str) or not re.fullmatch(re.escape(name) + r"\.[0-9a-f]{16}\.npz", file):
        raise ValueError(f"arrays in {file!r}")
    with zipfile.ZipFile(folder / file) as archive:
        size = (folder / file).stat().st_size
        return [_read_array(archive, f"{number}.npy", size) for number in range(len(archive.infolist()))]


def _read_array(archive: zipfile.ZipFile, name: str, file_size: int) -> NDArray[Any]:
    """Sizes are checked before anything is made room for. size: of the whole file, in bytes."""
    entry = archive.getinfo(name)
    compressed_size = entry.compress_size
    max_size = (
        compressed_size if entry.compress_type == zipfile.ZIP_STORED else compressed_size * MAX_DEFLATE_RATIO
    )
    if compressed_size > file_size or entry.file_size > max_size:
        raise ValueError(f"{name} claims {entry.file_size} bytes in {compressed_size}")
    with archive.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} has no header that is known")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{name} claims the shape {shape}")
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


# ---- between records and plain data ---------------------------------------------------------------------


@dataclass
class _ConversionContext:
    """What a record being written or read needs besides its plain data: its folder and its arrays, each once."""

    folder: Path
    arrays: list[NDArray[Any]]
    number_by_array_id: dict[int, int] = field(default_factory=dict)


_CONVERSION_CONTEXT: ContextVar[_ConversionContext] = ContextVar("parts")


@contextmanager
def _use_conversion_context(
    folder: Path, arrays: list[NDArray[Any]] | None = None
) -> Iterator[_ConversionContext]:
    parts = _ConversionContext(folder, [] if arrays is None else arrays)
    token = _CONVERSION_CONTEXT.set(parts)
    try:
        yield parts
    finally:
        _CONVERSION_CONTEXT.reset(token)


def _is_array_type(type_hint: Any) -> bool:
    return type_hint is np.ndarray or get_origin(type_hint) is np.ndarray


def _check_array(array: Any, type_hint: Any) -> NDArray[Any]:
    """Masks are bool and images numbers, of whatever width."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        raise TypeError(f"an array of numbers is expected, not {type(array).__name__}")
    expected_scalar = next(iter(get_args(next(iter(get_args(type_hint)[1:]), None))), None)
    if expected_scalar is np.bool_ and array.dtype.kind != "b":
        raise TypeError(f"an array of bool is expected, not of {array.dtype}")
    return array


def _create_array_hook(type_hint: Any) -> Any:
    def store_array(value: Any) -> int:
        parts = _CONVERSION_CONTEXT.get()
        if id(value) not in parts.number_by_array_id:
            parts.arrays.append(_check_array(value, type_hint))
            parts.number_by_array_id[id(value)] = len(parts.arrays) - 1
        return parts.number_by_array_id[id(value)]

    return store_array


def _array_from_plain(value: Any, kind: Any) -> NDArray[Any]:
    arrays = _CONVERSION_CONTEXT.get().arrays
    if type(value) is not int or not 0 <= value < len(arrays):
        raise TypeError(f"{value!r} is the number of no array")
    return _check_array(arrays[value], kind)


def _text_to_plain(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {type(value).__name__}")
    return to_message_record(value) if isinstance(value, Message) else str(value)


def _text_from_plain(value: Any, _: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return from_message_record(value)
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _float_to_plain(value: Any) -> Any:
    """What JSON has no number for is written as a word; a whole number stays one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"a number is expected, not {type(value).__name__}")
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else repr(float(value))


def _float_from_plain(value: Any, _: Any) -> float:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is no number")
    number: float = value
    return number


def _integer_to_plain(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"a whole number is expected, not {type(value).__name__}")
    return int(value)


def _integer_from_plain(value: Any, _: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _boolean_to_plain(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"yes or no is expected, not {type(value).__name__}")
    return bool(value)


def _boolean_from_plain(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _path_to_plain(value: Any) -> Any:
    if not isinstance(value, PurePath):
        raise TypeError(f"a path is expected, not {type(value).__name__}")
    folder = _CONVERSION_CONTEXT.get().folder
    return (
        {RELATIVE_PATH_KEY: value.relative_to(folder).as_posix()}
        if value.is_relative_to(folder)
        else str(value)
    )


def _path_from_plain(value: Any, _: Any) -> Path:
    if isinstance(value, str):
        return Path(value)
    relative_path = PurePath(value[RELATIVE_PATH_KEY])
    if relative_path.is_absolute() or ".." in relative_path.parts:
        raise ValueError(f"{value!r} leads out of the folder")
    return _CONVERSION_CONTEXT.get().folder / relative_path


def _create_converter() -> cattrs.Converter:
    """Every type by hand that cattrs would otherwise convert into rather than check."""
    converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={frozenset: list})
    for kind, to_plain, from_plain in (
        (str, _text_to_plain, _text_from_plain),
        (float, _float_to_plain, _float_from_plain),
        (int, _integer_to_plain, _integer_from_plain),
        (bool, _boolean_to_plain, _boolean_from_plain),
        (Path, _path_to_plain, _path_from_plain),
    ):
        converter.register_unstructure_hook(kind, to_plain)
        converter.register_structure_hook(kind, from_plain)
    for named in (StrEnum, IntEnum):  # else taken for the texts and numbers that they are as well
        converter.register_unstructure_hook(named, lambda value: value.value)
        converter.register_structure_hook(named, lambda value, kind: kind(value))
    converter.register_unstructure_hook_factory(_is_array_type, _create_array_hook)
    converter.register_structure_hook_func(_is_array_type, _array_from_plain)
    return converter


_CONVERTER = _create_converter()
