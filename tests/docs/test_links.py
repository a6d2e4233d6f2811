"""Every link inside the repository leads somewhere, and documents for package indexes have absolute links only."""

from __future__ import annotations

import json
import re

import pytest
from tests.docs.documents import (
    RAW,
    REPOSITORY,
    ROOT,
    SITE,
    find_anchors,
    list_documents,
    list_links,
    read_document,
    read_pyproject,
    resolve_link,
)

DOCUMENTS = list_documents()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_anchors_exist(name: str) -> None:
    broken = []
    for target in list_links(name):
        resolved = resolve_link(name, target)
        if resolved is None:
            continue
        path, anchor = resolved
        if not (ROOT / path).exists() or anchor and anchor not in find_anchors(path):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda path: path.name)
def test_links_of_notebooks_exist(path) -> None:
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"])
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert targets and all((path.parent / target).exists() for target in targets)


def test_the_readme_has_only_absolute_links() -> None:
    """A package index shows README.md alone: relative links would lead nowhere."""
    relative = [one for one in list_links("README.md") if not one.startswith(("https://", "#"))]
    assert not relative


def test_addresses_are_those_of_the_package() -> None:
    urls = read_pyproject()["project"]["urls"]
    assert urls["Documentation"] == SITE and urls["Repository"] == REPOSITORY
    assert RAW.startswith(
        "https://raw.githubusercontent.com/" + REPOSITORY.removeprefix("https://github.com/")
    )
    configuration = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert f"site_url: {SITE}\n" in configuration and f"repo_url: {REPOSITORY}\n" in configuration


def test_the_readme_starts_with_the_installation() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    first = re.search(r"^```sh\n(.*)$", text, re.MULTILINE)
    assert first is not None and first[1].startswith("pip install gliomark")


def test_named_result_files_exist() -> None:
    """Every ``results/...`` that a document names, except what only a local run writes."""
    local = {"results/fuzz.csv", "results/predictions.csv", "results/work"}
    named = {one for name in DOCUMENTS for one in re.findall(r"`(results/[\w.-]+\w)`", read_document(name))}
    assert named and not [name for name in named - local if not (ROOT / name).exists()]
