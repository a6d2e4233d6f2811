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

import gliomark.client as room
from gliomark.client.language import TRANSLATIONS_FOLDER

CLIENT = Path(room.__file__).parent
TS = TRANSLATIONS_FOLDER / "gliomark_zh.ts"
PAIRS = [
    (message.findtext("source") or "", message.find("translation"))
    for message in ElementTree.parse(TS).getroot().iter("message")
]


def linguist(name: str, *words: object) -> None:
    """Run one of the Qt Linguist tools included in PySide6."""
    tool = shutil.which(name, path=sysconfig.get_path("scripts")) or pytest.skip(f"no {name}")
    subprocess.run([tool, *map(str, words)], check=True, capture_output=True)


def test_every_string_of_the_code_is_in_the_file(tmp_path: Path) -> None:
    """lupdate finds the same texts in the source as in the translation file."""
    fresh = tmp_path / "fresh.ts"
    linguist("pyside6-lupdate", "-locations", "none", *sorted(CLIENT.glob("*.py")), "-ts", fresh)
    found = {m.findtext("source") for m in ElementTree.parse(fresh).getroot().iter("message")}
    assert found == {source for source, _ in PAIRS}


@pytest.mark.parametrize("source, translation", PAIRS, ids=[source[:40] for source, _ in PAIRS])
def test_string_is_translated(source: str, translation: ElementTree.Element) -> None:
    """The translation is finished, contains Chinese characters and has the same placeholders."""
    text = translation.text or ""
    assert translation.get("type") is None and text
    if any(letter.isalpha() for letter in source.replace("{}", "")):
        assert any("\u4e00" <= sign <= "\u9fff" for sign in text)
    places = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    numbered = [int(place) if place else at for at, place in enumerate(places)]
    assert sorted(numbered) == list(range(source.count("{}")))


def test_compiled_file_is_the_written_one(tmp_path: Path) -> None:
    linguist("pyside6-lrelease", TS, "-qm", tmp_path / "fresh.qm")
    assert (tmp_path / "fresh.qm").read_bytes() == (TRANSLATIONS_FOLDER / "gliomark_zh.qm").read_bytes()


def test_client_needs_no_torch() -> None:
    """The client imports none of the large libraries for networks and images, which a hospital's PC may lack."""
    heavy = "torch monai SimpleITK pydicom nibabel lightgbm scipy fastapi".split()
    code = f"import sys, gliomark.client.app; print(sorted(set(sys.modules) & set({heavy})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
