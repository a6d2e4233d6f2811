"""What earlier versions kept as pickles, taken over: the only place where one is read, and none is believed.

A pickle may name what it wants to be made of. Here it gets plain stand-ins, made anew for every file, for exactly the
records that a server kept, besides numpy's arrays; whatever else it names is refused and not looked up. The records are
then put together by this version, checked as all records on disk are, written in today's form and read back; only then
the old file goes. Interrupted, it is done again at the next start or where somebody asks for the study.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gliomark import study as records_of_study
from gliomark.files import NotWrittenError
from gliomark.messages import Message, message
from gliomark.stored import read_record, same_record, write_record
from gliomark.study import GliomarkError, MRSequence, Study

if TYPE_CHECKING:
    from gliomark.server.records import Records
    from gliomark.server.store import Store

LOG = logging.getLogger("gliomark.server")
T = TypeVar("T")

_STUDY = (
    "Clinical", "Contributions", "Examination", "MarkerPrediction", "ModelIdentity", "NiftiSpace", "Segmentation",
    "Series", "SliceScore", "SliceStack", "SourceImage", "Study",
)  # fmt: skip
_RECORDS = {("gliomark.study", name) for name in _STUDY} | {
    ("gliomark.pipeline", "Prepared"),
    ("gliomark.found_outline", "FoundOutline"),
}
_PATHS = {(room, name) for room in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")}
_NUMPY = {
    (f"numpy.{core}.{room}", name)
    for core in ("core", "_core")
    for room, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}
_SHOWN_INSTEAD = {MRSequence.FLAIR: MRSequence.T2, MRSequence.T2: MRSequence.FLAIR}


class _Kept:
    """A record as it was pickled: its fields are what the file says."""

    record: str


def is_kept(folder: Path, name: str) -> bool:
    """Whether an earlier version kept this."""
    return _file(folder, name).is_file()


def take_over(folder: Path, name: str, kind: type[T]) -> None:
    """Write a pickled record in today's form and remove the pickle. Raises GliomarkError, the pickle staying as it is,
    where it is damaged or asks for anything but what a server kept."""
    file = _file(folder, name)
    try:
        record = _rebuild(_unpickle(file, folder), kind)
        write_record(folder, name, record)
        if not same_record(record, read_record(folder, name, kind)):
            raise ValueError("it did not come back the same")
    except FileNotFoundError:
        return  # another process was faster
    except NotWrittenError:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
    ) as error:
        raise _refusal(file, error) from None
    except (MemoryError, RecursionError, TypeError, ValueError, GliomarkError) as error:
        raise _refusal(file, error) from None
    file.unlink(missing_ok=True)


def take_over_all(store: Store, records: Records) -> None:
    """Everything that lies in the data folder in an earlier version's form. What cannot be taken over stays, is logged,
    and is said again to who asks for it."""
    done = 0
    for folder in sorted(store.folder.glob("studies/*")):
        done += _take_over_study(folder) + _take_over_correction(store, records, folder)
    if done:
        records.log("server", "older data taken over", "", files=done)


def _take_over_study(folder: Path) -> int:
    """How many of its records were taken over."""
    wanted = [(folder, "study"), (folder, "prepared")]
    wanted += [(job, "prediction") for job in sorted(folder.glob("predictions/*"))]
    done = 0
    for place, name in wanted:
        if is_kept(place, name):
            try:
                take_over(place, name, _outermost(name))
                done += 1
            except (GliomarkError, OSError) as error:
                LOG.error("study %s: %s", folder.name, error)
    return done


def _outermost(name: str) -> type:
    from gliomark.pipeline import Prepared
    from gliomark.server.store import KeptPrediction

    kinds: dict[str, type] = {"study": Study, "prepared": Prepared, "prediction": KeptPrediction}
    return kinds[name]


def _take_over_correction(store: Store, records: Records, folder: Path) -> bool:
    """The very first version kept one outline of the doctor's, by no hash."""
    file = folder / "corrected.png"
    study = records.study(folder.name) if file.is_file() else None
    if study is None:
        return False
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    kept = store.correction(folder.name, sha256)
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(content)
    if not study.correction:
        records.correct(folder.name, sha256, "server")
    file.unlink()
    return True


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pickle"


def _refusal(file: Path, error: BaseException) -> GliomarkError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return GliomarkError(message("stored-older", file=file.name, reason=reason))


# ---- reading ------------------------------------------------------------------------------------------


