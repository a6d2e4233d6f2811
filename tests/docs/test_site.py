"""The documentation site builds without a warning, and lists every command and every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.documents import ROOT

import gliomark


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra docs)")
    pytest.importorskip(
        "mkdocstrings_handlers.python", reason="mkdocstrings[python] is not installed (extra docs)"
    )
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert process.returncode == 0, process.stderr
    return folder


def test_every_command_has_its_section(site: Path) -> None:
    page = (site / "reference" / "command-line" / "index.html").read_text("utf-8")
    for name in (
        "gliomark predict",
        "gliomark cohort build",
        "gliomark train markers",
        "gliomark experiment tables",
    ):
        assert re.search(rf"<h\d[^>]*>{name}<", page), name
    assert "--fusion" in page


def test_every_public_name_has_its_section(site: Path) -> None:
    page = (site / "reference" / "python" / "index.html").read_text("utf-8")
    missing = [
        name for name in gliomark.__all__ if not name.startswith("__") and f'id="gliomark.{name}"' not in page
    ]
    assert not missing


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    """Style sheets, scripts and fonts come with the site."""
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]+src="(https?:[^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(https?:[^"]+)"', text)
        assert not loaded, path


def test_results_and_project_pages_are_part_of_the_site(site: Path) -> None:
    for name in (
        "results/figure_4_6_idh.png",
        "project/changelog/index.html",
        "tutorial/predict/index.html",
        "zh/index.html",
    ):
        assert (site / name).is_file(), name
