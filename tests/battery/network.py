"""The cases of the network's doors against one running server: ``python -m tests.battery.network GROUND WORK``.

Reads the cases' keys from standard input as JSON; writes a row as JSON for each, in their order.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.battery.case import Answered, Case, Row
from tests.battery.judge import MOST_MB, Verdict, last_line, says
from tests.battery.live import Live, Reply
from tests.battery.table import all_cases
from tests.battery.watch import LIMIT_S, forget_memory, memory_mb

UNFORESEEN = 500


def main() -> None:
    ground, work = Path(sys.argv[1]), Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    live = Live(work, ground)
    try:
        live.good_prediction()
        for key in json.load(sys.stdin):
            print(json.dumps(asdict(run_case(all_cases()[key], live))), flush=True)
    finally:
        live.end()


def run_case(case: Case, live: Live) -> Row:
    """One case; the server must be well afterwards, and nothing of what it refused may stay."""
    before, heard = live.kept(), live.said.stat().st_size
    forget_memory(live.process.pid)
    started = time.monotonic()
    try:
        reply = case.make(live)
    except Exception as error:  # whatever this side's libraries say: it is no answer
        reply = Reply(-1, f"{type(error).__name__}: {error}", False)
    seconds, most = time.monotonic() - started, memory_mb(live.process.pid)
    with live.said.open("rb") as log:
        log.seek(heard)
        said = log.read().decode("utf-8", "replace")
    left = sorted(live.kept() - before)
    verdict, why = judge(case, live, reply, said, seconds, most, left)
    return Row.of(case, verdict, why, seconds, most)


def judge(
    case: Case, live: Live, reply: Reply, said: str, seconds: float, most: float, left: list[str]
) -> tuple[Verdict, str]:
    """The verdict, and why in words."""
    if live.process.poll() is not None:
        return "signal", f"the server ended with {live.process.returncode}: {last_line(said)}"
    if seconds > LIMIT_S or not live.is_well():
        return "hang", f"{seconds:.0f} s, health is not ok, or no answer"
    if case.door == "DICOM node" and not live.echo():
        return "hang", "C-ECHO is not answered any more"
    if "Traceback (most recent call last)" in said or reply.status == UNFORESEEN:
        return "trace", last_line(said) + reply.text[:200]
    if most > MOST_MB:
        return "memory", f"{most:.0f} MB"
    if isinstance(case.expects, Answered):
        wrong = "" if reply.refused else case.expects.wrong(reply)
        return ("wrong refusal", reply.text[:300]) if reply.refused else _if(wrong)
    if not reply.refused:
        return "wrong acceptance", f"{reply.status} {reply.text[:300]}"
    if left:
        return "partial", ", ".join(left[:4])
    told = f"{reply.status} {reply.text}"
    if not any(
        f'"code":"{one}"' in told or f'"code": "{one}"' in told or says(one, told)
        for one in case.expects.says
    ):
        return "wrong sentence", told[:300]
    return "ok", ""


def _if(wrong: str) -> tuple[Verdict, str]:
    return ("wrong acceptance", wrong) if wrong else ("ok", "")


if __name__ == "__main__":
    main()
