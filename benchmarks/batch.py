"""Throughput and memory of ``gliomark predict`` for a folder of patients, in its own process and on worker processes.

    PYTHONPATH=src python -m benchmarks.batch --patients 10 100 300 --workers 1 2 --out results

Patients are synthetic; a few are drawn and linked under other ids. ``--folder`` takes your own patients instead, each
of which is linked as often as needed; ``--workers 0`` is the command without ``--workers``. Every second, the memory of
the command and all its child processes is added up (PSS, which counts shared pages once). Writes
``benchmark_batch.csv``, a row per run, ``benchmark_batch_memory.csv``, a row per second, and
``benchmark_batch_run_record.json``. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import psutil

from gliomark.experiments.result_files import create_run_record, write_result_files

DRAWN_PATIENTS = 5
SAMPLE_INTERVAL_S = 1.0
COMMAND = (sys.executable, "-m", "gliomark")


@dataclass(frozen=True)
class BatchRun:
    """One run of the command.

    workers: 0 without ``--workers``; seconds: of the whole command; first_patient_s: until the first result; steady:
    after the first result of every worker; processor_s: user and system time of all processes; memory: PSS in MB, at
    most, and the mean of the second and of the last quarter of the run.
    """

    patients: int
    workers: int
    finished: int
    seconds: float
    seconds_per_patient: float
    patients_per_minute: float
    first_patient_s: float
    steady_patients_per_minute: float
    processor_s: float
    memory_peak_mb: float
    memory_second_quarter_mb: float
    memory_last_quarter_mb: float


def link_patients(sources: list[Path], folder: Path, count: int) -> None:
    """Create ``count`` patients P0001, P0002, ... whose files are links to those of the sources in turn."""
    for number, source in zip(range(1, count + 1), itertools.cycle(sources), strict=False):
        shutil.copytree(source, folder / f"P{number:04d}", copy_function=os.link)


def draw_patients(folder: Path, count: int) -> list[Path]:
    """Draw synthetic patients with ``gliomark cohort phantom``, and return their folders."""
    arguments = ("cohort", "phantom", "--patients", str(count), "--seed", "1", "--out", str(folder))
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return sorted(path for path in (folder / "pictures").iterdir() if path.is_dir())


def read_memory_mb(process_id: int) -> float:
    """Read the proportional set size of a process in MB; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def measure_command(arguments: list[str], out: Path) -> tuple[float, float, list[dict[str, float]]]:
    """Run the command; return wall time and processor time in s, and the memory in MB every second."""
    before = os.times()
    process, started_at = psutil.Popen(arguments, stdout=subprocess.DEVNULL), time.monotonic()
    samples: list[dict[str, float]] = []
    while process.poll() is None:
        with suppress(psutil.Error):
            processes = [process, *process.children(recursive=True)]
            memory = sum(read_memory_mb(one.pid) for one in processes)
            done = len(list(out.glob("*/prediction.json")))
            second = time.monotonic() - started_at
            samples.append(
                {"second": second, "memory_mb": memory, "processes": len(processes), "finished": done}
            )
        time.sleep(SAMPLE_INTERVAL_S)
    if process.returncode:
        raise SystemExit(f"the command failed with status {process.returncode}")
    seconds, after = time.monotonic() - started_at, os.times()
    processor_s = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return seconds, processor_s, samples


def measure_batch(patients: Path, workers: int, work: Path) -> tuple[BatchRun, pd.DataFrame]:
    """Predict all patients of a folder, and return the figures of the run and its memory by second."""
    out, count = work / "out", len(list(patients.iterdir()))
    shutil.rmtree(out, ignore_errors=True)
    arguments = [*COMMAND, "predict", str(patients), "--out", str(out), "--allow-missing-clinical", "--quiet"]
    started_at = time.time()
    seconds, processor_s, samples = measure_command(
        [*arguments, *(["--workers", str(workers)] if workers else [])], out
    )
    first = max(workers, 1) - 1  # the workers' first patients include their start
    finished = sorted(path.stat().st_mtime for path in out.glob("*/prediction.json"))
    memory = pd.DataFrame(samples)
    is_second_quarter = memory["second"].between(seconds / 4, seconds / 2)
    run = BatchRun(
        patients=count,
        workers=workers,
        finished=len(finished),
        seconds=seconds,
        seconds_per_patient=seconds / count,
        patients_per_minute=60 * count / seconds,
        first_patient_s=finished[0] - started_at,
        steady_patients_per_minute=60
        * (len(finished) - 1 - first)
        / max(finished[-1] - finished[first], 1e-9),
        processor_s=processor_s,
        memory_peak_mb=memory["memory_mb"].max(),
        memory_second_quarter_mb=memory.loc[is_second_quarter, "memory_mb"].mean(),
        memory_last_quarter_mb=memory.loc[memory["second"] > 0.75 * seconds, "memory_mb"].mean(),
    )
    return run, memory.assign(patients=count, workers=workers)


def describe_machine() -> dict[str, object]:
    """Describe processor, memory, system and load of this machine."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def report_run(run: BatchRun, memory: pd.DataFrame, baseline: float | None) -> None:
    """Print the figures of a run, its rate relative to the first run of the same patients, and ten points of memory."""
    ratio = "" if baseline is None else f", {run.steady_patients_per_minute / baseline:.2f} x the first run"
    print(
        f"{run.patients} patients, {run.workers} workers: {run.seconds_per_patient:.1f} s per patient, "
        f"{run.patients_per_minute:.2f} per minute ({run.steady_patients_per_minute:.2f} after the first{ratio}), "
        f"{run.processor_s:.0f} s processor time, at most {run.memory_peak_mb:.0f} MB"
    )
    points = memory.iloc[:: max(1, len(memory) // 10)]
    print("  memory, MB:", " ".join(f"{mb:.0f}" for mb in points["memory_mb"]), flush=True)


def run_benchmark() -> None:
    """Measure every number of patients with every number of workers, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="folder of patients to use instead of synthetic ones")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    runs, curves, machine = [], [], describe_machine()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.folder is None:
            sources = draw_patients(work / "drawn", DRAWN_PATIENTS)
        else:
            # a copy, because files of another file system cannot be linked
            shutil.copytree(options.folder, work / "given")
            sources = sorted(path for path in (work / "given").iterdir() if path.is_dir())
        for count in options.patients:
            link_patients(sources, work / f"{count}", count)
            baseline = None
            for workers in options.workers:
                run, memory = measure_batch(work / f"{count}", workers, work)
                report_run(run, memory, baseline)
                baseline = baseline or run.steady_patients_per_minute
                runs.append(run)
                curves.append(memory)
    tables = {"": pd.DataFrame(map(asdict, runs)).assign(**machine), "_memory": pd.concat(curves)}
    write_result_files(
        options.out, "benchmark_batch", tables, create_run_record("benchmark_batch", machine=machine)
    )


if __name__ == "__main__":
    run_benchmark()
