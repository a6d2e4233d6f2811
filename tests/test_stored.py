"""Records are read back bit by bit as written, or an error is raised."""

from __future__ import annotations

import json
import pickle
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from gliomark.errors import GliomarkError
from gliomark.messages import Message, message, render_message
from gliomark.record_files import has_record, is_same_record, read_record, remove_record, write_record
from gliomark.study import Examination, MRSequence, NiftiSpace, Series, SliceStack, SourceImage, Study


@dataclass(frozen=True, eq=False)
class Everything:
    """A field of every type that a record may contain."""

    text: str
    number: float
    integer: int
    truth: bool
    path: Path
    kind: Literal["pictures", "volumes"]
    sequence: MRSequence
    image: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    maps: Mapping[MRSequence, NDArray[np.float64]]
    counts: Mapping[str, int]
    texts: tuple[str, ...]
    position: tuple[float, float, float]
    rows: tuple[tuple[float, ...], ...]
    age: float | None = None
    inner: Examination | None = None


def check_same(one: Any, other: Any) -> None:
    """Assert equal types and equal bits in all fields."""
    if is_dataclass(one):
        assert type(one) is type(other)
        for field in fields(one):
            check_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, Mapping):
        assert list(one) == list(other)
        for name in one:
            check_same(one[name], other[name])
    elif isinstance(one, tuple):
        assert isinstance(other, tuple) and len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            check_same(a, b)
    elif isinstance(one, Message):
        assert isinstance(other, Message) and one.code == other.code and str(one) == str(other)
        assert render_message(one, "zh") == render_message(other, "zh")
    elif isinstance(one, float):
        assert type(other) is float and np.float64(one).tobytes() == np.float64(other).tobytes()
    else:
        assert type(one) is type(other) and one == other


def create_example(**changed: Any) -> Everything:
    values: dict[str, Any] = {
        "text": "左额叶",
        "number": 0.1,
        "integer": 2,
        "truth": True,
        "path": Path("/elsewhere/患者"),
        "kind": "pictures",
        "sequence": MRSequence.FLAIR,
        "image": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "mask": np.array([[[True, False, True]]]),
        "maps": {MRSequence.T1C: np.eye(4)},
        "counts": {"a": 1},
        "texts": ("x", message("mask-not-used", file="m.nii")),
        "position": (0.0, -0.0, 1e-300),
        "rows": ((1.0,), ()),
    }
    return Everything(**values | changed)


plain_texts = st.text(st.characters(codec="utf-8"), max_size=20)
message_texts = st.one_of(
    plain_texts,
    st.builds(lambda file: message("mask-not-used", file=file), plain_texts),
    st.builds(
        lambda file, inner: message(
            "mask-unreadable", file=file, reason=message("mask-not-used", file=inner)
        ),
        plain_texts,
        plain_texts,
    ),
)
floats = st.floats(allow_nan=False) | st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0])
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
numbers = hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    record=st.builds(
        Everything,
        text=message_texts,
        number=floats,
        integer=st.integers(),
        truth=st.booleans(),
        path=st.sampled_from(
            [Path("/a/b"), Path("ein/Ordner"), Path("."), Path("C:\\x"), Path("/患者/01 – ä")]
        ),
        kind=st.sampled_from(["pictures", "volumes"]),
        sequence=st.sampled_from(MRSequence),
        image=hnp.arrays(numbers, shapes),
        mask=st.none() | hnp.arrays(np.bool_, shapes),
        maps=st.dictionaries(st.sampled_from(MRSequence), hnp.arrays(np.float64, shapes)),
        counts=st.dictionaries(plain_texts, st.integers()),
        texts=st.lists(message_texts).map(tuple),
        position=st.tuples(floats, floats, floats),
        rows=st.lists(st.lists(floats).map(tuple)).map(tuple),
        age=st.none() | floats,
        inner=st.none() | st.builds(Examination, plain_texts, st.integers(), st.integers()),
    )
)
def test_every_value_is_restored_bit_by_bit(record: Everything, tmp_path: Path) -> None:
    write_record(tmp_path, "record", record)
    check_same(record, read_record(tmp_path, "record", Everything))


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
        np.array([0x7FC00001, 0xFFC12345], np.uint32).view(np.float32),
        np.zeros((0, 240, 240), np.float32),
        np.array(1.5, np.float32),
        np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1, ::2],
        np.arange(4, dtype=">f4"),
        np.arange(4, dtype=np.float16),
        np.arange(4, dtype=np.longdouble),
    ],
    ids="nan-inf payloads empty scalar columns strided big-endian half long".split(),
)
def test_an_array_keeps_every_bit(array: NDArray[Any], tmp_path: Path) -> None:
    write_record(tmp_path, "record", create_example(image=array))
    check_same(array, read_record(tmp_path, "record", Everything).image)