def _unpickle(file: Path, folder: Path) -> Any:
    made = _makers(folder)

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in made:
                raise pickle.UnpicklingError(f"{module}.{name} has no place in a study")
            return made[module, name]

    with file.open("rb") as content:
        return Restricted(content).load()


def _makers(folder: Path) -> Mapping[tuple[str, str], Any]:
    """What a pickle may name; made for one file, so that it can spoil nothing that others use."""
    kept = {(room, name): type(name, (_Kept,), {"record": name}) for room, name in _RECORDS}
    paths = {named: lambda *parts: _moved(Path(*parts), folder) for named in _PATHS}
    sentence = {("gliomark.messages", "_restore"): lambda *told: _sentence(*told)}
    sequence = {("gliomark.study", "MRSequence"): lambda value: MRSequence(value)}
    numpy = {(room, name): _numpy_maker(name) for room, name in _NUMPY}
    types: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    return {**kept, **paths, **sentence, **sequence, **numpy, **types}


def _numpy_maker(name: str) -> Callable[..., Any]:
    """numpy's own, behind a function that a pickle may change as it likes."""
    from numpy._core import multiarray, numeric

    own = getattr(numeric if name == "_frombuffer" else multiarray, name)
    return lambda *told: own(*told)


def _sentence(code: str, parameters: Mapping[str, Any], text: str) -> str:
    """As ``messages`` restores one: its text alone where this version cannot say it."""
    try:
        return Message(code, parameters)
    except (LookupError, ValueError, TypeError, AttributeError):
        return str(text)


def _moved(path: Path, folder: Path) -> Path:
    """A file of the study where it lies now: the data folder may have been moved or restored elsewhere."""
    parts, here = path.parts, ("studies", folder.name)
    for at in range(len(parts) - 1):
        if parts[at : at + 2] == here:
            return folder.joinpath(*parts[at + 2 :])
    return path


# ---- putting together -----------------------------------------------------------------------------------


def _rebuild(value: Any, kind: type | None = None) -> Any:
    """The record that a pickle holds; kind: of the outermost. A field that the version before did not have takes its
    default, one that this version does not have is left out."""
    if isinstance(value, _Kept):
        kinds = _kinds()
        if kind is not None and kinds[value.record] is not kind:
            raise TypeError(f"it holds a {value.record}")
        return _make(kinds[value.record], vars(value))
    if kind is not None:
        if not isinstance(value, dict):
            raise TypeError(f"it holds a {type(value).__name__}")
        return _make(kind, value)
    if isinstance(value, dict):
        return {_rebuild(name): _rebuild(part) for name, part in value.items()}
    return tuple(_rebuild(part) for part in value) if isinstance(value, list | tuple) else value


def _make(kind: type, state: Mapping[str, Any]) -> Any:
    state = _REPAIRS.get(kind.__name__, dict)(state)
    known = {part.name: part for part in fields(kind)}
    missing = [
        name
        for name, part in known.items()
        if name not in state and part.default is MISSING and part.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {missing[0]}")
    return kind(**{name: _rebuild(part) for name, part in state.items() if name in known})


def _kinds() -> Mapping[str, type]:
    from gliomark.found_outline import FoundOutline
    from gliomark.pipeline import Prepared

    own: dict[str, type] = {name: getattr(records_of_study, name) for name in _STUDY}
    return own | {"Prepared": Prepared, "FoundOutline": FoundOutline}


def _repair_prepared(state: Mapping[str, Any]) -> dict[str, Any]:
    """Once an image that stood in for a missing one was filed under the missing one's name."""
    if "stand_ins" in state:
        return dict(state)
    there = vars(state["study"])["series"]
    stack = vars(state["stack"])
    others = [name for name in there if name not in stack["images"]]
    stand_ins = {}
    for wanted in stack["images"]:
        if wanted not in there:
            usual = _SHOWN_INSTEAD.get(wanted)
            stand_ins[wanted] = usual if usual in others else others[0]
    for name in ("images", "to_stack"):
        stack[name] = {stand_ins.get(of, of): part for of, part in stack.get(name, {}).items()}
    return {**state, "stand_ins": stand_ins}


def _repair_stack(state: Mapping[str, Any]) -> dict[str, Any]:
    """For a while the share of the brain was one number for all sequences."""
    return {name: part for name, part in state.items() if name != "coverage" or isinstance(part, Mapping)}


_REPAIRS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "Prepared": _repair_prepared,
    "SliceStack": _repair_stack,
}
