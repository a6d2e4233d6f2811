"""The application: its commands, and how errors end it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from gliomark.cli import audit, bids_app, cohort, experiment, models, site, study, token, train
from gliomark.cli.client import client
from gliomark.cli.evaluate import evaluate
from gliomark.cli.fetch import fetch
from gliomark.cli.options import VersionOption
from gliomark.cli.predict import explain, predict
from gliomark.cli.server import serve
from gliomark.errors import GliomarkError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

# the extra that installs a module; "train" for all others
EXTRA_BY_MODULE = {
    "PySide6": "client",
    "dask": "cohort",
    "dicomweb_client": "pacs",
    "distributed": "cohort",
    "fastapi": "server",
    "monai": "explain",
    "pynetdicom": "pacs",
    "requests": "pacs",
    "sqlalchemy": "server",
    "torch": "explain",
    "uvicorn": "server",
}


def log_to_stderr(is_requested: bool) -> None:
    """Log the steps of the program on standard error."""
    if is_requested:
        import logging

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger = logging.getLogger("gliomark")
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]


@app.callback()
def main(
    version: VersionOption = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", callback=log_to_stderr, help="Log the steps on standard error."),
    ] = False,
) -> None:
    """Segment glioma on preoperative MRI and predict molecular markers. Research use only, not a medical device."""


for _command in (predict, explain, fetch, serve, client, evaluate):
    app.command()(_command)
for _group, _name in (
    (cohort.app, "cohort"),
    (train.app, "train"),
    (study.app, "study"),
    (experiment.app, "experiment"),
    (token.app, "token"),
    (audit.app, "audit"),
    (models.app, "models"),
    (site.app, "site"),
):
    app.add_typer(_group, name=_name)


def run() -> None:
    """Run the command line; errors that a user can resolve are one sentence on standard error, with exit status 1."""
    _run_app(app)


def run_bids() -> None:
    """Run ``gliomark-bids``, the command line of a BIDS App; errors end it as in ``run``."""
    _run_app(bids_app.app, bids_app.expand_labels(sys.argv[1:]))


def _run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    if not sys.warnoptions:
        # warnings of imaging libraries about unusual headers would hide the message
        warnings.simplefilter("ignore")
    try:
        app(arguments)
    except (GliomarkError, OSError, ModuleNotFoundError) as error:
        typer.echo(f"gliomark: {describe_error(error)}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def describe_error(error: GliomarkError | OSError | ModuleNotFoundError) -> str:
    """Describe an error in one sentence: what is wrong, where, and what to do."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRA_BY_MODULE.get(str(error.name).partition(".")[0], "train")
        return (
            f"this command needs {error.name}, which is not installed; type: pip install 'gliomark[{extra}]'"
        )
    if isinstance(error, OSError):
        # a folder that is not writable, a missing file, a full disk
        from gliomark.files import MESSAGE_CODE_BY_ERRNO, describe_os_error

        if error.errno in MESSAGE_CODE_BY_ERRNO:
            return str(describe_os_error(error))
        path_prefix = f"{error.filename}: " if error.filename else ""
        return f"{path_prefix}{error.strerror or error}; check the path and its permissions."
    return str(error)
