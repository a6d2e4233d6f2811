"""Start the desktop client and run its event loop."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from gliomark.client.language import use_language
from gliomark.client.main_window import MainWindow
from gliomark.client.settings import UserSettings
from gliomark.client.theme import apply_theme
from gliomark.errors import ConfigurationError

DISPLAY_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


def create_application(arguments: list[str]) -> QApplication:
    """Create the QApplication with name and theme."""
    app = QApplication(arguments)
    app.setOrganizationName("gliomark")
    app.setApplicationName("client")
    apply_theme(app)
    return app


def run_client(folder: Path | None = None, address: str | None = None) -> int:
    """Open the main window and return the exit status once it is closed.

    Parameters
    ----------
    folder
        The patient's folder to open at once.
    address
        Server to use for this run instead of the one in the settings.

    Raises
    ------
    ConfigurationError
        If there is no display.
    """
    # without a display Qt would abort the process
    if sys.platform == "linux" and not any(os.environ.get(name) for name in DISPLAY_VARIABLES):
        raise ConfigurationError("No display is available; start 'gliomark client' on a desktop.")
    app = create_application(sys.argv[:1])
    settings = UserSettings()
    use_language(settings.language)
    window = MainWindow(settings)
    app.aboutToQuit.connect(window.session.close_session)
    # quit through a timer: a quit() before exec() has no effect
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: QTimer.singleShot(0, app.quit))
    # Python handles signals only while it executes Python code, so the event loop must return to it regularly
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
