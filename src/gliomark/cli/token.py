"""``gliomark token``: API tokens of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import DatabaseOption, DataFolderOption

app = typer.Typer(no_args_is_help=True, help="Manage API tokens.")


@app.command("add")
def add_token_command(
    name: Annotated[str, typer.Argument(help="Name of the token's owner.")],
    role: Annotated[str, typer.Option(help="reader or admin.")] = "reader",
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
) -> None:
    """Create a token; it is shown only once."""
    from gliomark.server.run import open_database

    typer.echo(open_database(data, database).add_token(name, role))


@app.command("list")
def list_tokens_command(
    data: DataFolderOption = Path("gliomark-data"), database: DatabaseOption = ""
) -> None:
    """List tokens with owner, role and date."""
    from gliomark.server.run import open_database

    for row in open_database(data, database).list_tokens():
        typer.echo(f"{row.name}\t{row.role}\t{row.created:%Y-%m-%d}")


@app.command("revoke")
def revoke_token_command(
    name: Annotated[str, typer.Argument(help="Name of the token's owner.")],
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
) -> None:
    """Revoke a token."""
    from gliomark.server.run import open_database

    open_database(data, database).revoke_token(name)