def create_study(folder: Path) -> Study:
    files = tuple(
        SourceImage(folder / "input" / f"{n}.dcm", n % 2 or None, (0.0, 1.0, n * 1.5), n) for n in range(3)
    )
    image = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    space = NiftiSpace(1, 2, (1.0, 1, 1, 5), (0.0, 0, 1), (0.0, 0, 0), ((1.0, 0, 0, 0),) * 3, 2)
    t1c = Series(image, np.eye(4), ("1", "2", "3"), folder / "input", files, image > 9, False, space)
    lesion = Series((image > 0).astype(np.float32), np.eye(4), ("1", "2", "3"), Path("/media/mask.nii"))
    series = {MRSequence.T1C: t1c, MRSequence.FLAIR: t1c}
    notes = ("Free text.", message("mask-not-used", file="掩膜.nii"))
    return Study(
        "患者 01", series, folder, "volumes", True, False, lesion, notes, Examination("20200102", 1, 2)
    )


def test_a_study_and_its_stack_are_restored(tmp_path: Path) -> None:
    study = create_study(tmp_path)
    image = study.series[MRSequence.T1C].image
    stack = SliceStack(
        "患者 01",
        {MRSequence.T1C: image},
        image > 0,
        np.eye(4),
        ("1", "2", "3"),
        (0, 2),
        image > 1,
        examined=None,
    )
    for name, record in {"study": study, "stack": stack}.items():
        write_record(tmp_path, name, record)
        check_same(record, read_record(tmp_path, name, type(record)))


def test_an_array_used_twice_is_stored_once(tmp_path: Path) -> None:
    write_record(tmp_path, "study", create_study(tmp_path))
    study = read_record(tmp_path, "study", Study)
    assert study.series[MRSequence.T1C].image is study.series[MRSequence.FLAIR].image


