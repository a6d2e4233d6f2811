"""Convert pickles of earlier versions with a restricted unpickler; every record is validated.

For each file, the records that a server stored are read as plain stand-in classes, and only numpy arrays beside them;
any other name in the pickle is refused without being imported. The records are then built by this version, validated
like all records on disk, written in the current format and read back; only then is the pickle deleted. An interrupted
conversion is repeated at the next start or when the study is next requested.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gliomark import prediction as prediction_records
from gliomark import study as study_records
from gliomark.errors import GliomarkError, InputError
from gliomark.files import FileWriteError
from gliomark.messages import Message, message
from gliomark.record_files import is_same_record, read_record, write_record
from gliomark.study import MRSequence

T = TypeVar("T")

# name in a pickle, where all of these belonged to ``gliomark.study``: the class of this version
_STUDY_RECORD_TYPES: Mapping[str, type] = {
    "Clinical": study_records.ClinicalData,
    "Contributions": prediction_records.Contributions,
    "Examination": study_records.Examination,
    "MarkerPrediction": prediction_records.MarkerPrediction,
    "ModelIdentity": prediction_records.ModelIdentity,
    "NiftiSpace": study_records.NiftiSpace,
    "Segmentation": study_records.Segmentation,
    "Series": study_records.Series,
    "SliceScore": prediction_records.SliceScore,
    "SliceStack": study_records.SliceStack,
    "SourceImage": study_records.SourceImage,
    "Study": study_records.Study,
}
_ALLOWED_RECORDS = {("gliomark.study", name) for name in _STUDY_RECORD_TYPES} | {
    ("gliomark.pipeline", "Prepared"),
    ("gliomark.found_outline", "FoundOutline"),
}
_ALLOWED_PATH_TYPES = {
    (room, name) for room in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")
}
_ALLOWED_NUMPY_FUNCTIONS = {
    (f"numpy.{core}.{room}", name)
    for core in ("core", "_core")
    for room, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}
_SUBSTITUTE_SEQUENCES = {MRSequence.FLAIR: MRSequence.T2, MRSequence.T2: MRSequence.FLAIR}


class _PickledRecord:
    """A record as it was pickled, with unchecked fields."""

    record_name: str


def has_pickle(folder: Path, name: str) -> bool:
    """Whether an earlier version stored this record as a pickle."""
    return _get_pickle_path(folder, name).is_file()


def convert_pickle(folder: Path, name: str, record_type: type[T]) -> None:
    """Convert a pickled record to the current format and delete the pickle.

    Raises
    ------
    InputError
        If the pickle is damaged or contains other types; it stays as it is.
    FileWriteError
        If the record cannot be written.
    """
    file = _get_pickle_path(folder, name)
    try:
        record = _rebuild_record(_load_pickle(file, folder), record_type)
        write_record(folder, name, record)
        if not is_same_record(record, read_record(folder, name, record_type)):
            raise ValueError("the converted record differs from the original")
    except FileNotFoundError:
        return  # another process has converted it
    except FileWriteError:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
    ) as error:
        raise _create_error(file, error) from None
    except (MemoryError, RecursionError, TypeError, ValueError, GliomarkError) as error:
        raise _create_error(file, error) from None
    file.unlink(missing_ok=True)


def _get_pickle_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pickle"


def _create_error(file: Path, error: BaseException) -> GliomarkError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(message("stored-older", file=file.name, reason=reason))


# ---- reading ------------------------------------------------------------------------------------------


def _load_pickle(file: Path, study_folder: Path) -> Any:
    constructors = _create_constructors(study_folder)

    class RestrictedUnpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in constructors:
                raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a study")
            return constructors[module, name]

    with file.open("rb") as content:
        return RestrictedUnpickler(content).load()


def _create_constructors(study_folder: Path) -> Mapping[tuple[str, str], Any]:
    """Return the constructors that a pickle may name; new ones for each file, since a pickle may modify them."""
    record_types = {
        (module_name, name): type(name, (_PickledRecord,), {"record_name": name})
        for module_name, name in _ALLOWED_RECORDS
    }
    paths = {key: lambda *parts: _relocate_path(Path(*parts), study_folder) for key in _ALLOWED_PATH_TYPES}
    sentence = {("gliomark.messages", "_restore"): lambda *args: _restore_message(*args)}
    sequence = {("gliomark.study", "MRSequence"): lambda value: MRSequence(value)}
    numpy = {(room, name): _create_numpy_constructor(name) for room, name in _ALLOWED_NUMPY_FUNCTIONS}
    types: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    return {**record_types, **paths, **sentence, **sequence, **numpy, **types}


def _create_numpy_constructor(name: str) -> Callable[..., Any]:
    """Return a numpy function wrapped in a new function, whose attributes a pickle may change without harm."""
    from numpy._core import multiarray, numeric

    numpy_function = getattr(numeric if name == "_frombuffer" else multiarray, name)
    return lambda *args: numpy_function(*args)


def _restore_message(code: str, parameters: Mapping[str, Any], text: str) -> str:
    """Restore a message; only its text if this version does not have its code."""
    try:
        return Message(code, parameters)
    except (LookupError, ValueError, TypeError, AttributeError):
        return str(text)


def _relocate_path(path: Path, study_folder: Path) -> Path:
    """Return the current path of a study's file: the data folder may have been moved or restored elsewhere."""
    parts, study_parts = path.parts, ("studies", study_folder.name)
    for index in range(len(parts) - 1):
        if parts[index : index + 2] == study_parts:
            return study_folder.joinpath(*parts[index + 2 :])
    return path


