"""The audit log as a hash chain: every line holds the SHA-256 of the line before it and of its own content.

A line cannot be altered, removed, moved or added afterwards without breaking the chain, unless every later hash is
computed anew as well; that is found by comparing with a head that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gliomark.messages import message
from gliomark.study import GliomarkError

FIRST_PREVIOUS_SHA256 = "0" * 64  # what the first line holds as the hash of the line before it


@dataclass(frozen=True)
class AuditLine:
    """A line of the log as it is hashed. at: UTC with six digits after the second; detail: plain JSON data."""

    number: int
    at: str
    who: str
    action: str
    subject: str
    detail: Any
    previous_sha256: str
    sha256: str = ""

    @property
    def has_valid_hash(self) -> bool:
        """Whether its content has the hash that it holds."""
        return self.sha256 == compute_line_sha256(self)


@dataclass(frozen=True)
class ChainHead:
    """The last line: its number, hash and time."""

    number: int = 0
    sha256: str = FIRST_PREVIOUS_SHA256
    at: str = ""


@dataclass(frozen=True)
class ChainVerification:
    """An intact chain. noted: number of the line whose hash was expected, where one was."""

    line_count: int
    head: ChainHead
    expected_number: int | None = None


def format_utc_time(at: datetime) -> str:
    """``2026-11-26T12:00:00.000000Z``; a time without a zone is taken for UTC."""
    time_with_zone = at if at.tzinfo else at.replace(tzinfo=UTC)
    return time_with_zone.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compute_line_sha256(line: AuditLine) -> str:
    """SHA-256 of a line's content as JSON: sorted keys, no blanks, ASCII alone."""
    content = {
        "number": line.number,
        "at": line.at,
        "who": line.who,
        "action": line.action,
        "subject": line.subject,
        "detail": line.detail,
        "previous_sha256": line.previous_sha256,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def create_next_line(
    head: ChainHead, at: datetime, who: str, action: str, subject: str, detail: Mapping[str, Any]
) -> AuditLine:
    """The line that follows ``head``."""
    line = AuditLine(head.number + 1, format_utc_time(at), who, action, subject, dict(detail), head.sha256)
    return replace(line, sha256=compute_line_sha256(line))


def parse_stored_line(
    number: int, at: Any, who: Any, action: Any, subject: Any, detail: Any, *hashes: Any
) -> AuditLine:
    """A line as a database keeps it; what is no time, no text or no JSON any more stays so and fits no hash."""
    try:
        at = format_utc_time(at if isinstance(at, datetime) else datetime.fromisoformat(_decode_text(at)))
        detail = detail if isinstance(detail, Mapping) else json.loads(_decode_text(detail))
    except (ValueError, TypeError):
        at, detail = _decode_text(at), _decode_text(detail)
    return AuditLine(
        number,
        at,
        _decode_text(who),
        _decode_text(action),
        _decode_text(subject),
        detail,
        *map(_decode_text, hashes),
    )


def _decode_text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def verify_chain(
    lines: Iterable[AuditLine],
    recorded: ChainHead,
    read_line: Callable[[int], AuditLine | None],
    expected_sha256: str = "",
) -> ChainVerification:
    """Follow the chain once, one line in memory.

    Parameters
    ----------
    lines
        All lines, in the order of their numbers.
    recorded
        The head that the database keeps beside them.
    line_at
        Reads the line of a number; asked only where the chain is broken.
    expect
        A head's SHA-256 that was noted earlier, which must be in the chain.

    Raises
    ------
    GliomarkError
        Names the first line that is altered, missing, swapped or inserted, or says that ``expect`` is not there.
    """
    last, count, expected_number = ChainHead(), 0, None
    for line in lines:
        if line.previous_sha256 != last.sha256 or not line.has_valid_hash:
            raise GliomarkError(_describe_break(line, last, recorded, read_line))
        last, count = ChainHead(line.number, line.sha256, line.at), count + 1
        expected_number = line.number if line.sha256 == expected_sha256 else expected_number
    if last.number > recorded.number:
        raise GliomarkError(_describe_broken_line("inserted", recorded.number + 1))
    if last.number < recorded.number:
        raise GliomarkError(_describe_missing_lines(last.number + 1, recorded.number))
    if last.sha256 != recorded.sha256:
        raise GliomarkError(_describe_broken_line("altered", last.number))
    if expected_sha256 and expected_number is None:
        raise GliomarkError(message("audit-head-gone", sha256=expected_sha256, count=count))
    return ChainVerification(count, last, expected_number)


def _describe_break(
    line: AuditLine, last: ChainHead, recorded: ChainHead, read_line: Callable[[int], AuditLine | None]
) -> str:
    """What was done to the first line that does not follow the one before it."""
    if line.has_valid_hash:
        if line.number > last.number + 1:
            return _describe_missing_lines(last.number + 1, line.number - 1)
        # its own hash fits, so it is the line before that was changed and hashed anew
        return _describe_broken_line("altered", max(last.number, 1))
    if original := _find_original_number(line, recorded):
        return _describe_move(line, original, last, read_line)
    after = read_line(line.number + 1)
    follows = after is not None and after.previous_sha256 == last.sha256
    was_inserted = follows or line.number > recorded.number
    return _describe_broken_line("inserted" if was_inserted else "altered", line.number)


def _describe_move(
    line: AuditLine, original: int, last: ChainHead, read_line: Callable[[int], AuditLine | None]
) -> str:
    """What was done where a line stands under another number than the one it was written with."""
    other = read_line(original)
    if other is not None and other.sha256 == line.sha256:
        return _describe_broken_line("inserted", line.number)  # a copy
    if other is not None and compute_line_sha256(replace(other, number=line.number)) == other.sha256:
        return message("audit-swapped", one=line.number, other=original)
    if original > last.number + 1:
        return _describe_missing_lines(last.number + 1, original - 1)
    if original <= last.number:
        return _describe_broken_line("inserted", original)
    return message("audit-renumbered", number=line.number, original=original)


def _find_original_number(line: AuditLine, recorded: ChainHead) -> int:
    """The number under which the content has the hash that it holds; 0 where it has it under none."""
    last = max(line.number, recorded.number)
    return next(
        (n for n in range(1, last + 1) if compute_line_sha256(replace(line, number=n)) == line.sha256), 0
    )


def _describe_missing_lines(first: int, last: int) -> str:
    if first == last:
        return _describe_broken_line("missing", first)
    return message("audit-missing-lines", first=first, last=last, intact=first - 1)


def _describe_broken_line(damage_kind: str, number: int) -> str:
    return message(f"audit-{damage_kind}", number=number, intact=number - 1)
