"""Draw the pictures of the documents: a report and the client, with the patient and the model of ``make demo``."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pypdfium2
from PySide6.QtCore import QSettings

from gliomark.api import predict
from gliomark.client.app import create_application
from gliomark.client.language import use_language
from gliomark.client.main_window import MainWindow
from gliomark.client.response_time import is_idle, wait_until
from gliomark.client.settings import UserSettings
from gliomark.phantom import create_phantom, write_pictures
from gliomark.reporting import render_pdf

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
MODEL = "synthetic"
SEED, AGE, SEX = 7, 49, 1
PAGE_SCALE = 880 / 595  # pixels per point
COLOURS = 256


def main() -> None:
    """Draw all pictures into ``docs/images``."""
    with tempfile.TemporaryDirectory() as work:
        folder = write_pictures(create_phantom(SEED).study, Path(work))
        (folder.parent / "clinical.csv").write_text(f"id,age,sex\n{folder.name},{AGE},female\n", "utf-8")
        draw_report(folder)
        with run_server(Path(work) / "server") as (address, token):
            draw_client(folder, Path(work), address, token)


@contextmanager
def run_server(data: Path) -> Iterator[tuple[str, str]]:
    """Run a server with the model of drawn patients; its address and token."""
    token = secrets.token_urlsafe(24)
    command = [
        sys.executable,
        "-m",
        "gliomark",
        "serve",
        "--model",
        MODEL,
        "--data",
        str(data),
        "--port",
        "0",
    ]
    environment = os.environ | {"GLIOMARK_TOKEN": token}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0], token
        finally:
            process.terminate()


def draw_report(folder: Path) -> None:
    """Draw the first page of the PDF report."""
    page = pypdfium2.PdfDocument(render_pdf(predict(folder, model=MODEL, age=AGE, sex=SEX)))[0]
    picture = page.render(scale=PAGE_SCALE).to_pil()
    picture.quantize(COLOURS).save(IMAGES / "report.png", optimize=True)


def draw_client(folder: Path, work: Path, address: str, token: str) -> None:
    """Draw the client's window in both languages, after the prediction."""
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(work / "settings"))
    app = create_application(["gliomark"])
    use_language("en")
    settings = UserSettings()
    settings.set_server(address, token)
    window = MainWindow(settings)
    window.resize(1480, 1000)
    window.show()
    window.connect_server()
    wait_until(lambda: window.session.state.server_status == "ready", 300)
    window.open_patient(folder)
    window.input_panel.set_table(work / "clinical.csv")
    wait_until(lambda: is_idle(window), 300)
    window.predict()
    wait_until(lambda: is_idle(window), 300)
    for language in ("en", "zh"):
        window.switch_language(language)
        for _ in range(5):  # the layout settles step by step
            app.processEvents()
        window.grab().save(str(IMAGES / f"client-{language}.png"))
    window.close()


if __name__ == "__main__":
    main()
