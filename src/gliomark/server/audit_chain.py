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

START = "0" * 64  # what the first line holds as the hash of the line before it


@dataclass(frozen=True)
class Line:
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
    def is_sound(self) -> bool:
        """Whether its content has the hash that it holds."""
        return self.sha256 == digest(self)


@dataclass(frozen=True)
class Head:
    """The last line: its number, hash and time."""

    number: int = 0
    sha256: str = START
    at: str = ""


@dataclass(frozen=True)
class Verdict:
    """An intact chain. noted: number of the line whose hash was expected, where one was."""

    count: int
    head: Head
    noted: int | None = None


def utc_text(at: datetime) -> str:
    """``2026-11-26T12:00:00.000000Z``; a time without a zone is taken for UTC."""
    zoned = at if at.tzinfo else at.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def digest(line: Line) -> str:
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


def chained(head: Head, at: datetime, who: str, action: str, subject: str, detail: Mapping[str, Any]) -> Line:
    """The line that follows ``head``."""
    line = Line(head.number + 1, utc_text(at), who, action, subject, dict(detail), head.sha256)
    return replace(line, sha256=digest(line))


def line_of(number: int, at: Any, who: Any, action: Any, subject: Any, detail: Any, *hashes: Any) -> Line:
    """A line as a database keeps it; what is no time, no text or no JSON any more stays so and fits no hash."""
    try:
        at = utc_text(at if isinstance(at, datetime) else datetime.fromisoformat(_text(at)))
        detail = detail if isinstance(detail, Mapping) else json.loads(_text(detail))
    except (ValueError, TypeError):
        at, detail = _text(at), _text(detail)
    return Line(number, at, _text(who), _text(action), _text(subject), detail, *map(_text, hashes))


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def verify(
    lines: Iterable[Line], recorded: Head, line_at: Callable[[int], Line | None], expect: str = ""
) -> Verdict:
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
    last, count, noted = Head(), 0, None
    for line in lines:
        if line.previous_sha256 != last.sha256 or not line.is_sound:
            raise GliomarkError(_describe_break(line, last, recorded, line_at))
        last, count = Head(line.number, line.sha256, line.at), count + 1
        noted = line.number if line.sha256 == expect else noted
    if last.number > recorded.number:
        raise GliomarkError(_broken("inserted", recorded.number + 1))
    if last.number < recorded.number:
        raise GliomarkError(_missing(last.number + 1, recorded.number))
    if last.sha256 != recorded.sha256:
        raise GliomarkError(_broken("altered", last.number))
    if expect and noted is None:
        raise GliomarkError(message("audit-head-gone", sha256=expect, count=count))
    return Verdict(count, last, noted)


def _describe_break(line: Line, last: Head, recorded: Head, line_at: Callable[[int], Line | None]) -> str:
    """What was done to the first line that does not follow the one before it."""
    if line.is_sound:
        if line.number > last.number + 1:
            return _missing(last.number + 1, line.number - 1)
        # its own hash fits, so it is the line before that was changed and hashed anew
        return _broken("altered", max(last.number, 1))
    if original := _original_number(line, recorded):
        return _describe_move(line, original, last, line_at)
    after = line_at(line.number + 1)
    follows = after is not None and after.previous_sha256 == last.sha256
    added = follows or line.number > recorded.number
    return _broken("inserted" if added else "altered", line.number)


def _describe_move(line: Line, original: int, last: Head, line_at: Callable[[int], Line | None]) -> str:
    """What was done where a line stands under another number than the one it was written with."""
    other = line_at(original)
    if other is not None and other.sha256 == line.sha256:
        return _broken("inserted", line.number)  # a copy
    if other is not None and digest(replace(other, number=line.number)) == other.sha256:
        return message("audit-swapped", one=line.number, other=original)
    if original > last.number + 1:
        return _missing(last.number + 1, original - 1)
    if original <= last.number:
        return _broken("inserted", original)
    return message("audit-renumbered", number=line.number, original=original)


def _original_number(line: Line, recorded: Head) -> int:
    """The number under which the content has the hash that it holds; 0 where it has it under none."""
    last = max(line.number, recorded.number)
    return next((n for n in range(1, last + 1) if digest(replace(line, number=n)) == line.sha256), 0)


def _missing(first: int, last: int) -> str:
    if first == last:
        return _broken("missing", first)
    return message("audit-missing-lines", first=first, last=last, intact=first - 1)


def _broken(how: str, number: int) -> str:
    return message(f"audit-{how}", number=number, intact=number - 1)
