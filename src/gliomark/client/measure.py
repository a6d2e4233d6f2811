"""How long a surgeon waits: from the click on *Predict* to the answer on the screen, by the real window and server."""

from __future__ import annotations

import csv
import os
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QSettings

from gliomark.client.app import make_application
from gliomark.client.language import use_language
from gliomark.client.settings import Settings
from gliomark.client.window import MainWindow
from gliomark.files import atomic_write, scratch_folder
from gliomark.study import GliomarkError

NAME = "click_to_result"
COLUMNS = ("patient", "preparing_s", "click_to_result_s")
LONGEST_S = 300.0


def run(patients: Path, table: Path, out: Path, count: int, say: Callable[[str], None]) -> Path:
    """Open patients one after the other, click, and write ``click_to_result.csv`` and its summary under ``out``.

    The embedded server is warm: the first patient is predicted once before. A patient whom the server cannot prepare
    is passed over. Raises GliomarkError where none could be predicted.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    with scratch_folder() as folder:
        os.environ["XDG_DATA_HOME"] = home = str(
            folder
        )  # neither the user's settings nor the user's patients
        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, home)
        app = make_application(["gliomark"])
        use_language("en")
        window = MainWindow(Settings())
        window.start()
        window.show()
        until(lambda: window.session.state.server == "ready")
        rows = _measured(window, patients, table, count, say)
        window.close()
        app.quit()
    if not rows:
        raise GliomarkError(f"No patient in {patients} could be predicted; try one in the client itself.")
    _write(out / f"{NAME}.csv", COLUMNS, [(name, f"{a:.2f}", f"{b:.2f}") for name, a, b in rows])
    waits = [row[2] for row in rows]
    told = (len(waits), f"{statistics.median(waits):.2f}", f"{max(waits):.2f}", os.cpu_count(), _today())
    _write(out / f"{NAME}_summary.csv", ("predictions", "median_s", "worst_s", "cores", "measured"), [told])
    return out / f"{NAME}.csv"


def _measured(
    window: MainWindow, patients: Path, table: Path, count: int, say: Callable[[str], None]
) -> list[tuple[str, float, float]]:
    rows: list[tuple[str, float, float]] = []
    warm = False
    for folder in sorted(path for path in patients.iterdir() if path.is_dir()):
        started = time.perf_counter()
        window.open(folder)
        until(lambda: window.session.state.ready or window.session.state.trouble is not None)
        if not window.session.state.ready:
            say(f"{folder.name}: {window.sentence.text()}")
            continue
        prepared = time.perf_counter() - started
        window.steps.choose_path(table)
        until(lambda: settled(window))
        for _ in range(1 if warm else 2):
            waited = _click(window)
        warm = True
        rows.append((folder.name, prepared, waited))
        say(f"{folder.name}: {waited:.2f} s")
        if len(rows) == count:
            break
    return rows


def _click(window: MainWindow) -> float:
    """Seconds from the click until the answer and its outline are drawn."""
    before, started = window.session.state.job, time.perf_counter()
    window.steps.predict.click()
    until(lambda: window.session.state.job not in (None, before) and settled(window))
    return time.perf_counter() - started


def settled(window: MainWindow) -> bool:
    """Nothing goes on and every call has come back."""
    return window.session.state.task is None and not window.session.waiting_for


def until(condition: Callable[[], object], seconds: float = LONGEST_S) -> None:
    """Let events run until it holds. Raises GliomarkError where it does not."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise GliomarkError(f"The client was not done after {seconds:.0f} seconds; try it by hand.")
        QCoreApplication.processEvents()
        time.sleep(0.005)
    QCoreApplication.processEvents()


def _write(path: Path, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    atomic_write(path, text.getvalue())


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
