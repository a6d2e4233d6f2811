"""Write ``docs/licences.md``: the licence of every package that users install, and of the data inside the packages.

The packages are those of the locks for users, read as they are installed here; what licences may be is in
``requirements/licences.toml``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.lock import REQUIREMENTS, ROOT, read_lock

SPDX = get_spdx_licensing()
TABLE = ROOT / "docs" / "licences.md"
USER_LOCKS = ("torch", "base", "extras")
WEIGHTS_AND_FONTS = (".ckpt", ".onnx", ".otf", ".pt", ".pth", ".safetensors", ".ttf")
TABLE_HEADER = """\
# Licences of what gliomark installs

Written by `make licences` from the installed packages; do not edit. gliomark's own licence is Apache-2.0. Which
licences may stand here, and why those that are not permissive do, is in `requirements/licences.toml`; a test compares.
Tools for developers alone (`requirements/dev.lock`) and CUDA's parts, which come with the ordinary PyTorch for Linux
under NVIDIA's terms, are left out.

"""


@dataclass(frozen=True)
class Rules:
    """``licences.toml``."""

    allowed: frozenset[str]
    reviewed: dict[str, dict[str, str]]
    stated: dict[str, str]
    names: dict[str, str]
    data: list[dict[str, str]]


def read_rules(text: str | None = None) -> Rules:
    table: dict[str, Any] = tomllib.loads(text or (REQUIREMENTS / "licences.toml").read_text("utf-8"))
    allowed = frozenset(table["permissive"]) | frozenset(table["files_stay_open"])
    return Rules(allowed, table["reviewed"], table["stated"], table["names"], table["data"])


def find_user_packages() -> dict[str, Distribution]:
    """What the locks for users ask for on this machine, by name.

    Raises
    ------
    RuntimeError
        One of them is not installed here.
    """
    found, missing = {}, []
    for lock in USER_LOCKS:
        for name, (requirement, _) in read_lock(lock).items():
            is_cuda = lock == "torch" and name != "torch"
            if is_cuda or (requirement.marker and not requirement.marker.evaluate()):
                continue
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                missing.append(name)
    if missing:
        raise RuntimeError(f"not installed here: {', '.join(missing)}; run `make install-extras`")
    return dict(sorted(found.items()))


def find_licence(package: Distribution, rules: Rules) -> str:
    """The package's licence as an SPDX expression, or ``unknown``."""
    stated_licence, meta = rules.stated.get(canonicalize_name(package.name)), package.metadata
    prefix = "License :: OSI Approved :: "
    classifiers = [c.removeprefix(prefix) for c in meta.get_all("Classifier") or [] if c.startswith(prefix)]
    for words in (stated_licence, meta.get("License-Expression"), meta.get("License"), *classifiers):
        if licence := to_spdx(words, package, rules):
            return licence
    return "unknown"


def to_spdx(words: str | None, package: Distribution, rules: Rules) -> str | None:
    words = rules.names.get((words or "").strip().lower(), (words or "").strip())
    if words == "BSD":
        words = "BSD-3-Clause" if "neither the name" in read_licence_text(package).lower() else "BSD-2-Clause"
    if not words or "\n" in words:
        return None
    try:
        return str(SPDX.parse(words, validate=True, strict=True))
    except ExpressionError:
        return None


def read_licence_text(package: Distribution) -> str:
    """The text of the licence files in the wheel, its white space as single spaces."""
    files = [f for f in package.files or [] if re.match(r"(?i)licen[cs]e|copying", f.name)]
    return re.sub(r"\s+", " ", " ".join(Path(str(f.locate())).read_text("utf-8", "replace") for f in files))


def is_allowed(licence: str, rules: Rules) -> bool:
    """Whether every part of an AND, and one of an OR, is in the list."""
    expression = SPDX.parse(licence)
    if parts := expression.args if type(expression).__name__ in ("AND", "OR") else ():
        answers = [is_allowed(str(part), rules) for part in parts]
        return all(answers) if type(expression).__name__ == "AND" else any(answers)
    return str(expression) in rules.allowed


def find_objection(name: str, licence: str, rules: Rules) -> str | None:
    """Why this package may not be installed with gliomark, in a sentence; None where it may."""
    if licence == "unknown":
        return f"{name}: its licence is unknown; read its wheel and state it in requirements/licences.toml"
    if name in rules.reviewed:
        was = rules.reviewed[name]["licence"]
        changed = f"{name}: its licence was {was} when it was reviewed, now it is {licence}"
        return None if licence == was else changed
    if not is_allowed(licence, rules):
        return f"{name}: {licence} is not a licence that any package may have; review it in requirements/licences.toml"
    return None


def find_data_files(package: Distribution) -> list[str]:
    """Weights and fonts in a package, tests' own left out."""
    return sorted(
        str(file)
        for file in package.files or []
        if file.suffix in WEIGHTS_AND_FONTS and len(file.parts) > 1 and not file.name.startswith("test_")
    )


def render_table(packages: dict[str, Distribution], rules: Rules) -> str:
    """The page; versions are in the locks."""
    text = TABLE_HEADER + "| package | licence | remark |\n|---|---|---|\n"
    for name, package in packages.items():
        remark = rules.reviewed.get(name, {}).get("reason", "")
        text += f"| {name} | {find_licence(package, rules)} | {remark} |\n"
    text += "\n## Data inside the packages\n\n| package | files | what | licence | said by |\n|---|---|---|---|---|\n"
    for row in rules.data:
        cells = (row["package"], f"`{row['files']}`", row["what"], row["licence"], row["said"])
        text += f"| {' | '.join(cells)} |\n"
    return text


if __name__ == "__main__":
    rules, packages = read_rules(), find_user_packages()
    TABLE.write_text(render_table(packages, rules), "utf-8")
    found = (find_objection(name, find_licence(package, rules), rules) for name, package in packages.items())
    sys.exit("\n".join(filter(None, found)) or None)
