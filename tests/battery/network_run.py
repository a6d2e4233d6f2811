"""Run the cases for HTTP server and DICOM node against one server: ``python -m tests.battery.network_run GROUND WORK``.

Reads the keys of the cases from standard input as JSON; writes one row per case as JSON, in the same order.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.battery.case_table import collect_cases
from tests.battery.cases_and_results import Case, ExpectedAnswer, ResultRow
from tests.battery.live_server import LiveServer, Reply
from tests.battery.verdict import MAX_MEMORY_MB, Verdict, contains_message, find_last_line
from tests.battery.watched_process import TIMEOUT_S, read_peak_memory_mb, reset_peak_memory

INTERNAL_SERVER_ERROR = 500


def main() -> None:
    ground, work = Path(sys.argv[1]), Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    live = LiveServer(work, ground)
    try:
        live.get_healthy_prediction()
        for key in json.load(sys.stdin):
            print(json.dumps(asdict(run_case(collect_cases()[key], live))), flush=True)
    finally:
        live.stop()


def run_case(case: Case, live: LiveServer) -> ResultRow:
    """Run one case; afterwards the server must be healthy, and nothing of a rejected input may remain."""
    before, log_position = live.find_study_files(), live.log_file.stat().st_size
    reset_peak_memory(live.process.pid)
    started = time.monotonic()
    try:
        reply = case.prepare(live)
    except Exception as error:  # an exception of a client library is not a reply of the server
        reply = Reply(-1, f"{type(error).__name__}: {error}", False)
    seconds, peak_mb = time.monotonic() - started, read_peak_memory_mb(live.process.pid)
    with live.log_file.open("rb") as log:
        log.seek(log_position)
        log_text = log.read().decode("utf-8", "replace")
    files_left = sorted(live.find_study_files() - before)
    verdict, reason = evaluate_reply(case, live, reply, log_text, seconds, peak_mb, files_left)
    return ResultRow.from_case(case, verdict, reason, seconds, peak_mb)


def evaluate_reply(
    case: Case,
    live: LiveServer,
    reply: Reply,
    log_text: str,
    seconds: float,
    peak_mb: float,
    files_left: list[str],
) -> tuple[Verdict, str]:
    """Judge the reply of the server: verdict and reason."""
    if live.process.poll() is not None:
        return "signal", f"the server ended with {live.process.returncode}: {find_last_line(log_text)}"
    if seconds > TIMEOUT_S or not live.is_healthy():
        return "hang", f"{seconds:.0f} s, health is not ok, or no answer"
    if case.door == "DICOM node" and not live.send_echo():
        return "hang", "no response to C-ECHO"
    if "Traceback (most recent call last)" in log_text or reply.status == INTERNAL_SERVER_ERROR:
        return "trace", find_last_line(log_text) + reply.text[:200]
    if peak_mb > MAX_MEMORY_MB:
        return "memory", f"{peak_mb:.0f} MB"
    if isinstance(case.expectation, ExpectedAnswer):
        wrong = "" if reply.refused else case.expectation.find_error(reply)
        return ("wrong refusal", reply.text[:300]) if reply.refused else _evaluate_answer(wrong)
    if not reply.refused:
        return "wrong acceptance", f"{reply.status} {reply.text[:300]}"
    if files_left:
        return "partial", ", ".join(files_left[:4])
    reply_text = f"{reply.status} {reply.text}"
    if not any(
        f'"code":"{one}"' in reply_text
        or f'"code": "{one}"' in reply_text
        or contains_message(one, reply_text)
        for one in case.expectation.expected_messages
    ):
        return "wrong sentence", reply_text[:300]
    return "ok", ""


def _evaluate_answer(answer_error: str) -> tuple[Verdict, str]:
    return ("wrong acceptance", answer_error) if answer_error else ("ok", "")


if __name__ == "__main__":
    main()
