"""The program's start and end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from gliomark.client.language import use_language
from gliomark.client.settings import UserSettings
from gliomark.client.theme import apply_theme
from gliomark.client.window import MainWindow
from gliomark.study import GliomarkError

DISPLAY_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


def create_application(arguments: list[str]) -> QApplication:
    """The one QApplication, dressed and named."""
    app = QApplication(arguments)
    app.setOrganizationName("gliomark")
    app.setApplicationName("client")
    apply_theme(app)
    return app


def run_client(folder: Path | None = None, address: str | None = None) -> int:
    """Open the window, with a patient's folder where one is given; the exit status once it is closed.

    address: a server's for this once, instead of the one in the settings. Raises GliomarkError without a screen.
    """
    # Qt would abort the program
    if sys.platform == "linux" and not any(os.environ.get(name) for name in DISPLAY_VARIABLES):
        raise GliomarkError("There is no screen here; start 'gliomark client' on a desktop.")
    app = create_application(sys.argv[:1])
    settings = UserSettings()
    use_language(settings.language)
    window = MainWindow(settings)
    app.aboutToQuit.connect(window.session.close_session)
    # by a timer: quit() before exec() is lost
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: QTimer.singleShot(0, app.quit))
    # Python sees a signal only when it runs, so let it run now and then
    signal_timer = QTimer(app, interval=300)
    signal_timer.timeout.connect(lambda: None)
    signal_timer.start()
    if address is None:
        window.connect_server()
    else:
        window.session.connect_to_server(address, settings.token)
    window.show()
    if folder is not None:
        window.open_patient(folder)
    return app.exec()
