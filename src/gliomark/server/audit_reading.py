"""``gliomark audit``: the log as csv, its head, and whether its chain is intact, as an operator reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from gliomark.files import remove, temporary_name, writing
from gliomark.messages import message
from gliomark.server.audit_chain import Head, Verdict, utc_text
from gliomark.server.records import COMMAND_LINE, AuditFilter, AuditRow, Entry, Records
from gliomark.server.run import open_records
from gliomark.study import GliomarkError
from gliomark.tables.writing import csv_text

COLUMNS = ("number", "at", "who", "action", "subject", "detail", "previous_sha256", "sha256")


def open_existing_records(data: Path, database: str) -> Records:
    """As ``open_records``, but a folder without a database is refused: an empty log would look intact."""
    if not database and not (data / "gliomark.db").is_file():
        raise GliomarkError(message("no-database", folder=str(data)))
    return open_records(data, database)


def parse_hash(text: str) -> str:
    """A SHA-256 as it was noted, in lower case. Raises GliomarkError for anything else."""
    found = re.sub(r"\s", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise GliomarkError(message("audit-hash-unfit", text=text[:80]))
    return found


def parse_time(text: str) -> datetime:
    """A date or a time, in UTC where it names no zone. Raises GliomarkError for anything else."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise GliomarkError(message("audit-time-unfit", text=text[:80])) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def describe(verdict: Verdict) -> str:
    """An intact chain in one sentence."""
    if not verdict.count:
        return message("audit-empty")
    told = {"count": verdict.count, "sha256": verdict.head.sha256}
    intact = message("audit-intact", **told, number=verdict.head.number, at=verdict.head.at)
    return intact if verdict.noted is None else message("audit-found", intact=intact, noted=verdict.noted)


def describe_head(head: Head) -> str:
    """The head on one line, the hash first, so that a script can cut it off."""
    return f"{head.sha256} {head.number} {head.at}".rstrip()


def csv_pages(records: Records, wanted: AuditFilter) -> Iterator[str]:
    """The log as csv text, oldest line first, a page at a time; that it was read is recorded before.

    Raises GliomarkError where a line holds what is no line of a log any more.
    """
    records.log_all([Entry(COMMAND_LINE, "audit read", "", wanted.named)])
    yield csv_text([COLUMNS])
    try:
        for page in records.audit_pages(wanted):
            yield csv_text(map(_cells, page))
    except (SQLAlchemyError, ValueError):
        raise GliomarkError(message("audit-unreadable")) from None


def write_pages(pages: Iterable[str], out: Path) -> None:
    """A csv file, whole or not at all, a page in memory at a time. Raises NotWrittenError."""
    part = out.with_name(temporary_name())
    with writing(out):
        try:
            with part.open("w", encoding="utf-8-sig", newline="") as file:
                file.writelines(pages)
            part.replace(out)
        finally:
            remove(part)


def _cells(row: AuditRow) -> list[object]:
    detail = json.dumps(row.detail, ensure_ascii=False, sort_keys=True)
    hashes = (row.previous_sha256, row.sha256)
    return [row.number, utc_text(row.at), row.who, row.action, row.subject, detail, *hashes]