def test_paths_inside_a_moved_folder_are_adjusted(tmp_path: Path) -> None:
    write_record(tmp_path / "old", "study", create_study(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    study = read_record(tmp_path / "new", "study", Study)
    assert study.source == tmp_path / "new"
    assert study.series[MRSequence.T1C].source_images[1].file == tmp_path / "new" / "input" / "1.dcm"
    assert study.lesion is not None and study.lesion.source == Path("/media/mask.nii")


def test_a_later_record_replaces_the_earlier_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        write_record(tmp_path, "record", create_example(image=np.full((1, 1), value, np.float32)))
    assert read_record(tmp_path, "record", Everything).image[0, 0] == 2
    assert len(list(tmp_path.iterdir())) == 2
    write_record(tmp_path, "record.more", create_example(text="another name"))
    write_record(tmp_path, "record", create_example(text="again"))
    assert read_record(tmp_path, "record.more", Everything).text == "another name"
    remove_record(tmp_path, "record")
    assert not has_record(tmp_path, "record") and has_record(tmp_path, "record.more")
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_writer_leaves_the_earlier_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, "record", create_example(text="first"))

    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gliomark.files.os.fsync", raise_disk_full)
    with pytest.raises(GliomarkError, match="the disk is full"):
        write_record(tmp_path, "record", create_example(text="second", number=3))
    assert read_record(tmp_path, "record", Everything).text == "first"
    assert len(list(tmp_path.iterdir())) == 2


def test_reading_during_writing_returns_a_complete_record(tmp_path: Path) -> None:
    written = [create_example(text=str(n), image=np.full((64, 64), n, np.float32)) for n in range(2)]
    write_record(tmp_path, "record", written[0])
    finished = threading.Event()

    def keep_writing() -> None:
        for turn in range(60):
            write_record(tmp_path, "record", written[turn % 2])
        finished.set()

    thread = threading.Thread(target=keep_writing)
    thread.start()
    seen = 0
    while not finished.is_set():
        record = read_record(tmp_path, "record", Everything)
        check_same(written[int(record.text)], record)
        seen += 1
    thread.join()
    assert seen > 5


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "右额叶"},
        {"number": -0.5},
        {"number": float("nan")},
        {"truth": False},
        {"sequence": MRSequence.T1},
        {"image": np.arange(6, dtype=np.float64).reshape(1, 2, 3)},
        {"image": np.arange(6, dtype=np.float32).reshape(1, 3, 2)},
        {"image": np.array([[[0, 1, 2], [3, 4, 5.0001]]], np.float32)},
        {"mask": None},
        {"maps": {}},
        {"maps": {MRSequence.T1C: -np.eye(4)}},
        {"texts": ("x",)},
        {"inner": Examination("", 1, 1)},
    ],
    ids=repr,
)
def test_records_that_differ_are_not_the_same(changed: dict[str, Any]) -> None:
    assert not is_same_record(create_example(), create_example(**changed)) and not is_same_record(
        create_example(**changed), create_example()
    )
    assert is_same_record(create_example(), create_example()) and is_same_record(
        create_example(**changed), create_example(**changed)
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"text": 3},
        {"number": "0.5"},
        {"number": True},
        {"integer": 1.5},
        {"truth": 1},
        {"path": "text"},
        {"image": [1, 2]},
        {"image": np.array([None])},
        {"image": np.array(["text"])},
        {"mask": np.zeros(3, np.float32)},
        {"position": (1, "2", 3)},
    ],
    ids=repr,
)
def test_a_value_of_another_type_is_not_written(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_record(tmp_path, "record", create_example(**changed))
    assert not list(tmp_path.iterdir())


# ---- untrusted files on disk ------------------------------------------------------------------------


def edit_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "record.json").read_text())
    change(content)
    (folder / "record.json").write_text(json.dumps(content))


def find_arrays_file(folder: Path) -> Path:
    (file,) = folder.glob("record.*.npz")
    return file


def repack(folder: Path, content: bytes, name: str = "0.npy", kind: int = zipfile.ZIP_STORED) -> None:
    """Replace one of the arrays."""
    file = find_arrays_file(folder)
    with zipfile.ZipFile(file) as archive:
        entries = {one: archive.read(one) for one in archive.namelist()} | {name: content}
    with zipfile.ZipFile(file, "w", kind) as archive:
        for one, data in entries.items():
            archive.writestr(one, data)


def encode_npy(header: str, data: bytes = b"\0" * 24) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def pickle_array() -> bytes:
    buffer = BytesIO()
    np.save(buffer, np.array([print], object), allow_pickle=True)
    return buffer.getvalue()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000000)}\n"
