"""Draw the pictures of the documents: a report and the client, with the synthetic patient of ``make demo``."""

from __future__ import annotations

import os
import tempfile
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
SEED, AGE, SEX = 7, 49, 1
PAGE_SCALE = 880 / 595  # pixels per point
COLOURS = 256


def main() -> None:
    """Draw all pictures into ``docs/images``."""
    with tempfile.TemporaryDirectory() as work:
        folder = write_pictures(create_phantom(SEED).study, Path(work))
        (folder.parent / "clinical.csv").write_text(f"id,age,sex\n{folder.name},{AGE},female\n", "utf-8")
        draw_report(folder)
        draw_client(folder, Path(work))


def draw_report(folder: Path) -> None:
    """Draw the first page of the PDF report."""
    page = pypdfium2.PdfDocument(render_pdf(predict(folder, age=AGE, sex=SEX)))[0]
    picture = page.render(scale=PAGE_SCALE).to_pil()
    picture.quantize(COLOURS).save(IMAGES / "report.png", optimize=True)


def draw_client(folder: Path, work: Path) -> None:
    """Draw the client's window in both languages, after the prediction."""
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(work / "settings"))
    os.environ["XDG_DATA_HOME"] = str(work / "data")
    app = create_application(["gliomark"])
    use_language("en")
    window = MainWindow(UserSettings())
    window.resize(1480, 1000)
    window.show()
    window.connect_server()
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
