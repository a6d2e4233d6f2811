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
    "": "predict explain fetch serve client evaluate cohort train experiment token audit models site",
    "cohort": "build check describe export anonymise phantom",
    "train": "segmentation markers",
    "experiment": "demonstration table-2-3 table-3-1 table-3-2 table-3-3 segmentation-extensions table-4-2 table-4-3 "
    "table-4-4 table-4-5 table-4-6 marker-comparison slice-leakage feature-table reader-finding "
    "phantom-learning-curve permuted-labels registration-accuracy series-recognition site-recalibration robustness "
    "server-load kill-recovery server-invalid-uploads server-idle-connections client-response-time tables",
    "token": "add list revoke",
    "audit": "verify head show",
    "site": "check recalibrate monitor",
    "models": "list networks show export keygen sign verify",
}
HEAVY_MODULES = ("torch", "numpy", "monai", "SimpleITK", "pydicom", "rich.progress", "sqlalchemy", "PySide6")


def list_commands(group: str) -> dict[str, typer.core.TyperCommand]:
    commands = get_command(cli.app).commands
    return dict(commands[group].commands if group else commands)


@pytest.mark.parametrize("group", COMMANDS)
def test_each_group_has_its_commands(group: str) -> None:
    assert set(COMMANDS[group].split()) <= set(list_commands(group))


@pytest.mark.parametrize("group", COMMANDS)
def test_every_command_and_option_has_a_help_text(group: str) -> None:
    """Every command and option has a help text, and no option is negative."""
    for name, command in list_commands(group).items():
        arguments = [*filter(None, [group]), name]
        result = CliRunner().invoke(cli.app, [*arguments, "--help"])
        assert result.exit_code == 0 and command.help and command.help.endswith("."), arguments
        for parameter in command.params:
            assert getattr(parameter, "help", None), (arguments, parameter.name)
            options = (*parameter.opts, *parameter.secondary_opts)
            assert not [one for one in options if one.startswith(("--without", "--no-no"))], arguments
            assert not parameter.secondary_opts, (arguments, options)


def test_the_version_is_printed(run_command) -> None:
    result = run_command("--version")
    assert (result.status, result.stdout, result.stderr) == (0, f"gliomark {version('gliomark')}\n", "")


def test_completion_is_offered(run_command) -> None:
    result = run_command("--help")
    assert "--install-completion" in result.stdout and "--show-completion" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
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
def test_a_mistyped_command_or_option_gets_a_suggestion(
    run_command, arguments: list[str], suggestion: str
) -> None:
    result = run_command(*arguments)
    assert (result.status, result.stdout) == (2, "")
    assert suggestion in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "FOLDER", "--out", "out", "--allow-missing-clinical", "--model", "Dmo"),
        ("explain", "FOLDER", "--out", "out", "--model", "demoo"),
        ("models", "show", "deno"),
        ("models", "verify", "demos", "--key", "KEY"),
    ],
)
def test_a_mistyped_model_gets_a_suggestion(
    run_command, picture_folder, working_folder, arguments: tuple[str, ...]
) -> None:
    key = working_folder / "group"
    assert run_command("models", "keygen", key, "--no-password").status == 0
    paths = {"FOLDER": picture_folder, "out": working_folder / "out", "KEY": f"{key}.pub"}
    result = run_command(*(paths.get(argument, argument) for argument in arguments))
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.endswith("Did you mean 'demo'?\n") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("part", ["segmentation", "markers"])
def test_a_mistyped_network_is_refused(run_command, working_folder, part: str) -> None:
    arguments = ("--cohort", working_folder, "--out", working_folder / "out.safetensors")
    if part == "markers":
        arguments += ("--segmentation", working_folder / "s.safetensors", "--marker", "idh")
    result = run_command(
        "train", part, *arguments, "--network", {"segmentation": "Unet", "markers": "kinet"}[part]
    )
    assert (result.status, result.stdout) == (1, "") and result.stderr.count("\n") == 1
    if part == "segmentation":
        assert "did you mean 'U-Net'?" in result.stderr


def test_a_missing_file_gets_no_suggestion(run_command, working_folder) -> None:
    result = run_command("models", "show", working_folder / "weights.safetensors")
    assert result.status == 1 and "does not exist" in result.stderr and "Did you mean" not in result.stderr


def test_help_imports_no_large_library() -> None:
    """Packages are imported when their command runs, so that the help appears at once."""
    check = f"import sys, gliomark.cli; print([name for name in {HEAVY_MODULES!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
