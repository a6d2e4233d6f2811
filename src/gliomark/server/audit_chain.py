"""The audit log as a hash chain: every line holds the SHA-256 of the previous line and of its own content.

A line cannot be changed, removed, moved or inserted later without breaking the chain, unless every following hash is
recomputed; comparing with a head hash that was noted elsewhere detects that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gliomark.errors import InputError
from gliomark.messages import message

FIRST_PREVIOUS_SHA256 = "0" * 64  # previous hash of the first line


@dataclass(frozen=True)
class AuditLine:
    """A line of the log in the form that is hashed.

    Attributes
    ----------
    at
        UTC time with microseconds.
    detail
        JSON-compatible data.
    """

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
        """Whether the stored hash matches the content."""
        return self.sha256 == compute_line_sha256(self)


@dataclass(frozen=True)
class ChainHead:
    """Number, hash and time of the last line."""

    number: int = 0
    sha256: str = FIRST_PREVIOUS_SHA256
    at: str = ""


@dataclass(frozen=True)
class ChainVerification:
    """Result of verifying an intact chain.

    Attributes
    ----------
    line_count
        Number of lines.
    head
        The last line.
    expected_number
        Number of the line with the expected hash; None if no hash was expected.
    """

    line_count: int
    head: ChainHead
    expected_number: int | None = None


def format_utc_time(at: datetime) -> str:
    """Format a time as ``2026-11-26T12:00:00.000000Z``; a time without a zone is interpreted as UTC."""
    time_with_zone = at if at.tzinfo else at.replace(tzinfo=UTC)
    return time_with_zone.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compute_line_sha256(line: AuditLine) -> str:
    """Return the SHA-256 of a line's content as JSON with sorted keys, no spaces, and ASCII only."""
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
    """Return the line that follows ``head``."""
    line = AuditLine(head.number + 1, format_utc_time(at), who, action, subject, dict(detail), head.sha256)
    return replace(line, sha256=compute_line_sha256(line))


def parse_stored_line(
    number: int, at: Any, who: Any, action: Any, subject: Any, detail: Any, *hashes: Any
) -> AuditLine:
    """Return a line from its stored values; invalid times, texts or JSON become text, which matches no hash."""
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
    """Verify the chain in one pass, with one line in memory.

    Parameters
    ----------
    lines
        All lines, in the order of their numbers.
    recorded
        The head that the database stores beside the log.
    read_line
        Reads the line with a given number; called only if the chain is broken.
    expected_sha256
        Head hash noted earlier, which must occur in the chain; empty for none.

    Raises
    ------
    InputError
        If a line is changed, missing, swapped or inserted (the first one is named), or ``expected_sha256`` does not
        occur.
    """
    last, count, expected_number = ChainHead(), 0, None
    for line in lines:
        if line.previous_sha256 != last.sha256 or not line.has_valid_hash:
            raise InputError(_describe_break(line, last, recorded, read_line))
        last, count = ChainHead(line.number, line.sha256, line.at), count + 1
        expected_number = line.number if line.sha256 == expected_sha256 else expected_number
    if last.number > recorded.number:
        raise InputError(_describe_broken_line("inserted", recorded.number + 1))
    if last.number < recorded.number:
        raise InputError(_describe_missing_lines(last.number + 1, recorded.number))
    if last.sha256 != recorded.sha256:
        raise InputError(_describe_broken_line("altered", last.number))
    if expected_sha256 and expected_number is None:
        raise InputError(message("audit-head-gone", sha256=expected_sha256, count=count))
    return ChainVerification(count, last, expected_number)


def _describe_break(
    line: AuditLine, last: ChainHead, recorded: ChainHead, read_line: Callable[[int], AuditLine | None]
) -> str:
    """Describe what happened to the first line that does not follow the previous one."""
    if line.has_valid_hash:
        if line.number > last.number + 1:
            return _describe_missing_lines(last.number + 1, line.number - 1)
        # its own hash is valid, so the previous line was changed and rehashed
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
    """Describe what happened to a line whose number is not the one it was written with."""
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
    """Return the number for which the stored hash matches the content; 0 if there is none."""
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
