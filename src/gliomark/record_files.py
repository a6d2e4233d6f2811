"""Write dataclasses as JSON files with their arrays, and read them as the expected type.

::

    FOLDER/NAME.json               {"schema_version": 1, "arrays": "NAME.<sha256>.npz", "record": {...}}
    FOLDER/NAME.<sha256>.npz       its arrays 0.npy, 1.npy, ..., masks compressed; only if it has arrays

The caller of ``read_record`` determines the type, never a file, and nothing that is read can be executed. Messages keep
their code and parameters, arrays their type and exact values. A path inside FOLDER is stored relative to it, so that
FOLDER can be moved.
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
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from numpy.typing import NDArray

from gliomark.errors import GliomarkError, InputError
from gliomark.files import atomic_write, remove_leftovers
from gliomark.messages import Message, from_message_record, message, to_message_record

SCHEMA_VERSION = 1
MAX_DEFLATE_RATIO = 1040  # deflate compresses by at most 1032 : 1
MAX_READ_ATTEMPTS = 5  # a writer may replace the arrays between reading the two files
RELATIVE_PATH_KEY = "inside"  # marks a path relative to the record's folder
T = TypeVar("T")


def write_record(folder: Path, name: str, record: Any, *, is_durable: bool = True) -> None:
    """Write a dataclass as ``name`` into ``folder`` atomically, replacing an earlier one; one writer at a time.

    Parameters
    ----------
    folder
        Created if it does not exist.
    name
        File name without suffix.
    record
        A dataclass instance.
    is_durable
        Whether the record survives a power failure once this returns; slower.

    Raises
    ------
    TypeError
        If a value is not of its field's type.
    FileWriteError
        If it cannot be written, for example because the disk is full.
    """
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
    """Read a record of ``write_record`` as ``record_type``.

    Raises
    ------
    InputError
        If it is missing, damaged, of a newer version or of another type.
    """
    missing_file = name
    for _ in range(MAX_READ_ATTEMPTS):
        try:
            return _read_record_files(folder, name, record_type)
        except FileNotFoundError as error:
            missing_file = Path(error.filename or name).name
    raise InputError(message("stored-missing", file=missing_file))


def remove_record(folder: Path, name: str) -> None:
    """Remove the files of a record if they exist."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    _remove_stale_arrays(folder, name, None)


def has_record(folder: Path, name: str) -> bool:
    """Whether a record of this name exists."""
    return (folder / f"{name}.json").is_file()


def is_same_record(one: Any, other: Any) -> bool:
    """Whether two records are equal, arrays bit by bit; a message equals its text."""
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
            raise InputError(message("stored-newer", file=file))
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
    return InputError(message("stored-damaged", file=file, reason=" ".join(reason.split())[:200]))


# ---- files --------------------------------------------------------------------------------------------


