"""The documents agree with the program, and the repository contains no forbidden files."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from gliomark.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "MODEL_CARD.md",
    "CONTRIBUTING.md",
    "docs/cohort.md",
    "docs/segmentation.md",
    "docs/markers.md",
    "docs/dicom.md",
    "docs/answers.md",
    "docs/client.md",
    "docs/weights.md",
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# ---- commands ---------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    """Find the lines that call gliomark in fenced shell blocks, with continued lines joined."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?gliomark\b", line)]


@pytest.fixture
def understood(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """understood(line): whether the command line parser accepts the command; nothing is run."""
    reached: list[str] = []

    def idle(command: Callable) -> Callable:
        @functools.wraps(command)
        def reach(*_: object, **__: object) -> None:
            reached.append(command.__name__)

        return reach

    for part in (app, *(group.typer_instance for group in app.registered_groups)):
        for command in part.registered_commands:
            monkeypatch.setattr(command, "callback", idle(command.callback))

    def try_it(line: str) -> bool:
        reached.clear()
        try:
            app(shlex.split(line, comments=True)[1:])
        except SystemExit as end:
            return not end.code and len(reached) == 1
        return False

    return try_it


DOCUMENTED = [(name, line) for name in DOCUMENTS for line in commands(text_of(name))]


@pytest.mark.parametrize("name, line", DOCUMENTED, ids=[f"{n} {line[:60]}" for n, line in DOCUMENTED])
def test_documented_command_parses(understood, name: str, line: str) -> None:
    assert understood(line)


def test_there_are_documented_commands() -> None:
    called = {" ".join(line.split()[1:3]) for _, line in DOCUMENTED}
    assert {"cohort build", "train segmentation", "train markers", "experiment demonstration"} <= called
    assert sum(line.startswith("gliomark predict") for _, line in DOCUMENTED) >= 3


def test_makefile_commands_parse(understood) -> None:
    lines = re.findall(r"^\t@?\$\(BIN\)/(gliomark .*)$", text_of("Makefile"), re.MULTILINE)
    assert lines and all(map(understood, lines))


@pytest.mark.parametrize(
    "line", ["gliomark predict P", "gliomark predict P --out o --spacing 1", "gliomark x"]
)
def test_a_wrong_command_would_be_noticed(understood, line: str) -> None:
    assert not understood(line)


def test_options_in_readme_exist() -> None:
    """Every --option named in the text belongs to a command."""
    known: set[str] = {"--help"}
    waiting = [typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        known |= {option for parameter in command.params for option in parameter.opts}
        waiting += list(getattr(command, "commands", {}).values())
    named = {found for name in DOCUMENTS for found in re.findall(r"`(--[a-z0-9-]+)", text_of(name))}
    assert named and named <= known


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG.md"])
def test_linked_files_exist(name: str) -> None:
    """Links and pictures inside the repository."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text_of(name))
    missing = [target for target in targets if not ((ROOT / name).parent / target).exists()]
    assert not missing


# ---- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "MODEL_CARD.md", "docs/cohort.md", "docs/segmentation.md"])
def test_figures_are_those_of_the_csv_files(name: str) -> None:
    tables = pytest.importorskip("gliomark.experiments.markdown_tables")
    document, text = text_of(name), tables.DOCUMENT_FORMATTERS[name](ROOT / "results")
    assert tables.insert_results(document, text, ROOT / name) == document, (
        f"the tables of {name} are not those of results/: gliomark experiment tables"
    )


# ---- versions ---------------------------------------------------------------------------------------


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == version
    assert re.search(rf'^version: "?{re.escape(version)}"?$', text_of("CITATION.cff"), re.MULTILINE)


# ---- tracked files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
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
    place = path.relative_to(ROOT)
    if place.suffix == ".png":
        # results: only aggregate plots, listed by name, so that no plot of a single patient is added unnoticed
        return place.parts[0] == "docs" or (place.parts[0] == "results" and place.name in AGGREGATE_FIGURES)
    if place.suffix == ".qm":  # a test compares it with its source
        return place.parent == Path("src/gliomark/client/translations")
    if place == Path(
        "tests/server/before/before.tar.xz"
    ):  # of a synthetic patient, see make.py in the same folder
        return True
    return place.suffix == ".safetensors" and place.parent == Path("src/gliomark/models/shipped")


def text_or_none(path: Path) -> str | None:
    """Read a file's text; None for a binary file."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def test_no_patients_images(tracked) -> None:
    """Any file that is not text could be an image of a patient."""
    odd = [path for path in tracked if text_or_none(path) is None and not may_be_binary(path)]
    assert not odd


def test_no_machine_paths(tracked) -> None:
    """No file contains paths of the machine on which it was written."""
    names = "|".join(["work", "root", "home/[a-z]", "Users/[A-Za-z]"])
    absolute = re.compile(r"(?<![\w.})\]*-])/(?:" + names + ")/")
    found = {
        str(path.relative_to(ROOT)): hit.group()
        for path in tracked
        if (text := text_or_none(path)) is not None and (hit := absolute.search(text))
    }
    assert not found


def test_no_large_files(tracked) -> None:
    large = {path.name: path.stat().st_size for path in tracked if path.suffix != ".safetensors"}
    assert max(large.values()) < 2_000_000
