"""Every text has a Chinese translation with the same placeholders, and the compiled file is up to date."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from string import Formatter
from xml.etree import ElementTree

import pytest

import gliomark.client as client_package
from gliomark.client.language import TRANSLATIONS_FOLDER

CLIENT = Path(client_package.__file__).parent
TS = TRANSLATIONS_FOLDER / "gliomark_zh.ts"
PAIRS = [
    (message.findtext("source") or "", message.find("translation"))
    for message in ElementTree.parse(TS).getroot().iter("message")
]


def run_linguist(name: str, *arguments: object) -> None:
    """Run one of the Qt Linguist tools included in PySide6."""
    tool = shutil.which(name, path=sysconfig.get_path("scripts")) or pytest.skip(f"no {name}")
    subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True)


def test_every_string_of_the_code_is_in_the_translation_file(tmp_path: Path) -> None:
    """lupdate finds the same texts in the source as in the translation file."""
    fresh = tmp_path / "fresh.ts"
    run_linguist("pyside6-lupdate", "-locations", "none", *sorted(CLIENT.glob("*.py")), "-ts", fresh)
    found = {m.findtext("source") for m in ElementTree.parse(fresh).getroot().iter("message")}
    assert found == {source for source, _ in PAIRS}


@pytest.mark.parametrize("source, translation", PAIRS, ids=[source[:40] for source, _ in PAIRS])
def test_a_string_is_translated(source: str, translation: ElementTree.Element) -> None:
    """The translation is finished, contains Chinese characters and has the same placeholders."""
    text = translation.text or ""
    assert translation.get("type") is None and text
    if any(letter.isalpha() for letter in source.replace("{}", "")):
        assert any("\u4e00" <= character <= "\u9fff" for character in text)
    placeholders = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    numbered = [int(name) if name else index for index, name in enumerate(placeholders)]
    assert sorted(numbered) == list(range(source.count("{}")))


def test_the_compiled_file_is_up_to_date(tmp_path: Path) -> None:
    run_linguist("pyside6-lrelease", TS, "-qm", tmp_path / "fresh.qm")
    assert (tmp_path / "fresh.qm").read_bytes() == (TRANSLATIONS_FOLDER / "gliomark_zh.qm").read_bytes()


def test_the_client_imports_no_large_libraries() -> None:
    """The client imports no large libraries for networks and images, which may be missing on a hospital's PC."""
    heavy = "torch monai SimpleITK pydicom nibabel lightgbm scipy fastapi".split()
    code = f"import sys, gliomark.client.app; print(sorted(set(sys.modules) & set({heavy})))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
