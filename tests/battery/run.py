"""``python -m tests.battery.run``: every case at its door, watched, and the table of what they came to."""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from tests.battery.case import Case, Row
from tests.battery.judge import VERDICTS, judge, last_line
from tests.battery.table import all_cases

ROOMS = (
    "batch",
    "explain",
    "cohort.build",
    "cohort.anonymise",
    "cohort.export",
    "assessment",
    "training.recipes",
)
NETWORK = ("server", "DICOM node")
SAMPLE_EVERY = 22


def import_rooms() -> None:
    """What the commands import, once for all of them."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for room in ROOMS:
        import_module(f"gliomark.{room}")


def run_at_command_line(key: str, ground: Path, work: Path) -> list[Row]:
    """One case in a folder of its own, which is removed unless it went wrong."""
    from tests.battery.doors import NotLaidError, may_stay, run_case

    case = all_cases()[key]
    folder = work / f"{re.sub(r'[^a-z0-9]+', '-', key.lower())[:70]}-{zlib.crc32(key.encode()):08x}"
    try:
        seen, wrong = run_case(case, ground, folder)
    except NotLaidError as error:
        return [Row.of(case, "not laid out", str(error), 0.0, 0.0)]
    verdict, why = judge(case, seen, wrong, may_stay(case.door))
    if verdict == "ok":
        remove(folder)
        folder.with_suffix(".said").unlink()
    return [Row.of(case, verdict, why, seen.seconds, seen.parent_mb)]


def run_at_network(keys: Sequence[str], ground: Path, work: Path) -> list[Row]:
    """All cases of the network's doors against one server, in a process without threads of ours."""
    words = [sys.executable, "-m", "tests.battery.network", str(ground), str(work)]
    done = subprocess.run(words, input=json.dumps(keys), capture_output=True, text=True, check=False)
    rows = [Row(**json.loads(line)) for line in done.stdout.splitlines()]
    lost = [
        Row.of(all_cases()[key], "not laid out", last_line(done.stderr), 0.0, 0.0)
        for key in keys[len(rows) :]
    ]
    return rows + lost


def remove(folder: Path) -> None:
    """Also a thousand levels deep, where Python's own removal ends."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def chosen(door: str, only: str, sample: bool) -> list[Case]:
    """The cases asked for; a sample takes every so many of each door and kind, always the same."""
    cases = [
        c for c in all_cases().values() if (not door or c.door == door) and only.lower() in c.key.lower()
    ]
    return cases[::SAMPLE_EVERY] if sample else cases


def run_cases(cases: Sequence[Case], work: Path, workers: int) -> Iterator[Row]:
    """Every row as it is known."""
    ground = work / "ground"
    if not (ground / "answers.json").exists():
        subprocess.run([sys.executable, "-m", "tests.battery.ground", str(ground)], check=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=import_rooms) as pool:
        running: list[Future[list[Row]]] = []
        if keys := [case.key for case in cases if case.door in NETWORK]:
            running.append(pool.submit(run_at_network, keys, ground, work / "cases" / "network"))
        running += [
            pool.submit(run_at_command_line, case.key, ground, work / "cases")
            for case in cases
            if case.door not in NETWORK
        ]
        for done in as_completed(running):
            yield from done.result()


def write_table(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        names = [name for name in asdict(rows[0]) if name != "why"]
        table.writerow(names)
        table.writerows([getattr(row, name) for name in names] for row in rows)
    part.replace(path)


def kept_rows(path: Path, cases: Sequence[Case]) -> list[Row]:
    """What a table says of the other cases that there are, where some are run anew."""
    if not path.exists():
        return []
    again = {case.key for case in cases}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            Row(**row | {"seconds": float(row["seconds"]), "parent_mb": float(row["parent_mb"]), "why": ""})
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if (key := f"{row.door}: {row.case}") in all_cases() and key not in again]


def summary(rows: Sequence[Row]) -> str:
    """The counts, of which all but the first must be 0."""
    count = Counter(row.verdict for row in rows)
    odd = sum(row.expectation.startswith("answered") for row in rows)
    lines = [f"{len(rows)} cases ({odd} of them odd but healthy), {count['ok']} as they must be"]
    lines += [f"{count[name]:4d} {name}" for name in VERDICTS]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the table (csv), of which only the cases asked for change")
    parser.add_argument("--work", type=Path, help="a folder to work in and to keep; else one that is removed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", action="store_true", help="a fixed sample of all cases")
    parser.add_argument("--door", default="", help="of this door alone")
    parser.add_argument("--only", default="", help="whose names hold this")
    asked = parser.parse_args()
    work = (asked.work or Path(tempfile.mkdtemp(prefix="battery-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    remove(work / "cases")
    started, rows = time.monotonic(), []
    log = (work / "log").open("w", encoding="utf-8")
    cases = chosen(asked.door, asked.only, asked.sample)
    for row in run_cases(cases, work, asked.workers):
        rows.append(row)
        print(
            f"{row.verdict} {row.seconds:.1f} s {row.parent_mb:.0f} MB {row.door}: {row.case}",
            file=log,
            flush=True,
        )
        if row.verdict != "ok":
            print(
                f"{row.verdict:17s} {row.door}: {row.case} | expected {row.expectation} | {row.why}",
                flush=True,
            )
    if asked.out and (asked.door or asked.only):
        rows += kept_rows(asked.out, cases)
    order = {key: at for at, key in enumerate(all_cases())}
    rows.sort(key=lambda row: order[f"{row.door}: {row.case}"])
    print(summary(rows))
    if asked.out:
        write_table(rows, asked.out)
        write_record(asked.out, rows, asked, time.monotonic() - started)
    if not asked.work:
        remove(work)
    return int(any(row.verdict != "ok" for row in rows))


def write_record(table: Path, rows: Sequence[Row], asked: argparse.Namespace, seconds: float) -> None:
    from gliomark.experiments.records import run_record

    counts = Counter(row.verdict for row in rows)
    told = {"cases": len(rows), "workers": asked.workers, "seconds": round(seconds), "verdicts": dict(counts)}
    told["run_last"] = {"door": asked.door, "only": asked.only}
    record = run_record(table.stem, **told)
    table.with_name(f"{table.stem}_run_record.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
