"""Pickles of earlier versions: stored records are converted; everything else is refused and not executed."""

from __future__ import annotations

import builtins
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.pipeline.conftest import PATIENT
from tests.server.test_run import start_server
from tests.test_stored import check_same, create_study

from gliomark import messages
from gliomark.errors import GliomarkError
from gliomark.io.masks.supplied_masks import SuppliedMask
from gliomark.messages import message
from gliomark.pipeline import PreparedStudy
from gliomark.prediction import Contributions, MarkerPrediction, ModelIdentity, Prediction, SliceScore
from gliomark.record_files import has_record
from gliomark.server import legacy_data, legacy_records
from gliomark.server.run import open_database
from gliomark.server.study_store import StudyStore
from gliomark.study import ClinicalData, MRSequence, Segmentation, SliceStack, SourceImage, Study

T1C, T2, FLAIR = MRSequence.T1C, MRSequence.T2, MRSequence.FLAIR


def create_prepared(folder: Path) -> PreparedStudy:
    study = create_study(folder)
    image = study.series[T1C].image
    outline = image > 1
    stack = SliceStack(
        PATIENT, {T1C: image, FLAIR: image + 1}, image > 0, np.eye(4), ("1", "2", "3"), (0, 2), outline,
        (message("mask-not-used", file="m.nii"),), {T1C: np.eye(4)}, {T1C: 1.0, FLAIR: 0.5}, None, ("!",),
    )  # fmt: skip
    return PreparedStudy(study, stack, {}, 1.5, SuppliedMask("m.nii", outline))


def create_prediction(prepared: PreparedStudy) -> Prediction:
    score = SliceScore("2", np.float64(310.0), float(np.float32(0.7)), True)
    marker = MarkerPrediction(
        "idh", "IDH", 0.71, message("level-mutant"), "标签", "near", 0.5, "model", (score,), "0.8",
        contributions=Contributions(-0.1, 0.4, None, 0.2),
    )  # fmt: skip
    probability = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    return Prediction(
        PATIENT, ClinicalData(PATIENT, 50, 0, {"ki67": "10"}), prepared.study, prepared.stack,
        Segmentation(probability, probability > 0.5, message("outline-by-reader")), 1.25, {"2": 310.0}, (marker,), (),
        ModelIdentity("demo", "f" * 64, ("T1C", "FLAIR"), "x", "CC0", "research"), "0.1.0", 2.0,
    )  # fmt: skip


@contextmanager
def legacy_names() -> Iterator[None]:
    """Give classes and functions the names, modules and fields that the earlier version pickled."""
    renamed = [
        (messages._rebuild_message, "gliomark.messages", "_restore"),
        (ClinicalData, "gliomark.study", "Clinical"),
        (PreparedStudy, "gliomark.pipeline", "Prepared"),
        (SuppliedMask, "gliomark.found_outline", "FoundOutline"),
        *(
            (one, "gliomark.study", one.__name__)
            for one in (Contributions, MarkerPrediction, ModelIdentity, SliceScore)
        ),
    ]
    own_names = [(one.__module__, one.__qualname__) for one, *_ in renamed]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SourceImage, "__getstate__", get_legacy_state, raising=False)
        patched.setattr(PreparedStudy, "__getstate__", drop_config, raising=False)
        for one, module, name in renamed:
            patched.setitem(sys.modules, module, sys.modules.get(module) or ModuleType(module))
            patched.setattr(sys.modules[module], name, one, raising=False)
            one.__module__, one.__qualname__ = module, name
        try:
            yield
        finally:
            for (one, *_), own in zip(renamed, own_names, strict=True):
                one.__module__, one.__qualname__ = own


def get_legacy_state(image: SourceImage) -> dict[str, Any]:
    return {"place" if name == "fractional_index" else name: value for name, value in vars(image).items()}


def drop_config(prepared: PreparedStudy) -> dict[str, Any]:
    return {name: value for name, value in vars(prepared).items() if name != "config"}


def pickle_legacy_record(record: Any, protocol: int = 5) -> bytes:
    """Store records as the previous version did: study and prepared study completely, a prediction's own fields
    only."""
    with legacy_names():
        return pickle_record(record, protocol)


def pickle_record(record: Any, protocol: int) -> bytes:
    if isinstance(record, Prediction):
        own = {
            name: part for name, part in vars(record).items() if name not in ("study", "stack", "known_range")
        }
        own["markers"] = tuple(record.markers)
        return pickle.dumps(own, protocol=protocol)
    return pickle.dumps(record, protocol=protocol)


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    store = StudyStore.from_folder(tmp_path / "data")
    (store.get_study_folder("s") / "predictions" / "j").mkdir(parents=True)
    return store


