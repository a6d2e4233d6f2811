"""``gliomark audit``: the audit log of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import DatabaseOption, DataFolderOption

app = typer.Typer(no_args_is_help=True, help="Read and verify a server's audit log.")


@app.command("verify")
def verify_audit_log_command(
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
    expect: Annotated[
        str, typer.Option(metavar="HASH", help="SHA-256 from 'audit head' that the log must contain.")
    ] = "",
) -> None:
    """Verify the log's hash chain; report the first line that was altered, removed, moved or inserted."""
    from gliomark.server.audit_export import describe_verification, open_existing_database, parse_sha256

    expected_hash = parse_sha256(expect) if expect else ""
    typer.echo(
        describe_verification(open_existing_database(data, database).verify_audit_chain(expected_hash))
    )


@app.command("head")
def show_audit_head_command(
    data: DataFolderOption = Path("gliomark-data"), database: DatabaseOption = ""
) -> None:
    """Print SHA-256, number and time (UTC) of the newest line, to be stored outside the server."""
    from gliomark.server.audit_export import format_head, open_existing_database

    typer.echo(format_head(open_existing_database(data, database).read_audit_head()))


@app.command("show")
def show_audit_log_command(
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
    since: Annotated[str, typer.Option(help="Only lines from this date or time (UTC) on.")] = "",
    who: Annotated[str, typer.Option(help="Only lines of this person or machine.")] = "",
    action: Annotated[str, typer.Option(help="Only lines of this action, such as 'study viewed'.")] = "",
    subject: Annotated[str, typer.Option(help="Only lines about this study or prediction.")] = "",
    out: Annotated[Path | None, typer.Option(help="csv file to write; default: print.")] = None,
) -> None:
    """Print the log as csv, oldest line first; this access is itself recorded."""
    from gliomark.server.audit_export import (
        iterate_csv_pages,
        open_existing_database,
        parse_utc_time,
        write_csv_pages,
    )
    from gliomark.server.database import AuditFilter

    since_time = parse_utc_time(since) if since else None
    audit_filter = AuditFilter(
        since=since_time, who=who or None, action=action or None, subject=subject or None
    )
    pages = iterate_csv_pages(open_existing_database(data, database), audit_filter)
    if out is not None:
        return write_csv_pages(pages, out)
    for page in pages:
        typer.echo(page, nl=False)
