"""Every package that users install has an allowed licence and a row in docs/reference/licences.md."""

from __future__ import annotations

import hashlib
import re
import tomllib
from fnmatch import fnmatch
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from scripts.licences import (
    TABLE,
    find_data_files,
    find_licence,
    find_objection,
    find_user_packages,
    is_allowed,
    read_rules,
    render_table,
)
from scripts.lock import ROOT

import gliomark

RULES = read_rules()
try:
    PACKAGES, INCOMPLETE = find_user_packages(), ""
except RuntimeError as error:  # installed without the lock files, as from the source distribution
    PACKAGES, INCOMPLETE = {}, str(error)
needs_packages = pytest.mark.skipif(bool(INCOMPLETE), reason=INCOMPLETE)


@needs_packages
@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_its_row_and_may_be_used(name: str) -> None:
    licence = find_licence(PACKAGES[name], RULES)
    assert find_objection(name, licence, RULES) is None
    assert f"| {name} | {licence} |" in TABLE.read_text("utf-8"), f"{name} ({licence}): run `make licences`"


@needs_packages
def test_weights_and_fonts_in_packages_are_named() -> None:
    for name, package in PACKAGES.items():
        patterns = [row["files"] for row in RULES.data if row["package"] == name]
        unnamed = [file for file in find_data_files(package) if not any(fnmatch(file, p) for p in patterns)]
        assert unnamed == [], f"{name}: name these files in requirements/licences.toml"


@needs_packages
def test_the_data_rows_are_of_files_that_exist() -> None:
    for row in RULES.data:
        files = [str(file) for file in distribution(row["package"]).files or []]
        assert any(fnmatch(file, row["files"]) for file in files), row
        assert row["files"] in TABLE.read_text("utf-8")


@pytest.mark.parametrize("row", RULES.vendored, ids=[row["files"] for row in RULES.vendored])
def test_files_of_others_have_an_allowed_licence_and_their_notice(row: dict[str, str]) -> None:
    package = Path(gliomark.__file__).parent
    assert list(package.glob(row["files"])) and is_allowed(row["licence"], RULES)
    assert "copyright notice" in (package / row["notice"]).read_text("utf-8")
    assert row["files"] in TABLE.read_text("utf-8"), "run `make licences`"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"src/gliomark/{row['notice']}" in project["license-files"]


def test_niivue_is_the_file_that_its_notice_names() -> None:
    folder = Path(gliomark.__file__).parent / "server/page/niivue"
    (digest,) = re.findall(r"^SHA-256: (\w{64})$", (folder / "LICENSE").read_text("utf-8"), re.MULTILINE)
    assert hashlib.sha256((folder / "niivue.umd.js").read_bytes()).hexdigest() == digest


@needs_packages
def test_the_reviewed_and_stated_packages_are_still_needed() -> None:
    assert set(RULES.reviewed) <= set(PACKAGES) and set(RULES.stated) <= set(PACKAGES)


def create_installed_package(folder: Path, metadata: str, licence: str = "") -> Distribution:
    """Create an installed package with the given licence metadata."""
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n{metadata}\n", "utf-8")
    (info / "LICENSE").write_text(licence, "utf-8")
    (info / "RECORD").write_text("thing-1.0.dist-info/LICENSE,,\n", "utf-8")
    return Distribution.at(info)


@pytest.mark.parametrize(
    "metadata, text, licence",
    [
        ("License-Expression: MIT AND Apache-2.0", "", "MIT AND Apache-2.0"),
        ("License: Apache 2.0", "", "Apache-2.0"),
        ("License: BSD", "Neither the\n name of", "BSD-3-Clause"),
        ("License: BSD", "Redistribution and use", "BSD-2-Clause"),
        ("License: LGPL-3.0", "", "LGPL-3.0-only"),
        ("Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", "", "MPL-2.0"),
        ("License: see the file\nClassifier: License :: OSI Approved :: MIT License", "", "MIT"),
        ("License: UNKNOWN", "", "unknown"),
        ("Summary: says nothing", "MIT License", "unknown"),
    ],
)
def test_a_licence_is_read_as_spdx(tmp_path: Path, metadata: str, text: str, licence: str) -> None:
    assert find_licence(create_installed_package(tmp_path, metadata, text), RULES) == licence


@pytest.mark.parametrize(
    "name, licence, objection",
    [
        ("thing", "GPL-3.0-or-later", "thing: GPL-3.0-or-later is not an allowed licence"),
        ("thing", "AGPL-3.0-only", "thing: AGPL-3.0-only is not"),
        ("thing", "MIT AND LGPL-2.1-only", "thing: MIT AND LGPL-2.1-only is not"),
        ("thing", "unknown", "thing: the licence is unknown"),
        ("fpdf2", "GPL-3.0-only", "fpdf2: the licence was LGPL-3.0-only when it was reviewed and is now GPL-3.0-only"),
        ("fpdf2", "unknown", "fpdf2: the licence is unknown"),
    ],
)  # fmt: skip
def test_a_package_that_may_not_be_used_is_named(name: str, licence: str, objection: str) -> None:
    assert (find_objection(name, licence, RULES) or "").startswith(objection)


@pytest.mark.parametrize(
    "licence, allowed",
    [
        ("MIT", True),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("(GPL-2.0-only OR MIT) AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
    ],
)
def test_a_licence_expression_is_evaluated(licence: str, allowed: bool) -> None:
    assert is_allowed(licence, RULES) is allowed


@needs_packages
def test_a_row_is_written_for_every_package() -> None:
    assert render_table(PACKAGES, RULES).count("\n| ") == (
        len(PACKAGES) + len(RULES.data) + len(RULES.vendored) + 3
    )
