"""The main window: steps, images and answer beside each other, and one Session behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QByteArray, QEvent, Qt
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent
from PySide6.QtWidgets import QFileDialog, QFrame, QMainWindow, QMessageBox, QSplitter, QWidget

from gliomark.client.images import Images
from gliomark.client.language import use_language
from gliomark.client.result import Result
from gliomark.client.session import Session
from gliomark.client.settings import ServerDialog, Settings
from gliomark.client.state import State
from gliomark.client.steps import Steps
from gliomark.client.widgets import button, column, framed, label, row
from gliomark.study import GliomarkError

SUFFIXES = {"report.html": "html", "report.pdf": "pdf", "dicom.zip": "zip"}


class MainWindow(QMainWindow):
    """Everything the user sees. Data goes one way: hands, Session, State, panels."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.session = Session(self)
        self.steps, self.images, self.result = Steps(), Images(), Result()
        self._make_header()
        self._make_banner()
        self._make_footer()
        self._lay_out()
        self._wire()
        self.setAcceptDrops(True)
        self.setWindowTitle("gliomark")
        self.resize(1480, 900)
        self.steps.choose.setFocus()
        self.steps.choose.setFocus()
        if isinstance(settings.geometry, QByteArray):
            self.restoreGeometry(settings.geometry)
        self._render()

    def start(self) -> None:
        """Reach the server of the settings."""
        self.session.connect_to(self.settings.address, self.settings.token)

    # ---- making -----------------------------------------------------------------------------------------

    def _make_header(self) -> None:
        self.brand, self.subtitle = label("brand", wrap=False), label("soft", wrap=False)
        self.english = button(lambda: self.switch_language("en"), checkable=True)
        self.chinese = button(lambda: self.switch_language("zh"), checkable=True)
        self.preferences = button(self.ask_settings, "plain", "settings")
        parts = (self.brand, 6, self.subtitle, None, self.chinese, self.english, 8, self.preferences)
        self.header = framed("bar", row(*parts), 8)

    def _make_banner(self) -> None:
        self.sentence = label()
        self.again = button(self.session.try_again)
        self.mend = button(self.ask_settings)
        self.dismiss = button(self.session.dismiss, "plain", "close")
        parts = row(self.sentence, self.again, self.mend, self.dismiss)
        parts.setStretch(0, 1)
        self.banner = framed("banner", parts, 10)

    def _make_footer(self) -> None:
        self.caution, self.server = label(wrap=False), label("faint", wrap=False)
        self.caution.setObjectName("warn")
        self.footer = framed("bar", row(self.caution, None, self.server), 8)

    def _lay_out(self) -> None:
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setHandleWidth(6)
        for number, part in enumerate((self.steps, self.images, self.result)):
            self.split.addWidget(_on_panel(part) if part is not self.images else part)
            self.split.setCollapsible(number, False)
        self.split.setSizes([330, 810, 340])
        self.split.setStretchFactor(0, 0)
        self.split.setStretchFactor(1, 1)
        self.split.setStretchFactor(2, 0)
        whole = column(self.header, self.banner, self.split, self.footer, spacing=6)
        whole.setStretch(2, 1)
        middle = QWidget()
        middle.setLayout(whole)
        self.setCentralWidget(middle)

    def _wire(self) -> None:
        session, steps, images, result = self.session, self.steps, self.images, self.result
        session.changed.connect(lambda _: self._render())
        session.slice_came.connect(images.put_slice)
        session.outline_came.connect(images.outline.load)
        session.found_came.connect(images.outline.take)
        session.heat_came.connect(self._show_heat)
        session.saved.connect(self._saved)
        steps.folder_chosen.connect(self.open)
        steps.predict_asked.connect(self.predict)
        steps.cancel_asked.connect(session.cancel)
        steps.recent_forgotten.connect(self._forget_recent)
        steps.entered.connect(self._render)
        images.outlined.connect(self.predict)
        images.reverted.connect(session.revert)
        images.found_asked.connect(session.fetch_found_outline)
        result.heat_asked.connect(session.show_heat)
        result.slice_asked.connect(images.strip.setValue)
        result.save_asked.connect(self.save)

    # ---- hands ------------------------------------------------------------------------------------------

    def open(self, folder: Path, model: str = "") -> None:
        """Step 1 with this folder."""
        if not self._may_go_on():
            return
        self.session.open(folder, model)
        if self.session.state.folder is not None:
            self.settings.remember(self.session.state.folder)
            self._render()

    def _may_go_on(self) -> bool:
        """Strokes that no prediction has used are not thrown away unasked."""
        if not self.images.outline.edited:
            return True
        words = self.tr("You have changed the outline and not predicted with it. Throw your changes away?")
        answer = QMessageBox.question(self, "gliomark", words)
        return answer == QMessageBox.StandardButton.Yes

    def predict(self) -> None:
        """Step 4, on the outline that is in sight: the user's own where there is one, else the model's."""
        if not self.steps.hindrance():
            drawn = self.images.outline.mask.copy() if self.images.own_outline else None
            self.session.predict(self.steps.request, drawn)
        self.images.setFocus()

    def save(self, name: str) -> None:
        """Ask where one of the answer's documents should go."""
        suffix = SUFFIXES[name]
        proposed = f"{self.session.state.patient_id}.{suffix}"
        chosen, _ = QFileDialog.getSaveFileName(self, self.tr("Save report"), proposed, f"*.{suffix}")
        if chosen:
            self.session.save(f"{name}?language={self.settings.language}", Path(chosen))

    def switch_language(self, language: str) -> None:
        """Chinese or English, at once."""
        self.settings.language = "zh" if language == "zh" else "en"
        use_language(self.settings.language)

    def ask_settings(self) -> None:
        dialog = ServerDialog(self.settings.address, self.settings.token, self)
        kept = self.settings.address, self.settings.token
        if dialog.exec() and (dialog.server != kept or self.session.state.server == "gone"):
            self.settings.use_server(*dialog.server)
            self.start()
        dialog.deleteLater()

    def _forget_recent(self) -> None:
        self.settings.forget_recent()
        self._render()

    def _show_heat(self, heat: NDArray[np.uint8] | None) -> None:
        self.images.put_heat(heat)
        if heat is not None:
            self.images.show_nearest(self.session.state.deciding(self.session.state.heat))

    def _saved(self, path: str) -> None:
        self.server.setText(self.tr("Saved: {}").format(path))

    # ---- drawing ----------------------------------------------------------------------------------------

    def _render(self) -> None:
        state = self.session.state
        self._word(state)
        self.steps.render_state(state, self.settings.recent)
        self.images.render_state(state)
        self.result.render_state(state, self._stale(state))

    def _stale(self, state: State) -> bool:
        if state.job is None:
            return False
        try:
            asked = self.steps.request
        except GliomarkError:
            return True
        return any(state.job["request"].get(key) != asked[key] for key in ("age", "sex", "enhancing"))

    def _word(self, state: State) -> None:
        self.brand.setText("gliomark")
        self.subtitle.setText(self.tr("Glioma markers from MRI, before surgery"))
        self.chinese.setText("中文")
        self.english.setText("English")
        self.chinese.setChecked(self.settings.language == "zh")
        self.english.setChecked(self.settings.language == "en")
        self.preferences.setText(self.tr("Settings"))
        self.caution.setText(self.tr("Research use only. Not a medical device."))
        self.server.setText(self._server(state))
        found = state.trouble
        self.banner.setVisible(found is not None)
        self.sentence.setText(found.sentence if found else "")
        self.again.setText(self.tr("Try again"))
        self.again.setVisible(found is not None and found.remedy is not None)
        self.mend.setText(self.tr("Settings"))
        self.mend.setVisible(found is not None and found.remedy == "settings")
        self.dismiss.setAccessibleName(self.tr("Close this message"))
        self.dismiss.setToolTip(self.tr("Close this message"))

    def _server(self, state: State) -> str:
        where = self.tr("Local server") if state.local else state.address
        how = {
            "starting": self.tr("starting"),
            "ready": self.tr("ready"),
            "gone": self.tr("not reached"),
        }[state.server]
        return f"{where}: {how}"

    # ---- events -----------------------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802
        if event.type() == QEvent.Type.LanguageChange and hasattr(self, "split"):
            self.steps.reread()
            self._render()
        super().changeEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if not self.images.turn(event):
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        for url in event.mimeData().urls():
            if url.isLocalFile():
                self.steps.choose_path(Path(url.toLocalFile()))

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        if not self._may_go_on():
            event.ignore()
            return
        self.settings.geometry = self.saveGeometry()
        self.session.close()
        event.accept()


def _on_panel(part: QWidget) -> QFrame:
    return framed("panel", column(part), 0)