# ---- building records -----------------------------------------------------------------------------------


def _rebuild_record(value: Any, record_type: type | None = None) -> Any:
    """Build the record in a pickle; ``record_type`` is that of the outermost one.

    Fields missing in the older version get their defaults; fields that this version does not have are left out.
    """
    if isinstance(value, _PickledRecord):
        kinds = _list_record_types()
        if record_type is not None and kinds[value.record_name] is not record_type:
            raise TypeError(f"it contains a {value.record_name}")
        return _create_record(kinds[value.record_name], vars(value))
    if record_type is not None:
        if not isinstance(value, dict):
            raise TypeError(f"it contains a {type(value).__name__}")
        return _create_record(record_type, value)
    if isinstance(value, dict):
        return {_rebuild_record(name): _rebuild_record(part) for name, part in value.items()}
    return tuple(_rebuild_record(part) for part in value) if isinstance(value, list | tuple) else value


def _create_record(record_type: type, pickled_fields: Mapping[str, Any]) -> Any:
    pickled_fields = _RECORD_REPAIRS.get(record_type.__name__, dict)(pickled_fields)
    names_today = {
        part.metadata["stored_as"]: part.name for part in fields(record_type) if "stored_as" in part.metadata
    }
    pickled_fields = {names_today.get(name, name): value for name, value in pickled_fields.items()}
    known = {part.name: part for part in fields(record_type)}
    missing = [
        name
        for name, part in known.items()
        if name not in pickled_fields and part.default is MISSING and part.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{record_type.__name__} has no {missing[0]}")
    return record_type(
        **{name: _rebuild_record(part) for name, part in pickled_fields.items() if name in known}
    )


def _list_record_types() -> Mapping[str, type]:
    from gliomark.io.masks.supplied_masks import SuppliedMask
    from gliomark.pipeline import PreparedStudy

    return {**_STUDY_RECORD_TYPES, "Prepared": PreparedStudy, "FoundOutline": SuppliedMask}


def _repair_prepared_fields(pickled_fields: Mapping[str, Any]) -> dict[str, Any]:
    """Use the present sequence's own name for an image that was stored under the name of a missing sequence."""
    if "stand_ins" in pickled_fields:
        return dict(pickled_fields)
    series_by_sequence = vars(pickled_fields["study"])["series"]
    stack = vars(pickled_fields["stack"])
    unused_sequences = [name for name in series_by_sequence if name not in stack["images"]]
    stand_ins = {}
    for wanted in stack["images"]:
        if wanted not in series_by_sequence:
            preferred = _SUBSTITUTE_SEQUENCES.get(wanted)
            stand_ins[wanted] = preferred if preferred in unused_sequences else unused_sequences[0]
    for name in ("images", "to_stack"):
        stack[name] = {
            stand_ins.get(name_in_file, name_in_file): value
            for name_in_file, value in stack.get(name, {}).items()
        }
    return {**pickled_fields, "stand_ins": stand_ins}


def _repair_stack_fields(pickled_fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the brain coverage of versions that stored one number for all sequences."""
    return {
        name: part for name, part in pickled_fields.items() if name != "coverage" or isinstance(part, Mapping)
    }


_RECORD_REPAIRS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "PreparedStudy": _repair_prepared_fields,
    "SliceStack": _repair_stack_fields,
}
