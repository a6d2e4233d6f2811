"""Options and values that several commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomark.errors import ConfigurationError

if TYPE_CHECKING:
    from gliomark.study import MRSequence


class FusionChoice(StrEnum):
    """Values of --fusion."""

    near = "near"
    all = "all"
    large = "large"


class YesNo(StrEnum):
    """Values of --enhancing."""

    yes = "yes"
    no = "no"


class LanguageChoice(StrEnum):
    """Values of --language."""

    en = "en"
    zh = "zh"


class DeviceChoice(StrEnum):
    """Values of --device."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class PhantomFormat(StrEnum):
    """Output formats of a synthetic cohort."""

    pictures = "pictures"
    nifti = "nifti"
    dicom = "dicom"
    prepared = "prepared"


class ExportFormat(StrEnum):
    """Formats of an exported cohort."""

    bids = "bids"
    nnunet = "nnunet"
    structured_pictures = "structured-pictures"


class ModelExportFormat(StrEnum):
    """Formats of an exported model."""

    monai_bundle = "monai-bundle"
    onnx = "onnx"
    torchscript = "torchscript"


class RecipeChoice(StrEnum):
    """Values of a repeatable --recipe."""

    published = "published"
    small = "small"
    pretrained = "pretrained"


class Preset(StrEnum):
    """Values of --preset."""

    published = "published"
    quick = "quick"


def show_version(is_requested: bool) -> None:
    """Print the version and exit."""
    if is_requested:
        from importlib.metadata import version

        typer.echo(f"gliomark {version('gliomark')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
]
CohortOption = Annotated[Path, typer.Option("--cohort", help="A prepared cohort.")]
OutputFolderOption = Annotated[Path, typer.Option("--out", help="Folder for tables, plots and run records.")]
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="published, or quick: reduced to hours on two CPU cores.")
]
SeedsOption = Annotated[
    int, typer.Option("--seeds", min=1, help="Number of seeds with which every network is trained.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Worker processes; 0 (default with a GPU): none.")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a dask scheduler, tcp://...")
]

TrustedKeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key",
        envvar="GLIOMARK_TRUSTED_KEY",
        help="Public key file; weights files signed with this key are trusted; repeatable.",
    ),
]
RequireSignedOption = Annotated[
    bool,
    typer.Option(
        "--require-signed",
        envvar="GLIOMARK_REQUIRE_SIGNED",
        help="Load only weights files signed with a --trusted-key.",
    ),
]

DeviceOption = Annotated[
    DeviceChoice, typer.Option("--device", help="Where the networks compute; auto: a GPU if there is one.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress and no table.")]

TestCohortsOption = Annotated[
    list[Path] | None, typer.Option(help="A prepared cohort used only for testing; repeatable.")
]

DataFolderOption = Annotated[
    Path, typer.Option("--data", help="Folder of the server: images, results, records.")
]
DatabaseOption = Annotated[
    str, typer.Option("--database", help="Database URL; default: SQLite in the data folder.")
]

# columns of a table of predictions
IdColumnOption = Annotated[str, typer.Option("--id", help="Column of the patient id.")]
LabelColumnOption = Annotated[
    str, typer.Option("--label", help="Column of the reference label: 0 or 1, no or yes.")
]
ProbabilityColumnOption = Annotated[str, typer.Option("--probability", help="Column of the probability.")]
PredictedColumnOption = Annotated[
    str | None,
    typer.Option(
        "--predicted", help="Column of the predicted class, if the probability refers to that class."
    ),
]
RowFilterOption = Annotated[
    list[str] | None, typer.Option("--where", help="COLUMN=VALUE: use only these rows; repeatable.")
]

ModelArgument = Annotated[str, typer.Argument(help="Name of a shipped model, or a weights file.")]


def ask_password(prompt: str, confirm: bool = False, variable: str = "GLIOMARK_KEY_PASSWORD") -> str:
    """Return the password from an environment variable, otherwise prompt for it."""
    password_from_environment = os.environ.get(variable)
    return (
        password_from_environment
        if password_from_environment
        else str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm))
    )


def parse_pair(text: str, expected_form: str) -> tuple[str, str]:
    """Parse ``LEFT=RIGHT`` into its two parts.

    expected_form: description of the valid form for the message.

    Raises
    ------
    ConfigurationError
        If the text does not have this form.
    """
    left, separator, right = text.partition("=")
    if not separator or not left or not right:
        raise ConfigurationError(f"'{text}' must be {expected_form}.")
    return left, right


def parse_row_filters(texts: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """Parse the values of --where into pairs of column and value. Raises ConfigurationError as ``parse_pair`` does."""
    return tuple(parse_pair(text, "COLUMN=VALUE, such as task=IDH") for text in texts or ())


def parse_sequences(text: str) -> tuple[MRSequence, ...]:
    """Parse a pair of sequences such as ``T1C,T2``.

    Raises
    ------
    ConfigurationError
        If the text is not two different known sequences.
    """
    from gliomark.study import MRSequence

    names = [name.strip().upper() for name in text.split(",")]
    unknown = [name for name in names if name not in set(MRSequence)]
    if unknown or len(set(names)) != 2:
        raise ConfigurationError(
            f"'{text}' must be two different sequences of T1, T1C, T2 and FLAIR, such as T1C,T2."
        )
    return tuple(MRSequence(name) for name in names)