NEGATIVE = "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -6)}\n"
CODE = "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (6,)}\n"
DAMAGE: dict[str, Callable[[Path], object]] = {
    "no json": lambda f: (f / "record.json").write_bytes(b""),
    "cut json": lambda f: (f / "record.json").write_bytes((f / "record.json").read_bytes()[:-20]),
    "not utf-8": lambda f: (f / "record.json").write_bytes(b"\xff\xfe\x00"),
    "a list": lambda f: (f / "record.json").write_text("[]"),
    "deep": lambda f: (f / "record.json").write_text("[" * 200_000),
    "a pickle": lambda f: (f / "record.json").write_bytes(pickle.dumps([1])),
    "no version": lambda f: edit_record(f, lambda c: c.pop("schema_version")),
    "version as text": lambda f: edit_record(f, lambda c: c.update(schema_version="1")),
    "more keys": lambda f: edit_record(f, lambda c: c.update(type="os.system")),
    "number as text": lambda f: edit_record(f, lambda c: c["record"].update(number="0.5")),
    "number as truth": lambda f: edit_record(f, lambda c: c["record"].update(number=True)),
    "truth as number": lambda f: edit_record(f, lambda c: c["record"].update(truth=1)),
    "text as number": lambda f: edit_record(f, lambda c: c["record"].update(text=3)),
    "unknown word": lambda f: edit_record(f, lambda c: c["record"].update(kind="films")),
    "unknown sequence": lambda f: edit_record(f, lambda c: c["record"].update(sequence="PET")),
    "short tuple": lambda f: edit_record(f, lambda c: c["record"].update(position=[1, 2])),
    "field missing": lambda f: edit_record(f, lambda c: c["record"].pop("text")),
    "field too many": lambda f: edit_record(f, lambda c: c["record"].update(__class__="os.system")),
    "no such array": lambda f: edit_record(f, lambda c: c["record"].update(image=99)),
    "array by truth": lambda f: edit_record(f, lambda c: c["record"].update(image=True)),
    "array as mask": lambda f: edit_record(f, lambda c: c["record"].update(mask=0)),
    "path outside": lambda f: edit_record(
        f, lambda c: c["record"].update(path={"inside": "../../etc/passwd"})
    ),
    "absolute inside": lambda f: edit_record(f, lambda c: c["record"].update(path={"inside": "/etc/passwd"})),
    "arrays elsewhere": lambda f: edit_record(f, lambda c: c.update(arrays="../record.0123456789abcdef.npz")),
    "cut arrays": lambda f: find_arrays_file(f).write_bytes(find_arrays_file(f).read_bytes()[:-100]),
    "empty arrays": lambda f: find_arrays_file(f).write_bytes(b""),
    "flipped bit": lambda f: find_arrays_file(f).write_bytes(flip_bit(find_arrays_file(f).read_bytes())),
    "array is a pickle": lambda f: repack(f, pickle_array()),
    "array is empty": lambda f: repack(f, b""),
    "impossible size": lambda f: repack(f, encode_npy(HUGE)),
    "negative size": lambda f: repack(f, encode_npy(NEGATIVE)),
    "header with code": lambda f: repack(f, encode_npy(CODE)),
    "array of text": lambda f: repack(
        f, encode_npy("{'descr': '<U6', 'fortran_order': False, 'shape': (1,)}\n")
    ),
}


def flip_bit(content: bytes) -> bytes:
    offset = content.index(np.float32(5).tobytes())
    return content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_reported_in_one_sentence(damage: Callable[[Path], object], tmp_path: Path) -> None:
    write_record(tmp_path, "record", create_example())
    damage(tmp_path)
    with pytest.raises(GliomarkError, match="damaged") as refused:
        read_record(tmp_path, "record", Everything)
    assert refused.value.message.code == "stored-damaged"  # type: ignore[attr-defined]
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_a_false_size_is_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    """The zip directory and the array's header both state a terabyte."""
    write_record(tmp_path, "record", create_example())
    file, size = find_arrays_file(tmp_path), 1 << 40
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': ({size},)}}\n"
    repack(tmp_path, encode_npy(header, bytes(1000)), kind=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(file, "a") as archive:
        archive.getinfo("0.npy").file_size = size + len(encode_npy(header, b""))
        archive.comment = b"rewritten"
    with pytest.raises(GliomarkError, match="states 1099511"):
        read_record(tmp_path, "record", Everything)


@pytest.mark.parametrize("missing", ["record.json", "record.*.npz"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    write_record(tmp_path, "record", create_example())
    (file,) = tmp_path.glob(missing)
    file.unlink()
    with pytest.raises(GliomarkError, match=f"^{file.name}, which") as refused:
        read_record(tmp_path, "record", Everything)
    assert refused.value.message.code == "stored-missing"  # type: ignore[attr-defined]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, "record", create_example())
    edit_record(tmp_path, lambda content: content.update(schema_version=2, shape="new"))
    with pytest.raises(GliomarkError, match=r"record\.json was written by a newer version"):
        read_record(tmp_path, "record", Everything)


def test_a_record_of_another_type_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, "record", Examination("", 1, 1))
    with pytest.raises(GliomarkError, match="damaged"):
        read_record(tmp_path, "record", Study)


def test_a_message_of_a_later_version_keeps_its_text(tmp_path: Path) -> None:
    write_record(tmp_path, "record", create_example(text=message("mask-not-used", file="m")))
    edit_record(
        tmp_path, lambda content: content["record"]["text"].update(code="not-known-here", text="Said later.")
    )
    assert read_record(tmp_path, "record", Everything).text == "Said later."
