"""The tutorials are correct: their commands are run, in order, in an empty folder, on phantoms."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.docs.documents import ROOT, list_commands

TUTORIALS = ROOT / "docs" / "tutorial"
# placeholders for the reader's own files
PLACEHOLDERS = ("PATIENT", "PATIENTS", "EXPORT", "lesion.nii.gz", "predictions.csv")


def run_commands(document: str, folder: Path) -> list[list[str]]:
    """Run the gliomark commands of a tutorial in a folder, those with placeholders excepted."""
    commands = []
    for line in list_commands(document, "gliomark"):
        arguments = shlex.split(line, comments=True)[1:]
        if not set(arguments) & set(PLACEHOLDERS):
            run_gliomark(arguments, folder)
            commands.append(arguments)
    return commands


def run_gliomark(arguments: list[str], folder: Path) -> str:
    """Run one command and return its standard output; fail with its standard error."""
    command = [sys.executable, "-m", "gliomark", *arguments]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"gliomark {shlex.join(arguments)}\n{process.stderr}"
    return process.stdout


def run_notebook(path: Path, folder: Path) -> None:
    """Run the code cells of a notebook in one fresh interpreter."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = folder / f"{path.stem}.py"
    # a spawned worker imports the script again and must not run it
    script.write_text(f"if __name__ == '__main__':\n{textwrap.indent(code, '    ')}\n", "utf-8")
    process = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_the_first_prediction_of_the_tutorial_works(tmp_path: Path) -> None:
    """The first two commands of the first tutorial, a phantom and its prediction."""
    lines = list(list_commands("docs/tutorial/first-prediction.md", "gliomark"))
    chosen = [line for line in lines if line.split()[1] in ("cohort", "predict")][:2]
    for line in chosen:
        run_gliomark(shlex.split(line, comments=True)[1:], tmp_path)
    result = tmp_path / "results" / "PHANTOM-0007"
    assert {"prediction.json", "report.html", "masks"} <= {path.name for path in result.iterdir()}
    assert (tmp_path / "results" / "predictions.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first-prediction.md", "cohort-to-model.md"])
def test_a_tutorial_runs_from_beginning_to_end(name: str, tmp_path: Path) -> None:
    commands = run_commands(f"docs/tutorial/{name}", tmp_path)
    assert len(commands) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    run_notebook(path, tmp_path)


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_has_no_stored_output(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None
            compile("".join(cell["source"]), path.name, "exec")
