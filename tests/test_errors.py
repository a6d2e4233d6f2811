"""Every error that a user can resolve has a kind, and keeps it on its way through processes and pickles."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import gliomark
from gliomark import errors
from gliomark.errors import ERROR_KINDS, GliomarkError
from gliomark.files import FileWriteError
from gliomark.io.dicom.dataset_reader import InflatedSizeError
from gliomark.io.examination_choice import NoExaminationError
from gliomark.io.masks.region_names import NoLesionRegionError
from gliomark.isolation import ReaderPool, ReaderProcessError
from gliomark.messages import message

SOURCE = Path(gliomark.__file__).parent


def find_untyped_errors(path: Path) -> list[str]:
    """Return the lines of a module that create a ``GliomarkError`` without a kind."""
    calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
    return [f"{path.name}:{call.lineno}" for call in calls if ast.unparse(call.func) == "GliomarkError"]


def test_every_error_has_a_kind() -> None:
    assert len(list(SOURCE.rglob("*.py"))) > 200
    assert [line for path in SOURCE.rglob("*.py") for line in find_untyped_errors(path)] == []


@pytest.mark.parametrize(
    ("error_class", "kind"),
    [
        (ReaderProcessError, errors.InputError),
        (NoExaminationError, errors.InputError),
        (NoLesionRegionError, errors.InputError),
        (InflatedSizeError, errors.InputError),
        (FileWriteError, GliomarkError),
    ],
)
def test_a_special_error_has_the_right_kind(
    error_class: type[GliomarkError], kind: type[GliomarkError]
) -> None:
    assert error_class.__mro__[1] is kind


@pytest.mark.parametrize("kind", ERROR_KINDS.values())
def test_an_error_is_pickled_with_its_kind_and_message(kind: type[GliomarkError]) -> None:
    again = pickle.loads(pickle.dumps(kind(message("id-empty"))))
    assert type(again) is kind and again.message.code == "id-empty"


def test_an_error_keeps_its_kind_from_the_reader_process(tmp_path: Path) -> None:
    from gliomark.io import read_study

    with ReaderPool(1) as pool, pytest.raises(errors.InputError) as caught:
        pool(tmp_path, read_study, tmp_path / "absent")
    assert type(caught.value) is errors.InputError
