"""The package follows the style rules of CONTRIBUTING.md, measured over its syntax trees."""

from __future__ import annotations

import pytest
from tests.architecture import measure


@pytest.fixture(scope="module")
def functions() -> list[measure.Function]:
    found = measure.list_functions()
    assert len(found) > 2000
    return found


def test_functions_are_not_too_long(functions: list[measure.Function]) -> None:
    assert measure.find_long_functions(functions) == []


def test_names_of_functions_start_with_a_verb(functions: list[measure.Function]) -> None:
    share, others = measure.find_names_without_verb(functions)
    assert share > 0.97, others


def test_public_functions_state_shapes_and_errors(functions: list[measure.Function]) -> None:
    assert measure.find_undocumented(functions) == []


def test_the_package_contains_no_banned_words() -> None:
    assert measure.find_banned_words() == []


def test_tests_and_scripts_contain_no_banned_words() -> None:
    assert measure.find_banned_words_in_tests() == []


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("def scores(values: NDArray) -> None:\n    '''Sort the values.'''", "no shape"),
        ("def read_table(path: Path) -> None:\n    '''Read.'''\n    raise ValueError('x')", "no errors"),
        ("def read_table(path: Path) -> None:\n    pass", "no docstring"),
    ],
)
def test_missing_documentation_is_found(tmp_path, monkeypatch, source: str, finding: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(source, "utf-8")
    monkeypatch.setattr(measure, "SOURCE", tmp_path / "package")
    (found,) = measure.find_undocumented(measure.list_functions(tmp_path / "package"))
    assert found.endswith(finding)


@pytest.mark.parametrize("text", ["rival", "the deviation of", "dealt", "nobody", "掩模", "Near 规则"])
def test_banned_words_are_found(tmp_path, text: str) -> None:
    (tmp_path / "module.py").write_text(f"place = 1  # {text}\n", "utf-8")
    assert len(measure.find_banned_words(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "is_verb"),
    [
        ("read_table", True),
        ("_is_empty", True),
        ("from_folder", True),
        ("dice", True),
        ("tables", False),
        ("said", False),
    ],
)
def test_verbs_are_recognised(tmp_path, name: str, is_verb: bool) -> None:
    (tmp_path / "module.py").write_text(f"def {name}() -> None: ...\n", "utf-8")
    (function,) = measure.list_functions(tmp_path)
    assert function.starts_with_verb is is_verb
