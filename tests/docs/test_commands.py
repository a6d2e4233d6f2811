"""Every command in the documents is one that the program, make or Python understands. Nothing is run."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
from collections.abc import Callable

import pytest
import typer
from scripts.docs_hooks import load_app, load_bids_app
from tests.docs.documents import ROOT, list_code_blocks, list_commands, list_documents, read_document

from gliomark.cli.bids_app import expand_labels

APP, BIDS_APP = load_app(), load_bids_app()

DOCUMENTS = list_documents()
COMMANDS = [(name, line) for name in DOCUMENTS for line in list_commands(name, "gliomark")]
COMMANDS += [(name, line) for name in DOCUMENTS for line in list_commands(name, "gliomark-bids")]
# commands of scripts for SLURM, without srun and the container in front of them
SCRIPT_COMMANDS = [
    (name, re.search(r"(?<!-)\bgliomark [^&]*", line)[0])
    for name in DOCUMENTS
    for block in list_code_blocks(name)
    if block.language == "bash" and "#SBATCH" in block.text
    for line in block.text.replace("\\\n", " ").splitlines()
    if re.match(r"(srun .*\s)?gliomark ", line)
]
# options of other programs that the text names
FOREIGN_OPTIONS = {
    *("--platform", "--python-version", "--only-binary", "--nthreads"),
    *("--nv", "--gpus-per-task", "--kill-on-bad-exit"),
}


@pytest.fixture
def is_parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Whether the app's own parser would run the command of a line."""
    reached: list[str] = []

    def replace(callback: Callable) -> Callable:
        @functools.wraps(callback)
        def record(*_: object, **__: object) -> None:
            reached.append(callback.__name__)

        return record

    for part in (APP, BIDS_APP, *(group.typer_instance for group in APP.registered_groups)):
        for command in part.registered_commands:
            monkeypatch.setattr(command, "callback", replace(command.callback))

    def parse(line: str) -> bool:
        reached.clear()
        program, *arguments = shlex.split(line, comments=True)
        try:
            BIDS_APP(expand_labels(arguments)) if program == "gliomark-bids" else APP(arguments)
        except SystemExit as end:
            return not end.code and (len(reached) == 1 or arguments == ["--version"])
        return False

    return parse


@pytest.mark.parametrize("name, line", COMMANDS, ids=[f"{name} {line[:60]}" for name, line in COMMANDS])
def test_a_gliomark_command_is_valid(is_parsed, name: str, line: str) -> None:
    assert is_parsed(line)


@pytest.mark.parametrize("name, line", SCRIPT_COMMANDS)
def test_a_gliomark_command_in_a_slurm_script_is_valid(is_parsed, name: str, line: str) -> None:
    assert is_parsed(line)


def test_scripts_for_slurm_train_on_one_node_on_several_and_in_a_container() -> None:
    lines = [line for name, line in SCRIPT_COMMANDS if name == "docs/how-to/train-on-a-cluster.md"]
    assert len(lines) == 5 and sum("--nodes 2" in line for line in lines) == 2


def test_the_important_commands_are_documented() -> None:
    called = {" ".join(line.split()[1:3]) for _, line in COMMANDS}
    assert {"cohort build", "train segmentation", "train markers", "experiment demonstration"} <= called
    assert {line.split()[1] for _, line in COMMANDS} >= {"predict", "explain", "evaluate", "serve", "client"}
    assert any(line.startswith("gliomark-bids ") for _, line in COMMANDS)


def test_commands_of_the_makefile_are_valid(is_parsed) -> None:
    lines = re.findall(r"^\t@?\$\(BIN\)/(gliomark .*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert lines and all(map(is_parsed, lines))


@pytest.mark.parametrize(
    "line", ["gliomark predict P", "gliomark predict P --out o --spacing 1", "gliomark x"]
)
def test_an_invalid_command_is_detected(is_parsed, line: str) -> None:
    assert not is_parsed(line)


def test_options_in_the_text_exist() -> None:
    """Every --option in running text belongs to some command."""
    known = {"--help", *FOREIGN_OPTIONS}
    waiting = [typer.main.get_command(APP), typer.main.get_command(BIDS_APP)]
    while waiting:
        command = waiting.pop()
        known |= {option for parameter in command.params for option in parameter.opts}
        waiting += list(getattr(command, "commands", {}).values())
    named = {
        (name, option)
        for name in DOCUMENTS
        if name != "CHANGELOG.md"  # it also names options of earlier versions
        for option in re.findall(r"`(--[a-z0-9-]+)", read_document(name))
    }
    assert named and not {(name, option) for name, option in named if option not in known}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    lines = [line for name in DOCUMENTS for line in list_commands(name, "make")]
    called = {word for line in lines for word in shlex.split(line, comments=True)[1:2] if "=" not in word}
    assert called and called <= targets


def test_python_commands_exist() -> None:
    lines = [line for name in DOCUMENTS for line in list_commands(name, "python")]
    for line in lines:
        _, option, word, *_ = shlex.split(line, comments=True)
        if option == "-c":
            compile(word, "<document>", "exec")
        elif option == "-m":
            assert importlib.util.find_spec(word), line
        else:
            assert (ROOT / option).is_file(), line


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_examples_compile(name: str) -> None:
    for block in list_code_blocks(name):
        if block.language == "python":
            compile(block.text, name, "exec")