def write_legacy_records(store: StudyStore, prepared: PreparedStudy, protocol: int = 5) -> None:
    folder = store.get_study_folder("s")
    (folder / "study.pickle").write_bytes(pickle_legacy_record(prepared.study, protocol))
    (folder / "prepared.pickle").write_bytes(pickle_legacy_record(prepared, protocol))
    (store.get_prediction_folder("s", "j") / "prediction.pickle").write_bytes(
        pickle_legacy_record(create_prediction(prepared), protocol)
    )


@pytest.mark.parametrize("protocol", [4, 5])
def test_legacy_records_are_converted_unchanged(store: StudyStore, protocol: int) -> None:
    prepared = create_prepared(store.get_study_folder("s"))
    write_legacy_records(store, prepared, protocol)
    legacy_data.convert_legacy_data(store, open_database(store.data_folder, ""))
    assert not list(store.data_folder.rglob("*.pickle"))
    check_same(prepared.study, store.load_study("s"))
    check_same(prepared, store.load_prepared("s"))
    check_same(create_prediction(prepared).markers, store.load_prediction("s", "j").markers)
    check_same(create_prediction(prepared).segmentation, store.load_prediction("s", "j").segmentation)
    check_same(create_prediction(prepared).clinical, store.load_prediction("s", "j").clinical)


def test_a_legacy_record_is_converted_when_loaded(store: StudyStore) -> None:
    prepared = create_prepared(store.get_study_folder("s"))
    write_legacy_records(store, prepared)
    check_same(prepared.stack, store.load_prediction("s", "j").stack)
    assert [path.name for path in store.data_folder.rglob("*.pickle")] == ["study.pickle"]
    check_same(prepared.study, store.load_study("s"))


