"""The documents of the repository as the tests read them: their links, anchors, code blocks and commands."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = "https://gliomark.github.io/gliomark/"
REPOSITORY = "https://github.com/gliomark/gliomark"
RAW = "https://raw.githubusercontent.com/gliomark/gliomark/main/"

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?\)")
FENCE = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block and the document it is in."""

    document: str
    language: str
    text: str


def list_documents() -> list[str]:
    """Return every Markdown document of the repository, as paths relative to its root."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def read_document(name: str) -> str:
    """Return the text of a document."""
    return (ROOT / name).read_text("utf-8")


def list_code_blocks(name: str) -> Iterator[CodeBlock]:
    """Yield the fenced code blocks of a document."""
    for match in FENCE.finditer(read_document(name)):
        yield CodeBlock(name, match[2], match[3])


def list_commands(name: str, program: str) -> Iterator[str]:
    """Yield the lines that call ``program`` in the shell blocks of a document, continued lines joined."""
    for block in list_code_blocks(name):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                if re.match(rf"{program}(\s|$)", line):
                    yield line


def list_links(name: str) -> Iterator[str]:
    """Yield the targets of all links and pictures of a document, code blocks excluded."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", read_document(name)))
    yield from (match[1] for match in LINK.finditer(text))


def find_anchors(name: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and the site form them."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", read_document(name)), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchors.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text).strip()))
    return anchors


def resolve_link(name: str, target: str) -> tuple[str, str] | None:
    """Return path in the repository and anchor of a link; None if it leads to another site."""
    address, _, anchor = target.partition("#")
    if address.startswith(SITE):
        return find_page_source(address.removeprefix(SITE)), anchor
    for prefix in (RAW, f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/"):
        if address.startswith(prefix):
            return address.removeprefix(prefix), anchor
    if re.match(r"[a-z]+:", address):
        return None
    if not address:
        return name, anchor
    return os.path.normpath(Path(name).parent / address), anchor


def find_page_source(address: str) -> str:
    """Return the document behind a page of the site, such as ``how-to/server/``."""
    from scripts.docs_hooks import NOTEBOOKS, PROJECT_PAGES

    page = f"{address.rstrip('/')}.md".removeprefix(".md")
    sources = {page_path: path for path, page_path in PROJECT_PAGES.items()}
    sources |= {page_path: f"docs/{path}" for path, page_path in NOTEBOOKS.items()}
    if page in sources:
        return sources[page]
    folder = ROOT / "docs" / address.rstrip("/")
    return f"docs/{address.rstrip('/')}/index.md" if folder.is_dir() else f"docs/{page}"


def read_pyproject() -> dict:
    """Return the content of ``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
