"""User settings kept between runs, and the dialog for the server address."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSettings, QUrl
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QLayout,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QWidget,
)

from gliomark.client.language import get_current_language, get_system_language, translate_message
from gliomark.client.pacs_fetch import PacsAccess
from gliomark.client.state import Json
from gliomark.client.widgets import create_column, create_label, create_row
from gliomark.messages import Language, describe_level
from gliomark.study import DEFAULT_COVERAGE

MAXIMUM_RECENT_FOLDERS = 8
MIN_COVERAGE, MAX_COVERAGE = 0.5, 0.99


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
    def pacs(self) -> PacsAccess:
        """The PACS from which studies are fetched; its password is not stored."""
        stored = {
            one.name: self._ini_file.value(f"pacs/{one.name}", one.default) for one in fields(PacsAccess)
        }
        return PacsAccess(**{name: str(value) for name, value in stored.items()})

    @pacs.setter
    def pacs(self, access: PacsAccess) -> None:
        """Store the PACS."""
        for name, value in asdict(access).items():
            self._write_value(f"pacs/{name}", value)

    @property
    def coverage(self) -> float:
        """Coverage of stated levels, 0.5 to 0.99."""
        try:
            coverage = float(str(self._ini_file.value("levels/coverage", DEFAULT_COVERAGE)))
        except ValueError:
            return DEFAULT_COVERAGE
        return coverage if MIN_COVERAGE <= coverage <= MAX_COVERAGE else DEFAULT_COVERAGE

    @property
    def prevalence(self) -> dict[str, float]:
        """Share of positive patients at this hospital by marker; markers without one are absent."""
        try:
            stored = json.loads(str(self._ini_file.value("levels/prevalence", "{}")))
            shares = {str(name): float(share) for name, share in stored.items()}
        except (ValueError, TypeError, AttributeError):
            return {}
        return {name: share for name, share in shares.items() if 0 < share < 1}

    def set_levels(self, coverage: float, prevalence: Mapping[str, float]) -> None:
        """Store coverage and shares of positive patients by marker."""
        self._write_value("levels/coverage", coverage)
        self._write_value("levels/prevalence", json.dumps(dict(prevalence)))

    def create_level_request(self, model: Json | None) -> dict[str, Any]:
        """Return the part of a prediction request that differs from a server's defaults, for a model's description."""
        markers = [] if model is None else model["markers"]
        calibrated = {one["name"] for one in markers if one.get("prevalence") is not None}
        shares = {name: share for name, share in self.prevalence.items() if name in calibrated}
        request: dict[str, Any] = {"prevalence": shares} if shares else {}
        if calibrated and self.coverage != DEFAULT_COVERAGE:
            request["coverage"] = self.coverage
        return request

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

    @property
    def shows_planes(self) -> bool:
        """Whether the coronal and sagittal planes are shown beside the axial one."""
        return bool(self._ini_file.value("planes", False, type=bool))

    @shows_planes.setter
    def shows_planes(self, shows_planes: bool) -> None:
        """Store whether the other planes are shown."""
        self._write_value("planes", shows_planes)

    def _write_value(self, key: str, value: object) -> None:
        self._ini_file.setValue(key, value)
        self._ini_file.sync()
        with suppress(OSError):  # readable by the owner only: the file contains the access token
            os.chmod(self._ini_file.fileName(), 0o600)


class LevelFields(QWidget):
    """Fields for the coverage of stated levels, and for the share of positive patients of each calibrated marker.

    markers: descriptions of the models' markers.
    """

    def __init__(self, markers: Sequence[Json], coverage: float, prevalence: Mapping[str, float]) -> None:
        super().__init__()
        heading, hint_label = create_label("heading"), create_label("faint")
        heading.setText(self.tr("When a level is stated"))
        hint_label.setText(
            self.tr(
                "A level is stated only where the other one is unlikely; otherwise the result is “cannot tell”. The"
                " higher the coverage, the more often. A share of positive patients corrects the probability for your"
                " hospital."
            )
        )
        self.coverage_field = _create_percent_field(100 * MIN_COVERAGE, 100 * MAX_COVERAGE, 100 * coverage)
        self.share_fields = {
            one["name"]: self._create_share_field(one, prevalence.get(one["name"]))
            for one in markers
            if one.get("prevalence") is not None
        }
        self.setLayout(create_column(heading, *self._create_rows(markers), hint_label, spacing=10))
        self._other_shares = {
            name: share for name, share in prevalence.items() if name not in self.share_fields
        }

    def _create_rows(self, markers: Sequence[Json]) -> list[QLayout]:
        titles = {
            one["name"]: self.tr("Share of “{}” patients ({})").format(
                describe_level(one["positive"], False, get_current_language()),
                translate_message(one["title"]),
            )
            for one in markers
        }
        named_fields = [(self.tr("Coverage"), self.coverage_field)]
        named_fields += [(titles[name], field) for name, field in self.share_fields.items()]
        rows: list[QLayout] = []
        for text, field in named_fields:
            label = create_label("soft", wraps=False)
            label.setText(text)
            field.setAccessibleName(text)
            rows.append(create_row(label, None, field))
        return rows

    def _create_share_field(self, marker: Json, share: float | None) -> QDoubleSpinBox:
        """Create the field of a share; its lowest value stands for the share of the calibration."""
        field = _create_percent_field(0, 99.9, 0 if share is None else 100 * share)
        field.setSpecialValueText(
            self.tr("as in calibration, {} %").format(f"{100 * marker['prevalence']:.0f}")
        )
        return field

    @property
    def entered_levels(self) -> tuple[float, dict[str, float]]:
        """Coverage, and share of positive patients by marker; shares of other servers' markers are kept."""
        shares = {
            name: round(field.value() / 100, 4)
            for name, field in self.share_fields.items()
            if field.value() > 0
        }
        return round(self.coverage_field.value() / 100, 4), self._other_shares | shares


def _create_percent_field(low: float, high: float, value: float) -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setRange(low, high)
    field.setDecimals(1)
    field.setSuffix(" %")
    field.setValue(value)
    return field


class ServerDialog(QDialog):
    """Dialog to choose the local server, or another server with an access token, and how levels are stated."""

    def __init__(
        self,
        address: str,
        token: str,
        parent: QWidget | None = None,
        level_fields: LevelFields | None = None,
    ) -> None:
        super().__init__(parent)
        self.level_fields = LevelFields((), DEFAULT_COVERAGE, {}) if level_fields is None else level_fields
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
            self.level_fields,
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