def test_an_interrupted_conversion_continues(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, records = create_prepared(store.get_study_folder("s")), open_database(store.data_folder, "")
    write_legacy_records(store, prepared)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(legacy_records, "is_same_record", interrupt)  # written, but not yet compared
        legacy_data.convert_legacy_data(store, records)
    assert len(list(store.data_folder.rglob("*.pickle"))) == 3
    legacy_data.convert_legacy_data(store, records)
    assert not list(store.data_folder.rglob("*.pickle"))
    check_same(prepared, store.load_prepared("s"))
    assert [(line.action, line.detail) for line in records.list_audit_lines()] == [
        ("older data taken over", {"files": 3})
    ]
    legacy_data.convert_legacy_data(store, records)
    assert len(records.list_audit_lines()) == 1


@pytest.mark.slow
def test_serve_converts_all_records_before_it_listens(store: StudyStore, tiny_weights: Path) -> None:
    prepared = create_prepared(store.get_study_folder("s"))
    write_legacy_records(store, prepared)
    with start_server(store.data_folder, tiny_weights, "--with-input") as process:
        assert process.stdin is not None and process.stdout is not None and process.stdout.readline()
        assert not list(store.data_folder.rglob("*.pickle"))
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    check_same(prepared, store.load_prepared("s"))


def test_a_record_that_changes_in_conversion_is_kept(
    store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_legacy_records(store, create_prepared(store.get_study_folder("s")))
    monkeypatch.setattr(legacy_records, "is_same_record", lambda *_: False)
    with pytest.raises(
        GliomarkError, match=r"study\.pickle, which an earlier version .* differs from the original"
    ):
        legacy_records.convert_pickle(store.get_study_folder("s"), "study", Study)
    assert (store.get_study_folder("s") / "study.pickle").exists()


def test_files_of_a_data_folder_that_was_moved_are_found(store: StudyStore) -> None:
    before = Path("/var/lib/gliomark-data/studies/s")
    (store.get_study_folder("s") / "study.pickle").write_bytes(pickle_legacy_record(create_study(before)))
    study = store.load_study("s")
    assert study.series[T1C].source_images[2].file == store.get_study_folder("s") / "input" / "2.dcm"
    assert study.lesion is not None and study.lesion.source == Path("/media/mask.nii")


# ---- earlier forms of the records ---------------------------------------------------------------------


def remove_fields(record: Any, *names: str, **added: Any) -> Any:
    """Remove and add fields, so that the record looks like one of an earlier version."""
    for name in names:
        record.__dict__.pop(name)
    record.__dict__.update(added)
    return record


def test_a_substitute_stored_under_another_name_gets_its_own(store: StudyStore) -> None:
    """Formerly a substitute was stored under the missing sequence's name, and a new prediction raised KeyError."""
    now = create_prepared(store.get_study_folder("s"))
    study = replace(now.study, series={T1C: now.study.series[T1C], T2: now.study.series[T1C]})
    stack = remove_fields(now.stack, "coverage", "examined", "warnings")
    kept = remove_fields(replace(now, study=study, stack=stack), "stand_ins", "found", stood_in=True)
    kept.__dict__["warnings"] = ("FLAIR is missing; T2 was used instead.",)
    (store.get_study_folder("s") / "prepared.pickle").write_bytes(pickle_legacy_record(kept))
    prepared = store.load_prepared("s")
    assert prepared.stand_ins == {FLAIR: T2} and prepared.found is None
    assert list(prepared.stack.images) == [T1C, T2] and prepared.stack.examined == 1.0
    assert prepared.warnings == (message("stood-in", wanted="FLAIR", shown="T2"),)
    check_same(now.stack.images[FLAIR], prepared.stack.images[T2])


def test_missing_fields_get_their_defaults(store: StudyStore) -> None:
    prepared = create_prepared(store.get_study_folder("s"))
    study = prepared.study
    for series in (*study.series.values(), study.lesion):
        for name in {"missing", "is_oriented", "space"} & vars(series).keys():
            series.__dict__.pop(name)  # type: ignore[union-attr]
    (store.get_study_folder("s") / "study.pickle").write_bytes(
        pickle_legacy_record(remove_fields(study, "examination", colour="none"))
    )
    found = store.load_study("s")
    assert found.examination is None and found.series[T1C].is_oriented and found.series[T1C].missing is None
    remove_fields(prepared.stack, "to_stack", coverage=0.9)
    (store.get_study_folder("s") / "prepared.pickle").write_bytes(pickle_legacy_record(prepared))
    assert store.load_prepared("s").stack.coverage == {} and store.load_prepared("s").stack.to_stack == {}
    prediction = remove_fields(create_prediction(prepared), "stand_ins", "notes")
    (store.get_prediction_folder("s", "j") / "prediction.pickle").write_bytes(
        pickle_legacy_record(prediction)
    )
    assert store.load_prediction("s", "j").notes == () and store.load_prediction("s", "j").stand_ins == {}


def test_an_outline_of_the_first_version_is_stored_by_its_hash(store: StudyStore) -> None:
    records = open_database(store.data_folder, "")
    records.add_study("s", PATIENT, "demo", "0", "me")
    (store.get_study_folder("s") / "corrected.png").write_bytes(b"an outline")
    legacy_data.convert_legacy_data(store, records)
    study = records.find_study("s")
    assert (
        study is not None and store.get_correction_path("s", study.correction).read_bytes() == b"an outline"
    )
    assert not (store.get_study_folder("s") / "corrected.png").exists()


# ---- hostile pickles ----------------------------------------------------------------------------------


class Call:
    """A pickle that calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            (self.function, self.arguments, self.state)
            if self.state is not None
            else (self.function, self.arguments)
        )


def create_call_pickle(module: str, name: str, *texts: str) -> bytes:
    """A pickle, in protocol 0, that calls any function by name."""
    arguments = b"".join(b"V" + one.encode() + b"\n" for one in texts)
    return f"c{module}\n{name}\n(".encode() + arguments + b"tR."


MARK = "touched"
HOSTILE: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: pickle.dumps(Call(os.system, f"touch {MARK}")),
    "posix.system by name": lambda: create_call_pickle("posix", "system", f"touch {MARK}"),
    "subprocess": lambda: pickle.dumps(Call(subprocess.check_call, ["touch", MARK])),
    "eval": lambda: pickle.dumps(Call(builtins.eval, f"open('{MARK}', 'w')")),
    "exec": lambda: pickle.dumps(Call(builtins.exec, f"open('{MARK}', 'w')")),
    "open": lambda: pickle.dumps(Call(open, MARK, "w")),
    "getattr": lambda: pickle.dumps(Call(getattr, {}, "clear")),
    "import": lambda: pickle.dumps(Call(__import__, "antigravity")),
    "breakpoint": lambda: create_call_pickle("builtins", "breakpoint"),
    "rmtree": lambda: pickle.dumps(Call(shutil.rmtree, ".")),
    "old builtins": lambda: create_call_pickle("__builtin__", "eval", f"open('{MARK}', 'w')"),
    "numpy's loader": lambda: create_call_pickle("numpy", "load", MARK),
    "numpy's own eval": lambda: create_call_pickle(
        "numpy.testing._private.utils", "runstring", f"open('{MARK}','w')", ""
    ),
    "numpy.f2py": lambda: create_call_pickle("numpy.f2py.diagnose", "run_command", f"touch {MARK}"),
    "through a dotted name": lambda: create_call_pickle(
        "gliomark.study", "math.__loader__.load_module", "os"
    ),
    "an error of ours": lambda: pickle.dumps(Call(GliomarkError, "x")),
    "pickle in pickle": lambda: pickle.dumps(
        Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {MARK}")))
    ),
    "inside a study": lambda: pickle.dumps(
        replace(create_study(Path("/")), notes=(Call(os.system, f"touch {MARK}"),))
    ),
    "in a sentence": lambda: (
        b"cgliomark.messages\n_restore\n(Vx\n" + create_call_pickle("os", "system", MARK)[:-1] + b"Vy\ntR."
    ),
    "by extension code": lambda: b"\x80\x02\x82\x01.",
    "by persistent id": lambda: b"Pos.system\n.",
    "memory": lambda: pickle.dumps(Call(bytearray, 1 << 50)),
    "an impossible array": lambda: b"cnumpy\nndarray\n((L1000000000000L\nL1000000000000L\nttR.",
    "a list": lambda: pickle.dumps([1, 2]),
    "nothing": lambda: b"",
    "cut off": lambda: pickle.dumps(create_study(Path("/")))[:-40],
    "no pickle": lambda: b"PK\x03\x04 something else",
    "another record": lambda: pickle.dumps(ClinicalData("P", 1, 1)),
    "array of objects": lambda: pickle.dumps(
        replace(
            create_study(Path("/")), lesion=replace(create_study(Path("/")).lesion, image=np.array([None, 1]))
        )  # type: ignore[type-var]
    ),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_pickle_is_refused_and_does_not_run(
    content: Callable[[], bytes], store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working_folder = tmp_path / "here"
    working_folder.mkdir()
    monkeypatch.chdir(working_folder)
    file = store.get_study_folder("s") / "study.pickle"
    file.write_bytes(content())
    with pytest.raises(GliomarkError, match=r"study\.pickle, which an earlier version") as refused:
        store.load_study("s")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    assert not list(working_folder.iterdir()) and working_folder.exists()
    assert file.exists() and not has_record(store.get_study_folder("s"), "study")


def test_the_hostile_pickles_take_effect_if_unrestricted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the previous test refuses has an effect with an unrestricted unpickler."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "os.system",
        "posix.system by name",
        "subprocess",
        "eval",
        "open",
        "pickle in pickle",
        "inside a study",
    ):
        pickle.loads(HOSTILE[name]())
        assert (tmp_path / MARK).exists(), name
        (tmp_path / MARK).unlink()


def test_a_pickle_cannot_change_the_program(store: StudyStore) -> None:
    """A pickle may set attributes on the objects that it names, but not on shared ones."""
    before = Study.__init__
    spoil = b"cgliomark.study\nStudy\n(N}V__init__\nNstb0cgliomark.messages\n_restore\n(N}V__name__\nVx\nstb."
    (store.get_study_folder("s") / "study.pickle").write_bytes(spoil)
    with pytest.raises(GliomarkError):
        store.load_study("s")
    assert Study.__init__ is before
    check_same(message("level-mutant"), pickle.loads(pickle.dumps(message("level-mutant"))))


def test_a_study_that_cannot_be_converted_does_not_stop_the_others(store: StudyStore) -> None:
    prepared = create_prepared(store.get_study_folder("s"))
    write_legacy_records(store, prepared)
    (store.get_study_folder("a")).mkdir()
    (store.get_study_folder("a") / "study.pickle").write_bytes(HOSTILE["os.system"]())
    legacy_data.convert_legacy_data(store, open_database(store.data_folder, ""))
    check_same(prepared, store.load_prepared("s"))
    with pytest.raises(GliomarkError, match=r"posix\.system is not allowed in a study"):
        store.load_study("a")


def test_uploaded_pickles_are_left_alone(store: StudyStore) -> None:
    sent = store.get_input_folder("s") / "P" / "study.pickle"
    sent.parent.mkdir(parents=True)
    sent.write_bytes(HOSTILE["os.system"]())
    legacy_data.convert_legacy_data(store, open_database(store.data_folder, ""))
    assert sent.read_bytes() == HOSTILE["os.system"]()
