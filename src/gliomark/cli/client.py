"""``gliomark client``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gliomark.errors import ConfigurationError


def client(
    folder: Annotated[Path | None, typer.Argument(help="Patient folder to open.")] = None,
    server: Annotated[
        str | None, typer.Option(help="Server address for this session, instead of the one in the settings.")
    ] = None,
) -> None:
    """Open the desktop client; it starts a local server unless its settings name another."""
    sys.exit(load_client()(folder, server))


def load_client() -> Callable[[Path | None, str | None], int]:
    """Import the client and return the function that runs it.

    Raises
    ------
    ConfigurationError
        If Qt is installed, but system graphics libraries are missing.
    """
    try:
        from gliomark.client.app import run_client
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        raise ConfigurationError(
            f"Qt cannot be loaded ({error}); install the libraries that it needs, such as libegl1."
        ) from None
    return run_client
