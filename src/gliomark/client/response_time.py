"""Measure the client and its local server: memory, and time from the click on *Predict* to the displayed prediction."""

from __future__ import annotations

import csv
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QSettings

from gliomark.client.app import create_application
from gliomark.client.language import use_language
from gliomark.client.main_window import MainWindow
from gliomark.client.settings import UserSettings
from gliomark.errors import ConfigurationError
from gliomark.files import atomic_write, scratch_folder

RESULT_NAME = "client_response_time"
# from the images to the click: a user enters age and sex; the server runs the networks meanwhile
ENTRY_TIME_S = 3.0
COLUMNS = ("patient", "preparing_s", "click_to_result_s")
TIMEOUT_S = 300.0


def measure_response_times(
    patients_folder: Path,
    clinical_table: Path,
    output_folder: Path,
    patient_count: int,
    notify: Callable[[str], None],
    measure_memory_mb: Callable[[int], float],
) -> Path:
    """Predict patients one after the other; write ``client_response_time.csv`` and its summary into ``output_folder``.

    The first patient is predicted twice, so that all measurements are made on a warm server. Patients whom the server
    cannot prepare are skipped.

    patients_folder: one folder per patient. clinical_table: age and sex. patient_count: number of patients to measure.
    notify: receives one line per patient. measure_memory_mb: returns the memory in MB of a process, given by its
    number, and its child processes; the local server is one of the client's.

    Raises
    ------
    ConfigurationError
        If no patient could be predicted.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    with scratch_folder() as folder:
        os.environ["XDG_DATA_HOME"] = settings_folder = str(
            folder
        )  # so that the user's settings and stored patients are not used
        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, settings_folder)
        app = create_application(["gliomark"])
        use_language("en")
        window = MainWindow(UserSettings())
        window.connect_server()
        window.show()
        wait_until(lambda: window.session.state.server_status == "ready")
        rows = []
        for name, preparation_s, response_s in _measure_patients(
            window, patients_folder, clinical_table, patient_count, notify
        ):
            rows.append((name, preparation_s, response_s, measure_memory_mb(os.getpid())))
            notify(f"{name}: {response_s:.2f} s, {rows[-1][-1]:.0f} MB")
        window.close()
        app.quit()
    if not rows:
        raise ConfigurationError(
            f"No patient in {patients_folder} could be predicted; try one in the client itself."
        )
    _write_csv(
        output_folder / f"{RESULT_NAME}.csv",
        COLUMNS,
        [(name, f"{a:.2f}", f"{b:.2f}") for name, a, b, _ in rows],
    )
    _write_csv(
        output_folder / f"{RESULT_NAME}_memory.csv",
        ("patient", "memory_mb"),
        [(name, f"{memory:.0f}") for name, _, _, memory in rows],
    )
    response_times_s = [row[2] for row in rows]
    summary_row = (
        len(response_times_s),
        f"{statistics.median(response_times_s):.2f}",
        f"{max(response_times_s):.2f}",
        os.cpu_count(),
        _format_today(),
    )
    _write_csv(
        output_folder / f"{RESULT_NAME}_summary.csv",
        ("predictions", "median_s", "worst_s", "cores", "measured"),
        [summary_row],
    )
    return output_folder / f"{RESULT_NAME}.csv"


def _measure_patients(
    window: MainWindow,
    patients_folder: Path,
    clinical_table: Path,
    patient_count: int,
    notify: Callable[[str], None],
) -> Iterator[tuple[str, float, float]]:
    """Yield name, seconds of preparation and seconds from the click of every patient."""
    measured = 0
    for folder in sorted(path for path in patients_folder.iterdir() if path.is_dir()):
        started = time.perf_counter()
        window.open_patient(folder)
        wait_until(lambda: window.session.state.is_study_ready or window.session.state.error is not None)
        if not window.session.state.is_study_ready:
            notify(f"{folder.name}: {window.error_label.text()}")
            continue
        ready_at = time.perf_counter()
        preparation_s = ready_at - started
        window.input_panel.open_path(clinical_table)
        wait_until(partial(_is_time_to_click, window, ready_at + ENTRY_TIME_S))
        for _ in range(1 if measured else 2):
            response_s = _measure_click(window)
        yield folder.name, preparation_s, response_s
        measured += 1
        if measured == patient_count:
            break


def _is_time_to_click(window: MainWindow, earliest: float) -> bool:
    return is_idle(window) and time.perf_counter() > earliest


def _measure_click(window: MainWindow) -> float:
    """Return the seconds from the click until prediction and outline are displayed."""
    previous_job, started = window.session.state.job, time.perf_counter()
    window.input_panel.predict_button.click()
    wait_until(lambda: window.session.state.job not in (None, previous_job) and is_idle(window))
    return time.perf_counter() - started


def is_idle(window: MainWindow) -> bool:
    """Whether no task is running and no call is pending."""
    return window.session.state.task is None and not window.session.pending_call_count


def wait_until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Process events until a condition is true.

    Raises
    ------
    ConfigurationError
        If the condition is still false after ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"The client was not ready after {timeout_s:.0f} seconds; test it manually."
            )
        QCoreApplication.processEvents()
        time.sleep(0.005)
    QCoreApplication.processEvents()


def _write_csv(path: Path, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    atomic_write(path, text.getvalue())


def _format_today() -> str:
    return datetime.now(UTC).date().isoformat()
