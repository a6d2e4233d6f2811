"""``gliomark audit``: export the audit log as csv, show its head and verify the hash chain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from gliomark.errors import ConfigurationError, InputError
from gliomark.files import convert_write_errors, make_temporary_name, remove_path
from gliomark.messages import message
from gliomark.server.audit_chain import ChainHead, ChainVerification, format_utc_time
from gliomark.server.database import COMMAND_LINE_CALLER, AuditEntry, AuditFilter, AuditRow, Database
from gliomark.server.run import open_database
from gliomark.tables.csv_writer import format_csv

CSV_COLUMNS = ("number", "at", "who", "action", "subject", "detail", "previous_sha256", "sha256")


def open_existing_database(data_folder: Path, database_url: str) -> Database:
    """Open the database like ``open_database``, but only if it exists: a new, empty log would verify as intact.

    Raises
    ------
    ConfigurationError
        If the folder holds no database.
    """
    if not database_url and not (data_folder / "gliomark.db").is_file():
        raise ConfigurationError(message("no-database", folder=str(data_folder)))
    return open_database(data_folder, database_url)


def parse_sha256(text: str) -> str:
    """Return a SHA-256 in lower case, without spaces.

    Raises
    ------
    ConfigurationError
        If the text is not a SHA-256.
    """
    sha256 = re.sub(r"\s", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ConfigurationError(message("audit-hash-unfit", text=text[:80]))
    return sha256


def parse_utc_time(text: str) -> datetime:
    """Parse an ISO 8601 date or time; without a zone it is UTC.

    Raises
    ------
    ConfigurationError
        If the text is not a date or time.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(message("audit-time-unfit", text=text[:80])) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def describe_verification(verification: ChainVerification) -> str:
    """Describe an intact chain in one sentence."""
    if not verification.line_count:
        return message("audit-empty")
    parameters = {"count": verification.line_count, "sha256": verification.head.sha256}
    intact = message("audit-intact", **parameters, number=verification.head.number, at=verification.head.at)
    return (
        intact
        if verification.expected_number is None
        else message("audit-found", intact=intact, noted=verification.expected_number)
    )


def format_head(head: ChainHead) -> str:
    """Return the head on one line, hash first, so that scripts can cut it off."""
    return f"{head.sha256} {head.number} {head.at}".rstrip()


def iterate_csv_pages(database: Database, audit_filter: AuditFilter) -> Iterator[str]:
    """Yield the log as csv text, oldest line first, one page at a time; the export itself is recorded first.

    Raises
    ------
    InputError
        If a stored line cannot be decoded.
    """
    database.add_audit_entries([AuditEntry(COMMAND_LINE_CALLER, "audit read", "", audit_filter.audit_detail)])
    yield format_csv([CSV_COLUMNS])
    try:
        for page in database.iterate_audit_pages(audit_filter):
            yield format_csv(map(_format_row, page))
    except (SQLAlchemyError, ValueError):
        raise InputError(message("audit-unreadable")) from None


def write_csv_pages(pages: Iterable[str], path: Path) -> None:
    """Write a csv file atomically, one page in memory at a time.

    Raises
    ------
    FileWriteError
        If the file cannot be written.
    """
    temporary_path = path.with_name(make_temporary_name())
    with convert_write_errors(path):
        try:
            with temporary_path.open("w", encoding="utf-8-sig", newline="") as file:
                file.writelines(pages)
            temporary_path.replace(path)
        finally:
            remove_path(temporary_path)


def _format_row(row: AuditRow) -> list[object]:
    detail = json.dumps(row.detail, ensure_ascii=False, sort_keys=True)
    hashes = (row.previous_sha256, row.sha256)
    return [row.number, format_utc_time(row.at), row.who, row.action, row.subject, detail, *hashes]
