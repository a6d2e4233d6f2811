"""Hooks of the documentation site (``mkdocs.yml``): generated pages, and links that also work on GitHub.

Documents link to each other by relative paths inside the repository. Where a target lies outside ``docs/``, the site
shows its own copy (pictures, and the pages of ``PROJECT_PAGES``) or a link to the repository.
"""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "gliomark"
REPOSITORY = "https://github.com/gliomark/gliomark"
PROJECT_PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "MODEL_CARD.md": "project/model-card.md",
    "SECURITY.md": "project/security.md",
}
NOTEBOOKS = {"tutorial/predict.ipynb": "tutorial/predict.md", "tutorial/cohort.ipynb": "tutorial/cohort.md"}
PICTURES = (".png", ".jpg", ".svg")
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]*)(#[^)\s]*)?(\))")
PLACEHOLDERS = {
    "reference/command-line.md": "<!-- generated: command line -->",
    "reference/python.md": "<!-- generated: python -->",
    "reference/modules.md": "<!-- generated: modules -->",
}


# ---- MkDocs' events ---------------------------------------------------------------------------------


def on_files(files, config):
    """Add the project's pages, the notebooks and the pictures of ``results/``."""
    from mkdocs.structure.files import File

    for name, address in PROJECT_PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        files.append(File.generated(config, address, content=rewrite_links(text, name, address)))
    for name, address in NOTEBOOKS.items():
        notebook = files.get_file_from_path(name)
        if notebook is not None:
            files.remove(notebook)
        text = convert_notebook(ROOT / "docs" / name)
        files.append(File.generated(config, address, content=rewrite_links(text, f"docs/{name}", address)))
    for path in sorted((ROOT / "results").glob("figure_*.png")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill the generated pages and rewrite links that lead out of ``docs/``."""
    address = page.file.src_uri
    if placeholder := PLACEHOLDERS.get(address):
        markdown = markdown.replace(placeholder, GENERATORS[address]())
    if page.file.generated_by:
        return markdown
    return rewrite_links(markdown, f"docs/{address}", address)


# ---- links ------------------------------------------------------------------------------------------


def rewrite_links(markdown: str, source: str, address: str) -> str:
    """Rewrite the relative links of a document.

    Parameters
    ----------
    markdown
        Its text.
    source
        Its path in the repository, such as ``docs/how-to/server.md``.
    address
        Its path in the site, such as ``how-to/server.md``.
    """

    def rewrite(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        if not target or re.match(r"[a-z]+:", target):
            return match.group()
        path = os.path.normpath(PurePosixPath(source).parent / target)
        return f"{before}{find_address(path, address)}{anchor or ''}{after}"

    return "".join(
        part if is_code else LINK.sub(rewrite, part) for part, is_code in split_code_blocks(markdown)
    )


def find_address(path: str, page: str) -> str:
    """Return the link from a page of the site to a path of the repository."""
    inside = path.removeprefix("docs/")
    if path in PROJECT_PAGES:
        target = PROJECT_PAGES[path]
    elif inside in NOTEBOOKS:
        target = NOTEBOOKS[inside]
    elif path != inside:
        target = inside
    elif path.startswith("results/") and path.endswith(PICTURES):
        target = path
    else:
        return f"{REPOSITORY}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"
    return os.path.relpath(target, PurePosixPath(page).parent)


def split_code_blocks(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a document in order, each with whether it is a fenced code block."""
    end = 0
    for block in re.finditer(r"^(```+).*?^\1\s*$", markdown, re.DOTALL | re.MULTILINE):
        yield markdown[end : block.start()], False
        yield block.group(), True
        end = block.end()
    yield markdown[end:], False


# ---- generated pages --------------------------------------------------------------------------------


def convert_notebook(path: Path) -> str:
    """Convert a notebook to Markdown: text, code and the text that code printed."""
    parts = [f"[Download this notebook]({REPOSITORY}/raw/main/docs/tutorial/{path.name})"]
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, *rest = parts[1].splitlines()
    return "\n\n".join([title, parts[0], "\n".join(rest).strip(), *parts[2:]]) + "\n"


def describe_commands() -> str:
    """Describe every command of the command line, from the Typer apps themselves, as Markdown."""
    apps = {"gliomark": load_app(), "gliomark-bids": load_bids_app()}
    return "\n\n".join(
        part for name, app in apps.items() for part in _describe_command(typer.main.get_command(app), name, 2)
    )


def load_app() -> typer.Typer:
    """Return the Typer app, from the module of the entry point in ``pyproject.toml``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return import_module(project["scripts"]["gliomark"].partition(":")[0]).app


def load_bids_app() -> typer.Typer:
    """Return the Typer app of ``gliomark-bids``."""
    return import_module("gliomark.cli.bids_app").app


def _describe_command(command: Any, name: str, level: int) -> Iterator[str]:
    """Yield the paragraphs on a Typer command and on the commands below it."""
    children = {key: one for key, one in getattr(command, "commands", {}).items() if not one.hidden}
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    words = [one.name.upper() if one.required else f"[{one.name.upper()}]" for one in arguments]
    usage = [name, *(["[OPTIONS]"] if options else []), *words, *(["COMMAND"] if children else [])]
    yield f"{'#' * level} {name}"
    yield _escape(command.help or "")
    yield f"```text\n{' '.join(usage)}\n```"
    if arguments:
        rows = [f"| `{one.name.upper()}` | {_escape(getattr(one, 'help', '') or '')} |" for one in arguments]
        yield "\n".join(["| argument | description |", "|---|---|", *rows])
    if options:
        rows = [_describe_option(one) for one in options]
        yield "\n".join(["| option | description | default |", "|---|---|---|", *rows])
    for key, child in children.items():
        yield from _describe_command(child, f"{name} {key}", min(level + 1, 4))


def _describe_option(option: Any) -> str:
    """Return one row of a table: names, help text with possible values, default."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    default = getattr(option.default, "value", option.default)
    if option.required:
        default_text = "required"
    elif default in (None, (), [], False, "") or callable(default):
        default_text = ""
    else:
        default_text = f"`{default}`"
    values = [f"`{value}`" for value in _list_choices(option)]
    among = f" One of {', '.join(values)}." if values else ""
    variable = f" Environment variable `{option.envvar}`." if getattr(option, "envvar", None) else ""
    return f"| {names} | {_escape((option.help or '') + among + variable)} | {default_text} |"


def _list_choices(option: Any) -> list[str]:
    """Return the possible values of an option; how Typer keeps them depends on its version."""
    annotation = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [one.value for one in annotation]
    return [
        getattr(one, "value", one) for one in getattr(getattr(option, "type", None), "choices", None) or ()
    ]


def _escape(text: str) -> str:
    """One paragraph of help text as Markdown: no tables, no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def list_public_names() -> str:
    """Return one mkdocstrings block for every name that ``gliomark`` exports."""
    import gliomark

    names = [name for name in gliomark.__all__ if not name.startswith("__")]
    kinds = {
        "Functions": [name for name in names if name.islower()],
        "Classes": [name for name in names if not name.islower() and not name.endswith("Error")],
        "Errors": [name for name in names if name.endswith("Error")],
    }
    parts = []
    for title, members in kinds.items():
        parts += [f"## {title}", *(f"::: gliomark.{name}" for name in members)]
    return "\n\n".join(parts)


def list_modules() -> str:
    """List every module of the package with the first line of its docstring, one table per package."""
    packages: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if parts[-1].startswith("_") and parts[-1] != "__init__" or "versions" in parts:
            continue
        name = ".".join(parts).removesuffix(".__init__")
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        first = docstring.split("\n\n")[0]
        package = ".".join(name.split(".")[:2]) if path.parent != SOURCE else "gliomark"
        link = f"[`{name}`]({REPOSITORY}/blob/main/{path.relative_to(ROOT).as_posix()})"
        packages.setdefault(package, []).append(f"| {link} | {_escape(first).replace('``', '`')} |")
    return "\n\n".join(
        "\n".join([f"## {package}", "", "| module | contents |", "|---|---|", *rows])
        for package, rows in packages.items()
    )


GENERATORS = {
    "reference/command-line.md": describe_commands,
    "reference/python.md": list_public_names,
    "reference/modules.md": list_modules,
}
