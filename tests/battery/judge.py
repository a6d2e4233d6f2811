"""What a case came to, in one word."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from tests.battery.case import Answered, Case, Partly, Refused, Seen
from tests.battery.watch import LIMIT_S

from gliomark.messages import MESSAGES

Verdict = Literal[
    "ok",
    "trace",
    "signal",
    "hang",
    "memory",
    "partial",
    "wrong acceptance",
    "wrong refusal",
    "wrong sentence",
]
VERDICTS: tuple[Verdict, ...] = (
    "trace", "signal", "hang", "memory", "partial", "wrong acceptance", "wrong refusal", "wrong sentence",
)  # fmt: skip
MOST_MB = 2000.0
STATUSES = (1, 2)  # ours, and Typer's for options


def judge(case: Case, seen: Seen, wrong: str, may_stay: Callable[[str], bool]) -> tuple[Verdict, str]:
    """The verdict, and why in words. wrong: what is wrong with an answer that was given."""
    if seen.hung or seen.seconds > LIMIT_S:
        return "hang", f"{seen.seconds:.0f} s"
    if seen.signal:
        return "signal", f"signal {seen.signal}"
    if "Traceback (most recent call last)" in seen.said:
        return "trace", last_line(seen.said)
    if seen.parent_mb > MOST_MB:
        return "memory", f"{seen.parent_mb:.0f} MB"
    if isinstance(case.expects, Answered):
        if seen.status:
            return "wrong refusal", last_line(seen.said)
        return ("wrong acceptance", wrong) if wrong else ("ok", "")
    if isinstance(case.expects, Partly):
        unsaid = [one for one in case.expects.says if not says(one, seen.said)]
        if unsaid or seen.status != 1:
            return (
                "wrong sentence",
                f"status {seen.status}, of {unsaid} nothing was said: {last_line(seen.said)}",
            )
        return ("wrong acceptance", wrong) if wrong else ("ok", "")
    return judge_refusal(case.expects, seen, may_stay)


def judge_refusal(expects: Refused, seen: Seen, may_stay: Callable[[str], bool]) -> tuple[Verdict, str]:
    if seen.status == 0:
        return "wrong acceptance", last_line(seen.said)
    if left := sorted(name for name in seen.left if not may_stay(name)):
        return "partial", ", ".join(left[:4])
    if seen.status not in STATUSES or not any(says(one, seen.said) for one in expects.says):
        return "wrong sentence", f"status {seen.status}: {last_line(seen.said)}"
    return "ok", ""


def says(wanted: str, said: str) -> bool:
    """Whether a text holds the message of this code, or, where there is no such code, these words."""
    if wanted not in MESSAGES:
        return wanted.lower() in said.lower()
    text = re.split(r"\{[^}]*\}", MESSAGES[wanted][0])
    pattern = r".{0,400}?".join(re.escape(part) for part in text)
    return re.search(pattern, said, re.DOTALL) is not None


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "nothing was said"