def _remove_stale_arrays(folder: Path, name: str, kept_file: str | None) -> None:
    """Remove the arrays of earlier records of this name."""
    stale = re.compile(re.escape(name) + r"\.[0-9a-f]{16}\.npz")
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != kept_file and stale.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _pack_arrays(arrays: list[NDArray[Any]]) -> memoryview:
    """Pack arrays as npz; equal arrays give equal bytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, array in enumerate(arrays):
            entry = zipfile.ZipInfo(f"{number}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED if array.dtype == np.bool_ else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return buffer.getbuffer()


def _read_arrays(folder: Path, name: str, file: Any) -> list[NDArray[Any]]:
    """Read the arrays; raise FileNotFoundError if the file is missing, ValueError or similar if it is damaged."""
    if file is None:
        return []
    if not isinstance(file, str) or not re.fullmatch(re.escape(name) + r"\.[0-9a-f]{16}\.npz", file):
        raise ValueError(f"unexpected array file {file!r}")
    with zipfile.ZipFile(folder / file) as archive:
        size = (folder / file).stat().st_size
        return [_read_array(archive, f"{number}.npy", size) for number in range(len(archive.infolist()))]


def _read_array(archive: zipfile.ZipFile, name: str, file_size: int) -> NDArray[Any]:
    """Read an array; sizes are checked before memory is allocated. file_size: of the whole file in bytes."""
    entry = archive.getinfo(name)
    compressed_size = entry.compress_size
    max_size = (
        compressed_size if entry.compress_type == zipfile.ZIP_STORED else compressed_size * MAX_DEFLATE_RATIO
    )
    if compressed_size > file_size or entry.file_size > max_size:
        raise ValueError(f"{name} states {entry.file_size} bytes in {compressed_size}")
    with archive.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} has an unknown header")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{name} states the wrong shape {shape}")
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


# ---- conversion between records and plain data ----------------------------------------------------------


@dataclass
class _ConversionContext:
    """Context of a record being written or read: its folder and its arrays, each stored once."""

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
    """Check that masks are bool and images numeric, of any width."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        raise TypeError(f"expected an array of numbers, not {type(array).__name__}")
    expected_scalar = next(iter(get_args(next(iter(get_args(type_hint)[1:]), None))), None)
    if expected_scalar is np.bool_ and array.dtype.kind != "b":
        raise TypeError(f"expected an array of bool, not of {array.dtype}")
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
        raise TypeError(f"there is no array {value!r}")
    return _check_array(arrays[value], kind)


def _text_to_plain(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, not {type(value).__name__}")
    return to_message_record(value) if isinstance(value, Message) else str(value)


def _text_from_plain(value: Any, _: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return from_message_record(value)
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _float_to_plain(value: Any) -> Any:
    """Convert a float: non-finite values become words, because JSON has none; integers stay integers."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"expected a number, not {type(value).__name__}")
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else repr(float(value))


def _float_from_plain(value: Any, _: Any) -> float:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    number: float = value
    return number


def _integer_to_plain(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"expected an integer, not {type(value).__name__}")
    return int(value)


def _integer_from_plain(value: Any, _: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def _boolean_to_plain(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"expected true or false, not {type(value).__name__}")
    return bool(value)


def _boolean_from_plain(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _path_to_plain(value: Any) -> Any:
    if not isinstance(value, PurePath):
        raise TypeError(f"expected a path, not {type(value).__name__}")
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
        raise ValueError(f"{value!r} is outside the folder")
    return _CONVERSION_CONTEXT.get().folder / relative_path


def _has_stored_names(kind: Any) -> bool:
    """Whether a dataclass has fields that keep the name of an earlier version on disk (metadata ``stored_as``)."""
    return is_dataclass(kind) and any("stored_as" in part.metadata for part in fields(kind))


def _list_stored_names(kind: Any) -> dict[str, Any]:
    return {
        part.name: override(rename=part.metadata["stored_as"])
        for part in fields(kind)
        if "stored_as" in part.metadata
    }


def _create_converter() -> cattrs.Converter:
    """Create the converter, with own hooks for types that cattrs would convert instead of check."""
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
    for named in (StrEnum, IntEnum):  # otherwise treated as plain str and int
        converter.register_unstructure_hook(named, lambda value: value.value)
        converter.register_structure_hook(named, lambda value, kind: kind(value))
    converter.register_unstructure_hook_factory(
        _has_stored_names, lambda kind: make_dict_unstructure_fn(kind, converter, **_list_stored_names(kind))
    )
    converter.register_structure_hook_factory(
        _has_stored_names,
        lambda kind: make_dict_structure_fn(
            kind, converter, _cattrs_forbid_extra_keys=True, **_list_stored_names(kind)
        ),
    )
    converter.register_unstructure_hook_factory(_is_array_type, _create_array_hook)
    converter.register_structure_hook_func(_is_array_type, _array_from_plain)
    return converter


_CONVERTER = _create_converter()
