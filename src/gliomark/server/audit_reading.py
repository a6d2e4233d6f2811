"""``gliomark audit``: the log as csv, its head, and whether its chain is intact, as an operator reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from gliomark.files import convert_write_errors, make_temporary_name, remove_path
from gliomark.messages import message
from gliomark.server.audit_chain import ChainHead, ChainVerification, format_utc_time
from gliomark.server.records import COMMAND_LINE_CALLER, AuditEntry, AuditFilter, AuditRow, Database
from gliomark.server.run import open_database
from gliomark.study import GliomarkError
from gliomark.tables.writing import format_csv

CSV_COLUMNS = ("number", "at", "who", "action", "subject", "detail", "previous_sha256", "sha256")


def open_existing_database(data_folder: Path, database_url: str) -> Database:
    """As ``open_records``, but a folder without a database is refused: an empty log would look intact."""
    if not database_url and not (data_folder / "gliomark.db").is_file():
        raise GliomarkError(message("no-database", folder=str(data_folder)))
    return open_database(data_folder, database_url)


def parse_sha256(text: str) -> str:
    """A SHA-256 as it was noted, in lower case. Raises GliomarkError for anything else."""
    sha256 = re.sub(r"\s", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise GliomarkError(message("audit-hash-unfit", text=text[:80]))
    return sha256


def parse_utc_time(text: str) -> datetime:
    """A date or a time, in UTC where it names no zone. Raises GliomarkError for anything else."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise GliomarkError(message("audit-time-unfit", text=text[:80])) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def describe_verification(verification: ChainVerification) -> str:
    """An intact chain in one sentence."""
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
    """The head on one line, the hash first, so that a script can cut it off."""
    return f"{head.sha256} {head.number} {head.at}".rstrip()


def iterate_csv_pages(database: Database, audit_filter: AuditFilter) -> Iterator[str]:
    """The log as csv text, oldest line first, a page at a time; that it was read is recorded before.

    Raises GliomarkError where a line holds what is no line of a log any more.
    """
    database.add_audit_entries([AuditEntry(COMMAND_LINE_CALLER, "audit read", "", audit_filter.audit_detail)])
    yield format_csv([CSV_COLUMNS])
    try:
        for page in database.iterate_audit_pages(audit_filter):
            yield format_csv(map(_format_row, page))
    except (SQLAlchemyError, ValueError):
        raise GliomarkError(message("audit-unreadable")) from None


def write_csv_pages(pages: Iterable[str], path: Path) -> None:
    """A csv file, whole or not at all, a page in memory at a time. Raises NotWrittenError."""
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
