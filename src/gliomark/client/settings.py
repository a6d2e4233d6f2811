"""User settings kept between runs, and the dialog for the server address."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSettings, QUrl
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QLayout,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QWidget,
)

from gliomark.client.language import get_system_language
from gliomark.client.widgets import create_column, create_label, create_row
from gliomark.messages import Language

MAXIMUM_RECENT_FOLDERS = 8


class UserSettings:
    """User settings in an ini file: language, server, access token, recent folders, window geometry."""

    def __init__(self) -> None:
        self._ini_file = QSettings(
            QSettings.Format.IniFormat, QSettings.Scope.UserScope, "gliomark", "client"
        )

    @property
    def language(self) -> Language:
        """Language of the user interface; the system's language until the user chooses one."""
        stored = self._ini_file.value("language")
        return "zh" if stored == "zh" else "en" if stored == "en" else get_system_language()

    @language.setter
    def language(self, language: Language) -> None:
        """Store the language."""
        self._write_value("language", language)

    @property
    def address(self) -> str:
        """Address of the server; empty for the local server."""
        return str(self._ini_file.value("server/address", ""))

    @property
    def token(self) -> str:
        """Access token of the server; empty without one."""
        return str(self._ini_file.value("server/token", ""))

    def set_server(self, address: str, token: str) -> None:
        """Store the server; an empty address means the local server."""
        self._write_value("server/address", address)
        self._write_value("server/token", token)

    @property
    def recent_folders(self) -> list[Path]:
        """Recently opened folders that still exist, the latest first."""
        stored: Any = self._ini_file.value("recent", [])
        stored_names = [stored] if isinstance(stored, str) else stored or []
        return [Path(name) for name in stored_names if Path(name).is_dir()]

    def remember_folder(self, folder: Path) -> None:
        """Put a folder first in the list of recent folders."""
        other_folders = [path for path in self.recent_folders if path != folder]
        self._write_value("recent", [str(path) for path in (folder, *other_folders)][:MAXIMUM_RECENT_FOLDERS])

    def clear_recent_folders(self) -> None:
        """Empty the list of recent folders."""
        self._write_value("recent", [])

    @property
    def window_geometry(self) -> object:
        """Size and position of the main window as Qt saved them; None before the first run."""
        return self._ini_file.value("window")

    @window_geometry.setter
    def window_geometry(self, geometry: object) -> None:
        """Store size and position of the main window."""
        self._write_value("window", geometry)

    def _write_value(self, key: str, value: object) -> None:
        self._ini_file.setValue(key, value)
        self._ini_file.sync()
        with suppress(OSError):  # readable by the owner only: the file contains the access token
            os.chmod(self._ini_file.fileName(), 0o600)


class ServerDialog(QDialog):
    """Dialog to choose the local server, or another server with an access token."""

    def __init__(self, address: str, token: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Settings"))
        self.setMinimumWidth(560)
        self.local_button = QRadioButton(
            self.tr("This computer (a local server starts and stops with the program)")
        )
        self.remote_button = QRadioButton(self.tr("A server on the network"))
        self.address_field = QLineEdit(address)
        self.address_field.setPlaceholderText("https://gliomark.hospital.example:8443")
        self.token_field = QLineEdit(token)
        self.token_field.setEchoMode(QLineEdit.EchoMode.Password)
        self.error_label = create_label("warn")
        self.button_box = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.button_box.accepted.connect(self._check_address)
        self.button_box.rejected.connect(self.reject)
        (self.remote_button if address else self.local_button).setChecked(True)
        self.remote_button.toggled.connect(self._enable_fields)
        self._enable_fields()
        self._lay_out()

    def _lay_out(self) -> None:
        heading = create_label("heading")
        heading.setText(self.tr("Prediction server"))
        hint_label = create_label("faint")
        hint_label.setText(
            self.tr(
                "The images are sent to the selected server. The access token is issued by its administrator and"
                " stored in your settings file."
            )
        )
        show_token_button = QPushButton(self.tr("Show"))
        show_token_button.setCheckable(True)
        show_token_button.toggled.connect(self._show_token)
        fields: list[QWidget | QLayout] = []
        for field_name, field in (
            (self.tr("Address"), create_row(self.address_field)),
            (self.tr("Access token"), create_row(self.token_field, show_token_button)),
        ):
            name_label = create_label("soft")
            name_label.setText(field_name)
            fields += [name_label, field]
        self.address_field.setAccessibleName(self.tr("Address"))
        self.token_field.setAccessibleName(self.tr("Access token"))
        layout = create_column(
            heading,
            self.local_button,
            self.remote_button,
            *fields,
            hint_label,
            self.error_label,
            6,
            self.button_box,
            spacing=10,
        )
        layout.setContentsMargins(20, 18, 20, 16)
        self.setLayout(layout)

    @property
    def entered_server(self) -> tuple[str, str]:
        """Address and access token as entered; an empty address means the local server."""
        if self.local_button.isChecked():
            return "", ""
        return self.address_field.text().strip().rstrip("/"), self.token_field.text().strip()

    def _enable_fields(self) -> None:
        for part in (self.address_field, self.token_field):
            part.setEnabled(self.remote_button.isChecked())

    def _show_token(self, is_shown: bool) -> None:
        self.token_field.setEchoMode(QLineEdit.EchoMode.Normal if is_shown else QLineEdit.EchoMode.Password)

    def _check_address(self) -> None:
        url = QUrl(self.entered_server[0])
        if self.remote_button.isChecked() and not (url.scheme() in ("http", "https") and url.host()):
            self.error_label.setText(self.tr("Enter an address such as https://server.hospital:8443."))
            return
        self.accept()
