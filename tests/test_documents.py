"""Numbers in documents are those of ``results/``, versions agree, and the repository contains only permitted files.

Links, commands and tutorials are tested in ``tests/docs``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def read_text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# ---- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "MODEL_CARD.md",
        "docs/how-to/cohort.md",
        "docs/how-to/server.md",
        "docs/how-to/client.md",
        "docs/explanation/segmentation.md",
        "docs/explanation/markers.md",
        "docs/explanation/known-range.md",
    ],
)
def test_numbers_in_documents_are_those_of_the_csv_files(name: str) -> None:
    tables = pytest.importorskip("gliomark.experiments.markdown_tables")
    document, text = read_text(name), tables.DOCUMENT_FORMATTERS[name](ROOT / "results")
    assert tables.insert_results(document, text, ROOT / name) == document, (
        f"the tables of {name} are not those of results/: gliomark experiment tables"
    )


# ---- versions ---------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads(read_text("pyproject.toml"))["project"]["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", read_text("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == version
    assert re.search(rf'^version: "?{re.escape(version)}"?$', read_text("CITATION.cff"), re.MULTILINE)


# ---- tracked files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked_files() -> list[Path]:
    """Existing files that git tracks."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


AGGREGATE_FIGURES = {"figure_3_1.png", "figure_3_1_cohorts.png", "figure_guidance.png"} | {
    f"figure_4_{number}_{marker}.png" for number in (6, 7, 8) for marker in ("idh", "proliferation", "ki67")
}


def may_be_binary(path: Path) -> bool:
    """Whether a file may be binary: pictures of the documents, plots of results, weights, translations."""
    relative_path = path.relative_to(ROOT)
    if relative_path.suffix == ".png":
        # results: only aggregate plots, listed by name, so that a plot of a single patient cannot be added by mistake
        return relative_path.parts[0] == "docs" or (
            relative_path.parts[0] == "results" and relative_path.name in AGGREGATE_FIGURES
        )
    if relative_path.suffix == ".qm":  # a test compares it with its source
        return relative_path.parent == Path("src/gliomark/client/translations")
    if relative_path == Path(
        "tests/server/before/before.tar.xz"
    ):  # of a synthetic patient, see tests/server/older_version/make_archive.py
        return True
    # networks: weights, graphs without weights, and deepbet's graphs
    network_folders = {
        ".safetensors": Path("src/gliomark/models/shipped"),
        ".zip": Path("src/gliomark/models/graphs"),
        ".bin": DEEPBET_GRAPHS,
    }
    return relative_path.parent == network_folders.get(relative_path.suffix)


DEEPBET_GRAPHS = Path("src/gliomark/preprocessing/deepbet")


def read_text_or_none(path: Path) -> str | None:
    """Read a file's text; None for a binary file."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def test_no_images_of_patients_are_tracked(tracked_files) -> None:
    """Any file that is not text could be an image of a patient."""
    unexpected = [
        path for path in tracked_files if read_text_or_none(path) is None and not may_be_binary(path)
    ]
    assert not unexpected


def test_no_paths_of_a_machine_are_tracked(tracked_files) -> None:
    """No file contains paths of the machine on which it was written."""
    names = "|".join(["work", "root", "home/[a-z]", "Users/[A-Za-z]"])
    absolute = re.compile(r"(?<![\w.})\]*-])/(?:" + names + ")/")
    found = {
        str(path.relative_to(ROOT)): hit.group()
        for path in tracked_files
        if (text := read_text_or_none(path)) is not None and (hit := absolute.search(text))
    }
    assert not found


def test_no_large_files_are_tracked(tracked_files) -> None:
    networks = [path for path in tracked_files if path.parent == ROOT / DEEPBET_GRAPHS]
    (viewer,) = (path for path in tracked_files if path.name == "niivue.umd.js")
    assert viewer.stat().st_size < 2_500_000
    assert len(networks) > 2 and sum(path.stat().st_size for path in networks) < 18_000_000
    large = {
        path.name: path.stat().st_size
        for path in set(tracked_files) - {*networks, viewer}
        if path.suffix != ".safetensors"
    }
    assert max(large.values()) < 2_000_000
