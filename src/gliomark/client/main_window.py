"""Main window: input, images and prediction side by side, connected to one Session."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QByteArray, QEvent, Qt
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent
from PySide6.QtWidgets import QFileDialog, QFrame, QMainWindow, QMessageBox, QSplitter, QWidget

from gliomark.client.fetch_dialog import FetchDialog
from gliomark.client.image_panel import ImagePanel
from gliomark.client.input_panel import InputPanel
from gliomark.client.language import use_language
from gliomark.client.result_panel import ResultPanel
from gliomark.client.session import Session
from gliomark.client.settings import LevelFields, ServerDialog, UserSettings
from gliomark.client.state import ClientState
from gliomark.client.study_list import StudyListDialog
from gliomark.client.widgets import create_button, create_column, create_frame, create_label, create_row
from gliomark.errors import GliomarkError
from gliomark.study import DEFAULT_COVERAGE

REPORT_SUFFIXES = {
    "report.html": "html",
    "report.pdf": "pdf",
    "dicom.zip": "zip",
    "structure_set.dcm": "dcm",
}


class MainWindow(QMainWindow):
    """The main window. Data flows in one direction: user action, Session, ClientState, panels."""

    def __init__(self, settings: UserSettings) -> None:
        super().__init__()
        self.settings = settings
        self.session = Session(self)
        self._fetched_files = ExitStack()
        self.input_panel, self.image_panel, self.result_panel = InputPanel(), ImagePanel(), ResultPanel()
        self._create_header()
        self._create_error_banner()
        self._create_footer()
        self._lay_out()
        self.image_panel.toolbar.planes_toggle.setChecked(settings.shows_planes)
        self._connect_signals()
        self.setAcceptDrops(True)
        self.setWindowTitle("gliomark")
        self.resize(1480, 900)
        self.input_panel.choose_folder_button.setFocus()
        if isinstance(settings.window_geometry, QByteArray):
            self.restoreGeometry(settings.window_geometry)
        self._render_panels()

    def connect_server(self) -> None:
        """Connect to the server in the settings."""
        self.session.connect_to_server(self.settings.address, self.settings.token)

    # ---- widgets ----------------------------------------------------------------------------------------

    def _create_header(self) -> None:
        self.brand_label, self.subtitle_label = (
            create_label("brand", wraps=False),
            create_label("soft", wraps=False),
        )
        self.english_button = create_button(lambda: self.switch_language("en"), is_checkable=True)
        self.chinese_button = create_button(lambda: self.switch_language("zh"), is_checkable=True)
        self.settings_button = create_button(self.show_settings_dialog, "plain", "settings")
        parts = (
            self.brand_label,
            6,
            self.subtitle_label,
            None,
            self.chinese_button,
            self.english_button,
            8,
            self.settings_button,
        )
        self.header = create_frame("bar", create_row(*parts), 8)

    def _create_error_banner(self) -> None:
        self.error_label = create_label()
        self.retry_button = create_button(self.session.retry_failed)
        self.error_settings_button = create_button(self.show_settings_dialog)
        self.dismiss_button = create_button(self.session.dismiss_error, "plain", "close")
        parts = create_row(
            self.error_label, self.retry_button, self.error_settings_button, self.dismiss_button
        )
        parts.setStretch(0, 1)
        self.error_banner = create_frame("banner", parts, 10)

    def _create_footer(self) -> None:
        self.research_notice_label, self.server_label = (
            create_label(wraps=False),
            create_label("faint", wraps=False),
        )
        self.research_notice_label.setObjectName("warn")
        self.footer = create_frame("bar", create_row(self.research_notice_label, None, self.server_label), 8)

    def _lay_out(self) -> None:
        self.splitter = QSplitter(Qt.Orientation.Horizontal)
        self.splitter.setHandleWidth(6)
        for number, part in enumerate((self.input_panel, self.image_panel, self.result_panel)):
            self.splitter.addWidget(_wrap_in_panel(part) if part is not self.image_panel else part)
            self.splitter.setCollapsible(number, False)
        self.splitter.setSizes([330, 810, 340])
        self.splitter.setStretchFactor(0, 0)
        self.splitter.setStretchFactor(1, 1)
        self.splitter.setStretchFactor(2, 0)
        window_layout = create_column(self.header, self.error_banner, self.splitter, self.footer, spacing=6)
        window_layout.setStretch(2, 1)
        central_widget = QWidget()
        central_widget.setLayout(window_layout)
        self.setCentralWidget(central_widget)

    def _connect_signals(self) -> None:
        session, steps, images, result = self.session, self.input_panel, self.image_panel, self.result_panel
        session.state_changed.connect(lambda _: self._render_panels())
        session.slice_received.connect(images.set_slice)
        session.mask_received.connect(images.mask_editor.load_mask)
        session.supplied_mask_received.connect(images.mask_editor.apply_mask)
        session.heatmap_changed.connect(self._show_heatmap)
        session.request_restored.connect(steps.restore_request)
        session.report_saved.connect(self._show_saved_path)
        steps.folder_chosen.connect(self.open_patient)
        steps.prediction_requested.connect(self.predict)
        steps.cancel_requested.connect(session.cancel_task)
        steps.clear_recent_requested.connect(self._clear_recent_folders)
        steps.studies_requested.connect(self.show_studies)
        steps.fetch_requested.connect(self.fetch_study)
        steps.input_changed.connect(self._render_panels)
        images.prediction_requested.connect(self.predict)
        images.revert_requested.connect(session.revert_segmentation)
        images.supplied_mask_requested.connect(session.fetch_supplied_mask)
        images.mask_files_chosen.connect(session.upload_mask_files)
        images.planes_toggled.connect(self._remember_planes)
        result.heatmap_requested.connect(session.show_heatmap)
        result.slice_requested.connect(images.slice_strip.setValue)
        result.pathology_entered.connect(session.record_pathology)
        result.save_requested.connect(self.save_report)

    # ---- user actions -----------------------------------------------------------------------------------

    def open_patient(self, folder: Path, model_name: str = "") -> None:
        """Open a patient's folder. model_name: "" for the default model."""
        if not self._confirm_discarding_edits():
            return
        self.session.open_patient(folder, model_name)
        if self.session.state.patient_folder is not None:
            self.settings.remember_folder(self.session.state.patient_folder)
            self._render_panels()

    def show_studies(self) -> None:
        """Let the user reopen or remove an earlier patient."""
        dialog = StudyListDialog(self.session, self)
        if dialog.exec() and self._confirm_discarding_edits():
            self.session.open_study(dialog.selected_id)
        dialog.deleteLater()

    def fetch_study(self) -> None:
        """Let the user fetch a study from the PACS and open it; its files are removed with the window."""
        dialog = FetchDialog(self.settings, self._fetched_files, self)
        if dialog.exec() and dialog.folder is not None and self._confirm_discarding_edits():
            self.session.open_patient(dialog.folder, self.input_panel.model_box.currentData() or "")
        dialog.deleteLater()

    def _confirm_discarding_edits(self) -> bool:
        """Ask before edits that no prediction has used are discarded; return whether to continue."""
        if not self.image_panel.mask_editor.is_edited:
            return True
        question = self.tr("You have changed the outline but not predicted with it. Discard your changes?")
        answer = QMessageBox.question(self, "gliomark", question)
        return answer == QMessageBox.StandardButton.Yes

    def predict(self) -> None:
        """Predict with the user's outline if one is shown, otherwise with the model's."""
        if not self.input_panel.explain_missing_input():
            user_mask = (
                self.image_panel.mask_editor.mask.copy() if self.image_panel.is_user_segmentation else None
            )
            self.session.predict(
                self.input_panel.prediction_request | self._create_level_request(self.session.state),
                user_mask,
            )
        self.image_panel.setFocus()

    def _create_level_request(self, state: ClientState) -> dict[str, Any]:
        name = state.study["model"] if state.study else ""
        model = next((one for one in state.models if one["name"] == name), None)
        return self.settings.create_level_request(model)

    def save_report(self, file_name: str) -> None:
        """Let the user choose a path and save one of the prediction's reports there."""
        suffix = REPORT_SUFFIXES[file_name]
        default_name = f"{self.session.state.patient_id}.{suffix}"
        chosen, _ = QFileDialog.getSaveFileName(self, self.tr("Save report"), default_name, f"*.{suffix}")
        if chosen:
            self.session.save_report(f"{file_name}?language={self.settings.language}", Path(chosen))

    def switch_language(self, language: str) -> None:
        """Switch to English ("en") or Chinese ("zh")."""
        self.settings.language = "zh" if language == "zh" else "en"
        use_language(self.settings.language)

    def show_settings_dialog(self) -> None:
        """Show the settings, store what was entered, and connect to the chosen server."""
        markers = {one["name"]: one for model in self.session.state.models for one in model["markers"]}
        level_fields = LevelFields(tuple(markers.values()), self.settings.coverage, self.settings.prevalence)
        dialog = ServerDialog(self.settings.address, self.settings.token, self, level_fields)
        stored_server = self.settings.address, self.settings.token
        if dialog.exec():
            self.settings.set_levels(*level_fields.entered_levels)
            if dialog.entered_server != stored_server or self.session.state.server_status == "gone":
                self.settings.set_server(*dialog.entered_server)
                self.connect_server()
            else:
                self._render_panels()
        dialog.deleteLater()

    def _remember_planes(self, shows_planes: bool) -> None:
        self.settings.shows_planes = shows_planes

    def _clear_recent_folders(self) -> None:
        self.settings.clear_recent_folders()
        self._render_panels()

    def _show_heatmap(self, heatmap: NDArray[np.uint8] | None) -> None:
        self.image_panel.set_heatmap(heatmap)
        if heatmap is not None:
            self.image_panel.show_nearest_slice(
                self.session.state.collect_used_slice_indices(self.session.state.heatmap_marker)
            )

    def _show_saved_path(self, path: str) -> None:
        self.server_label.setText(self.tr("Saved: {}").format(path))

    # ---- rendering --------------------------------------------------------------------------------------

    def _render_panels(self) -> None:
        state = self.session.state
        self._retranslate_ui(state)
        self.input_panel.render_state(state, self.settings.recent_folders)
        self.image_panel.render_state(state, self.input_panel.explain_missing_input())
        self.result_panel.render_state(state, self._is_result_stale(state))

    def _is_result_stale(self, state: ClientState) -> bool:
        if state.job is None:
            return False
        try:
            request = self.input_panel.prediction_request
        except GliomarkError:
            return True
        stored = state.job["request"]
        levels = {"coverage": DEFAULT_COVERAGE, "prevalence": {}}
        # an older server returns neither
        if levels | self._create_level_request(state) != {k: stored.get(k, v) for k, v in levels.items()}:
            return True
        if bool(stored.get("location")) != bool(request.get("location")):
            return True
        return any(stored.get(key) != request[key] for key in ("age", "sex", "enhancing"))

    def _retranslate_ui(self, state: ClientState) -> None:
        self.brand_label.setText("gliomark")
        self.subtitle_label.setText(self.tr("Glioma markers from preoperative MRI"))
        self.chinese_button.setText("中文")
        self.english_button.setText("English")
        self.chinese_button.setChecked(self.settings.language == "zh")
        self.english_button.setChecked(self.settings.language == "en")
        self.settings_button.setText(self.tr("Settings"))
        self.research_notice_label.setText(self.tr("Research use only. Not a medical device."))
        self.server_label.setText(self._format_server_status(state))
        error = state.error
        self.error_banner.setVisible(error is not None)
        self.error_label.setText(error.text if error else "")
        self.retry_button.setText(self.tr("Try again"))
        self.retry_button.setVisible(error is not None and error.remedy is not None)
        self.error_settings_button.setText(self.tr("Settings"))
        self.error_settings_button.setVisible(error is not None and error.remedy == "settings")
        self.dismiss_button.setAccessibleName(self.tr("Close this message"))
        self.dismiss_button.setToolTip(self.tr("Close this message"))

    def _format_server_status(self, state: ClientState) -> str:
        server_name = self.tr("Local server") if state.is_local else state.address
        status_text = {
            "starting": self.tr("starting"),
            "ready": self.tr("ready"),
            "gone": self.tr("not reachable"),
        }[state.server_status]
        return f"{server_name}: {status_text}"

    # ---- events -----------------------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802
        """Render all texts again after a change of language."""
        if event.type() == QEvent.Type.LanguageChange and hasattr(self, "splitter"):
            self.input_panel.refresh_table_error()
            self._render_panels()
        super().changeEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        """Handle the keys that change the slice or the measured lines."""
        if not self.image_panel.handle_key(event):
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802
        """Accept dragged files and folders."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        """Open the dropped files and folders."""
        for url in event.mimeData().urls():
            if url.isLocalFile():
                self.input_panel.open_path(Path(url.toLocalFile()))

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """Save the window geometry and end the session; with unsaved edits, ask first."""
        if not self._confirm_discarding_edits():
            event.ignore()
            return
        self.settings.window_geometry = self.saveGeometry()
        self.session.close_session()
        self._fetched_files.close()
        event.accept()


def _wrap_in_panel(content: QWidget) -> QFrame:
    return create_frame("panel", create_column(content), 0)
