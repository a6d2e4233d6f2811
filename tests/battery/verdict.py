"""Verdict on a case, in one word."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from tests.battery.cases_and_results import (
    Case,
    ExpectedAnswer,
    ExpectedPartialRefusal,
    ExpectedRefusal,
    ProcessResult,
)
from tests.battery.watched_process import TIMEOUT_S

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
    "trace",
    "signal",
    "hang",
    "memory",
    "partial",
    "wrong acceptance",
    "wrong refusal",
    "wrong sentence",
)
MAX_MEMORY_MB = 2000.0
REFUSAL_STATUSES = (1, 2)  # of gliomark, and of Typer for wrong options


def evaluate_result(
    case: Case, result: ProcessResult, answer_error: str, is_allowed_leftover: Callable[[str], bool]
) -> tuple[Verdict, str]:
    """Judge a result: verdict and reason. answer_error: what is wrong with the answer, "" if it is right."""
    if result.timed_out or result.seconds > TIMEOUT_S:
        return "hang", f"{result.seconds:.0f} s"
    if result.signal:
        return "signal", f"signal {result.signal}"
    if "Traceback (most recent call last)" in result.output:
        return "trace", find_last_line(result.output)
    if result.peak_mb > MAX_MEMORY_MB:
        return "memory", f"{result.peak_mb:.0f} MB"
    if isinstance(case.expectation, ExpectedAnswer):
        if result.status:
            return "wrong refusal", find_last_line(result.output)
        return ("wrong acceptance", answer_error) if answer_error else ("ok", "")
    if isinstance(case.expectation, ExpectedPartialRefusal):
        missing_messages = [
            one for one in case.expectation.expected_messages if not contains_message(one, result.output)
        ]
        if missing_messages or result.status != 1:
            return (
                "wrong sentence",
                f"status {result.status}, missing messages {missing_messages}: {find_last_line(result.output)}",
            )
        return ("wrong acceptance", answer_error) if answer_error else ("ok", "")
    return evaluate_refusal(case.expectation, result, is_allowed_leftover)


def evaluate_refusal(
    expects: ExpectedRefusal, result: ProcessResult, is_allowed_leftover: Callable[[str], bool]
) -> tuple[Verdict, str]:
    if result.status == 0:
        return "wrong acceptance", find_last_line(result.output)
    if files_left := sorted(name for name in result.files_left if not is_allowed_leftover(name)):
        return "partial", ", ".join(files_left[:4])
    if result.status not in REFUSAL_STATUSES or not any(
        contains_message(one, result.output) for one in expects.expected_messages
    ):
        return "wrong sentence", f"status {result.status}: {find_last_line(result.output)}"
    return "ok", ""


def contains_message(code_or_words: str, output: str) -> bool:
    """Whether the output contains the message of this code or, if there is no such code, these words."""
    if code_or_words not in MESSAGES:
        return code_or_words.lower() in output.lower()
    text = re.split(r"\{[^}]*\}", MESSAGES[code_or_words][0])
    pattern = r".{0,400}?".join(re.escape(part) for part in text)
    return re.search(pattern, output, re.DOTALL) is not None


def find_last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "no output"
