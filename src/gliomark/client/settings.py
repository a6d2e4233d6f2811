"""What is remembered from one day to the next, and the dialog that asks for the server."""

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

from gliomark.client.language import Language, system_language
from gliomark.client.widgets import column, label, row

RECENT = 8


class Settings:
    """The user's ini file: language, server, token, recent folders."""

    def __init__(self) -> None:
        self._kept = QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "gliomark", "client")

    @property
    def language(self) -> Language:
        kept = self._kept.value("language")
        return "zh" if kept == "zh" else "en" if kept == "en" else system_language()

    @language.setter
    def language(self, language: Language) -> None:
        self._keep("language", language)

    @property
    def address(self) -> str:
        """Empty for the local server."""
        return str(self._kept.value("server/address", ""))

    @property
    def token(self) -> str:
        return str(self._kept.value("server/token", ""))

    def use_server(self, address: str, token: str) -> None:
        self._keep("server/address", address)
        self._keep("server/token", token)

    @property
    def recent(self) -> list[Path]:
        """Folders opened lately that are still there, the last one first."""
        kept: Any = self._kept.value("recent", [])
        names = [kept] if isinstance(kept, str) else kept or []
        return [Path(name) for name in names if Path(name).is_dir()]

    def remember(self, folder: Path) -> None:
        others = [path for path in self.recent if path != folder]
        self._keep("recent", [str(path) for path in (folder, *others)][:RECENT])

    def forget_recent(self) -> None:
        self._keep("recent", [])

    @property
    def geometry(self) -> object:
        return self._kept.value("window")

    @geometry.setter
    def geometry(self, geometry: object) -> None:
        self._keep("window", geometry)

    def _keep(self, key: str, value: object) -> None:
        self._kept.setValue(key, value)
        self._kept.sync()
        with suppress(OSError):  # a token is nobody else's
            os.chmod(self._kept.fileName(), 0o600)


class ServerDialog(QDialog):
    """Where the predictions are computed: here, or on a server with a token."""

    def __init__(self, address: str, token: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Settings"))
        self.setMinimumWidth(560)
        self.here = QRadioButton(
            self.tr("This computer (a local server is started and stopped with the program)")
        )
        self.there = QRadioButton(self.tr("A server in the network"))
        self.address = QLineEdit(address)
        self.address.setPlaceholderText("https://gliomark.hospital.example:8443")
        self.token = QLineEdit(token)
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.problem = label("warn")
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self._check)
        self.buttons.rejected.connect(self.reject)
        (self.there if address else self.here).setChecked(True)
        self.there.toggled.connect(self._enable)
        self._enable()
        self._lay_out()

    def _lay_out(self) -> None:
        heading = label("heading")
        heading.setText(self.tr("Where predictions are computed"))
        about = label("faint")
        about.setText(
            self.tr("The images are sent there. The token is given by whoever runs the server; it is kept in your own"
                    " settings file.")
        )  # fmt: skip
        show = QPushButton(self.tr("Show"))
        show.setCheckable(True)
        show.toggled.connect(self._show_token)
        fields: list[QWidget | QLayout] = []
        for words, field in (
            (self.tr("Address"), row(self.address)),
            (self.tr("Access token"), row(self.token, show)),
        ):
            name = label("soft")
            name.setText(words)
            fields += [name, field]
        self.address.setAccessibleName(self.tr("Address"))
        self.token.setAccessibleName(self.tr("Access token"))
        layout = column(
            heading, self.here, self.there, *fields, about, self.problem, 6, self.buttons, spacing=10
        )
        layout.setContentsMargins(20, 18, 20, 16)
        self.setLayout(layout)

    @property
    def server(self) -> tuple[str, str]:
        """Address and token as entered; an empty address means this computer."""
        if self.here.isChecked():
            return "", ""
        return self.address.text().strip().rstrip("/"), self.token.text().strip()

    def _enable(self) -> None:
        for part in (self.address, self.token):
            part.setEnabled(self.there.isChecked())

    def _show_token(self, shown: bool) -> None:
        self.token.setEchoMode(QLineEdit.EchoMode.Normal if shown else QLineEdit.EchoMode.Password)

    def _check(self) -> None:
        url = QUrl(self.server[0])
        if self.there.isChecked() and not (url.scheme() in ("http", "https") and url.host()):
            self.problem.setText(self.tr("The address must look like https://server.hospital:8443."))
            return
        self.accept()
