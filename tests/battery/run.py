"""``python -m tests.battery.run``: run all cases in watched processes and write the table of verdicts."""

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

from tests.battery.case_table import collect_cases
from tests.battery.cases_and_results import Case, ResultRow
from tests.battery.verdict import VERDICTS, evaluate_result, find_last_line

PRELOADED_MODULES = (
    "batch",
    "explanation.explain",
    "cohort.build",
    "cohort.anonymise",
    "cohort.export",
    "evaluation.evaluate",
    "reporting.evaluation_page",
    "training.recipes",
)
NETWORK_DOORS = ("server", "DICOM node")
SAMPLE_STEP = 22


def import_modules() -> None:
    """Import the packages that the commands need, once for all cases."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for room in PRELOADED_MODULES:
        import_module(f"gliomark.{room}")


def run_at_command_line(key: str, ground: Path, work: Path) -> list[ResultRow]:
    """Run a case in its own folder, which is removed if the verdict is "ok"."""
    from tests.battery.command_line import PreparationError, create_leftover_filter, run_case

    case = collect_cases()[key]
    folder = work / f"{re.sub(r'[^a-z0-9]+', '-', key.lower())[:70]}-{zlib.crc32(key.encode()):08x}"
    try:
        result, answer_error = run_case(case, ground, folder)
    except PreparationError as error:
        return [ResultRow.from_case(case, "not laid out", str(error), 0.0, 0.0)]
    verdict, reason = evaluate_result(case, result, answer_error, create_leftover_filter(case.door))
    if verdict == "ok":
        remove_folder(folder)
        folder.with_suffix(".output").unlink()
    return [ResultRow.from_case(case, verdict, reason, result.seconds, result.peak_mb)]


def run_at_network(keys: Sequence[str], ground: Path, work: Path) -> list[ResultRow]:
    """Run all cases for server and DICOM node against one server, in a separate process without threads."""
    command = [sys.executable, "-m", "tests.battery.network_run", str(ground), str(work)]
    done = subprocess.run(command, input=json.dumps(keys), capture_output=True, text=True, check=False)
    rows = [ResultRow(**json.loads(line)) for line in done.stdout.splitlines()]
    missing_rows = [
        ResultRow.from_case(collect_cases()[key], "not laid out", find_last_line(done.stderr), 0.0, 0.0)
        for key in keys[len(rows) :]
    ]
    return rows + missing_rows


def remove_folder(folder: Path) -> None:
    """Remove a folder of any depth; Python's own removal fails at a thousand levels."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def select_cases(door: str, only: str, sample: bool) -> list[Case]:
    """Select cases by entry point and name; a sample is every ``SAMPLE_EVERY``-th case, always the same."""
    cases = [
        c for c in collect_cases().values() if (not door or c.door == door) and only.lower() in c.key.lower()
    ]
    return cases[::SAMPLE_STEP] if sample else cases


def run_cases(cases: Sequence[Case], work: Path, workers: int) -> Iterator[ResultRow]:
    """Run cases; yields every row as soon as its case has finished."""
    ground = work / "ground"
    if not (ground / "answers.json").exists():
        subprocess.run([sys.executable, "-m", "tests.battery.healthy_inputs", str(ground)], check=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=import_modules) as pool:
        running: list[Future[list[ResultRow]]] = []
        if keys := [case.key for case in cases if case.door in NETWORK_DOORS]:
            running.append(pool.submit(run_at_network, keys, ground, work / "cases" / "network"))
        running += [
            pool.submit(run_at_command_line, case.key, ground, work / "cases")
            for case in cases
            if case.door not in NETWORK_DOORS
        ]
        for done in as_completed(running):
            yield from done.result()


def write_table(rows: Sequence[ResultRow], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        names = [name for name in asdict(rows[0]) if name != "reason"]
        table.writerow(names)
        table.writerows([getattr(row, name) for name in names] for row in rows)
    part.replace(path)


def read_kept_rows(path: Path, cases: Sequence[Case]) -> list[ResultRow]:
    """Read from an existing table the rows of current cases that are not run again."""
    if not path.exists():
        return []
    again = {case.key for case in cases}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            ResultRow(**row | {"seconds": float(row["seconds"]), "parent_mb": float(row["parent_mb"])})
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if (key := f"{row.door}: {row.case}") in collect_cases() and key not in again]


def summarise(rows: Sequence[ResultRow]) -> str:
    """Summarise the numbers of verdicts; all except "ok" must be 0."""
    count = Counter(row.verdict for row in rows)
    healthy_count = sum(row.expectation.startswith("answered") for row in rows)
    lines = [f"{len(rows)} cases ({healthy_count} of them unusual but healthy), {count['ok']} as expected"]
    lines += [f"{count[name]:4d} {name}" for name in VERDICTS]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="result table (csv); --door and --only keep its other rows")
    parser.add_argument("--work", type=Path, help="work folder that is kept; by default a temporary one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", action="store_true", help="a fixed sample of all cases")
    parser.add_argument("--door", default="", help="only cases of this entry point")
    parser.add_argument("--only", default="", help="only cases whose names contain this text")
    options = parser.parse_args()
    work = (options.work or Path(tempfile.mkdtemp(prefix="battery-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    remove_folder(work / "cases")
    started, rows = time.monotonic(), []
    log = (work / "log").open("w", encoding="utf-8")
    cases = select_cases(options.door, options.only, options.sample)
    for row in run_cases(cases, work, options.workers):
        rows.append(row)
        print(
            f"{row.verdict} {row.seconds:.1f} s {row.parent_mb:.0f} MB {row.door}: {row.case}",
            file=log,
            flush=True,
        )
        if row.verdict != "ok":
            print(
                f"{row.verdict:17s} {row.door}: {row.case} | expected {row.expectation} | {row.reason}",
                flush=True,
            )
    if options.out and (options.door or options.only):
        rows += read_kept_rows(options.out, cases)
    order = {key: index for index, key in enumerate(collect_cases())}
    rows.sort(key=lambda row: order[f"{row.door}: {row.case}"])
    print(summarise(rows))
    if options.out:
        write_table(rows, options.out)
        write_record(options.out, rows, options, time.monotonic() - started)
    if not options.work:
        remove_folder(work)
    return int(any(row.verdict != "ok" for row in rows))


def write_record(table: Path, rows: Sequence[ResultRow], options: argparse.Namespace, seconds: float) -> None:
    from gliomark.experiments.result_files import create_run_record

    counts = Counter(row.verdict for row in rows)
    counts_and_time = {
        "cases": len(rows),
        "workers": options.workers,
        "seconds": round(seconds),
        "verdicts": dict(counts),
    }
    counts_and_time["run_last"] = {"door": options.door, "only": options.only}
    record = create_run_record(table.stem, **counts_and_time)
    table.with_name(f"{table.stem}_run_record.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
