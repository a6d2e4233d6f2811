"""The page that maps equations to code names files and functions that exist."""

from __future__ import annotations

import re

import pytest
from tests.docs.documents import ROOT, read_document

SOURCE = ROOT / "src" / "gliomark"
ROWS = [
    line.split("|")[1:4]
    for line in read_document("docs/explanation/method-map.md").splitlines()
    if line.startswith("| ") and "|---" not in line and not line.endswith("| code | remark |")
]


def list_names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("part, code, remark", ROWS, ids=[row[0].strip() for row in ROWS])
def test_a_row_names_existing_code(part: str, code: str, remark: str) -> None:
    paths: list = []
    for name in [*list_names(code), *list_names(remark)]:
        if name.endswith((".py", "/")):
            assert (SOURCE / name).exists(), name
            paths.append(SOURCE / name)
        elif name not in ("union", "joint", "single"):
            word = name.split(".")[-1].removesuffix("()")
            files = [
                file
                for path in paths or [SOURCE]
                for file in (path.rglob("*.py") if path.is_dir() else [path])
            ]
            searched = files if paths else list(SOURCE.rglob("*.py"))
            found = any(re.search(rf"\b{word}\b", file.read_text("utf-8")) for file in searched)
            assert found or any(
                re.search(rf"\b{word}\b", file.read_text("utf-8"))
                for file in (SOURCE / "experiments").rglob("*.py")
            ), name
