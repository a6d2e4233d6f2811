"""The application itself: help, version, completion, suggestions for mistyped names, and a quick start."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from gliomark import cli

COMMANDS = {
    "": "predict explain serve client evaluate cohort train experiment token audit models",
    "cohort": "build check describe export anonymise phantom",
    "train": "segmentation markers",
    "experiment": "demonstration table-2-3 table-3-1 table-3-2 table-3-3 segmentation-extensions table-4-2 table-4-3 "
    "table-4-4 table-4-5 table-4-6 marker-comparison slice-leakage feature-table reader-finding "
    "phantom-learning-curve permuted-labels registration-accuracy series-recognition server-load kill-recovery "
    "server-invalid-uploads server-idle-connections client-response-time tables",
    "token": "add list revoke",
    "audit": "verify head show",
    "models": "list networks show keygen sign verify",
}
HEAVY_MODULES = ("torch", "numpy", "monai", "SimpleITK", "pydicom", "rich.progress", "sqlalchemy", "PySide6")


def list_commands(group: str) -> dict[str, typer.core.TyperCommand]:
    commands = get_command(cli.app).commands
    return dict(commands[group].commands if group else commands)


@pytest.mark.parametrize("group", COMMANDS)
def test_commands_of_each_group(group: str) -> None:
    assert set(COMMANDS[group].split()) <= set(list_commands(group))


@pytest.mark.parametrize("group", COMMANDS)
def test_help_of_every_command(group: str) -> None:
    """Every command and option has a help text, and no option says what is not done."""
    for name, command in list_commands(group).items():
        words = [*filter(None, [group]), name]
        shown = CliRunner().invoke(cli.app, [*words, "--help"])
        assert shown.exit_code == 0 and command.help and command.help.endswith("."), words
        for parameter in command.params:
            assert getattr(parameter, "help", None), (words, parameter.name)
            options = (*parameter.opts, *parameter.secondary_opts)
            assert not [one for one in options if one.startswith(("--without", "--no-no"))], words
            assert not parameter.secondary_opts, (words, options)


def test_version(run_command) -> None:
    shown = run_command("--version")
    assert (shown.status, shown.stdout, shown.stderr) == (0, f"gliomark {version('gliomark')}\n", "")


def test_completion_is_offered(run_command) -> None:
    shown = run_command("--help")
    assert "--install-completion" in shown.stdout and "--show-completion" in shown.stdout


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["predikt"], "Did you mean 'predict'?"),
        (["cohort", "biuld"], "Did you mean 'build'?"),
        (["experiment", "slice-leak"], "Did you mean 'slice-leakage'?"),
        (["experiment", "kill-recovry"], "Did you mean 'kill-recovery'?"),
        (["models", "keygne"], "Did you mean 'keygen'?"),
        (["predict", "x", "--out", "y", "--clinicall", "z"], "--clinical"),
        (["predict", "x", "--out", "y", "--allow-missing-clincal"], "--allow-missing-clinical"),
        (["cohort", "build", "x", "--allow-mising-masks"], "--allow-missing-masks"),
        (["models", "keygen", "x", "--nopassword"], "--no-password"),
    ],
)
def test_mistyped_command_or_option(run_command, words: list[str], suggestion: str) -> None:
    shown = run_command(*words)
    assert (shown.status, shown.stdout) == (2, "")
    assert suggestion in shown.stderr and "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "FOLDER", "--out", "out", "--allow-missing-clinical", "--model", "Dmo"),
        ("explain", "FOLDER", "--out", "out", "--model", "demoo"),
        ("models", "show", "deno"),
        ("models", "verify", "demos", "--key", "KEY"),
    ],
)
def test_mistyped_model(run_command, picture_folder, working_folder, words: tuple[str, ...]) -> None:
    key = working_folder / "group"
    assert run_command("models", "keygen", key, "--no-password").status == 0
    places = {"FOLDER": picture_folder, "out": working_folder / "out", "KEY": f"{key}.pub"}
    shown = run_command(*(places.get(word, word) for word in words))
    assert (shown.status, shown.stdout) == (1, "")
    assert shown.stderr.endswith("Did you mean 'demo'?\n") and shown.stderr.count("\n") == 1


@pytest.mark.parametrize("part", ["segmentation", "markers"])
def test_mistyped_network(run_command, working_folder, part: str) -> None:
    words = ("--cohort", working_folder, "--out", working_folder / "out.safetensors")
    if part == "markers":
        words += ("--segmentation", working_folder / "s.safetensors", "--marker", "idh")
    shown = run_command(
        "train", part, *words, "--network", {"segmentation": "Unet", "markers": "kinet"}[part]
    )
    assert (shown.status, shown.stdout) == (1, "") and shown.stderr.count("\n") == 1
    if part == "segmentation":
        assert "did you mean 'U-Net'?" in shown.stderr


def test_a_missing_file_is_not_a_mistyped_model(run_command, working_folder) -> None:
    shown = run_command("models", "show", working_folder / "weights.safetensors")
    assert shown.status == 1 and "does not exist" in shown.stderr and "Did you mean" not in shown.stderr


def test_help_imports_no_heavy_library() -> None:
    """Packages are imported when their command runs, so that the help appears at once."""
    check = f"import sys, gliomark.cli; print([name for name in {HEAVY_MODULES!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
